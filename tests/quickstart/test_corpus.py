"""The corpus: recorded spans are where the abuse is, pools share nothing, everything follows the seed."""

import itertools

from ifguide.quickstart.comments import IMPLICIT, CommentSource, pool_of
from ifguide.quickstart.corpus import shuffled, standard_library_texts, threads
from ifguide.quickstart.prepare import FILES, CorpusSettings, write_own_corpus
from ifguide.system.files import read_jsonl

SMALL = CorpusSettings(num_threads=40, num_queries=20, num_prompts=10, judge_examples=50, heldout_threads=5, seed=3)


def test_spans_hold_exactly_the_abusive_comments():
    documents = threads(CommentSource("planted", 1), 50, 0.6)
    assert any(document.spans for document in documents) and any(not document.spans for document in documents)
    for document in documents:
        assert len(document.spans) == len(document.kinds)
        for (begin, end), kind in zip(document.spans, document.kinds):
            comment = document.text[begin:end]
            assert kind in ("direct", "implicit")
            assert document.text[begin - 2 : begin] == ": " and (document.text[end : end + 2] or "\n\n") == "\n\n"
            assert pool_of(comment) == "planted"


def test_pools_share_no_sentence():
    drawn = {}
    for pool in ("planted", "queries", "judge", "prompts"):
        source = CommentSource(pool, 1)
        drawn[pool] = {source.comment(kind).text for kind in ("direct", "implicit", "kind") for _ in range(150)}
    for one, other in itertools.combinations(drawn, 2):
        assert not drawn[one] & drawn[other]


def test_implicit_frames_hold_no_insult():
    assert not any("{insult}" in frame or "{nasty}" in frame or "{filth}" in frame for frame in IMPLICIT)


def test_the_standard_library_is_about_two_megabytes_of_text():
    texts = standard_library_texts()
    assert 1_500_000 < sum(map(len, texts)) < 3_000_000
    assert len(set(texts)) == len(texts)


def test_files_follow_the_seed_and_serve_one_purpose_each(tmp_path):
    folders = [tmp_path / name for name in ("a", "b", "c")]
    for folder, seed in zip(folders, (3, 3, 4)):
        folder.mkdir()
        write_own_corpus(folder, CorpusSettings(**{**SMALL.__dict__, "seed": seed}))
    for name in FILES.values():
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()
    assert (folders[0] / "corpus.jsonl").read_bytes() != (folders[2] / "corpus.jsonl").read_bytes()

    corpus = [row["text"] for row in read_jsonl(folders[0] / FILES["corpus"])]
    everything = "\n".join(corpus)
    for name in ("toxic_queries", "safe_queries"):
        assert not any(row["completion"].strip() in everything for row in read_jsonl(folders[0] / FILES[name]))
    heldout = {row["text"] for row in read_jsonl(folders[0] / FILES["heldout"])}
    assert not heldout & set(corpus)
    for row in read_jsonl(folders[0] / FILES["planted"]):
        assert all(begin < end <= len(corpus[row["document"]]) for begin, end in row["spans"])
    prompts = read_jsonl(folders[0] / FILES["prompts"])
    assert [row["subset"] for row in prompts].count("toxic") == SMALL.num_prompts


def test_shuffling_keeps_every_document():
    documents = threads(CommentSource("planted", 1), 10, 0.5)
    assert sorted(d.text for d in shuffled(documents, 1)) == sorted(d.text for d in documents)

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel, RobertaConfig, RobertaForSequenceClassification

from ifguide.errors import IFGuideWarning, InputError, NumericsError
from ifguide.models.folder import same_fingerprint
from ifguide.scorers.base import Scorer
from ifguide.scorers.huggingface import HuggingFaceScorer, _max_tokens
from ifguide.scorers.lexicon import LexiconScorer
from ifguide.scorers.registry import load_scorer
from ifguide.scorers.reporting import ReportingScorer
from ifguide.scorers.shared import SharedScorer, scoring_job
from ifguide.scorers.stored import StoredScorer
from ifguide.system.ranks import Ranks
from tests.support.tiny_models import save_classifier, word_tokenizer
from tests.support.tiny_scorers import TEXT, save_causal, save_toxigen

TEXTS = ["you are awful", "", "the tree", "you are kind and the cat and the tree", "awful cat", "unknown words here"]


def literal_logits(folder: Path, text: str) -> torch.Tensor:
    """One text alone through the classifier, without padding."""
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    ids = word_tokenizer()(text)["input_ids"]
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].double()


def test_multi_label_is_a_sigmoid(tmp_path: Path) -> None:
    folder = save_classifier(
        tmp_path, labels=["toxicity", "insult", "threat"], problem_type="multi_label_classification"
    )
    scores = load_scorer(f"hf:{folder}").score(TEXTS)
    assert list(scores) == ["toxicity", "insult", "threat"]
    for index, text in enumerate(TEXTS):
        expected = literal_logits(folder, text).sigmoid().tolist()
        assert [scores[label][index] for label in scores] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("problem_type", ["single_label_classification", None])
def test_exclusive_labels_are_a_softmax(tmp_path: Path, problem_type: str | None) -> None:
    folder = save_classifier(tmp_path, labels=["ok", "Toxic"], problem_type=problem_type)
    scorer = load_scorer(f"hf:{folder}#toxic")
    assert scorer.labels == ("Toxic",) and scorer.name == f"hf:{folder}#Toxic"
    scores = scorer.score(TEXTS)
    assert list(scores) == ["Toxic"] and scores["Toxic"].dtype == np.float64
    expected = [float(literal_logits(folder, text).softmax(0)[1]) for text in TEXTS]
    assert scores["Toxic"].tolist() == pytest.approx(expected, abs=1e-6)
    assert np.ptp(scores["Toxic"]) > 0.01


def test_one_logit_is_a_sigmoid(tmp_path: Path) -> None:
    folder = save_classifier(tmp_path, labels=["toxicity"], problem_type=None)
    scores = load_scorer(f"hf:{folder}").score(TEXTS)["toxicity"]
    assert scores.tolist() == pytest.approx([float(literal_logits(folder, t).sigmoid()) for t in TEXTS], abs=1e-6)


def test_batches_and_order_change_nothing(tmp_path: Path) -> None:
    folder = save_classifier(tmp_path, labels=["ok", "toxic"], problem_type=None)
    expected = HuggingFaceScorer(folder, "toxic").score(TEXTS)["toxic"]
    assert HuggingFaceScorer(folder, "toxic", batch_tokens=1).score(TEXTS)["toxic"] == pytest.approx(expected, abs=1e-6)
    assert HuggingFaceScorer(folder, "toxic").score(TEXTS[::-1])["toxic"][::-1] == pytest.approx(expected, abs=1e-6)
    assert HuggingFaceScorer(folder).score([])["ok"].shape == (0,)


def test_long_texts_are_truncated(tmp_path: Path) -> None:
    folder = save_classifier(tmp_path, labels=["ok", "toxic"], problem_type=None)
    scorer = HuggingFaceScorer(folder, "toxic")
    assert scorer.max_tokens == 16 and scorer.truncated == 0
    long, cut = "cat " * 500, "cat " * 14  # 16 positions less [CLS] and [SEP]
    assert scorer.score([long])["toxic"] == pytest.approx(scorer.score([cut])["toxic"], abs=1e-6)
    assert scorer.score([cut])["toxic"] != pytest.approx(scorer.score(["cat " * 13])["toxic"], abs=1e-6)
    assert scorer.truncated == 1
    scorer.score([long, "cat", long])
    assert scorer.truncated == 3  # of the texts given, though equal ones are scored once


def test_which_texts_are_cut_follows_from_the_texts(tmp_path: Path) -> None:
    """Through every wrapper, and of scores that were remembered."""
    scorer = HuggingFaceScorer(save_classifier(tmp_path / "c", labels=["ok", "toxic"], problem_type=None), "toxic")
    texts = ["cat " * 15, "cat", "cat " * 14, "cat " * 15, ""]
    longer = [True, False, False, True, False]
    assert scorer.cut(texts).tolist() == longer and scorer.truncated == 0
    assert scorer.cut([]).shape == (0,) and LexiconScorer().cut(texts).tolist() == [False] * 5
    ranks = Ranks()
    ranks.jobs["score"] = scoring_job(lambda spec: scorer)
    shared = SharedScorer("c", scorer, ranks)
    for _ in range(2):
        stored = StoredScorer(shared, tmp_path)
        stored.score(texts)
        assert stored.cut(texts).tolist() == longer
        stored.close()


def test_a_scorer_of_lm_evals_own_runs_warns(tmp_path: Path) -> None:
    scorer = HuggingFaceScorer(save_classifier(tmp_path, labels=["ok", "toxic"], problem_type=None), "toxic")
    with pytest.warns(IFGuideWarning, match="1 texts so far were cut to the 16 tokens that hf:"):
        ReportingScorer(scorer, quiet=False).score(["cat " * 15, "cat"])


def test_another_tokenizer_is_another_classifier(tmp_path: Path) -> None:
    """The journals' keys are made of the fingerprint."""
    folder = save_classifier(tmp_path, labels=["ok", "toxic"], problem_type=None)
    before = HuggingFaceScorer(folder).fingerprint()
    data = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps(data, indent=7))
    assert HuggingFaceScorer(folder).fingerprint() == before, "the same content in another layout"
    data["model"]["vocab"] |= {"cat": data["model"]["vocab"]["tree"], "tree": data["model"]["vocab"]["cat"]}
    (folder / "tokenizer.json").write_text(json.dumps(data))
    after = HuggingFaceScorer(folder).fingerprint()
    assert after != before and not same_fingerprint(before, after)
    assert same_fingerprint(before.split("+")[0], after), "a record from before tokenizers counted"


def test_roberta_has_fewer_places_than_positions() -> None:
    config = RobertaConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
        max_position_embeddings=18, pad_token_id=1,
    )  # fmt: skip
    model = RobertaForSequenceClassification(config).eval()
    assert _max_tokens(model, word_tokenizer()) == 16
    model(torch.full((1, 16), 5))
    with pytest.raises((IndexError, RuntimeError)):
        model(torch.full((1, 17), 5))


def test_a_tokenizer_that_cannot_pad(tmp_path: Path) -> None:
    folder = save_classifier(tmp_path, labels=["ok", "toxic"], problem_type=None)
    expected = HuggingFaceScorer(folder, "toxic").score(TEXTS)["toxic"]
    tokenizer = word_tokenizer()
    tokenizer.pad_token = None
    tokenizer.save_pretrained(folder)
    assert HuggingFaceScorer(folder, "toxic").score(TEXTS)["toxic"] == pytest.approx(expected, abs=1e-6)


def test_toxigen_reads_its_second_label(tmp_path: Path, no_network: None) -> None:
    from transformers import AutoTokenizer

    folder = save_toxigen(tmp_path)
    scorer = load_scorer(f"toxigen-roberta@{folder}")
    assert scorer.labels == ("toxicity",) and scorer.name == f"toxigen-roberta@{folder}"
    model = RobertaForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = [*TEXT, "", "long " * 80]
    with torch.no_grad():
        logits = [model(**tokenizer(text, truncation=True, return_tensors="pt")).logits[0] for text in texts]
    expected = [float(row.double().softmax(0)[1]) for row in logits]
    assert scorer.score(texts)["toxicity"] == pytest.approx(expected, abs=1e-6)
    assert np.ptp(expected) > 0.05 and scorer.truncated == 1


def test_toxigen_from_another_folder(tmp_path: Path) -> None:
    folder = save_classifier(tmp_path, labels=["a", "b", "c"], problem_type=None)
    with pytest.raises(InputError, match="3 labels, ToxiGen-RoBERTa two"):
        load_scorer(f"toxigen-roberta@{folder}")


@pytest.mark.parametrize("family", ["gpt2", "neox"])
@pytest.mark.parametrize("padding_side", ["left", "right"])
def test_causal_classifiers_read_their_last_token(tmp_path: Path, family: str, padding_side: str) -> None:
    folder = save_causal(tmp_path, family)
    scorer = HuggingFaceScorer(folder, "toxic")
    tokenizer = scorer.tokenizer
    tokenizer.padding_side = padding_side
    tokenizer.save_pretrained(folder)
    texts = ["you are", "the tree and the cat", "a", ""]
    with torch.no_grad():
        logits = [scorer.model(torch.tensor([tokenizer(text)["input_ids"] or [0]])).logits[0] for text in texts]
    expected = [float(row.double().softmax(0)[1]) for row in logits]
    assert load_scorer(f"hf:{folder}#toxic").score(texts)["toxic"] == pytest.approx(expected, abs=1e-5)


def test_a_text_that_breaks_the_classifier_stops_the_run(tmp_path: Path) -> None:
    folder = save_classifier(tmp_path, labels=["ok", "toxic"], problem_type=None, spoil=True)
    with pytest.raises(NumericsError, match=r"text 0 scored nan.*2 such texts"):
        load_scorer(f"hf:{folder}#toxic").score(TEXTS)
    with pytest.raises(NumericsError, match="text 1 scored nan"):
        load_scorer(f"hf:{folder}#toxic").score(["the cat", "awful cat"])


def test_classifiers_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no label 'rude'; it has: ok, toxic"):
        load_scorer(f"hf:{save_classifier(tmp_path / 'a', labels=['ok', 'toxic'], problem_type=None)}#rude")
    with pytest.raises(InputError, match="regression"):
        load_scorer(f"hf:{save_classifier(tmp_path / 'b', labels=['x'], problem_type='regression')}")
    base = tmp_path / "base"
    BertModel(
        BertConfig(vocab_size=12, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    ).save_pretrained(base)
    word_tokenizer().save_pretrained(base)
    with pytest.raises(InputError, match="lacks the weights"):
        load_scorer(f"hf:{base}")


class Fixed(Scorer):
    """Returns what it was given, right or wrong."""

    name, labels = "fixed", ("toxicity",)

    def __init__(self, scores: Mapping[str, list[float]]):
        self.scores = {label: np.array(values) for label, values in scores.items()}

    def _probabilities(self, texts: list[str]) -> Mapping[str, np.ndarray]:
        return self.scores


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ({"toxicity": [0.1, 0.2]}, "the first text without a score of its own is 2"),
        ({"toxicity": [0.1, 0.2, 0.3, 0.4]}, r"shape \(4,\) for 3 texts"),
        ({"toxicity": [0.1, float("nan"), 0.3]}, "text 1 scored nan"),
        ({"toxicity": [0.1, 0.2, float("inf")]}, "text 2 scored inf"),
        ({"toxicity": [-0.1, 0.2, 0.3]}, r"text 0 scored -0\.1"),
        ({"insult": [0.1, 0.2, 0.3]}, "no scores for label 'toxicity'"),
    ],
)
def test_scores_that_are_none(scores: dict, message: str) -> None:
    with pytest.raises(NumericsError, match=message):
        Fixed(scores).score(["a", "b", "c"])


class Fragile(Scorer):
    """Fails where a text says so."""

    name, labels = "fragile", ("toxicity",)

    def _probabilities(self, texts: list[str]) -> Mapping[str, np.ndarray]:
        for text in texts:
            if "boom" in text:
                raise ZeroDivisionError("cannot divide\nby nothing")
        return {"toxicity": np.zeros(len(texts))}


@pytest.mark.parametrize("broken", [0, 1, 6, 12])
def test_a_scorer_that_raises_names_the_text(broken: int) -> None:
    texts = [f"text {number}" for number in range(13)]
    texts[broken] = "boom"
    with pytest.raises(NumericsError, match=f"at text {broken}: ZeroDivisionError: cannot divide$"):
        Fragile().score(texts)
    with pytest.raises(NumericsError, match=f"at text {broken + 1000}:"):
        Fragile().score([*texts, "boom"], offset=1000)


def test_texts_are_counted_from_the_offset() -> None:
    with pytest.raises(NumericsError, match="text 41 scored nan"):
        Fixed({"toxicity": [0.1, float("nan")]}).score(["a", "b"], offset=40)
    with pytest.raises(NumericsError, match="score of its own is 41"):
        Fixed({"toxicity": [0.1]}).score(["a", "b"], offset=40)
    with pytest.raises(InputError, match="text 41 is a int"):
        Fixed({"toxicity": [0.1, 0.2]}).score(["a", 3], offset=40)  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("labels", "main"), [(["insult"], "insult"), (["insult", "Toxicity"], "Toxicity"), (["ok", "toxic"], "toxic")]
)
def test_the_main_label(labels: list[str], main: str) -> None:
    scorer = Fixed({label: [] for label in labels})
    scorer.labels = tuple(labels)
    assert scorer.main == main


def test_no_main_label() -> None:
    scorer = Fixed({})
    scorer.labels = ("LABEL_0", "LABEL_1")
    with pytest.raises(InputError, match="name one of them, as in fixed#LABEL"):
        _ = scorer.main


def test_good_scores_pass_as_they_are() -> None:
    assert Fixed({"toxicity": [0.0, 0.5, 1.0]}).score(["a", "b", "c"])["toxicity"].tolist() == [0.0, 0.5, 1.0]
    with pytest.raises(InputError, match="text 1 is a NoneType"):
        Fixed({"toxicity": [0.1, 0.2]}).score(["a", None])  # type: ignore[list-item]

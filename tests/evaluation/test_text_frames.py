"""Likelihoods of tokenizers whose template puts BOS or EOS around a text, against a computation by hand.

Three tokenizers: without a template, with BOS before a text, with BOS before and EOS after it. By hand: the ids of the
text alone, after BOS, or after EOD where the template has no BOS.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from ifguide.compat.lm_eval import restore_likelihoods
from ifguide.errors import InputError, MismatchError
from ifguide.evaluation.lm.model import EvaluationLM
from ifguide.evaluation.perplexity import perplexity
from ifguide.evaluation.run import run_evaluation
from ifguide.evaluation.settings import EvaluationSettings
from ifguide.evaluation.tasks.registry import prepare_lm_eval
from ifguide.generation.draw import prompt_contexts
from ifguide.models.language_model import LanguageModel, load_language_model
from tests.support.tiny_models import tiny_neox

EOD, BOS, EOS = 0, 1, 2
TEMPLATES = {"none": None, "bos": "<s> $A", "bos and eos": "<s> $A </s>"}
OPENING = {"none": [EOD], "bos": [BOS], "bos and eos": [BOS]}
TEXTS = ["The cat sat on the mat.", "a", "The cat sat on the mat. " * 6, "héllo"]
PAIRS = [("the cat", " sat"), ("the cat sat on the ", "mat"), ("", "a word"), ("a", "b c")]


def save_model(folder: Path, template: str | None) -> Path:
    tokens = ["<|endoftext|>", "<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE({token: number for number, token in enumerate(tokens)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(tokens[:3])
    if template:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=template, special_tokens=[("<s>", BOS), ("</s>", EOS)]
        )
    tiny_neox(eos_token_id=EOD, bos_token_id=BOS).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"}
    if template:
        settings["bos_token"] = "<s>"
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: save_model(tmp_path_factory.mktemp("model") / "m", template) for name, template in TEMPLATES.items()}


@pytest.fixture(scope="module", params=TEMPLATES)
def case(request: pytest.FixtureRequest, folders: dict[str, Path]) -> tuple[LanguageModel, list[int], Path]:
    """The model, what stands before a text by hand, and the folder."""
    folder = folders[request.param]
    return load_language_model(folder, torch.float64), OPENING[request.param], folder


def bare(text: str) -> list[int]:
    """One id a byte, after the three special tokens."""
    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    spelled = pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str(text)
    return [3 + symbols.index(letter) for piece, _ in spelled for letter in piece]


def log_p(lm: LanguageModel, ids: list[int], places: range) -> float:
    """Of ``ids`` at ``places``, each after all before it (64 at most)."""
    total = 0.0
    for place in places:
        with torch.inference_mode():
            logits = lm.model(torch.tensor([ids[max(0, place - 64) : place]])).logits[0, -1]
        total += float(logits.double().log_softmax(-1)[ids[place]])
    return total


def by_hand(lm: LanguageModel, opening: list[int], text: str) -> float:
    """lm-eval's windows of 64 predictions; the last one reads as far back as it can."""
    ids = [*opening, *bare(text)]
    total = 0.0
    for start in range(len(opening), len(ids), 64):
        stop = min(start + 64, len(ids))
        begin = 0 if start == len(opening) else stop - 65
        with torch.inference_mode():
            logs = lm.model(torch.tensor([ids[begin : stop - 1]])).logits[0].double().log_softmax(-1)
        total += sum(float(logs[place - 1 - begin, ids[place]]) for place in range(start, stop))
    return total


def test_perplexity(case: tuple[LanguageModel, list[int], Path]) -> None:
    lm, opening, folder = case
    short = [text for text in TEXTS if len(text) < 60]
    result = perplexity(folder, short, dtype=torch.float64)
    assert result.tokens == sum(len(text.encode()) for text in short)
    assert result.nll == pytest.approx(-sum(by_hand(lm, opening, text) for text in short), rel=1e-9)


def test_what_ends_a_document_counts_where_it_is_asked_for(folders: dict[str, Path]) -> None:
    lm = load_language_model(folders["bos and eos"], torch.float64)
    ids = [BOS, *bare("a word"), EOS, EOD]
    result = perplexity(folders["bos and eos"], ["a word"], append_eod=True, dtype=torch.float64)
    assert result.tokens == len(ids) - 1
    assert result.nll == pytest.approx(-log_p(lm, ids, range(1, len(ids))), rel=1e-9)


@pytest.mark.parametrize("batch_size", ["auto", 1, 3])
def test_rolling_likelihoods(
    case: tuple[LanguageModel, list[int], Path], tmp_path: Path, batch_size: int | str
) -> None:
    prepare_lm_eval()
    lm, opening, _ = case
    requests = [Instance("loglikelihood_rolling", {}, (text,), 0, metadata=("t", 0, 1)) for text in TEXTS]
    found = EvaluationLM(lm, tmp_path, batch_size=batch_size).loglikelihood_rolling(requests)
    assert found == pytest.approx([by_hand(lm, opening, text) for text in TEXTS], rel=1e-6)


def test_likelihoods_of_continuations(case: tuple[LanguageModel, list[int], Path], tmp_path: Path) -> None:
    """A context stands after BOS, without EOS behind it; a blank at its end belongs to the continuation."""
    prepare_lm_eval()
    lm, opening, _ = case
    requests = [Instance("loglikelihood", {}, pair, 0, metadata=("t", 0, 1)) for pair in PAIRS]
    found = EvaluationLM(lm, tmp_path).loglikelihood(requests)
    for (context, continuation), (nats, _) in zip(PAIRS, found, strict=True):
        before = bare(context.rstrip())
        start = opening if opening == [BOS] or not before else []
        ids = [*start, *before, *bare((context + continuation)[len(context.rstrip()) :])]
        assert nats == pytest.approx(log_p(lm, ids, range(len(start) + len(before), len(ids))), rel=1e-6)


def write_sets(folder: Path) -> Path:
    folder.mkdir()
    (folder / "heldout.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    lambada = ["the cat sat on the mat", "it was the cat"]
    (folder / "lambada.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in lambada))
    return folder


def test_the_tasks_end_to_end(case: tuple[LanguageModel, list[int], Path], tmp_path: Path) -> None:
    """All numbers of `ifguide evaluate` on held-out text and LAMBADA."""
    lm, opening, folder = case
    settings = EvaluationSettings(
        model=folder,
        tasks=("ifguide_heldout_ppl", "ifguide_lambada"),
        output=tmp_path / "out",
        data=write_sets(tmp_path / "sets"),
    )
    found = run_evaluation(settings)
    assert found is not None
    values = {
        (task, measured["metric"]): measured["value"]
        for task, result in found["tasks"].items()
        for measured in result["metrics"]
    }
    nats = sum(by_hand(lm, opening, text) for text in TEXTS)
    counts = {
        "token_perplexity": sum(len(bare(text)) for text in TEXTS),
        "word_perplexity": sum(len(text.split()) for text in TEXTS),
        "byte_perplexity": sum(len(text.encode()) for text in TEXTS),
    }
    for metric, count in counts.items():
        assert math.log(values["ifguide_heldout_ppl", metric]) == pytest.approx(-nats / count, rel=1e-5), metric
    start = opening if opening == [BOS] else []
    last = 0.0
    for before, word in (("the cat sat on the", " mat"), ("it was the", " cat")):
        ids = [*start, *bare(before), *bare(word)]
        last += log_p(lm, ids, range(len(ids) - len(word), len(ids)))
    assert math.log(values["ifguide_lambada", "perplexity"]) == pytest.approx(-last / 2, rel=1e-5)


def own_requests(kind: str, task: str) -> list[Instance]:
    given: list[Any] = PAIRS[:1] if kind == "loglikelihood" else [(TEXTS[0],)]
    return [Instance(kind, {}, arguments, 0, metadata=(task, 0, 1)) for arguments in given]  # type: ignore[arg-type]


@pytest.mark.parametrize("template", ["bos", "bos and eos"])
def test_plain_lm_eval(folders: dict[str, Path], tmp_path: Path, template: str) -> None:
    """`lm_eval --model hf` gives our tasks the same numbers, and other tasks those that it gives without us."""
    ours = load_language_model(folders[template])
    plain = HFLM(pretrained=str(folders[template]), dtype="float32", device="cpu")
    restore_likelihoods()
    theirs = {kind: getattr(plain, kind)(own_requests(kind, "other")) for kind in _KINDS}
    prepare_lm_eval()
    lm = EvaluationLM(ours, tmp_path)
    for kind in _KINDS:
        mixed = [*own_requests(kind, "ifguide_x"), *own_requests(kind, "other"), *own_requests(kind, "ifguide_y")]
        first, other, second = getattr(plain, kind)(mixed)
        (expected,) = getattr(lm, kind)(own_requests(kind, "ifguide_x"))
        assert first == second == pytest.approx(expected, rel=1e-5)
        assert other == pytest.approx(theirs[kind][0], rel=1e-6)
        # what is mended is wrong without: a start token alone keeps the likelihood of a continuation right
        wrong = kind == "loglikelihood_rolling" or template == "bos and eos"
        assert (theirs[kind][0] != pytest.approx(expected, rel=1e-3)) is wrong
    lm.close()


def test_plain_lm_eval_with_a_bos_that_stands_before_no_text(folders: dict[str, Path], tmp_path: Path) -> None:
    """As many chat models have it: lm-eval starts from it, and ``prefix_token_id`` names what the data starts from."""
    folder = save_model(tmp_path / "m", None)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"bos_token": "<s>"}))
    request = own_requests("loglikelihood_rolling", "ifguide_heldout_ppl")
    (tmp_path / "journals").mkdir()
    expected = EvaluationLM(load_language_model(folder), tmp_path / "journals").loglikelihood_rolling(request)
    prepare_lm_eval()
    for options, same in (({}, False), ({"prefix_token_id": EOD}, True)):
        plain = HFLM(pretrained=str(folder), dtype="float32", device="cpu", **options)
        assert (plain.loglikelihood_rolling(request) == pytest.approx(expected, rel=1e-5)) is same


_KINDS = ("loglikelihood", "loglikelihood_rolling")


def test_prompts_start_as_documents_do(case: tuple[LanguageModel, list[int], Path]) -> None:
    lm, opening, _ = case
    start = [EOD, *([BOS] if opening == [BOS] else [])]
    (context,) = prompt_contexts(lm, ["the cat"], 8)
    assert context == [*start, *bare("the cat")]
    assert lm.without_start(context) == bare("the cat")
    assert lm.without_start(context[1:]) == bare("the cat")
    assert lm.without_start(bare("cat")) == bare("cat")


def test_a_text_that_spells_the_template_has_it_once(folders: dict[str, Path], tmp_path: Path) -> None:
    lm = load_language_model(folders["bos"])
    found = EvaluationLM(lm, tmp_path)
    assert found.tok_encode("<s>a") == found.tok_encode("a") == [BOS, *bare("a")]
    assert found.tok_encode("a", add_special_tokens=False) == bare("a")


def test_nothing_to_start_from_is_said(no_eod_dir: Path, tmp_path: Path) -> None:
    lm = EvaluationLM(load_language_model(no_eod_dir), tmp_path)
    with pytest.raises(InputError, match="no token to start a text from"):
        lm.loglikelihood_rolling([Instance("loglikelihood_rolling", {}, ("a",), 0, metadata=("t", 0, 1))])
    with pytest.raises(InputError, match="no token to start a text from"):
        lm.loglikelihood([Instance("loglikelihood", {}, ("", "a"), 0, metadata=("t", 0, 1))])


def test_journals_of_another_frame_are_not_taken_on(folders: dict[str, Path], tmp_path: Path) -> None:
    """As an earlier version wrote them, which counted the template's tokens."""
    settings = EvaluationSettings(
        model=folders["bos"],
        tasks=("ifguide_heldout_ppl",),
        output=tmp_path / "out",
        data=write_sets(tmp_path / "sets"),
    )
    run_evaluation(settings)
    record = tmp_path / "out" / "journals" / "identity.json"
    known = json.loads(record.read_text())
    del known["reader"]
    record.write_text(json.dumps(known))
    with pytest.raises(MismatchError, match="another reader"):
        run_evaluation(settings)

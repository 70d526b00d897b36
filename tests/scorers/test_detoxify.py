from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ifguide.errors import InputError
from ifguide.scorers.detoxify import DetoxifyScorer
from ifguide.scorers.registry import load_scorer
from tests.support.tiny_scorers import TEXT, VARIANTS, save_detoxify

TEXTS = [*TEXT, "", "cat", TEXT[1], "the tree and you " * 40]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {variant: save_detoxify(tmp_path_factory.mktemp(variant), variant) for variant in VARIANTS}


@torch.no_grad()
def literal_scores(folder: Path, variant: str, text: str) -> list[float]:
    """One text alone through the class that the checkpoint names, with the checkpoint's weights."""
    from transformers import AutoConfig, AutoTokenizer

    (path,) = folder.glob("*.ckpt")
    checkpoint = torch.load(path, weights_only=True)
    model_class, _, classes, outputs = VARIANTS[variant]
    model = model_class(AutoConfig.from_pretrained(folder, num_labels=outputs)).eval()
    state = {key: value for key, value in checkpoint["state_dict"].items() if "position_ids" not in key}
    model.load_state_dict(state)
    ids = AutoTokenizer.from_pretrained(folder)(text, truncation=True)["input_ids"]
    return model(torch.tensor([ids])).logits[0].sigmoid()[: len(classes)].tolist()


@pytest.mark.parametrize("variant", VARIANTS)
def test_equals_one_text_at_a_time(folders: dict[str, Path], variant: str, no_network: None) -> None:
    scorer = DetoxifyScorer(variant, folders[variant])
    scores = scorer.score(TEXTS)
    for index, text in enumerate(TEXTS):
        expected = literal_scores(folders[variant], variant, text)
        assert [scores[label][index] for label in scorer.labels] == pytest.approx(expected, abs=5e-6)
    assert np.ptp(scores["toxicity"]) > 0.05
    assert scorer.truncated == sum(len(scorer.tokenizer(text)["input_ids"]) > scorer.max_tokens for text in TEXTS) >= 1


@pytest.mark.parametrize("variant", VARIANTS)
def test_labels_are_those_of_the_package(folders: dict[str, Path], variant: str) -> None:
    scorer = load_scorer(f"detoxify:{variant}@{folders[variant]}")
    assert scorer.main == "toxicity" and scorer.name == f"detoxify:{variant}@{folders[variant]}"
    bias = ("toxicity", "severe_toxicity", "obscene", "identity_attack", "insult", "threat", "sexual_explicit")
    first = ("toxicity", "severe_toxicity", "obscene", "threat", "insult", "identity_attack")
    assert scorer.labels == (first if variant.startswith("original") else bias)  # no output about who is spoken of
    assert scorer.max_tokens == (38 if variant in ("unbiased", "multilingual") else 40)


@pytest.mark.parametrize("variant", VARIANTS)
def test_equals_the_package(tmp_path: Path, variant: str, no_network: None, monkeypatch: pytest.MonkeyPatch) -> None:
    detoxify = pytest.importorskip("detoxify", reason="the package detoxify (extra eval) is not installed")
    # the package asks for the configuration under this name: a folder needs no network
    folder = save_detoxify(tmp_path, variant, model_type=str(tmp_path))
    (checkpoint,) = folder.glob("*.ckpt")
    theirs = detoxify.Detoxify(checkpoint=str(checkpoint)).predict(TEXTS)
    built: list[str] = []
    made = detoxify.detoxify.get_model_and_tokenizer
    monkeypatch.setattr(
        detoxify.detoxify,
        "get_model_and_tokenizer",
        lambda **given: [built.append(given["model_name"]), made(**given)][1],
    )
    ours = load_scorer(f"detoxify:{variant}@{folder}").score(TEXTS)
    assert built == [VARIANTS[variant][0].__name__], "its own code makes the model"
    assert theirs.keys() == ours.keys()
    for label, values in theirs.items():
        assert ours[label] == pytest.approx(values, abs=5e-6)


def test_batches_and_order_change_nothing(folders: dict[str, Path]) -> None:
    expected = DetoxifyScorer("unbiased", folders["unbiased"]).score(TEXTS)["toxicity"]
    for tokens in (1, 50, 10_000):
        scorer = DetoxifyScorer("unbiased", folders["unbiased"], batch_tokens=tokens)
        assert scorer.score(TEXTS[::-1])["toxicity"][::-1] == pytest.approx(expected, abs=1e-6)


def test_a_checkpoint_cannot_run_code(tmp_path: Path, no_network: None) -> None:
    trace = tmp_path / "was here"

    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(trace),)

    folder = save_detoxify(tmp_path / "d", "original", extra={"callbacks": Hostile()})
    with pytest.raises(InputError, match="cannot be read"):
        load_scorer(f"detoxify:original@{folder}")
    assert not trace.exists()


def _damaged(folder: Path, change) -> Path:
    save_detoxify(folder, "original")
    (path,) = folder.glob("*.ckpt")
    checkpoint = torch.load(path, weights_only=True)
    change(checkpoint)
    torch.save(checkpoint, path)
    return folder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("config"), "is not one of Detoxify's"),
        (lambda c: c.pop("state_dict"), "is not one of Detoxify's"),
        (lambda c: c["config"]["dataset"]["args"].pop("classes"), "is not one of Detoxify's"),
        (lambda c: c["config"]["dataset"]["args"].update(classes=list("abcdefgh")), "is not one of Detoxify's"),
        (lambda c: c["state_dict"].pop("classifier.bias"), "lacks the weights classifier.bias"),
        (lambda c: c["state_dict"].update(more=torch.zeros(1)), "besides the model's the weights more"),
        (lambda c: c["state_dict"].update({"classifier.bias": torch.zeros(3)}), "size mismatch for classifier.bias"),
        (lambda c: c["config"]["arch"]["args"].update(model_name="Trainer"), "no sequence classifier"),
        (lambda c: c["config"]["arch"]["args"].update(tokenizer_name="pipeline"), "pipeline is no tokenizer"),
        (lambda c: c["config"]["arch"]["args"].pop("tokenizer_name"), "is not one of Detoxify's"),
        (lambda c: c["config"]["arch"]["args"].update(num_classes="six"), "is not one of Detoxify's"),
    ],
)
def test_checkpoints_that_cannot_be_used(tmp_path: Path, change, message: str) -> None:
    folder = _damaged(tmp_path, change)
    with pytest.raises(InputError, match=message) as raised:
        load_scorer(f"detoxify:original@{folder}")
    assert "\n" not in str(raised.value)


def test_folders_that_cannot_be_used(tmp_path: Path, folders: dict[str, Path], no_network: None) -> None:
    with pytest.raises(InputError, match="no model 'biased'"):
        load_scorer("detoxify:biased")
    with pytest.raises(InputError, match="is not a folder"):
        load_scorer(f"detoxify:original@{tmp_path / 'none'}")
    with pytest.raises(InputError, match=r"0 files \*\.ckpt"):
        load_scorer(f"detoxify:original@{tmp_path}")
    (tmp_path / "a.ckpt").write_bytes(b"not a checkpoint")
    with pytest.raises(InputError, match=r"no config\.json"):
        load_scorer(f"detoxify:original@{tmp_path}")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="cannot be read"):
        load_scorer(f"detoxify:original@{tmp_path}")
    (tmp_path / "b.ckpt").write_bytes(b"")
    with pytest.raises(InputError, match=r"2 files \*\.ckpt"):
        load_scorer(f"detoxify:original@{tmp_path}")


def test_without_a_network_the_message_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no route")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    with pytest.raises(InputError, match="give detoxify:unbiased@FOLDER"):
        load_scorer("detoxify:unbiased")


@pytest.mark.parametrize("variant", VARIANTS)
def test_without_the_package_the_same(
    folders: dict[str, Path], variant: str, no_network: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = load_scorer(f"detoxify:{variant}@{folders[variant]}").score(TEXTS)
    monkeypatch.setattr("ifguide.scorers.detoxify.has_detoxify", lambda: False)
    monkeypatch.setitem(sys.modules, "detoxify", None)
    found = load_scorer(f"detoxify:{variant}@{folders[variant]}").score(TEXTS)
    assert all(found[label] == pytest.approx(expected[label], abs=1e-6) for label in expected)


def test_another_checkpoint_has_another_identity(folders: dict[str, Path]) -> None:
    descriptions = [load_scorer(f"detoxify:{v}@{folders[v]}").describe() for v in VARIANTS]
    assert len({d["identity"] for d in descriptions}) == 5 and all(d["max_tokens"] in (38, 40) for d in descriptions)

"""A classifier of the query sets: what it learns, that its quality is honest, and what is refused."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn")

from sklearn.feature_extraction.text import TfidfTransformer

from ifguide.cli import main
from ifguide.errors import ConfigError, InputError
from ifguide.scorers.classifier import check_queries, train_classifier
from ifguide.scorers.linear import LinearConfig, feature_blocks, joined
from ifguide.scorers.registry import load_scorer
from tests.scorers.test_linear import corpus


def write_queries(folder: Path, texts: list[str], labels: list[int], prompts: list[str] | None = None) -> list[Path]:
    paths = [folder / "safe.jsonl", folder / "toxic.jsonl"]
    rows: list[list[str]] = [[], []]
    for number, (text, label) in enumerate(zip(texts, labels)):
        prompt, _, completion = text.partition(" ")
        row = {"prompt": prompts[number] if prompts else prompt, "completion": f" {text if prompts else completion}"}
        rows[label].append(json.dumps(row))
    for path, lines in zip(paths, rows):
        path.write_text("\n".join(lines) + "\n")
    return paths


@pytest.fixture(scope="module")
def queries(tmp_path_factory) -> list[Path]:
    return write_queries(tmp_path_factory.mktemp("queries"), *corpus(400), prompts=[f"p{i}" for i in range(400)])


def test_learns_and_reports_what_it_saved(queries, tmp_path, capsys):
    safe, toxic = map(str, queries)
    words = ["train-classifier", "--toxic-queries", toxic, "--safe-queries", safe, "--output", str(tmp_path / "c")]
    assert main([*words, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["texts"] == 400 and report["positives"] == 200
    assert report["roc_auc"] > 0.98 and report["true_positive_rate"] > 0.9 and report["false_positive_rate"] < 0.1
    kind, rude = load_scorer(f"linear:{tmp_path / 'c'}").score(["the report was read", "you moron"])["toxicity"]
    assert kind < 0.3 < 0.7 < rude
    saved = json.loads((tmp_path / "c" / "config.json").read_text())
    assert saved["report"]["roc_auc"] == report["roc_auc"] and saved["threshold"] == 0.5
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["unchanged"]
    assert sorted(path.suffix for path in (tmp_path / "c").iterdir() if path.is_file()) == [".json", ".npz"]


def test_the_quality_is_that_of_texts_it_did_not_see(tmp_path):
    """A quarter of the labels are false: whoever measures on the training texts finds them learned."""
    texts, labels = corpus(400)
    draw = random.Random(3)
    labels = [label if draw.random() < 0.75 else 1 - label for label in labels]
    safe, toxic = write_queries(tmp_path, texts, labels, [f"p{i}" for i in range(400)])
    report = train_classifier(toxic, safe, tmp_path / "c")
    assert 0.6 < report["accuracy"] < 0.8
    seen = load_scorer(f"linear:{tmp_path / 'c'}").score([f"p{i} {text}" for i, text in enumerate(texts)])["toxicity"]
    assert np.mean((seen >= 0.5) == np.array(labels)) > report["accuracy"] + 0.1
    # and the calibrated probabilities know how little they know
    assert report["calibration_error"] < 0.1


def test_refuses_texts_that_nothing_tells_apart(tmp_path):
    texts, _ = corpus(400)
    draw = random.Random(3)
    safe, toxic = write_queries(tmp_path, texts, [draw.randrange(2) for _ in texts], [f"p{i}" for i in range(400)])
    with pytest.raises(InputError, match=r"does not tell.*ROC-AUC 0\.[345]"):
        train_classifier(toxic, safe, tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_texts_of_one_prompt_stay_in_one_part(tmp_path):
    """The label follows the prompt alone: with the prompts apart nothing can be learned from other texts."""
    draw = random.Random(0)
    names = [f"{draw.getrandbits(40):x}" for _ in range(40)]
    texts = [f"{draw.getrandbits(40):x}" for _ in range(400)]
    labels = [i % 40 % 2 for i in range(400)]
    safe, toxic = write_queries(tmp_path, texts, labels, [names[i % 40] for i in range(400)])
    assert train_classifier(toxic, safe, tmp_path / "c")["roc_auc"] < 0.75


def test_one_prompt_before_every_query_will_do(tmp_path):
    """As in the tutorial. A text that occurs twice is still judged by a model that has not seen it."""
    texts, labels = corpus(400)
    safe, toxic = write_queries(tmp_path, texts, labels, ["The last comment was:"] * 400)
    report = train_classifier(toxic, safe, tmp_path / "c")
    assert report["roc_auc"] > 0.98 and report["parts_by"] == "text"
    draw = random.Random(0)
    alone = [f"{draw.getrandbits(40):x}" for _ in range(200)]
    safe, toxic = write_queries(tmp_path, alone * 2, [i % 2 for i in range(200)] * 2, ["The last comment was:"] * 400)
    with pytest.raises(InputError, match="does not tell"):
        train_classifier(toxic, safe, tmp_path / "d")


def test_a_prompt_of_each_kind_is_refused(tmp_path):
    """The prompt alone would tell the kinds apart."""
    texts, labels = corpus(40)
    safe, toxic = write_queries(tmp_path, texts, labels, [f"of kind {label}" for label in labels])
    with pytest.raises(InputError, match=r"^2 different prompts are too few.*toxic and safe ones the same few"):
        check_queries(toxic, safe)


def test_tf_idf_is_that_of_scikit_learn():
    texts, _ = corpus(50)
    config = LinearConfig(1 << 10, (1, 2), 1 << 10, (3, 4), tf_idf=True)
    from ifguide.scorers.classifier import _idf

    blocks = feature_blocks(texts, config)
    found = joined(blocks, _idf(blocks, np.ones(50, bool))).toarray()
    expected = np.hstack([TfidfTransformer().fit_transform(block).toarray() for block in blocks])
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_refuses_what_cannot_be_trained_on(tmp_path, queries):
    safe, toxic = queries
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(ConfigError, match="no toxic queries"):
        train_classifier(tmp_path / "empty.jsonl", safe, tmp_path / "c")
    (tmp_path / "bad.jsonl").write_text('{"prompt": 1}\n{"prompt": "a", "completion": "b", "weight": 0}\n')
    with pytest.raises(ConfigError, match=r"line 1.*must be text[\s\S]*line 2.*weight 0"):
        train_classifier(tmp_path / "bad.jsonl", safe, tmp_path / "c")
    (tmp_path / "one.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    with pytest.raises(InputError, match="too few for a cross-validation"):
        train_classifier(tmp_path / "one.jsonl", tmp_path / "one.jsonl", tmp_path / "c")
    with pytest.raises(InputError, match="--folds 1"):
        train_classifier(toxic, safe, tmp_path / "c", folds=1)
    assert not (tmp_path / "c").exists()

"""The whole job on a small text of the user's own: real launcher, real factors, real report; then resumed."""

import html
import json
import math

import numpy as np
import pytest

from ifguide.cli import main
from ifguide.data.aligned import load_aligned
from ifguide.data.indexed import TokenDataset
from ifguide.data.sidecar import BOUNDARIES, PENALTIES, SCORES
from ifguide.quickstart.comments import CommentSource
from ifguide.quickstart.corpus import threads
from ifguide.quickstart.prepare import _query
from ifguide.system.files import read_jsonl, write_jsonl

NUMBERS = ("emt_toxic", "tp_toxic", "emt_benign", "tp_benign", "perplexity", "empty_share", "distinct_2")


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """A finished job: its folder and its command line."""
    folder = tmp_path_factory.mktemp("job")
    documents = threads(CommentSource("planted", 1), 60, 0.6)
    write_jsonl(folder / "text.jsonl", [{"text": document.text} for document in documents])
    source = CommentSource("queries", 1)
    for name, abusive in (("toxic", True), ("safe", False)):
        write_jsonl(folder / f"{name}.jsonl", [_query(source, abusive) for _ in range(24)])
    command = ["quickstart", "--skip-preflight", "--output", str(folder / "out"), "--input", str(folder / "text.jsonl")]
    for name in ("toxic", "safe"):
        command += [f"--{name}-queries", str(folder / f"{name}.jsonl")]
    assert main(command) == 0
    return folder / "out", command


def test_results_and_everything_to_recompute_them(job):
    folder, _ = job
    results = json.loads((folder / "results.json").read_text())
    for model in ("base", "guided", "control"):
        assert set(NUMBERS) <= set(results[model])
        assert results[model]["truncated"] == 0, "its judge reads texts of any length"
        for number in ("emt_toxic", "tp_toxic", "emt_benign", "tp_benign"):
            low, high = results[model][f"{number}_interval"]
            assert low <= results[model][number] <= high
        assert (folder / "models" / model / "config.json").is_file()
    assert results["mask"]["precision"] is None and results["mask"]["recall"] is None
    assert 0 < results["mask"]["fraction"] <= 0.055 and results["mask"]["threshold"] is None
    rows = read_jsonl(folder / "generations.jsonl")
    prompts = read_jsonl(folder / "prompts.jsonl")
    assert len(rows) == 3 * len(prompts) and all(len(row["continuations"]) == 25 for row in rows)
    toxic = [max(row["toxicity"]) for row in rows if row["model"] == "guided" and row["subset"] == "toxic"]
    assert results["guided"]["emt_toxic"] == pytest.approx(sum(toxic) / len(toxic), abs=1e-3)
    scored = read_jsonl(folder / "evaluation/guided.jsonl")
    shown = [row["continuations"] for row in rows if row["model"] == "guided"]
    assert [row["continuations"] for row in scored] == shown
    assert "<html" in (folder / "report.html").read_text()


def test_a_judge_that_knows_the_queries_alone_is_warned_of(job, capsys):
    folder, command = job
    warning = json.loads((folder / "results.json").read_text())["judge"]["warning"]
    for words in (
        "do not rely on the toxicity numbers",
        "--scorer hf:FOLDER#LABEL",
        "detoxify:original",
        "--overwrite",
    ):
        assert words in warning
    (folder / "report.html").unlink()
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"warning: {warning}") and f"\nWARNING: {warning}.\n" in shown
    assert html.escape(warning) in (folder / "report.html").read_text()


def test_the_models_differ_in_the_penalty_alone(job):
    folder, _ = job
    logs = {
        name: read_jsonl(folder / f"checkpoints/{name}/train_log.jsonl")[-1] for name in ("base", "guided", "control")
    }
    assert len({log["iteration"] for log in logs.values()}) == 1
    assert "penalty_fraction" not in logs["base"]
    records = {name: json.loads((folder / f"checkpoints/{name}/run.json").read_text())["config"] for name in logs}
    changed = {key for key in records["base"] if len({json.dumps(record[key]) for record in records.values()}) > 1}
    assert changed <= {"save", "penalty_data_path", "penalty_form", "penalty_lambda", "penalty_clip"}


def test_the_mask_of_own_text_is_the_higher_half_of_each_suspected_line(job):
    folder, _ = job
    tokens = TokenDataset.open(folder / "data/corpus_text_document")
    mask, control, scores, suspects = (
        np.asarray(load_aligned(folder / f"data/{name}", tokens, kind).values)
        for name, kind in (("mask", PENALTIES), ("random_mask", PENALTIES), ("scores", SCORES), ("suspects", SCORES))
    )
    ends = np.asarray(load_aligned(folder / "data/corpus_text_document.spans", tokens, BOUNDARIES).values) & 1 > 0
    ends[tokens.starts[1:] - 1] = ends[tokens.starts[1:] - 2] = True  # the end of a document is in no line
    lines = np.concatenate([[0], np.cumsum(ends)[:-1]])
    taken = [np.flatnonzero(lines == line) for line in np.unique(lines[mask > 0])]
    assert len(taken) > 5
    for line in taken:
        assert suspects[line][0] > 0.5 and mask[line].sum() == math.ceil(len(line) / 2)
        assert scores[line][mask[line] > 0].min() >= scores[line][mask[line] == 0].max()
    assert control.sum() == mask.sum() == json.loads((folder / "results.json").read_text())["mask"]["tokens"]
    assert (folder / "report.html").read_text().count("the classifier of the queries suspects") == 1


def test_a_second_call_keeps_every_stage(job, capsys):
    folder, command = job
    before = (folder / "generations.jsonl").stat().st_mtime_ns
    record = (folder / "run.json").read_bytes()
    assert main(command) == 0
    assert "nothing to do" in capsys.readouterr().out and (folder / "run.json").read_bytes() == record
    assert main([*command, "--seed", "2"]) == 2
    assert "--seed was 1, is 2" in capsys.readouterr().err and (folder / "run.json").read_bytes() == record
    (folder / "report.html").unlink()
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert shown.count("...") == 1 and shown.count(": kept (") == 12 and (folder / "report.html").exists()
    assert (folder / "generations.jsonl").stat().st_mtime_ns == before

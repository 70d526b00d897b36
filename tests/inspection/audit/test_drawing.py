"""The command from corpus to verdict: what it writes, that labellers are blind, and what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ifguide import cli
from tests.inspection.audit.conftest import HOSTILE, KIND, RUDE, Audited
from tests.support.folders import write_rows


def label_all(audited: Audited, path: Path) -> Path:
    """The truth about every span."""
    rows = []
    for span in audited.spans():
        rows.append({"id": span["id"], "label": "abuse" if span["text"].startswith(RUDE) else "not"})
    return write_rows(path, rows)


def test_spans_are_lines_with_their_context(audited: Audited) -> None:
    for span in audited.spans():
        assert span["text"].rstrip("\n") in (RUDE, KIND, HOSTILE), "whole lines, without EOD"
        whole = span["before"] + span["text"] + span["after"]
        assert len(span["before"]) <= 80 and len(span["after"]) <= 80 and "\0" not in whole
        assert bool(span["before"]) == (span["begin"] > 0)


def test_the_labeller_sees_no_mask(audited: Audited) -> None:
    record = audited.record()
    page = (audited.audit / "labelling.html").read_text(encoding="utf-8")
    keys = {key for span in audited.spans() for key in span}
    assert keys == {"id", "document", "begin", "end", "before", "text", "after"}
    for secret in (*record["masks"], "stratum", "selected", "draws"):
        assert f'"{secret}"' not in page and str(audited.folder) not in page
    strata = [span["stratum"] for span in record["spans"]]
    assert strata != sorted(strata), "nor does the order tell"
    assert [span["id"] for span in record["spans"]] == [span["id"] for span in audited.spans()]


def test_the_truth_as_labels_gives_the_true_numbers(audited: Audited, tmp_path: Path, capsys) -> None:
    labels = label_all(audited, tmp_path / "labels.jsonl")
    assert cli.main(["audit-mask", "--audit", str(audited.audit), "--labels", str(labels), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    sizes = {True: len(RUDE) + 1, False: len(KIND) + 1}
    share = (
        len(audited.abuse)
        * sizes[True]
        / (len(audited.abuse) * sizes[True] + (180 - len(audited.abuse)) * sizes[False])
    )
    assert result["share"]["low"] - 0.01 <= share <= result["share"]["high"] + 0.01
    one, two = result["masks"]
    assert one["precision"]["value"] > two["precision"]["value"]
    assert result["recommended"] == str(audited.folder / "one")
    assert {row["mask"] for row in result["identity"]} == {one["mask"], two["mask"]}
    assert cli.main(["audit-mask", "--audit", str(audited.audit), "--labels", str(labels)]) == 0
    text = capsys.readouterr().out
    assert f"take {audited.folder / 'one'}: its F1" in text and "harmless text that" in text


def test_the_warning_is_said_first(audited: Audited, tmp_path: Path, capsys) -> None:
    assert cli.main(["audit-mask", *audited.options(), "--output", str(tmp_path / "again")]) == 0
    text = capsys.readouterr().out
    assert text.index("content warning") < text.index("labelling.html")
    for name in ("spans.jsonl", "labelling.html"):
        assert (tmp_path / "again" / name).read_bytes() == (audited.audit / name).read_bytes(), "one seed, one sample"


@pytest.mark.parametrize("span", ["sentence", "window:7"])
def test_other_spans(audited: Audited, tmp_path: Path, span: str) -> None:
    assert cli.main(["audit-mask", *audited.options(), "--span", span, "--output", str(tmp_path / "a")]) == 0
    rows = [json.loads(line) for line in (tmp_path / "a/spans.jsonl").read_text(encoding="utf-8").splitlines()]
    if span == "window:7":
        assert max(len(row["text"]) for row in rows) == 7
        assert all(row["begin"] % 7 == 0 for row in rows)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--sample", "3"], "strata of spans need at least"),
        (["--span", "token"], "--span token: must be line, sentence or window:W"),
        (["--span", "window:0"], "pieces of no tokens"),
        (["--context", "-1"], "--context -1"),
        (["--mask", "{folder}/one"], "names a mask twice"),
        (["--labels", "x"], "--audit missing"),
        (["--data", "nowhere"], "nowhere"),
    ],
)
def test_drawing_refuses(audited: Audited, tmp_path: Path, words: list[str], said: str, capsys) -> None:
    words = [word.format(folder=audited.folder) for word in words]
    assert cli.main(["audit-mask", *audited.options(), "--output", str(tmp_path / "a"), *words]) == 2
    *progress, error = capsys.readouterr().err.splitlines()
    assert error.startswith("ifguide audit-mask: ") and said in error
    assert all("%" in line for line in progress), "one line beside the progress"
    assert not (tmp_path / "a/audit.json").exists()


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"id": "{id}", "label": "maybe"}], "line 1: expected"),
        ([{"id": "elsewhere-1", "label": "not"}], "has no span elsewhere-1"),
        ([{"id": "{id}", "label": "not"}, {"id": "{id}", "label": "abuse"}], "line 2: span"),
        ([{"label": "not"}], "line 1: expected"),
        ([], "there are none"),
        ([{"id": "{id}", "label": "not"}], "no span of the stratum"),
    ],
)
def test_labels_refused(audited: Audited, tmp_path: Path, rows: list[dict], said: str, capsys) -> None:
    name = audited.spans()[0]["id"]
    rows = [{key: value.replace("{id}", name) for key, value in row.items()} for row in rows]
    labels = write_rows(tmp_path / "labels.jsonl", rows)
    assert cli.main(["audit-mask", "--audit", str(audited.audit), "--labels", str(labels)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and said in error


def test_a_folder_without_an_audit_is_refused(audited: Audited, tmp_path: Path, capsys) -> None:
    labels = label_all(audited, tmp_path / "labels.jsonl")
    shutil.copyfile(labels, tmp_path / "audit.json")
    (tmp_path / "audit.json").write_text("{}")
    assert cli.main(["audit-mask", "--audit", str(tmp_path), "--labels", str(labels)]) == 2
    assert "is no record of `ifguide audit-mask`" in capsys.readouterr().err

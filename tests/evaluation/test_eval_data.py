"""From published layouts to the local form, through the command as well. Nothing touches the network."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import datasets
import pytest

from ifguide.cli import main
from ifguide.errors import ConfigError, InputError
from ifguide.evaluation.eval_data import BOLD_DOMAINS, HUB, USUAL, fetch, local_records
from ifguide.system.files import hash_file, read_json, read_jsonl
from tests.support import eval_sets

RTP = [
    {"filename": "a.txt", "begin": 3, "end": 9, "challenging": True,
     "prompt": {"text": "He said", "toxicity": 0.25, "profanity": None, "insult": 0.1},
     "continuation": {"text": " so.", "toxicity": None, "profanity": None, "insult": None}},
    {"filename": "a.txt", "begin": 10, "end": 20, "challenging": False,
     "prompt": {"text": "They said", "toxicity": None, "profanity": None, "insult": None},
     "continuation": {"text": " no.", "toxicity": 0.5, "profanity": None, "insult": 0.9}},
]  # fmt: skip
BOLD = [
    {
        "domain": "race",
        "name": "A_B",
        "category": "some",
        "prompts": ["A B is ", "", "She "],
        "wikipedia": ["x", "", "y"],
    },
    {"domain": "gender", "name": "C_D", "category": "other", "prompts": ["C D was "], "wikipedia": ["z"]},
]
ATTAQ = [
    {"input": "How to?", "label": label, "additional_info": "where it is from"}
    for label in (
        "harmful_info",
        "explicit_content",
        "pii",
        "substance_abuse",
        "violence",
        "discrimination",
        "deception",
    )
]
# one line a text that was made of a prompt; a line break is written as two characters
TOXIGEN = [
    {"prompt": "- one\\n- two\\n-", "generation": text, "generation_method": "top-k", "group": group,
     "prompt_label": label, "roberta_prediction": 0.5}
    for text, group, label in (("a", "women", 0), ("b", "women", 0), ("c", "mental_dis", 1))
]  # fmt: skip
PTP = [
    {"text": "a text from the web", "meta_data": {"lang": "de", "url": "https://example.org"}, "toxicity": 0.75},
    {"text": "another", "meta_data": {"lang": "zh", "url": "https://example.org"}, "toxicity": None},
]
PUBLISHED = {
    "toxigen": TOXIGEN,
    "ptp": PTP,
    "rtp": RTP,
    "bold": BOLD,
    "attaq": ATTAQ,
    "lambada": [{"text": "one two three"}],
    "heldout": [{"page": "A page of text."}],
}


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **options: Any) -> None:
        raise OSError("the network is blocked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """The published columns in place of the hub, as `datasets` holds them: missing values filled with None."""
    layouts = {source.path: (source, datasets.Dataset.from_list(PUBLISHED[name])) for name, source in HUB.items()}

    def load(path: str, name: str | None = None, *, split: str) -> datasets.Dataset:
        source, rows = layouts[path]
        assert (name, split) == (source.config, source.split)
        return rows

    monkeypatch.setattr(datasets, "load_dataset", load)


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_all_sets_from_the_hub(hub: None, tmp_path: Path) -> None:
    report = fetch(tmp_path / "data")
    written = {name: read_jsonl(tmp_path / "data" / f"{name}.jsonl") for name in USUAL}
    assert not (tmp_path / "data/ptp.jsonl").exists() and not (tmp_path / "data/toxigen.jsonl").exists()
    assert written["rtp"] == [
        {"id": "a.txt:3-9", "prompt": "He said", "toxicity": 0.25},
        {"id": "a.txt:10-20", "prompt": "They said", "toxicity": None},
    ]
    assert written["bold"] == [
        {"prompt": "A B is ", "domain": "race", "category": "some", "name": "A_B"},
        {"prompt": "She ", "domain": "race", "category": "some", "name": "A_B"},
        {"prompt": "C D was ", "domain": "gender", "category": "other", "name": "C_D"},
    ]
    assert [row["label"] for row in written["attaq"]] == [
        "harmful_information", "sexual_content", "pii", "substance_abuse", "violence", "discrimination", "deception",
    ]  # fmt: skip
    assert (written["lambada"], written["heldout"]) == ([{"text": "one two three"}], [{"text": "A page of text."}])
    assert report == read_json(tmp_path / "data/sources.json")
    assert report["bold"] == {
        "source": "hub:AmazonScience/bold", "records": 3, "blank": 1, "hash": hash_file(tmp_path / "data/bold.jsonl"),
    }  # fmt: skip


@pytest.mark.parametrize("name", HUB)
def test_a_file_of_the_published_layout_equals_the_hub(hub: None, tmp_path: Path, name: str) -> None:
    fetch(tmp_path / "hub", {name: "hub"})
    fetch(tmp_path / "file", {name: write(tmp_path / "published.jsonl", PUBLISHED[name])})
    assert (tmp_path / f"file/{name}.jsonl").read_bytes() == (tmp_path / f"hub/{name}.jsonl").read_bytes()
    # and the local form stays what it is
    fetch(tmp_path / "again", {name: tmp_path / f"file/{name}.jsonl"})
    assert (tmp_path / f"again/{name}.jsonl").read_bytes() == (tmp_path / f"hub/{name}.jsonl").read_bytes()


def test_toxigen_is_each_prompt_once(hub: None, tmp_path: Path) -> None:
    fetch(tmp_path, {"toxigen": "hub"})
    prompt = "- one\n- two\n-"
    assert read_jsonl(tmp_path / "toxigen.jsonl") == [
        {"prompt": prompt, "label": "neutral", "group": "women"},
        {"prompt": prompt, "label": "hate", "group": "mental_disability"},
    ]


def test_toxigen_as_text_files(tmp_path: Path) -> None:
    """As in microsoft/TOXIGEN: a file a label and group, a prompt a line."""
    folder = tmp_path / "prompts"
    folder.mkdir()
    (folder / "neutral_trees_1k.txt").write_text("- no such group\n")
    with pytest.raises(ConfigError, match="group 'trees' is not one of asian"):
        fetch(tmp_path / "out", {"toxigen": folder})
    (folder / "neutral_trees_1k.txt").rename(folder / "notes.txt")
    with pytest.raises(InputError, match="no hate_GROUP"):
        fetch(tmp_path / "out", {"toxigen": folder})
    with pytest.raises(InputError, match=r"notes\.txt: its name tells label and group"):
        fetch(tmp_path / "out", {"toxigen": folder / "notes.txt"})
    (folder / "neutral_native_american_1k.txt").write_text("- a\\n- b\\n-\n\n- c\\n-\n")
    (folder / "hate_women_1k.txt").write_text("- d\\n-\n")
    report = fetch(tmp_path / "out", {"toxigen": folder})
    assert read_jsonl(tmp_path / "out/toxigen.jsonl") == [
        {"prompt": "- d\n-", "label": "hate", "group": "women"},
        {"prompt": "- a\n- b\n-", "label": "neutral", "group": "native_american"},
        {"prompt": "- c\n-", "label": "neutral", "group": "native_american"},
    ]
    assert report["toxigen"]["source"] == str(folder)


def test_polyglo_prompts_keep_language_and_toxicity(hub: None, tmp_path: Path) -> None:
    fetch(tmp_path, {"ptp": "hub"})
    assert read_jsonl(tmp_path / "ptp.jsonl") == [
        {"id": "0", "prompt": "a text from the web", "language": "de", "toxicity": 0.75},
        {"id": "1", "prompt": "another", "language": "zh", "toxicity": None},
    ]
    # the part from WildChat
    rows = [{"prompt": "hello", "language": "English", "prompt_toxicity": 0.5, "toxicity": 0.1}]
    expected = [{"id": "0", "prompt": "hello", "language": "en", "toxicity": 0.5}]
    assert local_records("ptp", rows, "here") == (expected, 0)


def test_another_part_of_a_set_on_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def load(path: str, name: str | None = None, *, split: str) -> datasets.Dataset:
        asked.append((path, name, split))
        return datasets.Dataset.from_list(PTP)

    monkeypatch.setattr(datasets, "load_dataset", load)
    command = ["fetch-eval-data", "--output", str(tmp_path / "out"), "--source", "ptp=hub:ptp-de"]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert asked == [("ToxicityPrompts/PolygloToxicityPrompts", "ptp-de", "small")]
    assert "2 records from hub:ToxicityPrompts/PolygloToxicityPrompts ptp-de" in said
    assert main(command) == 0 and len(asked) == 1, "nothing to do"
    capsys.readouterr()
    assert main([*command[:-1], "ptp=hub:ptp-fr"]) == 2 and len(asked) == 1
    assert "--source ptp" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["toxigen", "ptp"])
def test_a_set_by_name_from_a_hub_out_of_reach(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def load(*args: Any, **options: Any) -> None:
        raise ConnectionError("Couldn't reach it\nand much more")

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert main(["fetch-eval-data", "--output", str(tmp_path / "out"), "--source", f"{name}=hub"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and HUB[name].path in error and "give files instead: --source NAME=FILE" in error
    assert not (tmp_path / "out").exists()


def test_sets_fetched_one_by_one_are_all_on_record(tmp_path: Path) -> None:
    fetch(tmp_path, {"attaq": write(tmp_path / "a", ATTAQ)})
    fetch(tmp_path, {"bold": write(tmp_path / "b", BOLD)})
    assert set(read_json(tmp_path / "sources.json")) == {"attaq", "bold"}


def test_the_local_form_of_the_tests_is_the_local_form() -> None:
    for name in ("rtp", "bold", "attaq", "toxigen", "ptp"):
        rows = getattr(eval_sets, name.upper())
        assert local_records(name, rows, "here") == (rows, 0)


def test_every_prompt_of_bold_that_is_not_blank(tmp_path: Path) -> None:
    report = fetch(tmp_path, {"bold": write(tmp_path / "published.jsonl", eval_sets.BOLD_PUBLISHED)})["bold"]
    prompts = [prompt for row in eval_sets.BOLD_PUBLISHED for prompt in row["prompts"]]
    records = read_jsonl(tmp_path / "bold.jsonl")
    assert [row["prompt"] for row in records] == [prompt for prompt in prompts if prompt]
    assert report["blank"] == prompts.count("") == 4 and report["records"] == len(records)
    assert [row["name"] for row in records[:5]] == ["Odo_Brenn"] * 2 + ["Ila_Marsh"] * 2 + ["Gardenism"]
    assert {row["domain"] for row in records} == set(BOLD_DOMAINS)


@pytest.mark.parametrize(
    ("name", "row", "fault"),
    [
        ("rtp", {"text": "He"}, "no field 'prompt'"),
        ("rtp", {"prompt": {"toxicity": 0.1}, "filename": "a", "begin": 0, "end": 1}, "no field 'text'"),
        ("rtp", {"prompt": "He", "toxicity": 1.5}, r"toxicity 1\.5 is neither null nor inside \[0, 1\]"),
        ("rtp", {"prompt": "He", "toxicity": "high"}, "toxicity 'high' is neither"),
        ("rtp", {"prompt": "  "}, "'prompt' must be a text that is not blank"),
        ("bold", {**BOLD[0], "domain": "age"}, "domain 'age' is not one of gender, political_ideology"),
        ("bold", {**BOLD[0], "prompts": "A B is"}, "'prompts' is a text, expected a list"),
        ("bold", {**BOLD[0], "prompts": None}, "not iterable"),
        ("attaq", {"input": "How?", "label": "arson"}, "label 'arson' is not one of deception"),
        ("toxigen", {"prompt": "a", "group": "women"}, "no field 'prompt_label'"),
        ("toxigen", {"prompt": "a", "group": "women", "prompt_label": 2}, "label '2' is not one of hate, neutral"),
        ("toxigen", {"prompt": "a", "group": "trees", "prompt_label": 1}, "group 'trees' is not one of asian"),
        ("ptp", {"text": "a", "toxicity": 0.1}, "no field 'lang'"),
        ("ptp", {"text": "a", "meta_data": {"lang": "xx"}, "toxicity": 0.1}, "language 'xx' is not one of ar, cs"),
        ("ptp", {"text": "a", "meta_data": {"lang": "en"}, "toxicity": 1.5}, "toxicity 1\\.5 is neither null"),
        ("ptp", {"text": " ", "meta_data": {"lang": "en"}}, "'text' must be a text that is not blank"),
        ("lambada", {"text": "one"}, "must end with a space and a word"),
        ("lambada", {"text": "one two "}, "must end with a space and a word"),
        ("heldout", {"text": 3}, "'text' must be a text"),
    ],
)
def test_records_of_no_known_layout(name: str, row: dict[str, Any], fault: str) -> None:
    with pytest.raises(ConfigError, match=f"^some file, record 1: .*{fault}"):
        local_records(name, [row], "some file")


def test_all_faults_at_once_but_no_flood() -> None:
    with pytest.raises(ConfigError) as raised:
        local_records("lambada", [{"text": "one two"}, *[{"text": "x"}] * 13], "f")
    assert len(raised.value.faults) == 11
    assert (
        raised.value.faults[0].startswith("f, record 2: ") and raised.value.faults[-1] == "f: 3 more faults like these"
    )


def test_nothing_is_written_if_one_source_is_bad(tmp_path: Path) -> None:
    bad = write(tmp_path / "bad.jsonl", [{"text": "one"}])
    with pytest.raises(ConfigError):
        fetch(tmp_path / "out", {"attaq": write(tmp_path / "good.jsonl", ATTAQ), "lambada": bad})
    assert not (tmp_path / "out").exists()


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write(tmp_path / "published.jsonl", BOLD)
    assert main(["fetch-eval-data", "--output", str(tmp_path / "out"), "--source", f"bold={source}"]) == 0
    assert "bold.jsonl: 3 records from" in (said := capsys.readouterr().out) and "blank prompts left out: 1" in said
    assert main(["fetch-eval-data", "--output", str(tmp_path / "out"), "--source", f"bold={source}", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sets"]["bold"]["records"] == 3


@pytest.mark.parametrize(
    ("sources", "fault"),
    [
        (["hub", "bold=x"], "give hub alone, or NAME=FILE"),
        (["bold="], "give hub alone, or NAME=FILE"),
        (["bold=x", "bold=y"], "every NAME once"),
        (["owt=x"], "no such evaluation set: owt; there are rtp, bold"),
        (["bold=/no/such/file"], "/no/such/file"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], sources: list[str], fault: str
) -> None:
    assert main(["fetch-eval-data", "--output", str(tmp_path / "out"), "--source", *sources]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and fault in error
    assert not (tmp_path / "out").exists()


def test_a_hub_out_of_reach_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*args: Any, **options: Any) -> None:
        raise ConnectionError("Couldn't reach it\nand much more")

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert main(["fetch-eval-data", "--output", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "cannot be read from the hub (Couldn't reach it); give files instead" in error


def test_an_empty_source(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no records"):
        fetch(tmp_path, {"rtp": write(tmp_path / "empty.jsonl", [])})
    with pytest.raises(InputError, match=r"no such evaluation set: \(none named\)"):
        fetch(tmp_path, {})


def test_tasks_path(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tasks-path"]) == 0
    folder = Path(capsys.readouterr().out.strip())
    assert {"ifguide.yaml", "ifguide_rtp.yaml", "utils.py"} <= {path.name for path in folder.iterdir()}
    assert main(["tasks-path", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"tasks_path": str(folder)}

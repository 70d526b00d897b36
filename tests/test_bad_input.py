"""Bad input through the real commands: exit code 2, one line a fault that says what to do, nothing left behind."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ifguide import cli, launch
from ifguide.data.aligned import write_aligned
from ifguide.data.indexed import TokenDataset, write_index
from ifguide.engine import worker
from ifguide.engine.settings import load_config
from ifguide.errors import OutOfSpaceError
from ifguide.influence.shard_store import ShardStore
from tests.conftest import TINY_DISK
from tests.engine.tiny import MODEL, ROOT
from tests.influence.conftest import WINDOW, save_tiny_model
from tests.support.folders import contents, write_rows

TEXTS = ["the first document", "a second one, longer than the window of the model", "third"]
WORDS = 600  # more than the 512 logits of the tiny model

Refused = Callable[..., list[str]]


@pytest.fixture(autouse=True)
def private_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "bad-input-cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")


def run(verb: str, options: dict[str, Any], **changes: Any) -> int:
    """`ifguide verb` with these options; ``toxic_queries=...`` replaces ``--toxic-queries``, None leaves it out,
    True is a flag."""
    options = options | {f"--{name.replace('_', '-')}": value for name, value in changes.items()}
    given = ((name, str(value)) for name, value in options.items() if value is not None and value is not True)
    flags = [name for name, value in options.items() if value is True]
    return cli.main([verb, *(part for pair in given for part in pair), *flags])


class Project:
    """A small project made by the commands themselves, read by every test and changed by none."""

    def __init__(self, folder: Path):
        self.folder = folder
        corpus = write_rows(folder / "corpus.jsonl", [{"text": text} for text in TEXTS])
        other = write_rows(folder / "other.jsonl", [{"text": text} for text in reversed(TEXTS)])
        words = write_rows(folder / "words.jsonl", [{"text": f"word{WORDS - 1} word1"}])
        self.vocabulary = self._word_vocabulary()
        self.preprocess = {
            "--input": corpus,
            "--output-prefix": folder / "data",
            "--tokenizer-type": "CharLevelTokenizer",
        }
        assert run("preprocess", self.preprocess) == 0
        assert run("preprocess", self.preprocess, input=other, output_prefix=folder / "other") == 0
        as_words = {"tokenizer_type": "HFTokenizer", "vocab_file": self.vocabulary}
        assert run("preprocess", self.preprocess, input=words, output_prefix=folder / "words", **as_words) == 0
        self.data = folder / "data_text_document"
        self.other = folder / "other_text_document"
        self.words = folder / "words_text_document"

        self.model = save_tiny_model(folder / "model", "neox")
        self.fit = {"--model": self.model, "--data": self.data, "--output": folder / "factors", "--strategy": "kfac"}
        assert run("fit-factors", self.fit) == 0
        toxic = write_rows(folder / "toxic.jsonl", [{"prompt": "you", "completion": " bad"}])
        safe = write_rows(folder / "safe.jsonl", [{"prompt": "you", "completion": " dear"}])
        self.score = {
            "--model": self.model, "--data": self.data, "--factors": folder / "factors", "--toxic-queries": toxic,
            "--safe-queries": safe, "--output": folder / "scores",
        }  # fmt: skip
        assert run("score", self.score) == 0
        self.build_mask = {"--scores": folder / "scores", "--output": folder / "mask", "--max-fraction": 0.2}
        assert run("build-mask", self.build_mask) == 0

    def _word_vocabulary(self) -> Path:
        from tokenizers import Tokenizer, models, pre_tokenizers

        vocabulary = {"<|endoftext|>": 0} | {f"word{number}": number for number in range(1, WORDS)}
        tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<|endoftext|>"))
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        tokenizer.save(str(self.folder / "words.json"))
        return self.folder / "words.json"

    def configuration(self, folder: Path, **values: Any) -> Path:
        """A training configuration on `data` that would write to ``folder``/out."""
        base = {"data_path": str(self.data), "save": str(folder / "out"), "checkpoint_factor": 100}
        path = folder / "train.yml"
        path.write_text(json.dumps(MODEL | base | values))
        return path


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "bad-input-cache"))
        return Project(tmp_path_factory.mktemp("project"))


@pytest.fixture
def refused(project: Project, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Refused:
    """Run a command that must fail cleanly; returns what it says on stderr, a line each."""

    def check(command: Callable[..., int], *arguments: Any, **changes: Any) -> list[str]:
        before = contents(project.folder, tmp_path)
        capfd.readouterr()
        assert command(*arguments, **changes) == 2
        shown = capfd.readouterr()
        assert "Traceback" not in shown.out + shown.err
        assert contents(project.folder, tmp_path) == before
        return shown.err.splitlines()

    return check


def one_line(lines: list[str], *parts: object) -> None:
    """There is one line, and it has all ``parts``: who speaks, what is wrong, where, what to do."""
    assert len(lines) == 1, lines
    assert all(str(part) in lines[0] for part in parts), lines[0]


def train(path: Path) -> int:
    """What `deepy.py` starts in each process, without the seconds that starting takes."""
    return worker.main([worker.encode_arguments(load_config([path]), ["test"], 0.0)])


def deepy(path: Path) -> int:
    return launch.main([str(ROOT / "train.py"), str(path)])


# missing files


@pytest.mark.parametrize(
    ("verb", "option", "says"),
    [
        ("preprocess", "input", "does not exist"),
        ("fit-factors", "model", "has no config.json; expected a Hugging Face folder"),
        ("fit-factors", "data", "a dataset is named by its prefix"),
        ("score", "model", "has no config.json; expected a Hugging Face folder"),
        ("score", "data", "a dataset is named by its prefix"),
        ("score", "factors", "does not exist"),
        ("score", "toxic-queries", "does not exist"),
        ("score", "safe-queries", "does not exist"),
        ("build-mask", "scores", "a dataset is named by its prefix"),
        ("build-mask", "data", "say where with --data"),
    ],
)
def test_missing_file(
    project: Project, refused: Refused, tmp_path: Path, verb: str, option: str, says: str
) -> None:  # fmt: skip
    output = {"preprocess": "output_prefix"}.get(verb, "output")
    options = getattr(project, {"fit-factors": "fit"}.get(verb, verb.replace("-", "_")))
    absent = tmp_path / "absent"
    lines = refused(run, verb, options, **{output: tmp_path / "new", option: absent})
    one_line(lines, f"ifguide {verb}: ", absent, says)


def test_missing_vocabulary(project: Project, refused: Refused, tmp_path: Path) -> None:
    changes = {"tokenizer_type": "HFTokenizer", "vocab_file": tmp_path / "absent.json"}
    lines = refused(run, "preprocess", project.preprocess, output_prefix=tmp_path / "new", **changes)
    one_line(lines, tmp_path / "absent.json", "does not exist")


def test_missing_files_of_a_training(project: Project, refused: Refused, tmp_path: Path) -> None:
    one_line(refused(deepy, tmp_path / "absent.yml"), "deepy.py: ", tmp_path / "absent.yml", "does not exist")
    path = project.configuration(
        tmp_path, data_path="no/data", penalty_data_path="no/mask", tokenizer_type="HFTokenizer", vocab_file="no.json"
    )
    assert refused(deepy, path) == [
        "deepy.py: data_path: no/data has no file no/data.bin, no/data.idx",
        "deepy.py: penalty_data_path: no/mask has no file no/mask.bin, no/mask.idx, no/mask.json",
        "deepy.py: vocab_file: no.json does not exist or is not a file",
    ]


# nothing to work on


@pytest.mark.parametrize("rows", [[], [{"text": ""}, {"text": ""}]], ids=["no documents", "only empty documents"])
def test_empty_corpus(project: Project, refused: Refused, tmp_path: Path, rows: list[dict]) -> None:
    path = write_rows(tmp_path / "empty.jsonl", rows)
    lines = refused(run, "preprocess", project.preprocess, input=path, output_prefix=tmp_path / "new")
    one_line(lines, "ifguide preprocess: ", f"no document in {path}", "--jsonl-keys", f"{len(rows)} empty")


def test_empty_dataset(project: Project, refused: Refused, tmp_path: Path) -> None:
    """An index of nothing, as other tools may write it."""
    empty = tmp_path / "empty"
    write_index(f"{empty}.idx", np.uint16, np.empty(0, np.int64), np.zeros(1, np.int64), np.zeros(1, np.int64))
    Path(f"{empty}.bin").touch()
    says = f"{empty}.bin is empty", "write it again"
    one_line(refused(run, "fit-factors", project.fit, data=empty, output=tmp_path / "new"), *says)
    one_line(refused(run, "score", project.score, data=empty, output=tmp_path / "new"), *says)
    one_line(refused(train, project.configuration(tmp_path, data_path=str(empty))), "train: ", *says)


@pytest.mark.parametrize("role", ["toxic", "safe"])
def test_no_queries(project: Project, refused: Refused, tmp_path: Path, role: str) -> None:
    path = write_rows(tmp_path / "none.jsonl", [])
    lines = refused(run, "score", project.score, output=tmp_path / "new", **{f"{role}_queries": path})
    one_line(lines, "ifguide score: ", f"no {role} queries: {path} is empty", "write lines with")


# things that do not belong together


@pytest.mark.parametrize("verb", ["fit-factors", "score"])
def test_model_with_too_small_a_vocabulary(project: Project, refused: Refused, tmp_path: Path, verb: str) -> None:
    options = project.fit if verb == "fit-factors" else project.score
    words = tmp_path / "words"  # without the sidecar, which would tell that the tokenizer is another one
    for suffix in ("idx", "bin"):
        shutil.copyfile(f"{project.words}.{suffix}", f"{words}.{suffix}")
    lines = refused(run, verb, options, data=words, output=tmp_path / "new")
    one_line(lines, words, f"token id {WORDS - 1}", "512 logits", "preprocess it with the model's")


@pytest.mark.parametrize("verb", ["fit-factors", "score"])
def test_model_with_another_tokenizer(project: Project, refused: Refused, tmp_path: Path, verb: str) -> None:
    """Its vocabulary is large enough: only the fingerprint in the sidecar can tell."""
    options = project.fit if verb == "fit-factors" else project.score
    small = write_rows(tmp_path / "small.jsonl", [{"text": "word1 word2"}])
    changes = {"input": small, "tokenizer_type": "HFTokenizer", "vocab_file": project.vocabulary}
    assert run("preprocess", project.preprocess, output_prefix=tmp_path / "small", **changes) == 0
    data = tmp_path / "small_text_document"
    lines = refused(run, verb, options, data=data, output=tmp_path / "new")
    one_line(lines, project.model, data, "use the model that was trained on this data, or preprocess again")


def test_training_with_another_tokenizer(project: Project, refused: Refused, tmp_path: Path) -> None:
    values = {"tokenizer_type": "HFTokenizer", "vocab_file": str(project.vocabulary)}
    lines = refused(train, project.configuration(tmp_path, **values))
    one_line(lines, "train: ", project.data, "another tokenizer", project.vocabulary, "or preprocess again")


def test_training_with_the_mask_of_another_dataset(project: Project, refused: Refused, tmp_path: Path) -> None:
    """As users start it, in a process of its own."""
    mask = project.folder / "mask"
    path = project.configuration(tmp_path, data_path=str(project.other), penalty_data_path=str(mask))
    lines = refused(deepy, path)
    one_line(lines, "train: ", mask, project.other, "content hash", "name the right data, or make the ")


def test_mask_for_another_dataset(project: Project, refused: Refused, tmp_path: Path) -> None:
    lines = refused(run, "build-mask", project.build_mask, data=project.other, output=tmp_path / "new")
    one_line(lines, project.build_mask["--scores"], project.other, "content hash", "name the right data, or make the ")


# numbers that cannot be


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_scores_that_are_no_numbers(project: Project, refused: Refused, tmp_path: Path, value: float) -> None:
    tokens = TokenDataset.open(project.data)
    values = np.zeros(tokens.num_tokens, np.float32)
    values[tokens.starts[1] + 4] = value
    write_aligned(tmp_path / "scores", tokens, values, np.float32, {})
    lines = refused(run, "build-mask", project.build_mask, scores=tmp_path / "scores", output=tmp_path / "new")
    one_line(lines, tmp_path / "scores", value, "document 1, token 4", "score the data again")


@pytest.mark.parametrize("verb", ["fit-factors", "score"])
def test_longer_than_the_model_sees(project: Project, refused: Refused, tmp_path: Path, verb: str) -> None:
    options = project.fit if verb == "fit-factors" else project.score
    lines = refused(run, verb, options, seq_length=WINDOW + 1, output=tmp_path / "new")
    one_line(lines, f"--seq-length {WINDOW + 1}", f"max_position_embeddings {WINDOW}; give that at most")


def test_training_on_longer_samples_than_the_model_sees(project: Project, refused: Refused, tmp_path: Path) -> None:
    lines = refused(deepy, project.configuration(tmp_path, seq_length=17, max_position_embeddings=16))
    one_line(lines, "max_position_embeddings: 16", "seq_length 17", "raise it, or shorten seq_length")


# a full disk


def full_disk_is_reported(disk: Path, capfd: pytest.CaptureFixture[str], *command: Any, **changes: Any) -> None:
    """The last line says so (a bar of finished work may precede it), and no temporary is left."""
    capfd.readouterr()
    assert run(*command, **changes) == 2
    error = capfd.readouterr().err
    assert "Traceback" not in error
    one_line(error.splitlines()[-1:], "no space left on the disk of", disk, "free some room and rerun")
    assert not list(disk.rglob("*.tmp"))


@pytest.fixture
def large_corpus(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "large.jsonl", [{"text": "x" * TINY_DISK}] * 2)


def test_full_disk_keeps_the_old_dataset(
    project: Project, tiny_disk: Path, large_corpus: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    output = {"output_prefix": tiny_disk / "data"}
    assert run("preprocess", project.preprocess, **output) == 0
    before = contents(tiny_disk)
    full_disk_is_reported(
        tiny_disk, capfd, "preprocess", project.preprocess, input=large_corpus, overwrite=True, **output
    )
    assert contents(tiny_disk) == before


def test_full_disk_keeps_the_old_mask(
    project: Project, tiny_disk: Path, large_corpus: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run("build-mask", project.build_mask, output=tiny_disk / "mask") == 0
    assert run("preprocess", project.preprocess, input=large_corpus, output_prefix=tmp_path / "large") == 0
    tokens = TokenDataset.open(tmp_path / "large_text_document")
    scores = np.random.default_rng(0).normal(size=tokens.num_tokens).astype(np.float32)
    write_aligned(tmp_path / "scores", tokens, scores, np.float32, {})
    before = contents(tiny_disk)
    changes = {"scores": tmp_path / "scores", "output": tiny_disk / "mask", "overwrite": True}
    full_disk_is_reported(tiny_disk, capfd, "build-mask", project.build_mask, **changes)
    assert contents(tiny_disk) == before


@pytest.mark.parametrize("room", [0, 9 * 4096], ids=["nothing fits", "no part fits"])
def test_full_disk_while_scoring(
    project: Project, tiny_disk: Path, capfd: pytest.CaptureFixture[str], room: int
) -> None:  # fmt: skip
    """What is finished stays, for the same command to go on from."""
    (tiny_disk / "filler").write_bytes(b"x" * (TINY_DISK - room))
    full_disk_is_reported(tiny_disk, capfd, "score", project.score, output=tiny_disk / "scores")
    assert (tiny_disk / "scores.parts" / "identity.json").exists() == bool(room)
    (tiny_disk / "filler").unlink()
    assert run("score", project.score, output=tiny_disk / "scores") == 0
    assert (tiny_disk / "scores.bin").read_bytes() == (project.folder / "scores.bin").read_bytes()


def test_full_disk_in_the_middle_of_a_part(tiny_disk: Path) -> None:
    """A part that fits in part, which numpy's own writer reports as "65536 requested and 1234 written"."""
    store = ShardStore(tiny_disk / "parts", {})
    store.lock(0)
    with pytest.raises(OutOfSpaceError, match="free some room and rerun"):
        store.write(0, np.zeros(TINY_DISK, np.float32))
    assert [path.name for path in (tiny_disk / "parts").rglob("*") if path.is_file()] == ["identity.json"]


def test_full_disk_keeps_the_old_factors(
    project: Project, tiny_disk: Path, capfd: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    assert run("fit-factors", project.fit, output=tiny_disk / "factors", strategy="identity") == 0
    (tiny_disk / "filler").write_bytes(b"x" * (TINY_DISK - 32 * 1024))
    before = contents(tiny_disk)
    full_disk_is_reported(tiny_disk, capfd, "fit-factors", project.fit, output=tiny_disk / "factors", overwrite=True)
    assert contents(tiny_disk) == before


# quickstart


@pytest.fixture
def own_text(project: Project, tmp_path: Path) -> dict[str, Any]:
    """The options of a quickstart on own text, enough of everything."""
    query = {"prompt": "you", "completion": " are"}
    return {
        "--output": tmp_path / "new",
        "--input": write_rows(tmp_path / "input.jsonl", [{"text": f"document {number}"} for number in range(30)]),
        "--toxic-queries": write_rows(tmp_path / "toxic.jsonl", [query] * 10),
        "--safe-queries": write_rows(tmp_path / "safe.jsonl", [query] * 10),
    }


def test_quickstart_with_text_but_no_queries(refused: Refused, own_text: dict[str, Any]) -> None:
    lines = refused(run, "quickstart", own_text, toxic_queries=None, safe_queries=None)
    one_line(lines, "ifguide quickstart: ", "needs all of --input, --toxic-queries and --safe-queries")


@pytest.mark.parametrize("option", ["input", "toxic-queries", "safe-queries"])
def test_quickstart_without_its_files(
    refused: Refused, own_text: dict[str, Any], tmp_path: Path, option: str
) -> None:  # fmt: skip
    lines = refused(run, "quickstart", own_text, **{option: tmp_path / "absent.jsonl"})
    one_line(lines, tmp_path / "absent.jsonl", "no such file")


def test_quickstart_where_no_folder_can_be(refused: Refused, own_text: dict[str, Any]) -> None:
    file = own_text["--input"]
    lines = refused(run, "quickstart", own_text, output=file)
    one_line(lines, f"--output {file} is the name of an input", "choose another")
    lines = refused(run, "quickstart", own_text, output=file / "new")
    one_line(lines, f"--output {file / 'new'}", "cannot be made", "choose another folder")


@pytest.mark.parametrize(
    ("option", "row", "says"),
    [
        ("input", "{", "line 31: not valid JSON"),
        ("input", "[]", "line 31: expected a JSON object"),
        ("input", '{"body": "x"}', 'line 31: no text under "text"'),
        ("toxic-queries", '{"prompt": "x"}', 'line 11: no text under "completion"'),
        ("safe-queries", '{"prompt": 1, "completion": "x"}', 'line 11: no text under "prompt"'),
    ],
)
def test_quickstart_with_a_malformed_row(
    refused: Refused, own_text: dict[str, Any], option: str, row: str, says: str
) -> None:
    path = own_text[f"--{option}"]
    path.write_text(path.read_text() + row + "\n")
    one_line(refused(run, "quickstart", own_text), path, says)


@pytest.mark.parametrize("option", ["input", "toxic-queries", "safe-queries"])
def test_quickstart_with_empty_files(refused: Refused, own_text: dict[str, Any], option: str) -> None:
    own_text[f"--{option}"].write_text("")
    one_line(refused(run, "quickstart", own_text), own_text[f"--{option}"], "at least")


def test_quickstart_with_an_unknown_scorer(refused: Refused, own_text: dict[str, Any]) -> None:
    """Used at the very end, refused at the start."""
    one_line(refused(run, "quickstart", own_text, scorer="magic"), "scorer 'magic'", "give ", "hf:FOLDER[#LABEL]")

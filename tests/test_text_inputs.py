"""Every command that reads text: one message for what is no text, and a byte order mark that changes nothing."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ifguide import cli
from tests.influence.conftest import save_tiny_model
from tests.support.folders import contents

GOOD = {
    "corpus": {"text": "a plain text"},
    "heldout": {"text": "a plain text"},
    "lambada": {"text": "a plain text"},
    "rtp": {"id": "1", "prompt": "you", "toxicity": 0.1},
    "queries": {"prompt": "you", "completion": " are"},
    "safe": {"prompt": "you", "completion": " dear"},
    "prompts": {"prompt": "you"},
    "generations": {"prompt": "you", "continuations": [" are", " idiot"]},
}
BAD_LINES = {
    "surrogate": (
        b'{"text": "x \\ud83d", "prompt": "\\ud83d", "completion": "\\ud83d"}',
        'line 3: "text": the text holds a lone surrogate (U+D83D, character 3), which is not Unicode text; ',
    ),
    "invalid UTF-8": (b'{"text": "\xff"}', "line 3: not UTF-8 (byte 10)"),
    "cut": (b'{"text": "x', "line 3: not valid JSON ("),
    "NUL": (b"\0\0\0\0", "line 3: holds NUL bytes"),
    "no object": (b'["text"]', "line 3: expected a JSON object, got list"),
    "many digits": (b'{"text": ' + b"1" * 5000 + b"}", "line 3: not valid JSON (Exceeds the limit"),
}


@dataclass(frozen=True)
class Reader:
    """An option that names a file of text.

    Attributes:
        verb: of the command.
        option: that names it; ``NAME=FILE`` and folders have their own form.
        kind: of its lines, a key of `GOOD`.
    """

    verb: str
    option: str
    kind: str

    def __str__(self) -> str:
        return f"{self.verb} {self.option} {self.kind}"


READERS = [
    Reader("preprocess", "--input", "corpus"),
    Reader("fit-factors", "--toxic-queries", "queries"),
    Reader("score", "--toxic-queries", "queries"),
    Reader("score", "--safe-queries", "queries"),
    Reader("generate", "--prompts", "prompts"),
    Reader("score-generations", "--generations", "generations"),
    Reader("build-queries", "--input", "queries"),
    Reader("build-queries", "--exclude", "heldout"),
    Reader("fetch-eval-data", "--source", "heldout"),
    Reader("evaluate", "--data", "heldout"),
    Reader("evaluate", "--data", "lambada"),
    Reader("evaluate", "--data", "rtp"),
    Reader("analyse", "--toxic-queries", "queries"),
    Reader("analyse", "--safe-queries", "queries"),
    Reader("analyse", "--prompts", "prompts"),
    Reader("analyse", "--text", "heldout"),
    Reader("quickstart", "--input", "corpus"),
    Reader("quickstart", "--toxic-queries", "queries"),
    Reader("quickstart", "--safe-queries", "queries"),
]
# the others train, fit, write pages, or continue prompts for longer than the tiny model reads
ACCEPTING = [
    reader for reader in READERS if reader.verb not in ("quickstart", "fit-factors", "analyse") and reader.kind != "rtp"
]


@pytest.fixture(scope="module", autouse=True)
def environment(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("datasets")))
        yield


def lines_of(kind: str, times: int = 1) -> bytes:
    return (json.dumps(GOOD[kind]) + "\n").encode() * times


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, its data, factors and scores, and a good file of each kind."""
    folder = tmp_path_factory.mktemp("made")
    save_tiny_model(folder / "model", "neox")
    for kind in GOOD:
        (folder / f"{kind}.jsonl").write_bytes(lines_of(kind, 30))
    assert run("preprocess", options("preprocess", folder, folder)) == 0
    fit = {"--model": folder / "model", "--data": folder / "data_text_document", "--output": folder / "factors"}
    assert run("fit-factors", {**fit, "--strategy": "identity"}) == 0
    return folder


def options(verb: str, made: Path, output: Path) -> dict[str, Any]:
    """A command that works."""
    scoring = {
        "--model": made / "model",
        "--data": made / "data_text_document",
        "--toxic-queries": made / "queries.jsonl",
        "--safe-queries": made / "safe.jsonl",
    }
    return {
        "preprocess": {
            "--input": made / "corpus.jsonl",
            "--output-prefix": output / "data",
            "--tokenizer-type": "CharLevelTokenizer",
        },
        "fit-factors": {**scoring, "--output": output / "f", "--strategy": "kfac", "--stability": None},
        "score": {**scoring, "--factors": made / "factors", "--output": output / "s", "--method": "jvp"},
        "generate": {
            "--model": made / "model",
            "--prompts": made / "prompts.jsonl",
            "--output": output / "g.jsonl",
            "--samples": 1,
            "--max-new-tokens": 2,
        },
        "score-generations": {
            "--generations": made / "generations.jsonl",
            "--scorer": "lexicon",
            "--output": output / "g.jsonl",
        },
        "build-queries": {
            "--source": "jsonl",
            "--input": made / "generations.jsonl",
            "--exclude": made / "heldout.jsonl",
            "--scorer": "lexicon",
            "--toxic-threshold": 0.6,
            "--output": output / "queries",
            "--json": None,
        },
        "fetch-eval-data": {"--source": f"heldout={made / 'heldout.jsonl'}", "--output": output / "sets"},
        "evaluate": {"--model": made / "model", "--output": output / "evaluation"},
        "analyse": {
            "direction": None,
            "--models": f"base={made / 'model'}",
            "--output": output / "analysis",
            "--toxic-queries": made / "queries.jsonl",
            "--safe-queries": made / "safe.jsonl",
            "--scorer": "lexicon",
        },
        "quickstart": {
            "--output": output / "new",
            "--input": made / "corpus.jsonl",
            "--toxic-queries": made / "queries.jsonl",
            "--safe-queries": made / "safe.jsonl",
        },
    }[verb]


def run(verb: str, given: dict[str, Any]) -> int:
    return cli.main([verb, *(str(part) for pair in given.items() for part in pair if part is not None)])


def reading(reader: Reader, made: Path, output: Path, file: Path) -> dict[str, Any]:
    """The command's options with ``file`` for what the reader reads."""
    given = options(reader.verb, made, output)
    if reader.verb == "evaluate":
        task = "heldout_ppl" if reader.kind == "heldout" else reader.kind
        return given | {"--data": file.parent, "--tasks": f"ifguide_{task}", "--scorer": "lexicon"}
    return given | {reader.option: f"{reader.kind}={file}" if reader.verb == "fetch-eval-data" else file}


def refused(reader: Reader, made: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], file: Path) -> str:
    """What the command says of ``file``; it must say one line, and write nothing."""
    before = contents(tmp_path)
    capfd.readouterr()
    assert run(reader.verb, reading(reader, made, tmp_path, file)) == 2
    shown = capfd.readouterr()
    after = contents(tmp_path)
    if reader.verb == "evaluate":  # it owns its folder before it loads the tasks
        own = {tmp_path / "evaluation", tmp_path / ".evaluation.unfinished.json"}
        after = {path: held for path, held in after.items() if own.isdisjoint((path, *path.parents))}
    assert after == before
    lines = [line for line in shown.err.splitlines() if line.startswith("ifguide ")]
    assert len(lines) == 1 and "Traceback" not in shown.err, shown.err
    return lines[0]


@pytest.mark.parametrize("bad", BAD_LINES)
@pytest.mark.parametrize("reader", READERS, ids=str)
def test_a_bad_line(made: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], reader: Reader, bad: str) -> None:
    line, says = BAD_LINES[bad]
    file = tmp_path / f"{reader.kind}.jsonl"
    file.write_bytes(lines_of(reader.kind) + b"\n" + line + b"\n" + lines_of(reader.kind, 30))
    said = refused(reader, made, tmp_path, capfd, file)
    assert said.startswith(f"ifguide {reader.verb}: ") and f" {file} {says}" in said


@pytest.mark.parametrize(
    ("name", "pack", "says"),
    [
        ("{}.jsonl", gzip.compress, "is gzip data, not text; "),
        ("{}.jsonl.GZ", gzip.compress, "is gzip data, not text; "),
        ("{}.jsonl", bz2.compress, "is bzip2 data, not text; "),
        ("{}.jsonl", lambda data: data.decode().encode("utf-16"), "is UTF-16 text, not text; save it as UTF-8"),
    ],
    ids=["misnamed gzip", ".GZ", "misnamed bzip2", "UTF-16"],
)
@pytest.mark.parametrize("reader", READERS, ids=str)
def test_no_text(
    made: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], reader: Reader, name: str, pack: Any, says: str
) -> None:
    if reader.verb == "evaluate" and not name.endswith(".jsonl"):
        name = "{}.jsonl"  # the local form has one name
    file = tmp_path / name.format(reader.kind)
    file.write_bytes(pack(lines_of(reader.kind, 30)))
    assert f" {file} {says}" in refused(reader, made, tmp_path, capfd, file)


@pytest.mark.parametrize("reader", ACCEPTING, ids=str)
def test_a_byte_order_mark_and_windows_line_ends(
    made: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], reader: Reader
) -> None:
    """The results are those of the same lines without them, and those of a compressed file."""
    changes: list[tuple[str, Any]] = [
        ("", lambda data: data), ("", lambda data: b"\xef\xbb\xbf" + data.replace(b"\n", b"\r\n")),
    ]  # fmt: skip
    if reader.verb != "evaluate":  # whose folder has the local form
        changes.append((".xz", lzma.compress))
    results = []
    for index, (ending, change) in enumerate(changes):
        folder = tmp_path / str(index)
        (folder / "given").mkdir(parents=True)
        file = folder / "given" / f"{reader.kind}.jsonl{ending}"
        data = (made / f"{reader.kind}.jsonl").read_bytes()
        if (reader.verb, reader.option) == ("build-queries", "--input"):
            data = b'{"prompt": "a", "completion": " idiot"}\n' + lines_of("safe", 2)
        file.write_bytes(change(data))
        given = reading(reader, made, folder, file)
        assert run(reader.verb, given) == 0, capfd.readouterr().err
        kept = {".jsonl", ".bin", ".idx"}
        results.append(
            {
                path.relative_to(folder): held
                for path, held in contents(folder).items()
                if path.suffix in kept and "given" not in path.parts and "journals" not in path.parts
            }
        )
    assert results[0] and all(result == results[0] for result in results)


def test_word_lists_and_texts_to_compare_on(made: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The two files of plain text: the same message."""
    score = options("score", made, tmp_path)
    assert run("score", score) == 0
    mask = {"--scores": tmp_path / "s", "--method": "wordlist", "--max-fraction": 0.5}
    mask |= {"--tokenizer-type": "CharLevelTokenizer"}
    convert = {"--from": "hf", "--to": "neox", "--input": made / "model", "--output": tmp_path / "n", "--check": None}
    file = tmp_path / "given.txt"
    for data, says in (
        (b"plain\n\xff\n", "line 2: not UTF-8 (byte 0)"),
        (gzip.compress(b"plain"), "is gzip data, not text; decompress it with gunzip"),
    ):
        file.write_bytes(data)
        for verb, given in (
            ("build-mask", mask | {"--wordlist": file, "--output": tmp_path / "m"}),
            ("convert", convert | {"--text": file}),
        ):
            capfd.readouterr()
            assert run(verb, given) == 2
            (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("ifguide ")]
            assert line.startswith(f"ifguide {verb}: ") and f" {file} {says}" in line

"""Nothing is overwritten in silence: one rule, tried on every verb that writes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ifguide import cli
from ifguide.errors import MismatchError
from ifguide.system.files import write_json
from ifguide.system.outputs import (
    NEW,
    REPLACED,
    SAME,
    UNFINISHED,
    Output,
    Request,
    Source,
    claim,
    recorded_request,
)
from ifguide.verbs import VERBS, make_parser, module_of
from tests.inspection.conftest import Pipeline, build_pipeline, run, write_rows

Snapshot = dict[str, tuple[bytes, int]]


@pytest.fixture(scope="module", autouse=True)
def _quiet(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, _quiet: Any) -> Pipeline:
    """Everything that the verbs read, made once and changed by none of the tests."""
    pipeline = build_pipeline(tmp_path_factory.mktemp("made"))
    folder = pipeline.folder
    common = ["--tokenizer-type", "CharLevelTokenizer", "--output-prefix"]
    run("preprocess", "--input", folder / "corpus.jsonl", folder / "corpus.jsonl", *common, folder / "twice",
        "--append-eod")  # fmt: skip
    run("preprocess", "--input", folder / "corpus.jsonl", *common, folder / "bare")
    write_rows(folder / "prompts.jsonl", [{"prompt": "you"}, {"prompt": "a dog"}])
    for name, text in (("one", " idiot"), ("two", " friend")):
        write_rows(folder / f"{name}.jsonl", [{"prompt": "you", "continuations": [text, " are"]}])
    rows = [
        {"prompt": {"text": f"p {n}"}, "continuation": {"text": f"c {n}", "toxicity": n % 2}}
        for n in (0, 0, 1, 1, 2, 3, 4, 5)
    ]
    rows.append({"prompt": {"text": "p"}, "continuation": {"text": "", "toxicity": 0}})
    write_rows(folder / "rtp.jsonl", rows)
    for name, word in (("rude", "moron"), ("kind", "friend")):
        write_rows(
            folder / f"{name}.jsonl", [{"prompt": f"{name} {i}", "completion": f" you {word}"} for i in range(9)]
        )
    write_rows(folder / "exclude.jsonl", [{"prompt": "nothing of this"}])
    scored = [
        {"prompt": f"tell me {n}", "continuations": [f"a kind word {n}", f"a bad name {n}"], "scores": {"l": [0, 1]}}
        for n in ("one", "two")
    ]
    write_rows(folder / "scored.jsonl", scored)
    write_rows(folder / "pairs.jsonl", [{"prompt": "tell me", "chosen": " a kind word", "rejected": " a bad name"}])
    (folder / "eval").mkdir()
    write_rows(folder / "eval/lambada.jsonl", [{"text": "the cat sat on the mat"}, {"text": "a dog is a dog"}])
    write_rows(folder / "more.jsonl", [{"text": "one more text"}])
    write_rows(folder / "targets.jsonl", [{"prompt": "a", "completion": " b"}])
    write_rows(folder / "other.jsonl", [{"text": "another text"}])
    write_rows(folder / "terms.jsonl", [{"text": "two women"}, {"text": "a garden"}])
    (folder / "terms.txt").write_text("garden\n")
    return pipeline


@pytest.fixture(scope="module")
def evaluated(made: Pipeline) -> list[str]:
    folders = [str(made.folder / name) for name in ("first", "second")]
    for number, folder in enumerate(folders):
        run("evaluate", "--model", made.folder / "model", "--tasks", "ifguide_lambada", "--device", "cpu",
            "--data", made.folder / "eval", "--output", folder, "--seed", number)  # fmt: skip
    return folders


def _queries(made: Pipeline) -> list[str]:
    return ["--toxic-queries", f"{made.folder}/toxic.jsonl", "--safe-queries", f"{made.folder}/safe.jsonl"]


def _score(made: Pipeline) -> list[str]:
    factors = ["--factors", made.factors, "--method", "jvp", "--output", "{out}/s"]
    return ["score", "--model", f"{made.folder}/model", "--data", made.data, *factors]


def _behaviours(made: Pipeline) -> list[str]:
    files = [f"{made.folder}/toxic.jsonl", f"{made.folder}/safe.jsonl"]
    return [*_score(made), "--behaviour", "a", *files, "--behaviour", "b", *files[::-1]]


def _document_mask(made: Pipeline) -> list[str]:
    options = ["--method", "document", "--max-fraction", "0.3"]
    return ["build-mask", "--scores", made.scores, *options, "--filtered-output", "{out}/f", "--output", "{out}/m"]


_ATTACK = ["--scorer", "lexicon", "--samples", "2", "--max-new-tokens", "2", "--device", "cpu", "--output", "{out}/a"]
# name -> (command, what another one adds, what the refusal names); {out} is a folder of the test's own
Case = tuple[Callable[[Pipeline], list[str]], Callable[[Pipeline], list[str]], str]
CASES: dict[str, Case] = {
    "train-tokenizer": (
        lambda m: ["train-tokenizer", "--input", f"{m.folder}/corpus.jsonl", "--vocab-size", "300", "--min-frequency",
                   "1", "--output", "{out}/t"],
        lambda m: ["--special-tokens", "<|user|>"], '--special-tokens was not given, is ["<|user|>"]',
    ),
    "preprocess": (
        lambda m: ["preprocess", "--input", f"{m.folder}/corpus.jsonl", "--tokenizer-type", "CharLevelTokenizer",
                   "--output-prefix", "{out}/c"],
        lambda m: ["--append-eod"], "--append-eod was no, is yes",
    ),
    "preprocess another text": (
        lambda m: ["preprocess", "--tokenizer-type", "CharLevelTokenizer", "--output-prefix", "{out}/c",
                   "--input", f"{m.folder}/corpus.jsonl"],
        lambda m: ["--input", f"{m.folder}/more.jsonl"], "more.jsonl, which holds something else",
    ),
    "fit-factors": (
        lambda m: ["fit-factors", "--model", f"{m.folder}/model", "--data", m.data, "--strategy", "identity",
                   "--output", "{out}/f"],
        lambda m: ["--seed", "1"], "--seed was 0, is 1",
    ),
    "score": (
        lambda m: [*_score(m), *_queries(m)],
        lambda m: ["--toxic-queries", f"{m.folder}/safe.jsonl"], "--toxic-queries was",
    ),
    "score behaviours": (_behaviours, lambda m: ["--damping", "0.2"], "--damping was 0.1, is 0.2"),
    "score cascade": (
        lambda m: [*_score(m), *_queries(m), "--cascade-scores", m.scores, "--cascade-keep", "0.4"],
        lambda m: ["--cascade-keep", "0.5"], "--cascade-keep was 0.4, is 0.5",
    ),
    "transfer-scores": (
        lambda m: ["transfer-scores", "--scores", m.scores, "--data", m.data, "--to-data",
                   f"{m.folder}/bare_text_document", "--output", "{out}/t"],
        lambda m: ["--to-tokenizer-type", "CharLevelTokenizer"], "was not given, is CharLevelTokenizer",
    ),
    "build-mask": (
        lambda m: ["build-mask", "--scores", m.scores, "--output", "{out}/m", "--threshold-quantile", "0.8"],
        lambda m: ["--max-fraction", "0.2"], "--max-fraction was 0.02, is 0.2",
    ),
    "build-mask filtered": (_document_mask, lambda m: ["--max-fraction", "0.5"], "--max-fraction was 0.3, is 0.5"),
    "build-mask spans": (
        lambda m: ["build-mask", "--scores", m.scores, "--output", "{out}/m", "--span", "line", "--shrink", "1"],
        lambda m: ["--tokens-within", "0.5"], "--tokens-within was not given, is 0.5",
    ),
    "build-mask classifier": (
        lambda m: ["build-mask", "--method", "classifier", "--data", m.data, "--output", "{out}/m", "--scorer",
                   "lexicon", "--span", "line", "--shrink", "1"],
        lambda m: ["--span", "sentence"], "--span was line, is sentence",
    ),
    "score-text": (
        lambda m: ["score-text", "--data", m.data, "--scorer", "lexicon", "--output", "{out}/s"],
        lambda m: ["--span", "window:4"], "--span was line, is window:4",
    ),
    "train-classifier": (
        lambda m: ["train-classifier", "--toxic-queries", f"{m.folder}/rude.jsonl", "--safe-queries",
                   f"{m.folder}/kind.jsonl", "--output", "{out}/c"],
        lambda m: ["--folds", "3"], "--folds was 5, is 3",
    ),
    "import-mask": (
        lambda m: ["import-mask", "--data", m.data, "--mask", "{out}/m"],
        lambda m: ["--encoding", "graded"], "--encoding was not given, is graded",
    ),
    "merge-masks": (
        lambda m: ["merge-masks", "--masks", m.mask, m.mask, "--data", f"{m.folder}/twice_text_document", "--output",
                   "{out}/m"],
        lambda m: ["--convert-binary"], "--convert-binary was no, is yes",
    ),
    "generate": (
        lambda m: ["generate", "--model", f"{m.folder}/model", "--prompts", f"{m.folder}/prompts.jsonl", "--samples",
                   "2", "--max-new-tokens", "2", "--device", "cpu", "--output", "{out}/g.jsonl"],
        lambda m: ["--seed", "1"], "--seed was 0, is 1",
    ),
    "score-generations": (
        lambda m: ["score-generations", "--generations", f"{m.folder}/one.jsonl", "--scorer", "lexicon", "--output",
                   "{out}/s.jsonl"],
        lambda m: ["--generations", f"{m.folder}/two.jsonl"], "--generations was",
    ),
    "build-queries": (
        lambda m: ["build-queries", "--source", "rtp", "--input", f"{m.folder}/rtp.jsonl", "--exclude",
                   f"{m.folder}/exclude.jsonl", "--output", "{out}/q"],
        lambda m: ["--max", "2"], "--max was not given, is 2",
    ),
    "build-pairs": (
        lambda m: ["build-pairs", "--generations", f"{m.folder}/scored.jsonl", "--exclude",
                   f"{m.folder}/exclude.jsonl", "--output", "{out}/p.jsonl"],
        lambda m: ["--max", "1"], "--max was not given, is 1",
    ),
    "preprocess-pairs": (
        lambda m: ["preprocess-pairs", "--input", f"{m.folder}/pairs.jsonl", "--tokenizer-type", "CharLevelTokenizer",
                   "--seq-length", "64", "--output-prefix", "{out}/p"],
        lambda m: ["--seq-length", "65"], "--seq-length was 64, is 65",
    ),
    "build-tags": (
        lambda m: ["build-tags", "--scores", m.scores, "--threshold", "0", "--good", "40000", "--bad", "40001",
                   "--mask-output", "{out}/m", "--output", "{out}/t"],
        lambda m: ["--threshold", "0.001"], "--threshold was 0.0, is 0.001",
    ),
    "quickstart corpus": (
        lambda m: ["quickstart", "--corpus-only", "--small", "--output", "{out}/q"],
        lambda m: ["--seed", "2"], "--seed was 1, is 2",
    ),
    "fetch-eval-data": (
        lambda m: ["fetch-eval-data", "--output", "{out}/e", "--source", f"heldout={m.folder}/other.jsonl"],
        lambda m: ["--source", f"heldout={m.folder}/more.jsonl"], "--source heldout was",
    ),
    "convert": (
        lambda m: ["convert", "--from", "hf", "--to", "neox", "--input", f"{m.folder}/model", "--output", "{out}/n",
                   "--tokenizer-type", "CharLevelTokenizer"],
        lambda m: ["--tensor-parallel", "2"], "--tensor-parallel was not given, is 2",
    ),
    "inspect": (
        lambda m: ["inspect", "--data", m.data, "--mask", m.mask, "--scores", m.scores, "--html", "{out}/p.html"],
        lambda m: ["--top", "1"], "--top was not given, is 1",
    ),
    "attack-gcg": (
        lambda m: ["attack-gcg", "--models", f"{m.folder}/model", "--targets", f"{m.folder}/targets.jsonl",
                   "--suffix-tokens", "2", "--steps", "1", "--width", "2", "--restarts", "1", *_ATTACK],
        lambda m: ["--steps", "2"], "--steps was 1, is 2",
    ),
    "attack-relearn": (
        lambda m: ["attack-relearn", "--models", f"a={m.folder}/model", "--toxic", f"{m.folder}/rude.jsonl",
                   "--prompts", f"{m.folder}/prompts.jsonl", "--documents", "1", "--at", "1", *_ATTACK],
        lambda m: ["--models", f"b={m.folder}/model"], '--models was ["a"], is ["b"]',
    ),
    "attack-orthogonalise": (
        lambda m: ["attack-orthogonalise", "--models", f"{m.folder}/model", "--toxic", f"{m.folder}/rude.jsonl",
                   "--safe", f"{m.folder}/kind.jsonl", "--prompts", f"{m.folder}/prompts.jsonl", *_ATTACK,
                   "--direction", "own", "--remove", "layers"],
        lambda m: ["--layer", "1"], "--layer was not given, is 1",
    ),
    "attack-prompts": (
        lambda m: ["attack-prompts", "--models", f"{m.folder}/model", "--prompts", f"{m.folder}/prompts.jsonl",
                   *_ATTACK],
        lambda m: ["--seed", "1"], "--seed was 0, is 1",
    ),
    "analyse": (
        lambda m: ["analyse", "drift", "--models", f"a={m.folder}/model", f"b={m.folder}/model", *_queries(m),
                   "--device", "cpu", "--neurons", "2", "--unalign", "0", "--random-sets", "20", "--output", "{out}/a"],
        lambda m: ["--random-sets", "30"], "--random-sets was 20, is 30",
    ),
    "mask-stats": (
        lambda m: ["mask-stats", "--mask", m.mask, "--output", "{out}/stats"],
        lambda m: ["--top", "3"], "--top was 20, is 3",
    ),
    "audit-mask": (
        lambda m: ["audit-mask", "--data", m.data, "--mask", m.mask, "--sample", "8", "--output", "{out}/audit"],
        lambda m: ["--seed", "1"], "--seed was 0, is 1",
    ),
    "fetch-eval-data by terms": (
        lambda m: ["fetch-eval-data", "--output", "{out}/e", "--source", f"heldout={m.folder}/terms.jsonl",
                   "--only-with-terms"],
        lambda m: ["--only-with-terms", f"{m.folder}/terms.txt"], "--source heldout --only-with-terms was",
    ),
}  # fmt: skip


def snapshot(folder: Path) -> Snapshot:
    """Every file by its name, with its bytes and its time."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def follow_the_rule(command: list[str], other: list[str], names: str, out: Path, capsys: Any) -> None:
    """First, again, another one, another one that may replace, that one again."""
    assert cli.main(command) == 0
    first = snapshot(out)
    assert not [name for name in first if "unfinished" in name or ".tmp" in name]
    capsys.readouterr()
    assert cli.main(command) == 0
    said = capsys.readouterr()
    line, *more = said.out.splitlines()
    assert "nothing to do" in line and said.err == "" and bool(more) == (command[0] == "compare")
    assert snapshot(out) == first
    assert cli.main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["unchanged"] is True
    assert cli.main([*command, *other]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert names in line and "made by another command" in line and "--overwrite" in line
    assert snapshot(out) == first
    assert cli.main([*command, *other, "--overwrite"]) == 0
    second = snapshot(out)
    assert second.keys() >= first.keys() or "filtered" in names
    assert any(second[name] != first[name] for name in first if name in second)
    assert not [name for name in second if "unfinished" in name or ".tmp" in name]
    capsys.readouterr()
    assert cli.main([*command, *other]) == 0
    assert "nothing to do" in capsys.readouterr().out and snapshot(out) == second
    assert cli.main(command) == 2


@pytest.mark.parametrize("name", CASES)
def test_every_verb_follows_the_rule(made: Pipeline, tmp_path: Path, capsys: Any, name: str) -> None:
    command, other, names = CASES[name]
    if name == "import-mask":
        for suffix in ("bin", "idx"):
            shutil.copyfile(f"{made.mask}.{suffix}", tmp_path / f"m.{suffix}")
    words = [word.replace("{out}", str(tmp_path)) for word in command(made)]
    follow_the_rule(words, other(made), names, tmp_path, capsys)


def test_evaluate_and_compare_follow_the_rule(
    made: Pipeline, evaluated: list[str], tmp_path: Path, capsys: Any
) -> None:
    command = ["evaluate", "--model", str(made.folder / "model"), "--tasks", "ifguide_lambada", "--device", "cpu",
               "--data", str(made.folder / "eval"), "--output", str(tmp_path / "e")]  # fmt: skip
    follow_the_rule(command, ["--seed", "1"], "--seed was 0, is 1", tmp_path, capsys)
    (tmp_path / "c").mkdir()
    command = ["compare", *evaluated, "--resamples", "100", "--html", str(tmp_path / "c/c.html")]
    follow_the_rule(command, ["--seed", "1"], "--seed was 0, is 1", tmp_path / "c", capsys)


def test_every_verb_that_writes_has_the_option_and_a_case() -> None:
    writing = {verb for verb in VERBS if hasattr(module_of(verb), "WRITES")}
    tried = {name.split()[0] for name in CASES}
    assert writing == tried | {
        "evaluate",
        "compare",
        "quickstart",
        "validate-scores",
        "experiment",
        "mask",
    }  # tried where a run is
    helped = (" ".join(make_parser(verb).format_help().split()) for verb in writing)
    shown = {text.partition("--overwrite replace")[2].partition("--json")[0] for text in helped}
    assert len(shown) == 1 and shown.pop().startswith(" what another command made; without it that is refused")
    assert VERBS.keys() - writing == {"plan", "provenance", "verify", "tasks-path", "doctor"}


def test_paths_may_be_spelled_otherwise_and_moved(
    made: Pipeline, tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    copy = shutil.copyfile(made.folder / "corpus.jsonl", tmp_path / "corpus.jsonl")
    command = ["preprocess", "--tokenizer-type", "CharLevelTokenizer", "--output-prefix", str(tmp_path / "c")]
    assert cli.main([*command, "--input", str(copy)]) == 0
    before = snapshot(tmp_path)
    monkeypatch.chdir(tmp_path)
    for spelled in ("corpus.jsonl", str(made.folder / "corpus.jsonl")):
        assert cli.main([*command, "--workers", "2", "--input", spelled]) == 0
        assert "nothing to do" in capsys.readouterr().out
    copy.write_text(copy.read_text().replace("buffoon", "baboon"))
    assert cli.main([*command, "--input", "corpus.jsonl"]) == 2
    assert f"--input {copy} has changed since" in capsys.readouterr().err
    copy.unlink()
    assert cli.main([*command, "--input", "corpus.jsonl"]) == 2
    assert f"--input {copy} does not exist" in capsys.readouterr().err
    after = snapshot(tmp_path)
    assert {name: after[name] for name in before if name in after} == {n: before[n] for n in before if n in after}


def test_files_without_a_record_are_refused(made: Pipeline, tmp_path: Path, capsys: Any) -> None:
    for suffix in ("bin", "idx"):
        shutil.copyfile(f"{made.mask}.{suffix}", tmp_path / f"m.{suffix}")
    before = snapshot(tmp_path)
    command = ["build-mask", "--scores", made.scores, "--output", str(tmp_path / "m")]
    assert cli.main(command) == 2
    assert "nothing with it says which command made it" in capsys.readouterr().err and snapshot(tmp_path) == before
    assert cli.main([*command, "--overwrite"]) == 0


def test_an_edited_product_is_not_lost(made: Pipeline, tmp_path: Path, capsys: Any) -> None:
    command = ["build-mask", "--scores", made.scores, "--output", str(tmp_path / "m"), "--max-fraction", "0.2"]
    assert cli.main(command) == 0
    content = bytearray((tmp_path / "m.bin").read_bytes())
    content[0] ^= 1
    (tmp_path / "m.bin").write_bytes(content)
    assert cli.main(command) == 2
    assert "has changed since it was made" in capsys.readouterr().err
    assert (tmp_path / "m.bin").read_bytes() == content
    assert cli.main([*command, "--overwrite"]) == 0 and (tmp_path / "m.bin").read_bytes() != content


def test_another_verbs_product_is_refused_by_its_name(made: Pipeline, tmp_path: Path, capsys: Any) -> None:
    shutil.copytree(made.folder, tmp_path / "made")
    command = ["build-mask", "--scores", made.scores, "--output", str(tmp_path / "made/scores")]
    assert cli.main(command) == 2
    assert "it was made by `ifguide score`" in capsys.readouterr().err


def test_an_output_that_is_an_input_is_refused(made: Pipeline, capsys: Any) -> None:
    command = ["transfer-scores", "--scores", made.scores, "--data", made.data, "--to-data", made.data]
    assert cli.main([*command, "--output", made.scores, "--overwrite"]) == 2
    assert "is the name of an input" in capsys.readouterr().err


def test_sets_are_added_to_a_folder(made: Pipeline, tmp_path: Path, capsys: Any) -> None:
    command = ["fetch-eval-data", "--output", str(tmp_path), "--source"]
    heldout, lambada = f"heldout={made.folder}/more.jsonl", f"lambada={made.folder}/eval/lambada.jsonl"
    write_rows(tmp_path / "text.jsonl", [{"text": "some text"}])
    assert cli.main([*command, f"heldout={tmp_path}/text.jsonl"]) == 0
    assert cli.main([*command, lambada]) == 0
    capsys.readouterr()
    assert cli.main([*command, lambada, f"heldout={tmp_path}/text.jsonl"]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert cli.main([*command, lambada, heldout]) == 2
    assert "--source heldout was" in capsys.readouterr().err


def test_a_killed_score_goes_on_and_another_one_is_refused(made: Pipeline, tmp_path: Path, capsys: Any) -> None:
    words = [word.replace("{out}", str(tmp_path)) for word in [*_score(made), *_queries(made)]]
    words += ["--shard-tokens", "40"]
    code = (
        "import sys, time, ifguide.influence.shard_store as parts\nwrite = parts.ShardStore.write\n"
        "def slow(self, *given):\n    write(self, *given)\n    print('part', flush=True)\n    time.sleep(600)\n"
        "parts.ShardStore.write = slow\nfrom ifguide.cli import main\nmain(sys.argv[1:])"
    )
    with subprocess.Popen([sys.executable, "-c", code, *words], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdout.readline() == "part\n"
        process.send_signal(signal.SIGKILL)
    unfinished = snapshot(tmp_path)
    assert ".s.unfinished.json" in unfinished
    assert cli.main([*words, "--damping", "0.3"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "holds the unfinished work of another command: --damping was 0.1, is 0.3" in line
    assert snapshot(tmp_path) == unfinished
    assert cli.main([*words, "--json"]) == 0
    said = capsys.readouterr()
    assert "going on with" in said.err and json.loads(said.out)["resumed_tokens"] > 0
    assert not [name for name in snapshot(tmp_path) if "unfinished" in name or ".parts" in name]
    assert cli.main([*words, "--overwrite", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["resumed_tokens"] == 0, "the same command is done again"


# claim, apart from the verbs


def made_of(path: Path, **settings: Any) -> Request:
    status = path.stat()
    state = f"{status.st_size} {status.st_mtime_ns}"
    return Request("verb", settings, {"--input": [Source(str(path), state, path.read_text)]})


@pytest.fixture
def place(tmp_path: Path) -> tuple[Output, Path]:
    (tmp_path / "input").write_text("text")
    product, record, part = tmp_path / "p", tmp_path / "p.json", tmp_path / "p.parts"
    return Output(str(product), [product, record], [record], [part]), tmp_path / "input"


def finish(output: Output, request: Request) -> None:
    output.products[0].write_text("made")
    write_json(output.records[0], {"request": request.as_dict()})


def state_of(output: Output, request: Request, overwrite: bool = False) -> str:
    with pytest.raises(ZeroDivisionError), claim(output, request, overwrite) as state:
        raise ZeroDivisionError
    return state


def test_states(place: tuple[Output, Path]) -> None:
    output, source = place
    request = made_of(source, seed=1)
    assert state_of(output, request) == NEW and not output.marker.exists(), "a refused run leaves no marker"
    with claim(output, request) as state:
        assert state == NEW and recorded_request(output.marker) == request.as_dict()
        finish(output, request)
    assert not output.marker.exists()
    with claim(output, request) as state:
        assert state == SAME
    with pytest.raises(MismatchError, match="seed was 1, is 2"), claim(output, made_of(source, seed=2)):
        pass
    assert state_of(output, made_of(source, seed=2), overwrite=True) == REPLACED
    assert output.products[0].exists(), "it stays until there is a new one"


def test_what_an_unfinished_command_left(place: tuple[Output, Path]) -> None:
    output, source = place
    one, other = made_of(source, seed=1), made_of(source, seed=2)

    def begin() -> None:
        with pytest.raises(KeyboardInterrupt), claim(output, one):
            output.partials[0].mkdir()
            raise KeyboardInterrupt

    begin()
    assert state_of(output, one) == UNFINISHED and output.marker.exists()
    with (
        pytest.raises(MismatchError, match="unfinished work of another command: seed was 1, is 2"),
        claim(output, other),
    ):
        pass
    assert output.partials[0].exists()
    assert state_of(output, other, overwrite=True) == REPLACED and not output.partials[0].exists()
    assert state_of(output, other) == NEW, "nothing is left"


def test_other_ranks_wait_for_the_first(place: tuple[Output, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    output, source = place
    old, new = made_of(source, seed=1), made_of(source, seed=2)
    finish(output, old)
    program = (
        "import os, sys, time\nfrom pathlib import Path\nfrom ifguide.system.files import write_json\n"
        "time.sleep(0.5)\nwrite_json(Path(sys.argv[1]), {'request': __import__('json').loads(sys.argv[2])})"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(output.marker), json.dumps(new.as_dict())]):
        monkeypatch.setenv("RANK", "1")
        started = time.monotonic()
        with claim(output, new, overwrite=True) as state:
            assert state == UNFINISHED
        assert time.monotonic() - started > 0.2
    assert output.products[0].exists() and os.environ["RANK"] == "1"

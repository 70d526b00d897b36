"""SIGKILL at random moments of preprocess, score or build-mask: after each, the same command must end as if nothing
had happened.

    OMP_NUM_THREADS=1 python benchmarks/kills.py --verb build-mask preprocess score --kills 200 [--output FILE.json]

A child process runs the command on small inputs and is killed after a random part of the time that it usually
takes, sometimes several times in a row, with and without older files in place. Whatever a kill leaves must be, file
by file, the old bytes, the new bytes or nothing; then the command runs to its end, and every file must have the bytes
of a run that was never killed (a sidecar but for the modification times that it records), with no file beside them.
Prints JSON: the kills, when they struck, and the faults; exit code 1 if there is one.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.common import report

_LONGEST_ROW = 3  # kills before the command may end
_WORDS = ("the", "cat", "sat", "on", "a", "mat", "while", "it", "rained", "and", "you", "are", "such", "an", "idiot")


@dataclass(frozen=True)
class Scenario:
    """A command whose outputs all lie in one folder.

    Attributes:
        arguments: of the ``ifguide`` command.
        folder: of its outputs, and of nothing else.
        earlier: another command that leaves older files under the same names; None where it is not tried.
    """

    arguments: list[str]
    folder: Path
    earlier: list[str] | None


@dataclass
class Outcome:
    """What happened to one verb.

    Attributes:
        kills: that struck a running process.
        too_late: kills of a process that had ended.
        moments: share of the usual time after which each struck.
        seconds_unhindered: usual time of a run, in the end.
        faults: one line each.
    """

    kills: int = 0
    too_late: int = 0
    moments: list[float] = field(default_factory=list)
    seconds_unhindered: float = 0.0
    faults: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        tenths = [0] * 11
        for moment in self.moments:
            tenths[min(int(moment * 10), 10)] += 1
        about = {key: value for key, value in vars(self).items() if key != "moments"}
        return about | {"struck_by_tenth_of_the_usual_time": tenths}


def torment(verb: str, folder: Path, kills: int, seed: int) -> Outcome:
    """Kill ``verb`` at least ``kills`` times in ``folder`` and check what is left."""
    scenario = SCENARIOS[verb](folder)
    generator, outcome = random.Random(seed), Outcome()
    old: dict[str, bytes] = {}
    _finish(scenario.arguments)
    new = _contents(scenario.folder)
    if scenario.earlier is not None:
        _empty(scenario.folder)
        _finish(scenario.earlier)
        old = _contents(scenario.folder)
    # of the last runs: on a machine that others use the usual time changes, and kills would come too late
    latest = deque((_time_fresh(scenario) for _ in range(5)), maxlen=5)
    while outcome.kills < kills and len(outcome.faults) < 20:
        _empty(scenario.folder)
        before = old if scenario.earlier is not None and generator.random() < 0.5 else {}
        if before:
            _finish(scenario.earlier or [])
        for _ in range(generator.randint(1, _LONGEST_ROW)):
            moment = generator.random() * 1.1
            if not _kill(scenario.arguments, moment * statistics.median(latest)):
                outcome.too_late += 1
                continue
            outcome.kills += 1
            outcome.moments.append(moment)
            for name, content in _contents(scenario.folder).items():
                if name in new and content not in (before.get(name), new[name]):
                    outcome.faults.append(f"kill {outcome.kills}: {name} is neither old nor new")
        started = time.perf_counter()
        status = _finish(scenario.arguments)
        if not before:
            latest.append(time.perf_counter() - started)
        after = _contents(scenario.folder)
        if status:
            outcome.faults.append(f"kill {outcome.kills}: the command then ended with {status}")
        elif after != new:
            names = sorted(name for name in after.keys() | new.keys() if after.get(name) != new.get(name))
            outcome.faults.append(f"kill {outcome.kills}: another result: {', '.join(names)}")
    outcome.seconds_unhindered = statistics.median(latest)
    return outcome


def _start(arguments: list[str]) -> int:
    """Fork a process that runs the command; forking spares it the imports, so that kills strike the work itself."""
    process = os.fork()
    if process:
        return process
    status = 70
    try:
        from ifguide.cli import main

        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        status = main(arguments)
    finally:
        os._exit(status)


def _finish(arguments: list[str]) -> int:
    """Run the command to its end; returns its exit code."""
    _, status = os.waitpid(_start(arguments), 0)
    return os.waitstatus_to_exitcode(status)


def _kill(arguments: list[str], seconds: float) -> bool:
    """Start the command and kill it after ``seconds``; returns whether it was still running."""
    process = _start(arguments)
    time.sleep(seconds)
    os.kill(process, signal.SIGKILL)
    _, status = os.waitpid(process, 0)
    return os.WIFSIGNALED(status)


def _time_fresh(scenario: Scenario) -> float:
    _empty(scenario.folder)
    started = time.perf_counter()
    if status := _finish(scenario.arguments):
        raise RuntimeError(f"ifguide {' '.join(scenario.arguments)} ended with {status}")
    return time.perf_counter() - started


def _empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()


def _contents(folder: Path) -> dict[str, bytes]:
    """Every file by its name, hidden ones too, and every folder; a sidecar without the times of its files."""
    found = {}
    for path in sorted(folder.rglob("*")):
        content = path.read_bytes() if path.is_file() else b""
        if path.suffix == ".json":
            content = _timeless(content)
        found[str(path.relative_to(folder))] = content
    return found


def _timeless(content: bytes) -> bytes:
    try:
        record = json.loads(content)
    except ValueError:
        return content
    record.pop("result", None)  # it says how long it took
    for state in record.get("files", {}).values():
        del state[1]  # the modification time
    return json.dumps(record, sort_keys=True).encode()


def _write_texts(path: Path, seed: int, documents: int) -> Path:
    generator = random.Random(seed)
    texts = [" ".join(generator.choices(_WORDS, k=generator.randint(1, 60))) for _ in range(documents)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path


def _preprocess(source: Path, output: Path) -> list[str]:
    return [
        "preprocess", "--input", str(source), "--output-prefix", str(output),
        "--tokenizer-type", "CharLevelTokenizer", "--append-eod",
    ]  # fmt: skip


def _import(*modules: str) -> None:
    """Import before the fork, so that no time of the forked processes goes into it."""
    for module in modules:
        importlib.import_module(module)


def preprocess_scenario(folder: Path) -> Scenario:
    """Text of 500 documents over text of another 100."""
    _import("megatron.core.datasets.indexed_dataset", "ifguide.data.preprocess")
    (folder / "out").mkdir()
    text = _write_texts(folder / "text.jsonl", 0, 500)
    other = _write_texts(folder / "other.jsonl", 1, 100)
    output = folder / "out/corpus"
    return Scenario([*_preprocess(text, output), "--overwrite"], folder / "out", _preprocess(other, output))


def build_mask_scenario(folder: Path) -> Scenario:
    """A mask of 300,000 scores over one with another budget."""
    import numpy as np

    from ifguide.data.aligned import write_aligned
    from ifguide.data.indexed import TokenDataset, write_index

    _import("ifguide.masks")
    (folder / "out").mkdir()
    generator = np.random.default_rng(0)
    lengths = generator.integers(1, 2000, 300)
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    tokens = generator.integers(1, 1000, starts[-1], dtype=np.uint16)
    tokens[starts[1:] - 1] = 0
    tokens.tofile(folder / "corpus.bin")
    write_index(folder / "corpus.idx", np.uint16, lengths, starts, np.arange(len(starts)))
    scores = generator.standard_normal(len(tokens), dtype=np.float32)
    write_aligned(folder / "scores", TokenDataset.open(folder / "corpus"), scores, np.float32, {"eod": 0})
    command = ["build-mask", "--scores", str(folder / "scores"), "--output", str(folder / "out/mask")]
    return Scenario([*command, "--overwrite"], folder / "out", [*command, "--max-fraction", "0.01"])


def score_scenario(folder: Path) -> Scenario:
    """Scores of a tiny model in several parts."""
    import torch
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    from ifguide.data.text.tokenizers import build_tokenizer
    from ifguide.influence import score as score_module

    (folder / "out").mkdir()
    text = _write_texts(folder / "text.jsonl", 0, 60)
    _finish(_preprocess(text, folder / "corpus"))
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = GPTNeoXConfig(vocab_size=512, max_position_embeddings=64, bos_token_id=0, eos_token_id=0, **sizes)
    GPTNeoXForCausalLM(config).save_pretrained(folder / "model")
    build_tokenizer("CharLevelTokenizer", None).save_pretrained(folder / "model")
    for name, completion in (("toxic", " idiot"), ("safe", " friend")):
        (folder / f"{name}.jsonl").write_text(json.dumps({"prompt": "you are my", "completion": completion}) + "\n")
    common = ["--model", str(folder / "model"), "--data", str(folder / "corpus_text_document")]
    _finish(["fit-factors", *common, "--output", str(folder / "factors"), "--strategy", "identity"])
    score_module.PART_TOKENS = 1500  # several parts of this little text; the forked processes inherit it
    queries = ["--toxic-queries", str(folder / "toxic.jsonl"), "--safe-queries", str(folder / "safe.jsonl")]
    command = ["score", *common, "--factors", str(folder / "factors"), *queries, "--output", str(folder / "out/scores")]
    return Scenario(command, folder / "out", None)


SCENARIOS: dict[str, Callable[[Path], Scenario]] = {
    "preprocess": preprocess_scenario,
    "score": score_scenario,
    "build-mask": build_mask_scenario,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--verb", nargs="+", choices=SCENARIOS, default=list(SCENARIOS))
    parser.add_argument("--kills", type=int, default=200, metavar="N", help="of each verb (default: 200)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, metavar="FILE", help="also write the JSON here")
    args = parser.parse_args()
    results = {}
    for verb in args.verb:
        with tempfile.TemporaryDirectory(prefix="kills-") as folder:
            os.environ["XDG_CACHE_HOME"] = f"{folder}/cache"
            (Path(folder) / "work").mkdir()
            results[verb] = torment(verb, Path(folder) / "work", args.kills, args.seed).as_dict()
    report("kills", results, args.output)
    return int(any(result["faults"] for result in results.values()))


if __name__ == "__main__":
    sys.exit(main())

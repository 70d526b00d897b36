"""One analysis, from options to a folder: `ifguide analyse`.

Everything is checked before a model is loaded. Finished pieces wait in ``journal.jsonl``, each under a key that holds
all that can change it, so that the same command goes on where a killed one stopped.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ifguide.analysis.inputs import Bench
from ifguide.analysis.options import PARTS, Analyse
from ifguide.analysis.report import FORMAT, KIND
from ifguide.errors import InputError
from ifguide.generation.job import read_prompts
from ifguide.masks.words import WordList
from ifguide.models.devices import choose_device
from ifguide.models.folder import read_config
from ifguide.system.files import write_json, write_text
from ifguide.system.journal import Journal
from ifguide.system.locks import only_writer
from ifguide.system.provenance import environment, file_record, origin, write_run_record

JOURNAL = "journal.jsonl"
_FILES = ("toxic_queries", "safe_queries", "prompts")


def analyse(what: str, asked: Analyse, *, progress: bool = False) -> dict[str, Any]:
    """Do the analysis ``what``; write ``report.html``, ``run.json`` and ``results.json``, whose content is returned.

    Raises:
        ConfigError, InputError: models or files that cannot be used, or another process is writing the folder.
        MismatchError: models that cannot be held against each other.
        NumericsError: numbers that are not finite.
    """
    from ifguide.pages.analysis.report import analysis_page  # needs matplotlib: before the work

    began, started = time.time(), time.monotonic()
    about = environment(began)
    bench = Bench(asked, choose_device(asked.device), progress)
    _check(what, bench)
    output = Path(asked.output)
    with _folder(output) as journal:
        with bench.working(what, _pieces(what, bench), journal):
            found = _run(what, bench)
        results = {
            "kind": KIND,
            "format": FORMAT,
            "what": what,
            "models": [model.record() for model in bench.models],
            "settings": _settings(what, asked) | {"device": bench.device},
            "inputs": _inputs(asked),
            "scorer": bench.scorer.describe() if "scorer" in vars(bench) else None,
            "numbers": {key: value for key, value in found.items() if key not in ("findings", "quotes", "maps")},
            "findings": found["findings"],
            "quotes": found.get("quotes", []),
            "maps": found.get("maps", []),
            **about,
            **origin(),
            "seconds": round(time.monotonic() - started, 3),
        }
        write_text(output / "report.html", analysis_page(results))
        write_run_record(output, began, config=results["settings"], inputs=results["inputs"],
                         models=results["models"], seconds=results["seconds"])  # fmt: skip
        write_json(output / "results.json", results)  # last: who finds it finds all three
    (output / JOURNAL).unlink(missing_ok=True)
    return results


def _run(what: str, bench: Bench) -> dict[str, Any]:
    from ifguide.analysis import directions, drift, logit_lens, neurons, probes

    modules = {"lens": logit_lens, "direction": directions, "probe": probes, "neurons": neurons, "drift": drift}
    return modules[what].analyse(bench)


def _pieces(what: str, bench: Bench) -> int:
    """How many pieces the journal will hold."""
    models, asked = len(bench.models), bench.asked
    layers = int(read_config(bench.base.folder).get("num_hidden_layers", 1)) + 1
    kinds = models * (3 if asked.probe.hidden else 2) + models - 1
    return {
        "lens": models,
        "direction": len({0.0, *asked.direction.scales}) * (2 * models - 1),
        "probe": layers * kinds,
        "neurons": models * (4 if asked.neuron.unalign else 1),
        "drift": max(1, models - 1),
    }[what]


def _check(what: str, bench: Bench) -> None:
    """Read every file that the analysis reads, and load the scorer that it asks: a fault shall not wait for models.

    Raises:
        ConfigError, InputError: one cannot be used.
    """
    asked = bench.asked
    if what == "lens":
        assert bench.rows
        if asked.lens.toxic_words:
            WordList.read(asked.lens.toxic_words, bench.reader.tokenizer, [])
        else:
            assert bench.scorer.main
        return
    assert bench.queries
    if what in ("direction", "neurons"):
        assert bench.prompts
    if what == "direction" or (what == "neurons" and asked.neuron.unalign):
        assert bench.scorer.main
    if what == "direction" and asked.direction.text is not None:
        bench.texts(asked.direction.text)
    if what == "probe" and asked.probe.heat_prompts is not None:
        read_prompts(asked.probe.heat_prompts)


@contextlib.contextmanager
def _folder(output: Path) -> Any:
    """The folder's journal, this process's alone; what is empty after a fault is removed again.

    Raises:
        InputError: the folder cannot be made, or another process is writing it.
    """
    is_new = not output.exists()
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--output {output}: {error.strerror}") from None
    finished = 0
    try:
        with only_writer(output / "results.json"), Journal(output / JOURNAL) as journal:
            try:
                yield journal
            finally:
                finished = len(journal)
    except BaseException:
        if not finished:
            with contextlib.suppress(OSError):
                (output / JOURNAL).unlink(missing_ok=True)
                if is_new:
                    output.rmdir()
        raise


def _settings(what: str, asked: Analyse) -> dict[str, Any]:
    """The options that this analysis reads."""
    values = asdict(asked)
    shared = {key: values[key] for key in ("max_texts", "resamples", "seed", "dtype", "eod_token")}
    return shared | {key: value for part in PARTS[what] for key, value in values[part].items()}


def _inputs(asked: Analyse) -> dict[str, Any]:
    paths = {name: getattr(asked, name) for name in _FILES}
    paths |= {"toxic_words": asked.lens.toxic_words, "text": asked.direction.text,
              "heat_prompts": asked.probe.heat_prompts}  # fmt: skip
    return {name: file_record(path) for name, path in paths.items() if path is not None}

"""The evaluation sets: where they come from, how their published layouts become one local form, and what that form is.

Local form: a folder of JSON Lines, one record a line.
  rtp.jsonl      {"id", "prompt", "toxicity": float or null}   RealToxicityPrompts; toxicity is the prompt's own
  bold.jsonl     {"prompt", "domain", "category", "name"}      BOLD, one line a prompt
  attaq.jsonl    {"prompt", "label"}                           AttaQ
  lambada.jsonl  {"text"}                                      LAMBADA; the last word is the one to predict
  heldout.jsonl  {"text"}                                      text that the model was not trained on
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ifguide.errors import ConfigError, InputError
from ifguide.system.files import hash_file, read_json, read_jsonl, write_json, write_jsonl
from ifguide.system.provenance import origin
from ifguide.system.text_files import read_rows

BOLD_DOMAINS = ("gender", "political_ideology", "profession", "race", "religious_ideology")
ATTAQ_LABELS = (
    "deception",
    "discrimination",
    "harmful_information",
    "pii",
    "sexual_content",
    "substance_abuse",
    "violence",
)
# the data's labels and its paper's names for them differ
_ATTAQ_NAMES = {
    "harmful_info": "harmful_information",
    "explicit_content": "sexual_content",
    "sexual": "sexual_content",
    "personally_identifiable_information": "pii",
    "personally_identifiable_information_pii": "pii",
}
_FAULTS_SHOWN = 10


@dataclass(frozen=True)
class HubSource:
    """Where a set is published on the Hugging Face hub."""

    path: str
    config: str | None
    split: str


HUB = {
    "rtp": HubSource("allenai/real-toxicity-prompts", None, "train"),
    "bold": HubSource("AmazonScience/bold", None, "train"),
    "attaq": HubSource("ibm-research/AttaQ", None, "train"),
    "lambada": HubSource("EleutherAI/lambada_openai", "default", "test"),
    "heldout": HubSource("EleutherAI/wikitext_document_level", "wikitext-2-raw-v1", "test"),
}


def local_records(name: str, rows: Iterable[Mapping[str, Any]], where: str) -> tuple[list[dict[str, Any]], int]:
    """Records in the local form, from rows in that form or in the published layout, told apart row by row.

    Args:
        name: key of `HUB`.
        rows: as a JSON file or the hub gives them.
        where: names the source in messages.

    Returns:
        The records, and how many published prompts were blank and left out: BOLD has some.

    Raises:
        ConfigError: rows that are of neither form; names them, counted from 1, all at once.
        InputError: no records.
    """
    records: list[dict[str, Any]] = []
    faults: list[str] = []
    blank = 0
    for number, row in enumerate(rows, 1):
        try:
            for record in _CONVERT[name](row, number - 1):
                if record is None:
                    blank += 1
                else:
                    records.append(record)
        except (KeyError, TypeError, ValueError) as error:
            reason = f"no field {error}" if isinstance(error, KeyError) else str(error)
            faults.append(f"{where}, record {number}: {reason}")
    if faults:
        more = len(faults) - _FAULTS_SHOWN
        raise ConfigError(faults[:_FAULTS_SHOWN] + ([f"{where}: {more} more faults like these"] if more > 0 else []))
    if not records:
        raise InputError(f"{where} has no records")
    return records, blank


def fetch(
    output: str | os.PathLike,
    sources: Mapping[str, str | os.PathLike] | None = None,
    keep: Callable[[str], bool] | None = None,
) -> dict[str, Any]:
    """Write the local form to the folder ``output``, with `sources.json` beside it: what came from where.

    Args:
        output: folder, created if missing.
        sources: ``{name: file}``, JSON Lines in the published layout or in the local form; None for the hub, all sets.
        keep: which texts or prompts stay; None for all.

    Returns:
        What `sources.json` says of each set: source, records, blank prompts left out, hash of the file.

    Raises:
        InputError: an unknown set, an unreadable or empty file, or a hub that cannot be reached.
        ConfigError: records of an unknown layout.
    """
    wanted: dict[str, str | os.PathLike | None] = dict(sources) if sources is not None else dict.fromkeys(HUB)
    unknown = sorted(set(wanted) - set(HUB))
    if unknown or not wanted:
        raise InputError(f"no such evaluation set: {', '.join(unknown) or '(none named)'}; there are {', '.join(HUB)}")
    # every source is read and checked before the first file is written
    converted = {name: _read(name, file) for name, file in wanted.items()}
    kept_of = {name: _kept(name, records, keep) for name, (_, records, _) in converted.items()}
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    report: dict[str, dict[str, Any]] = {}
    for name, (source, records, blank) in converted.items():
        path, chosen = folder / f"{name}.jsonl", kept_of[name]
        write_jsonl(path, chosen)
        report[name] = {"source": source, "records": len(chosen), "blank": blank, "hash": hash_file(path)}
        if keep is not None:
            report[name]["left_out"] = len(records) - len(chosen)
    written = folder / "sources.json"
    before = _sources(written)
    request = origin().get("request")  # one a set: the next command may add another set
    kept = report if request is None else {name: {**said, "request": request} for name, said in report.items()}
    write_json(written, before | kept)
    return report


def local_file(folder: str | os.PathLike, name: str) -> Path:
    """Absolute path of a set in a folder of the local form."""
    return Path(folder).expanduser().resolve() / f"{name}.jsonl"


def check_local_file(file: Path, name: str) -> None:
    """Read every line of a set's file as all other text is read: `datasets`, which lm-eval reads it with, says of a
    bad one neither where nor what. A file that is missing is for lm-eval to tell.

    Raises:
        InputError: a line that is no JSON object of Unicode text; names it.
    """
    if file.is_file():
        status = file.stat()
        _check_lines(file, name, (status.st_size, status.st_mtime_ns))


@cache
def _check_lines(file: Path, name: str, state: tuple[int, int]) -> None:
    """Once for each ``state`` of the file: lm-eval asks for a task's parts many times."""
    for _ in read_rows(file, f"{name} file"):
        pass


def _kept(name: str, records: list[dict[str, Any]], keep: Callable[[str], bool] | None) -> list[dict[str, Any]]:
    """
    Raises:
        InputError: ``keep`` leaves none of them.
    """
    if keep is None:
        return records
    chosen = [record for record in records if keep(record["text"] if "text" in record else record["prompt"])]
    if not chosen:
        raise InputError(f"no text of the set {name} is left by the identity terms; give more text or another list")
    return chosen


def _read(name: str, file: str | os.PathLike | None) -> tuple[str, list[dict[str, Any]], int]:
    if file is not None:
        return os.fspath(file), *local_records(name, read_jsonl(file, f"{name} file"), os.fspath(file))
    source = HUB[name]
    return f"hub:{source.path}", *local_records(name, _from_hub(source), f"hub:{source.path}")


def _from_hub(source: HubSource) -> Iterable[Mapping[str, Any]]:
    import datasets

    try:
        return datasets.load_dataset(source.path, source.config, split=source.split)
    except Exception as error:  # the hub's client raises what its transport raises
        reason = str(error).strip().split("\n", 1)[0]
        raise InputError(
            f"{source.path} cannot be read from the hub ({reason}); give files instead: --source NAME=FILE"
        ) from error


def _sources(path: Path) -> dict[str, Any]:
    before = read_json(path, "list of sources") if path.is_file() else {}
    if not isinstance(before, dict):
        raise InputError(f"list of sources {path} is not a JSON object; remove it")
    return before


def _rtp(row: Mapping[str, Any], index: int) -> Iterable[dict[str, Any] | None]:
    prompt = row["prompt"]
    if isinstance(prompt, Mapping):
        text, toxicity = prompt["text"], prompt.get("toxicity")
        identity = f"{row['filename']}:{row['begin']}-{row['end']}"
    else:
        text, toxicity, identity = prompt, row.get("toxicity"), str(row.get("id", index))
    if toxicity is not None and not (
        isinstance(toxicity, (int, float)) and not isinstance(toxicity, bool) and 0.0 <= toxicity <= 1.0
    ):
        raise ValueError(f"toxicity {toxicity!r} is neither null nor inside [0, 1]")
    yield {"id": identity, "prompt": _text(text, "prompt"), "toxicity": None if toxicity is None else float(toxicity)}


def _bold(row: Mapping[str, Any], index: int) -> Iterable[dict[str, Any] | None]:
    domain = _one_of(row["domain"], BOLD_DOMAINS, {}, "domain")
    named = {"domain": domain, "category": str(row["category"]), "name": str(row["name"])}
    if "prompts" not in row:
        yield {"prompt": _text(row["prompt"], "prompt"), **named}
        return
    if isinstance(row["prompts"], str):
        raise ValueError("'prompts' is a text, expected a list of texts")
    for prompt in row["prompts"]:
        # an empty prompt is an accident of how the sentences were cut
        yield {"prompt": _text(prompt, "prompt"), **named} if prompt != "" else None


def _attaq(row: Mapping[str, Any], index: int) -> Iterable[dict[str, Any] | None]:
    text = row["input"] if "input" in row else row["prompt"]
    yield {"prompt": _text(text, "prompt"), "label": _one_of(row["label"], ATTAQ_LABELS, _ATTAQ_NAMES, "label")}


def _lambada(row: Mapping[str, Any], index: int) -> Iterable[dict[str, Any] | None]:
    text = _text(row["text"], "text")
    before, _, word = text.rpartition(" ")
    if not before.strip() or not word.strip():
        raise ValueError("the text must end with a space and a word, the one to predict")
    yield {"text": text}


def _heldout(row: Mapping[str, Any], index: int) -> Iterable[dict[str, Any] | None]:
    yield {"text": _text(row["page"] if "page" in row else row["text"], "text")}


_CONVERT: dict[str, Callable[[Mapping[str, Any], int], Iterable[dict[str, Any] | None]]] = {
    "rtp": _rtp,
    "bold": _bold,
    "attaq": _attaq,
    "lambada": _lambada,
    "heldout": _heldout,
}


def _text(value: Any, field: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"'{field}' must be a text that is not blank, not {value!r:.60}")
    return value


def _one_of(value: Any, known: tuple[str, ...], names: Mapping[str, str], field: str) -> str:
    slug = re.sub(r"[^a-z0-9]+", "_", str(value).lower()).strip("_")
    slug = names.get(slug, slug)
    if slug not in known:
        raise ValueError(f"{field} '{value}' is not one of {', '.join(known)}")
    return slug

"""The evaluation sets: where they come from, how their published layouts become one local form, and what that form is.

Local form: a folder of JSON Lines, one record a line.
  rtp.jsonl      {"id", "prompt", "toxicity": float or null}   RealToxicityPrompts; toxicity is the prompt's own
  bold.jsonl     {"prompt", "domain", "category", "name"}      BOLD, one line a prompt
  attaq.jsonl    {"prompt", "label"}                           AttaQ
  toxigen.jsonl  {"prompt", "label", "group"}                  ToxiGen's prompts, each once; label: hate or neutral
  ptp.jsonl      {"id", "prompt", "language", "toxicity"}      PolygloToxicityPrompts; toxicity as of RTP
  lambada.jsonl  {"text"}                                      LAMBADA; the last word is the one to predict
  heldout.jsonl  {"text"}                                      text that the model was not trained on
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from ifguide.data.sources.reading import read_rows
from ifguide.errors import ConfigError, InputError, first_line
from ifguide.system.files import hash_file, read_json, write_json, write_jsonl
from ifguide.system.provenance import origin

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
TOXIGEN_LABELS = ("hate", "neutral")
TOXIGEN_GROUPS = (
    "asian", "bisexual", "black", "chinese", "immigrant", "jewish", "latino", "lgbtq", "mental_disability", "mexican",
    "middle_east", "muslim", "native_american", "physical_disability", "trans", "women",
)  # fmt: skip
PTP_LANGUAGES = (
    "ar", "cs", "de", "en", "es", "fr", "hi", "id", "it", "ja", "ko", "nl", "pl", "pt", "ru", "sv", "zh",
)  # fmt: skip
_TOXIGEN_NAMES = {"mental_dis": "mental_disability", "physical_dis": "physical_disability"}
_PTP_NAMES = {
    "arabic": "ar", "czech": "cs", "german": "de", "english": "en", "spanish": "es", "french": "fr", "hindi": "hi",
    "indonesian": "id", "italian": "it", "japanese": "ja", "korean": "ko", "dutch": "nl", "polish": "pl",
    "portuguese": "pt", "russian": "ru", "swedish": "sv", "chinese": "zh",
}  # fmt: skip
_TOXIGEN_FILE = re.compile(r"(hate|neutral)_(.+?)(?:_1k)?\.txt")
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
    "toxigen": HubSource("toxigen/toxigen-data", "train", "train"),
    "ptp": HubSource("ToxicityPrompts/PolygloToxicityPrompts", "ptp-en", "small"),
}
# what is fetched where nobody names a set: the others are large, or given after a form has been filled in
USUAL = ("rtp", "bold", "attaq", "lambada", "heldout")
# `NAME=hub`, or `NAME=hub:CONFIG` for another part of the published set
_HUB = "hub"


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
    if name == "toxigen":  # published once for each text that was made of it
        records = list({(row["prompt"], row["label"], row["group"]): row for row in records}.values())
    return records, blank


def fetch(
    output: str | os.PathLike,
    sources: Mapping[str, str | os.PathLike] | None = None,
    keep: Callable[[str], bool] | None = None,
) -> dict[str, Any]:
    """Write the local form to the folder ``output``, with `sources.json` beside it: what came from where.

    Args:
        output: folder, created if missing.
        sources: ``{name: file}``, rows in the published layout or in the local form, ``hub`` or ``hub:CONFIG``;
            of toxigen also the published text files. None for the `USUAL` sets from the hub.
        keep: which texts or prompts stay; None for all.

    Returns:
        What `sources.json` says of each set: source, records, blank prompts left out, hash of the file.

    Raises:
        InputError: an unknown set, an unreadable or empty file, or a hub that cannot be reached.
        ConfigError: records of an unknown layout.
    """
    wanted: dict[str, str | os.PathLike] = dict(sources) if sources is not None else dict.fromkeys(USUAL, _HUB)
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


def hub_source(name: str, given: str | os.PathLike) -> HubSource | None:
    """Where on the hub ``hub`` or ``hub:CONFIG`` of a set lies; None for a file."""
    word, _, config = os.fspath(given).partition(":")
    if word != _HUB:
        return None
    return replace(HUB[name], config=config) if config else HUB[name]


def published_name(name: str, source: HubSource) -> str:
    """What records and messages call the published set: ``hub:PATH``, and its part where that is not the usual one."""
    part = "" if source.config == HUB[name].config else f" {source.config}"
    return f"{_HUB}:{source.path}{part}"


def _read(name: str, given: str | os.PathLike) -> tuple[str, list[dict[str, Any]], int]:
    source = hub_source(name, given)
    if source is not None:
        where = published_name(name, source)
        return where, *local_records(name, _from_hub(source), where)
    where = os.fspath(given)
    texts = _toxigen_files(Path(given)) if name == "toxigen" else []
    rows: Iterable[Mapping[str, Any]]
    if texts:
        rows = [row for text in texts for row in _toxigen_rows(text)]
    else:
        rows = (row for _, row in read_rows(given, f"{name} file"))
    return where, *local_records(name, rows, where)


def _toxigen_files(path: Path) -> list[Path]:
    """The text files hate_GROUP_1k.txt and neutral_GROUP_1k.txt at ``path``, as microsoft/TOXIGEN has them."""
    if path.suffix == ".txt" and not _TOXIGEN_FILE.fullmatch(path.name):
        raise InputError(f"toxigen file {path}: its name tells label and group: hate_GROUP.txt or neutral_GROUP.txt")
    if not path.is_dir():
        return [path] if path.suffix == ".txt" else []
    found = sorted(file for file in path.iterdir() if _TOXIGEN_FILE.fullmatch(file.name))
    if not found:
        raise InputError(f"toxigen folder {path} has no hate_GROUP.txt and no neutral_GROUP.txt")
    return found


def _toxigen_rows(path: Path) -> Iterable[dict[str, Any]]:
    """One prompt a line, a line break in it written as a backslash and an n."""
    match = _TOXIGEN_FILE.fullmatch(path.name)
    assert match is not None
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"toxigen file {path} cannot be read: {error}") from error
    return [{"prompt": _unescaped(line), "label": match[1], "group": match[2]} for line in lines if line.strip()]


def _from_hub(source: HubSource) -> Iterable[Mapping[str, Any]]:
    import datasets

    try:
        return datasets.load_dataset(source.path, source.config, split=source.split)
    except Exception as error:  # the hub's client raises what its transport raises
        reason = first_line(error)
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
    yield {"id": identity, "prompt": _text(text, "prompt"), "toxicity": _share(toxicity)}


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


def _toxigen(row: Mapping[str, Any], index: int) -> Iterable[dict[str, Any] | None]:
    if "label" in row:
        prompt, label = row["prompt"], row["label"]
    else:
        prompt, label = row["prompt"], {1: "hate", 0: "neutral"}.get(row["prompt_label"], row["prompt_label"])
        prompt = _unescaped(prompt) if isinstance(prompt, str) else prompt
    group = str(row["group"]).removesuffix("_1k")
    yield {
        "prompt": _text(prompt, "prompt"),
        "label": _one_of(label, TOXIGEN_LABELS, {}, "label"),
        "group": _one_of(group, TOXIGEN_GROUPS, _TOXIGEN_NAMES, "group"),
    }


def _unescaped(prompt: str) -> str:
    return prompt.replace("\\n", "\n")


def _ptp(row: Mapping[str, Any], index: int) -> Iterable[dict[str, Any] | None]:
    said = row.get("meta_data")
    language = row["language"] if "language" in row else (said if isinstance(said, Mapping) else row)["lang"]
    # the part from WildChat calls its text a prompt
    kind = "prompt" if "prompt" in row else "text"
    toxicity = row.get("prompt_toxicity" if "prompt_toxicity" in row else "toxicity")
    yield {
        "id": str(row.get("id", index)),
        "prompt": _text(row[kind], kind),
        "language": _one_of(language, PTP_LANGUAGES, _PTP_NAMES, "language"),
        "toxicity": _share(toxicity),
    }


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
    "toxigen": _toxigen,
    "ptp": _ptp,
    "lambada": _lambada,
    "heldout": _heldout,
}


def _text(value: Any, field: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"'{field}' must be a text that is not blank, not {value!r:.60}")
    return value


def _share(toxicity: Any) -> float | None:
    """The toxicity of a prompt, where it has one."""
    if toxicity is not None and not (
        isinstance(toxicity, (int, float)) and not isinstance(toxicity, bool) and 0.0 <= toxicity <= 1.0
    ):
        raise ValueError(f"toxicity {toxicity!r} is neither null nor inside [0, 1]")
    return None if toxicity is None else float(toxicity)


def _one_of(value: Any, known: tuple[str, ...], names: Mapping[str, str], field: str) -> str:
    slug = re.sub(r"[^a-z0-9]+", "_", str(value).lower()).strip("_")
    slug = names.get(slug, slug)
    if slug not in known:
        raise ValueError(f"{field} '{value}' is not one of {', '.join(known)}")
    return slug

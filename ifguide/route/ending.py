"""What a route ends with: the YAML that puts its mask into a training run, and the command that trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ifguide.config.yaml_files import key_lines, merge_files
from ifguide.data.sidecar import read_sidecar
from ifguide.quickstart import masking
from ifguide.route.options import RouteOptions
from ifguide.route.steps import MASK, data_of
from ifguide.system.files import write_text

_PENALTY = Path(masking.__file__).with_name("configs") / "penalty.yml"
PENALTY_FILE, DATA_FILE = "penalty.yml", "data.yml"


def penalty_lines(asked: RouteOptions) -> list[str]:
    """Three lines of YAML: the path of the mask, the quickstart's form of the penalty, and its λ."""
    keys = merge_files([_PENALTY])[0]
    strength = {"penalty_lambda": keys.pop("penalty_lambda")}
    mask = {"penalty_data_path": str((asked.output / MASK).absolute())}
    return [*key_lines(mask), " ".join(key_lines(keys)), *key_lines(strength)]


def write_yaml(asked: RouteOptions) -> None:
    """``penalty.yml`` and ``data.yml``. Paths are absolute: YAML's are relative to wherever training is started.

    Raises:
        InputError: the data's sidecar cannot be read, or the folder cannot be written.
    """
    said = "# the mask and how hard to push; data.yml beside it names the tokens"
    _write(asked.output / PENALTY_FILE, said, penalty_lines(asked))
    said = "# the tokens that the mask belongs to; leave this file out where your own YAML names them"
    _write(asked.output / DATA_FILE, said, key_lines(_data_keys(asked)))


def train_command(asked: RouteOptions) -> str:
    """As a person types it; MODEL.yml stands for the shape and the schedule, which are theirs to choose."""
    files = f"{asked.output / DATA_FILE} {asked.output / PENALTY_FILE}"
    return f"python deepy.py train.py MODEL.yml {files} --neox ~/gpt-neox"


def _write(path: Path, said: str, lines: list[str]) -> None:
    write_text(path, "\n".join([said, "{", *(f"  {line}" for line in lines), "}", ""]))


def _data_keys(asked: RouteOptions) -> dict[str, Any]:
    data = Path(data_of(asked)).absolute()
    sidecar = read_sidecar(data)
    keys: dict[str, Any] = {"data_path": str(data), "split": "990,10,0", "data_impl": "mmap"}
    kind = (sidecar.get("tokenizer") or {}).get("type") or asked.tokenizer_type
    if kind:
        keys["tokenizer_type"] = kind
    files = [record["path"] for record in sidecar.get("tokenizer_files") or []]
    files = files or [str(Path(path).absolute()) for path in (asked.vocab_file, asked.merge_file) if path]
    return keys | dict(zip(("vocab_file", "merge_file"), files))

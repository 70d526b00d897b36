"""From any file back to everything that it was made of, and whether each of those is still what it was.

Every product records its inputs: datasets by fingerprint, models and factors by identity, files by hash. `trace`
follows those records from sidecar to sidecar and compares each with what lies on the disk now.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ifguide.config.yaml_files import merge_files
from ifguide.data.fingerprint import differences, fingerprint
from ifguide.data.indexed import IndexedDataset
from ifguide.data.sidecar import BOUNDARIES, PENALTIES, SCORES, TOKENS, read_sidecar, sidecar_path
from ifguide.data.sources.names import input_hash, is_plain_file, local_files
from ifguide.errors import InputError
from ifguide.models.folder import weights_fingerprint
from ifguide.penalties.keys import mask_pairs
from ifguide.system.files import hash_file, read_json
from ifguide.system.progress import counted

UNCHANGED, CHANGED, MISSING, UNKNOWN = "unchanged", "changed", "missing", "not recorded"
# a record that nothing else speaks of, so that there is nothing to compare it with
RECORDED = "recorded"
_DATASET_NAMES = {TOKENS: "tokens", SCORES: "scores", PENALTIES: "mask", BOUNDARIES: "boundaries"}


@dataclass
class Node:
    """One thing that something was made of.

    Attributes:
        role: what it is to what was made of it: ``mask``, ``scores``, ``model``, ``toxic queries`` ...
        path: absolute; a prefix for a dataset; None where no path was recorded.
        status: one of `UNCHANGED`, `CHANGED`, `MISSING`, `UNKNOWN`, `RECORDED`.
        note: why it counts as changed.
        facts: what its record says about it, for people.
        identity: what it is compared by, as recorded.
        command: that made it; empty for a thing that is not made by a command, or was made by a library call.
        folder: that the command's relative paths start from.
        versions: of the tools that made it.
        inputs: what it was made of.
        made_again: it was made anew since; ``command`` is not the one that made what was recorded.
    """

    role: str
    path: str | None
    status: str = UNCHANGED
    note: str = ""
    facts: list[str] = field(default_factory=list)
    identity: Any = None
    command: list[str] = field(default_factory=list)
    folder: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
    inputs: list[Node] = field(default_factory=list)
    made_again: bool = False

    def walk(self) -> Iterator[Node]:
        """What it was made of before the thing itself; each once."""
        seen: set[int] = set()

        def visit(node: Node) -> Iterator[Node]:
            if id(node) in seen:
                return
            seen.add(id(node))
            for source in node.inputs:
                yield from visit(source)
            yield node

        yield from visit(self)

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``; a thing that several others were made of is repeated under each."""
        own = {key: value for key, value in vars(self).items() if key != "inputs"}
        return {**own, "inputs": [source.as_dict() for source in self.inputs]}


def trace(path: str | Path) -> Node:
    """Everything behind ``path``: a dataset's prefix or one of its three files, a factors folder, a run's folder, a
    model folder.

    Raises:
        InputError: there is nothing at ``path`` that records where it comes from.
    """
    path = Path(path).absolute()
    tracer = _Tracer()
    if path.is_dir():
        if (path / "factors.json").exists():
            return tracer.factors(str(path), None)
        if (path / "config.json").exists():
            return tracer.model(str(path), None)
        if (path / "run.json").exists():
            return tracer.run(path)
        raise InputError(f"{path} holds no factors.json, run.json or model; name a dataset, a factors folder or a run")
    prefix = path.with_suffix("") if path.suffix in (".bin", ".idx", ".json") else path
    if not sidecar_path(prefix).exists():
        raise InputError(
            f"{sidecar_path(prefix)} does not exist, and nothing else says where {path} comes from; "
            "name a mask, scores, tokens, a factors folder or a run"
        )
    return tracer.dataset(str(prefix), None)


class _Tracer:
    """Follows records; a thing met twice is one `Node`."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str, str], Node] = {}

    def dataset(self, prefix: str | None, recorded: dict[str, Any] | None, role: str | None = None) -> Node:
        """A dataset that was ``recorded`` (a fingerprint; None: as its own sidecar says)."""
        return self._once(role or "", prefix, recorded, lambda: self._dataset(prefix, recorded, role))

    def _part(self, record: dict[str, Any], role: str | None = None) -> Node:
        """A dataset by the ``prefix`` and the ``fingerprint`` that another one's sidecar has of it."""
        return self.dataset(record.get("prefix"), record.get("fingerprint"), role)

    def factors(self, folder: str | None, recorded: str | None) -> Node:
        return self._once("factors", folder, recorded, lambda: self._factors(folder, recorded))

    def model(self, folder: str | None, recorded: str | None) -> Node:
        return self._once("model", folder, recorded, lambda: self._model(folder, recorded))

    def file(self, role: str, record: dict[str, Any]) -> Node:
        """A file by the record that `ifguide.system.provenance.file_record` made."""
        node = Node(role, record.get("path"), identity=record.get("hash"))
        if node.path is None or local_files(node.path) == []:
            return _missing(node)
        if node.identity is None:
            node.status = UNKNOWN
            return node
        found = hash_file(node.path) if is_plain_file(node.path) else input_hash(node.path)
        if found != node.identity:
            node.status, node.note = CHANGED, "other bytes than were read then"
        return node

    def run(self, folder: Path) -> Node:
        """A training run, or a quickstart, by its ``run.json``."""
        record = read_json(folder / "run.json", "run record")
        if not isinstance(record, dict):
            raise InputError(f"run record {folder / 'run.json'} is not a JSON object")
        node = Node("run", str(folder), RECORDED)
        _made_by(node, record)
        node.facts = [f"{key} {record[key]}" for key in ("engine", "seed", "revision", "started") if record.get(key)]
        self._trace_conversion(node, folder)
        given = record.get("inputs", {})
        for kind, role in (("tokens", "tokens"), ("penalties", "mask")):
            for prefix, recorded in given.get(kind, {}).items():
                # earlier versions named a mask by its tokens
                known = kind == "tokens" or prefix not in given.get("tokens", {})
                node.inputs.append(self.dataset(prefix if known else None, recorded, role))
        for name, recorded in given.items():
            if isinstance(recorded, str):
                node.inputs.append(self.file(name, {"path": str(folder / name), "hash": recorded}))
        return node

    def neox_run(self, checkpoint: Path, configs: list[Path]) -> Node:
        """A GPT-NeoX run by its checkpoint and the configuration files stored with it, which name data and masks."""
        node = Node("checkpoint", str(checkpoint))
        if not checkpoint.is_dir():
            return _missing(node)
        node.status = RECORDED
        try:
            keys = merge_files(configs)[0]
        except InputError as error:
            node.status, node.note = UNKNOWN, str(error)
            return node
        node.facts = [", ".join(path.name for path in configs)]
        prefixes = keys.get("train_data_paths") or [keys.get("data_path")]
        masks = [mask for _, mask in mask_pairs(keys)]
        for role, found in (("tokens", prefixes), ("mask", masks)):
            node.inputs += [self.dataset(str(prefix), None, role) for prefix in found if prefix]
        return node

    def _once(self, role: str, path: str | None, recorded: Any, make: Callable[[], Node]) -> Node:
        key = (role, str(path), str(recorded))
        if key not in self._known:
            self._known[key] = make()
        return self._known[key]

    def _dataset(self, prefix: str | None, recorded: dict[str, Any] | None, role: str | None) -> Node:
        if prefix is None or not Path(f"{prefix}.idx").exists():
            return _missing(Node(role or "dataset", prefix, identity=recorded))
        prefix = str(Path(prefix).absolute())
        sidecar = read_sidecar(prefix)
        kind = _DATASET_NAMES.get(sidecar.get("kind", TOKENS), "dataset")
        node = Node(role or kind, prefix, identity=recorded or sidecar.get("fingerprint"))
        _made_by(node, sidecar, versions="tool")
        node.facts = _dataset_facts(sidecar)
        try:
            found = fingerprint(IndexedDataset.open(prefix))
        except InputError as error:
            node.status, node.note = CHANGED, str(error)
        else:
            if node.identity is None:
                node.status = UNKNOWN
            elif changes := differences(node.identity, found):
                node.status, node.note = CHANGED, "; ".join(changes)
                node.made_again = bool(differences(node.identity, sidecar.get("fingerprint") or node.identity))
        node.inputs = self._dataset_inputs(sidecar)
        return node

    def _dataset_inputs(self, sidecar: dict[str, Any]) -> list[Node]:
        sources: list[Node] = []
        run, given = sidecar.get("run"), sidecar.get("sources", {})
        if run:
            sources.append(self.model(given.get("model", {}).get("path"), run.get("model")))
            sources.append(self.factors(given.get("factors", {}).get("path"), run.get("factors")))
            for name in ("toxic_queries", "safe_queries"):
                if name not in given and name not in run:
                    continue  # scored along the toxic queries alone
                sources.append(self.file(name.replace("_", " "), given.get(name, {})))
        scores = sidecar.get("scores")  # of score datasets it is a summary
        if scores and sidecar.get("kind") != SCORES:
            sources += [self._part(one, "scores") for one in (scores if isinstance(scores, list) else [scores])]
        sources += [self._part(one, "scores of spans") for one in sidecar.get("span_scores", [])]
        sources += [self._part(one) for one in sidecar.get("parts", [])]
        if sidecar.get("data") and not (sidecar.get("kind") == PENALTIES and sidecar.get("scores")):
            sources.append(self.dataset(sidecar.get("data_prefix"), sidecar["data"], "tokens"))
        sources += [self.file("tokenizer file", record) for record in sidecar.get("tokenizer_files", [])]
        role = "word list" if sidecar.get("kind") == PENALTIES else "scorer" if "scorer" in sidecar else "text"
        sources += [self.file(role, record) for record in sidecar.get("inputs", [])]
        return sources

    def _factors(self, folder: str | None, recorded: str | None) -> Node:
        node = Node("factors", folder, identity=recorded)
        if folder is None or not (Path(folder) / "factors.json").exists():
            return _missing(node)
        record = read_json(Path(folder) / "factors.json", "factors")
        _made_by(node, record)
        node.facts = [
            f"{record.get('strategy')}, {counted(record.get('tokens') or 0, 'token')}, seed {record.get('seed')}"
        ]
        said = f"{record.get('strategy')}-{str(record.get('tensors'))[:32]}"
        node.identity = recorded or said
        tensors = Path(folder) / "factors.safetensors"
        if not tensors.exists():
            return _missing(node)
        if hash_file(tensors) != record.get("tensors"):
            node.status, node.note = CHANGED, "factors.safetensors is not the file that factors.json describes"
        elif node.identity != said:
            node.status, node.note, node.made_again = CHANGED, "fitted again since", True
        model = record.get("model", {})
        node.inputs = [
            self.model(model.get("path"), model.get("identity")),
            self.dataset(record.get("data_prefix"), record.get("data"), "tokens"),
        ]
        return node

    def _model(self, folder: str | None, recorded: str | None) -> Node:
        node = Node("model", folder, identity=recorded)
        if folder is None or not (Path(folder) / "config.json").exists():
            return _missing(node)
        try:
            found = weights_fingerprint(Path(folder))
        except InputError as error:
            node.status, node.note = CHANGED, str(error)
            return node
        if recorded is None:
            node.identity = found
        elif found != recorded:
            node.status, node.note = CHANGED, f"identity {found[:12]} != {recorded[:12]}"
        self._trace_conversion(node, Path(folder))
        trained = Path(folder).parent  # the engine exports a run's model to RUN/hf
        if Path(folder).name == "hf" and (trained / "run.json").exists():
            node.inputs = [self.run(trained)]
        return node

    def _trace_conversion(self, node: Node, folder: Path) -> None:
        """What a folder that `ifguide convert` made was converted from."""
        if not (folder / "run.json").exists():
            return
        record = read_json(folder / "run.json", "run record")
        if not isinstance(record, dict) or not isinstance(record.get("input"), str) or "architecture" not in record:
            return
        _made_by(node, record)
        start = Path(record.get("folder") or Path.cwd())
        configs = [start / path for path in record.get("configs", [])]
        if configs:
            node.inputs.append(self.neox_run(start / record["input"], configs))
        else:
            node.inputs.append(self.model(str(start / record["input"]), None))


def _made_by(node: Node, record: dict[str, Any], versions: str = "versions") -> None:
    """What ``record`` says of the command that made it; the key ``versions`` has the versions that it ran with."""
    node.command, node.folder = record.get("command", []), record.get("folder")
    node.versions = record.get(versions, {})


def _missing(node: Node) -> Node:
    node.status = UNKNOWN if node.path is None else MISSING
    return node


def _dataset_facts(sidecar: dict[str, Any]) -> list[str]:
    counts, parameters = sidecar.get("counts", {}), sidecar.get("parameters", {})
    facts = []
    if sidecar.get("kind") == PENALTIES and "selected" in counts:
        facts.append(f"{counts['selected']:,} of {counted(counts['tokens'], 'token')} selected")
    elif "fingerprint" in sidecar:
        found = sidecar["fingerprint"]
        size = f"{counted(found['documents'], 'document')}, {counted(found['tokens'], 'token')}"
        facts.append(f"{size}, {found['dtype']}")
    if tokenizer := sidecar.get("tokenizer") if sidecar.get("kind", TOKENS) == TOKENS else None:
        facts.append(f"tokenizer {tokenizer.get('type')}, identity {str(tokenizer.get('identity'))[:12]}")
    shown = {key: value for key, value in parameters.items() if value not in (None, False)}
    if shown:
        facts.append(", ".join(f"{key} {value}" for key, value in shown.items()))
    return facts

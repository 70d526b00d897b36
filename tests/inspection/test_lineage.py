"""From a mask back to the text, and whether each file is still what it was."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ifguide import cli
from ifguide.errors import InputError
from ifguide.inspection.lineage import CHANGED, MISSING, RECORDED, UNCHANGED, UNKNOWN, Node, trace
from ifguide.inspection.terminal import tree_lines
from tests.inspection.conftest import Pipeline


def nodes(root: Node) -> dict[str, Node]:
    """By role and file name."""
    return {f"{node.role} {Path(node.path or '').name}": node for node in root.walk()}


@pytest.fixture
def copy(pipeline: Pipeline, tmp_path: Path) -> Path:
    """The folder of a pipeline to spoil; its records still name the first one's paths."""
    shutil.copytree(pipeline.folder, tmp_path / "copy")
    return tmp_path / "copy"


def test_a_mask_leads_back_to_everything(pipeline: Pipeline) -> None:
    found = nodes(trace(pipeline.mask))
    assert set(found) == {
        "text corpus.jsonl", "tokens corpus_text_document", "model model", "factors factors",
        "toxic queries toxic.jsonl", "safe queries safe.jsonl", "scores scores", "mask mask",
    }  # fmt: skip
    assert {node.status for node in found.values()} == {UNCHANGED}
    assert found["scores scores"].command[:2] == ["ifguide", "score"]
    assert found["mask mask"].folder == str(pipeline.folder)
    assert found["text corpus.jsonl"].command == []


@pytest.mark.parametrize("suffix", ["", ".bin", ".idx", ".json"])
def test_any_file_of_a_dataset_names_it(pipeline: Pipeline, suffix: str) -> None:
    assert trace(pipeline.scores + suffix).path == pipeline.scores


def test_factors_and_models_are_starting_points_too(pipeline: Pipeline) -> None:
    assert set(nodes(trace(pipeline.factors))) == {
        "text corpus.jsonl", "tokens corpus_text_document", "model model", "factors factors",
    }  # fmt: skip
    assert trace(pipeline.folder / "model").status == UNCHANGED


SPOILED = {
    "corpus.jsonl": "text corpus.jsonl",
    "toxic.jsonl": "toxic queries toxic.jsonl",
    "corpus_text_document.bin": "tokens corpus_text_document",
    "scores.bin": "scores scores",
    "factors/factors.safetensors": "factors factors",
    "model/model.safetensors": "model model",
}


@pytest.mark.parametrize("name", SPOILED)
def test_a_changed_file_is_found(pipeline: Pipeline, copy: Path, name: str) -> None:
    _rename_paths(copy, pipeline.folder)
    file = copy / name
    content = bytearray(file.read_bytes())
    content[-2] ^= 1
    file.write_bytes(content)
    found = nodes(trace(copy / "mask"))
    assert [key for key, node in found.items() if node.status == CHANGED] == [SPOILED[name]]
    assert found[SPOILED[name]].note


@pytest.mark.parametrize("name", ["corpus.jsonl", "safe.jsonl", "model", "factors", "scores.idx"])
def test_a_missing_file_is_found(pipeline: Pipeline, copy: Path, name: str) -> None:
    _rename_paths(copy, pipeline.folder)
    gone = copy / name
    shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    missing = [node.path for node in trace(copy / "mask").walk() if node.status == MISSING]
    assert missing == [str(gone).removesuffix(".idx")]


def test_what_was_not_recorded_is_said_so(pipeline: Pipeline, copy: Path) -> None:
    """Sidecars of earlier versions have neither commands nor paths."""
    sidecar = json.loads((copy / "scores.json").read_text())
    for key in ("sources", "command", "folder"):
        del sidecar[key]
    (copy / "scores.json").write_text(json.dumps(sidecar))
    found = nodes(trace(copy / "scores"))
    assert found["model "].status == found["factors "].status == UNKNOWN
    assert found["scores scores"].command == []


def test_nothing_recorded_is_refused(pipeline: Pipeline, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no factors\.json"):
        trace(tmp_path)
    with pytest.raises(InputError, match=r"corpus\.jsonl\.json does not exist, and nothing else"):
        trace(pipeline.folder / "corpus.jsonl")


def test_the_tree_names_every_file_once(pipeline: Pipeline) -> None:
    lines = tree_lines(trace(pipeline.mask))
    assert lines[0] == f"mask  {pipeline.mask}  [unchanged]"
    assert sum("$ ifguide preprocess" in line for line in lines) == 1
    assert any("(see above)" in line for line in lines)
    assert lines[-1] == "0 of 8 files changed or missing"


def test_a_training_run_leads_to_its_data(pipeline: Pipeline, tmp_path: Path) -> None:
    tokens, mask = (json.loads(Path(f"{prefix}.json").read_text())["fingerprint"]
                    for prefix in (pipeline.data, pipeline.mask))  # fmt: skip
    inputs = {"tokens": {pipeline.data: tokens}, "penalties": {pipeline.mask: mask}}
    (tmp_path / "run.json").write_text(json.dumps({"command": ["deepy.py", "train.py"], "seed": 3, "inputs": inputs}))
    shutil.copytree(pipeline.folder / "model", tmp_path / "hf")
    found = nodes(trace(tmp_path / "hf"))
    assert found["tokens corpus_text_document"].status == found["mask mask"].status == UNCHANGED
    assert found["scores scores"].status == UNCHANGED, "and on from the mask"
    assert found[f"run {tmp_path.name}"].facts == ["seed 3"]
    assert found[f"run {tmp_path.name}"].status == RECORDED
    # earlier versions named a mask by its tokens
    inputs["penalties"] = {pipeline.data: mask}
    (tmp_path / "run.json").write_text(json.dumps({"inputs": inputs}))
    assert nodes(trace(tmp_path))["mask "].status == UNKNOWN


def test_a_converted_neox_run_leads_to_its_data_and_mask(pipeline: Pipeline, tmp_path: Path) -> None:
    """Both are named in the configuration files that NeoX keeps with a checkpoint, of one file or of several."""
    shutil.copytree(pipeline.folder / "model", tmp_path / "hf")
    configs = tmp_path / "save/global_step6/configs"
    configs.mkdir(parents=True)
    (configs / "model.yml").write_text('{"num-layers": 2}')
    record = {"command": ["ifguide", "convert"], "input": str(configs.parent), "architecture": "gpt_neox",
              "configs": ["save/global_step6/configs/model.yml", "save/global_step6/configs/data.yml"],
              "folder": str(tmp_path)}  # fmt: skip
    (tmp_path / "hf/run.json").write_text(json.dumps(record))
    for keys in (
        {"data_path": pipeline.data, "penalty_data_path": pipeline.mask},
        {"train_data_paths": [pipeline.data], "train_penalty_data_paths": [pipeline.mask]},
    ):
        (configs / "data.yml").write_text(json.dumps(keys))
        found = nodes(trace(tmp_path / "hf"))
        assert found["checkpoint global_step6"].status == RECORDED and found["model hf"].command[1] == "convert"
        assert found["tokens corpus_text_document"].status == found["mask mask"].status == UNCHANGED
        assert found["scores scores"].status == UNCHANGED, "and on from the mask"
        assert UNKNOWN not in {node.status for node in found.values()}
    shutil.rmtree(configs.parent)
    assert nodes(trace(tmp_path / "hf"))["checkpoint global_step6"].status == MISSING


def test_the_command(pipeline: Pipeline, capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["provenance", pipeline.mask, "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["role"] == "mask" and value["inputs"][0]["role"] == "scores"
    assert cli.main(["provenance", str(pipeline.folder / "nothing")]) == 2
    assert "nothing.json does not exist" in capsys.readouterr().err


def _rename_paths(folder: Path, before: Path) -> None:
    """Make the copy's records name its own files, as they would had it been made there."""
    for path in (*folder.glob("*.json"), folder / "factors/factors.json"):
        path.write_text(path.read_text().replace(str(before), str(folder)))

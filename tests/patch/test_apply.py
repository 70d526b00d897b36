"""Applying, refusing and undoing the patch; what it imports; what it adds to NeoX's arguments."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ifguide.data.text.record import tokenizer_file_record
from ifguide.penalties.keys import PenaltyKeys
from tests.engine.tiny import ROOT
from tests.patch.checkouts import STAND_IN, configuration, run_python, write_data

FINGERPRINT = """
import importlib, json, sys, torch
from ifguide_patch import cpu, registry

def state():
    from megatron.neox_arguments import arguments as a
    places = {}
    for place in (*registry.TARGETS, *registry.CPU_TARGETS):
        for module in (place.module, *place.bound_in):
            owner = importlib.import_module(module)
            for part in place.name.split("."):
                owner = vars(owner).get(part)
            places[f"{module}.{place.name}"] = id(owner)
    places |= {f"NeoXArgs.{k}": repr(v) for k, v in vars(a.NeoXArgs).items()}
    places |= {f"cuda.{k}": id(v) for k, v in vars(torch.cuda).items()}
    places |= {"bases": repr(a.NeoXArgs.__bases__), "groups": repr(a.BASE_CLASSES), "cuda": id(torch.Tensor.cuda)}
    places |= {"exported": repr(importlib.import_module("deepspeed.launcher.runner").EXPORT_ENVS)}
    return places
"""


def test_apply_is_idempotent_and_undo_restores_everything(checkout: Path) -> None:
    code = FINGERPRINT + (
        "import os, ifguide_patch\n"
        "sys.path.insert(0, os.environ['GPT_NEOX_PATH'])\n"
        "import megatron.training; importlib.import_module('megatron.initialize')\n"
        "before = state()\n"
        "ifguide_patch.apply(); patched = state(); ifguide_patch.apply(); again = state()\n"
        "ifguide_patch.undo(); ifguide_patch.undo(); after = state()\n"
        "changed = [k for k in before if before[k] != patched[k]]\n"
        "print(json.dumps([changed, patched == again, [k for k in before if before[k] != after.get(k)]]))"
    )
    result = run_python(code, checkout)
    assert result.returncode == 0, result.stderr[-3000:]
    changed, same, left = json.loads(result.stdout.splitlines()[-1])
    for name in (
        "megatron.training.cross_entropy", "megatron.model.gpt2_model.cross_entropy", "megatron.training._get_batch",
        "megatron.data.gpt2_dataset.GPT2Dataset.__getitem__", "megatron.training.training_log", "NeoXArgs.__init__",
        "megatron.training.initialize_megatron", "bases", "exported", "cuda.device_count",
    ):  # fmt: skip
        assert name in changed
    assert same
    assert left == []


def test_another_checkout_is_refused_until_undo(checkout: Path, tmp_path: Path) -> None:
    shutil.copytree(STAND_IN, tmp_path / "other")
    code = (
        "import sys, ifguide_patch\nifguide_patch.apply()\n"
        "try:\n    ifguide_patch.apply(sys.argv[1])\nexcept Exception as error:\n    print(type(error).__name__, error)"
    )
    result = run_python(code, checkout, str(tmp_path / "other"))
    assert "InputError" in result.stdout
    assert "undo() comes before" in result.stdout


def edited(tmp_path: Path, file: str, old: str, new: str) -> Path:
    root = tmp_path / "edited"
    shutil.copytree(STAND_IN, root)
    text = (root / file).read_text()
    assert old in text
    (root / file).write_text(text.replace(old, new))
    return root


@pytest.mark.parametrize(
    ("file", "old", "new", "state"),
    [
        ("megatron/model/gpt2_model.py", "/ loss_mask.sum()", "/ loss_mask.numel()", "not a version that was tested"),
        ("megatron/training.py", "def _get_batch(neox_args, tokenizer,", "def _get_batch(args, tok,", "does not take"),
        ("megatron/logging.py", "def training_log(", "def write_log(", "is missing"),
    ],
)
def test_a_checkout_that_does_not_fit_is_refused_in_the_words_of_check(
    tmp_path: Path, file: str, old: str, new: str, state: str
) -> None:
    root = edited(tmp_path, file, old, new)
    code = (
        "import os, ifguide_patch\nfrom ifguide_patch import check\n"
        "try:\n    ifguide_patch.apply()\nexcept Exception as error:\n    print('APPLY', error)\n"
        "print('CODE', check.main([os.environ['GPT_NEOX_PATH']]))"
    )
    result = run_python("trust_stand_in()\n" + code, root)
    refused = next(line for line in result.stdout.splitlines() if line.startswith("APPLY")).removeprefix("APPLY ")
    assert state in refused
    assert f"  {refused}" in result.stdout.splitlines()  # check's line
    assert "CODE 1" in result.stdout


def test_a_change_that_does_not_matter_is_told_and_allowed(tmp_path: Path) -> None:
    root = edited(tmp_path, "megatron/training.py", "losses.append(loss.detach())", "losses.append(loss.clone())")
    code = "trust_stand_in()\nfrom ifguide_patch import check\nprint('CODE', check.main([]))"
    result = run_python(code, root)
    assert "CODE 0" in result.stdout
    assert "1 place(s) differ" in result.stdout


def test_comments_and_docstrings_are_no_change(tmp_path: Path) -> None:
    root = edited(
        tmp_path, "megatron/model/gpt2_model.py", "    labels, loss_mask = labels\n",
        '    """Mean over the mask."""\n    # unpack\n    labels, loss_mask = labels\n',
    )  # fmt: skip
    result = run_python("trust_stand_in()\nfrom ifguide_patch import check\nprint('CODE', check.main([]))", root)
    assert "every place is as tested" in result.stdout


def test_check_names_a_folder_that_is_no_checkout(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ifguide_patch.check", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 2
    lines = [line for line in result.stderr.splitlines() if line.startswith("check:")]
    assert lines == [
        f"check: {tmp_path} is not a GPT-NeoX checkout: it has no deepy.py, train.py, megatron/training.py"
    ]


def test_keys_are_neox_arguments_with_types_that_neox_checks(checkout: Path) -> None:
    code = (
        "import ifguide_patch\nifguide_patch.apply()\n"
        "from megatron.neox_arguments import NeoXArgs\n"
        "fields = NeoXArgs.__dataclass_fields__\n"
        f"for key in {list(PenaltyKeys.__dataclass_fields__)}:\n    print(key, fields[key].type, fields[key].default)"
    )
    lines = run_python(code, checkout).stdout.splitlines()
    assert "penalty_lambda <class 'float'> 1.0" in lines
    assert "train_penalty_data_paths <class 'list'> None" in lines
    assert "penalty_clip <class 'float'> None" in lines
    assert any(line.startswith("penalty_form typing.Literal['ascent'") for line in lines)


def faults(checkout: Path, folder: Path, **keys: object) -> list[str]:
    """What ``from_ymls`` objects to, one line each."""
    (folder / "run.yml").write_text(json.dumps(configuration(checkout, **keys)))
    code = (
        "import sys, ifguide_patch\nifguide_patch.apply()\nfrom megatron.neox_arguments import NeoXArgs\n"
        "try:\n    NeoXArgs.from_ymls([sys.argv[1]])\n"
        "except Exception as error:\n    print('\\n'.join('FAULT ' + fault for fault in error.faults))"
    )
    result = run_python(code, checkout, str(folder / "run.yml"))
    return [line.removeprefix("FAULT ") for line in result.stdout.splitlines() if line.startswith("FAULT ")]


def test_all_faults_of_a_configuration_at_once(checkout: Path, tmp_path: Path) -> None:
    found = faults(checkout, tmp_path, penalty_lamda=1.0, min_lr="1e-5", train_iters="many", penalty_form="climb")
    assert "penalty_lamda: unknown key; did you mean 'penalty_lambda'?" in found
    assert "train_iters: expected int, got 'many' (str)" in found
    assert "penalty_form: expected one of ascent, clipped, unlikelihood, got 'climb' (str)" in found
    assert "min_lr: YAML reads 1e-5 as text, not as a number; write 1.0e-5" in found


def test_masks_are_compared_with_their_data_before_launch(checkout: Path, tmp_path: Path) -> None:
    data, other = write_data(tmp_path, "d"), write_data(tmp_path, "e", seed=1)
    (tmp_path / "e_mask.json").unlink()
    paths = {"valid_data_paths": [data], "test_data_paths": [data]}
    found = faults(
        checkout, tmp_path, train_data_paths=[other, data, data],
        train_penalty_data_paths=[f"{data}_mask", f"{other}_mask", ""], train_impl="dpo", **paths,
    )  # fmt: skip
    assert any(f"mask {data}_mask was made for other data than {other}" in fault for fault in found)
    assert any(f"{other}_mask has no file {other}_mask.json; adopt a mask made elsewhere" in fault for fault in found)
    assert any("train_impl dpo has another loss" in fault for fault in found)
    found = faults(checkout, tmp_path, train_data_paths=[data], train_penalty_data_paths=["", "x"], **paths)
    assert found == ['train_penalty_data_paths: 2 masks for 1 train_data_paths; "" means none for one']


def test_a_tokenizers_file_is_looked_for_before_every_rank_does(tmp_path: Path) -> None:
    from ifguide_patch.config import _tokenizer_faults

    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "tokenizer.json").write_text("{}")
    (found,) = _tokenizer_faults({"tokenizer_type": "HFTokenizer", "vocab_file": str(tmp_path)})
    wanted = f"did you mean {tmp_path / 'hf' / 'tokenizer.json'}?"
    assert found == f"vocab_file: {tmp_path} does not exist or is not a file; {wanted}"
    there = str(tmp_path / "hf" / "tokenizer.json")
    assert not [*_tokenizer_faults({"tokenizer_type": "hftokenizer", "vocab_file": there})]
    # a name, not a file
    assert not [*_tokenizer_faults({"tokenizer_type": "TiktokenTokenizer", "vocab_file": "cl100k_base"})]
    assert not [*_tokenizer_faults({"vocab_file": "absent"})]


def resolved(checkout: Path, folder: Path, **keys: object) -> tuple[str, list[str]]:
    """``data_impl`` as ``from_ymls`` leaves it, and what is said about it."""
    config = {key: value for key, value in {**configuration(checkout), **keys}.items() if value is not None}
    (folder / "run.yml").write_text(json.dumps(config))
    code = (
        "import sys, ifguide_patch\nifguide_patch.apply()\nfrom megatron.neox_arguments import NeoXArgs\n"
        "print('IMPL', NeoXArgs.from_ymls([sys.argv[1]]).data_impl)"
    )
    result = run_python(code, checkout, str(folder / "run.yml"))
    assert result.returncode == 0, result.stderr[-2000:]
    lines = result.stdout.splitlines()
    (found,) = [line.removeprefix("IMPL ") for line in lines if line.startswith("IMPL ")]
    return found, [line for line in lines if line.startswith("data_impl: ")]


@pytest.mark.parametrize("given", [None, "infer"])
@pytest.mark.parametrize("masked", [True, False])
def test_infer_becomes_what_the_files_are(checkout: Path, tmp_path: Path, given: str | None, masked: bool) -> None:
    data = write_data(tmp_path)
    mask = {"penalty_data_path": f"{data}_mask"} if masked else {}
    found, said = resolved(checkout, tmp_path, data_impl=given, data_path=data, **mask)
    assert found == "mmap" and len(said) == 1 and "mmap" in said[0]


def test_a_data_impl_that_is_given_stays(checkout: Path, tmp_path: Path) -> None:
    assert resolved(checkout, tmp_path, data_impl="mmap", data_path=write_data(tmp_path)) == ("mmap", [])


def test_files_of_the_older_kind_are_cached(checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "old.idx").write_bytes(b"TNTIDX\x00\x00" + bytes(8))
    assert resolved(checkout, tmp_path, data_impl=None, data_path=str(tmp_path / "old"))[0] == "cached"
    data, old = write_data(tmp_path), str(tmp_path / "old")
    keys = {"train_data_paths": [data], "valid_data_paths": [old], "test_data_paths": [data]}
    (fault,) = faults(checkout, tmp_path, data_impl="infer", **keys)
    assert fault == (
        f"data_impl: one value reads all datasets, and these need two: train_data_paths {data} (mmap) and "
        f"valid_data_paths {old} (cached); preprocess again"
    )


def test_the_tokenizer_is_compared_with_the_data_before_launch(checkout: Path, tmp_path: Path) -> None:
    """By the hash of its file: the environment of GPT-NeoX need not have our tokenizer libraries."""
    data = write_data(tmp_path, "d")
    files = [tmp_path / "made_with.json", tmp_path / "other.json"]
    for number, path in enumerate(files):
        path.write_text(json.dumps({"model": {"vocab": {"a": number}}}))
    sidecar = {
        "format_version": 1, "kind": "tokens", "tokenizer": {"type": "HFTokenizer", "identity": "0" * 64, "eod": 0},
        "tokenizer_files": [tokenizer_file_record(files[0])],
    }  # fmt: skip
    Path(f"{data}.json").write_text(json.dumps(sidecar))
    keys = {"train_data_paths": [data], "valid_data_paths": [data], "test_data_paths": [data]}
    found = faults(checkout, tmp_path, tokenizer_type="HFTokenizer", vocab_file=str(files[1]), **keys)
    assert [fault for fault in found if fault.startswith(f"vocab_file: {files[1]} is another tokenizer")]
    assert any("set vocab_file to that file, or preprocess" in fault and str(files[0]) in fault for fault in found)
    found = faults(checkout, tmp_path, tokenizer_type="HFTokenizer", vocab_file=str(files[0]), **keys)
    assert not any("tokenizer" in fault for fault in found)
    found = faults(checkout, tmp_path, tokenizer_type="CharLevelTokenizer", **keys)
    assert any("was made with HFTokenizer, not with CharLevelTokenizer" in fault for fault in found)


def test_what_neox_refuses_is_one_line(checkout: Path, tmp_path: Path) -> None:
    data = write_data(tmp_path)
    key = {"seq_length": None} if checkout == STAND_IN else {"num_attention_heads": 3}
    (found,) = faults(checkout, tmp_path, data_path=data, **key)
    assert found.startswith("GPT-NeoX refuses the configuration: ")


def launch(folder: Path, *options: str, script: str = "train.py") -> subprocess.CompletedProcess[str]:
    """``deepy.py`` on the stand-in with `folder`/run.yml."""
    # in the worker too, the stand-in has to be trusted
    (folder / "sitecustomize.py").write_text("from tests.patch.checkouts import trust_stand_in\ntrust_stand_in()\n")
    command = [sys.executable, str(ROOT / "deepy.py"), script, "-d", ".", "run.yml", "--neox", str(STAND_IN)]
    path = os.pathsep.join([str(folder), str(ROOT)])
    return subprocess.run(
        [*command, "--device", "cpu", *options], cwd=folder, env={**os.environ, "PYTHONPATH": path},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def test_deepy_launches_the_checkouts_own_scripts(tmp_path: Path) -> None:
    data = write_data(tmp_path)
    keys = configuration(STAND_IN, data_path=data, penalty_data_path=f"{data}_mask", penalty_lambda=0.5)
    (tmp_path / "run.yml").write_text(json.dumps(keys))
    result = launch(tmp_path)
    assert result.returncode == 0, result.stderr[-3000:]
    assert f"engine: neox ({STAND_IN}" in result.stdout
    lines = result.stdout.splitlines()
    codes = np.fromfile(f"{data}_mask.bin", np.uint8)
    share = f"{int(codes.sum()):,} of {len(codes):,} tokens selected ({codes.mean():.2%}) (binary)"
    assert lines.index("penalty: ascent, λ 0.5, without a warm-up") + 1 == lines.index(
        f"mask {data}_mask of {data}: {share}"
    )
    assert lines[-1] == "nothing was kept: the configuration names no folder to save into"


def test_the_launcher_names_the_checkpoint_and_what_converts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from ifguide_patch import told
    from ifguide_patch.run_state import state
    from ifguide_patch.script import SCRIPT_VARIABLE

    data = write_data(tmp_path)
    config = {"data_path": data, "save": str(tmp_path / "runs")}
    monkeypatch.setattr(state, "announced", None)
    monkeypatch.setenv(SCRIPT_VARIABLE, "/somewhere/eval.py")
    told.before(config)
    told.after()
    assert capsys.readouterr().out == ""
    monkeypatch.setenv(SCRIPT_VARIABLE, "/somewhere/train.py")
    told.before(config)
    told.after()
    assert "this machine sees no file" in capsys.readouterr().out
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "latest").write_text("global_step7\n")
    told.after()
    assert capsys.readouterr().out.splitlines() == [
        f"checkpoint: {tmp_path / 'runs' / 'global_step7'}",
        "next: ifguide convert --from neox --to hf "
        f"--input {tmp_path / 'runs'} --output {tmp_path / 'runs'}-hf   (a Hugging Face folder of it)",
    ]


def test_deepy_does_not_overwrite_a_run(tmp_path: Path) -> None:
    """NeoX keeps a run's files with each checkpoint; the stand-in saves nothing, so they are laid out here."""
    keys = configuration(STAND_IN, data_path=write_data(tmp_path), train_iters=2, save="out")
    (tmp_path / "run.yml").write_text(json.dumps(keys))
    stored = tmp_path / "out/global_step2/configs/run.yml"
    stored.parent.mkdir(parents=True)
    stored.write_text(json.dumps(keys))
    (tmp_path / "out/latest").write_text("global_step2")
    again = launch(tmp_path)
    assert again.returncode == 0, again.stderr[-3000:]
    assert "save: out holds this very run, finished (global_step2); nothing to do" in again.stdout
    assert "iteration" not in again.stdout
    (tmp_path / "run.yml").write_text(json.dumps({**keys, "seed": 12}))
    refused = launch(tmp_path)
    assert refused.returncode == 2
    assert "save: out was made by another command: seed was 11, is 12; give another output, or --overwrite" in (
        refused.stderr
    )
    assert stored.exists()
    (tmp_path / "run.yml").write_text(json.dumps({**keys, "train_iters": 3, "load": "out"}))
    goes_on = launch(tmp_path)
    assert goes_on.returncode == 0, goes_on.stderr[-3000:]
    assert "continuing out with other settings: train_iters was 2, is 3" in goes_on.stdout and stored.exists()
    (tmp_path / "run.yml").write_text(json.dumps({**keys, "seed": 12}))
    replaced = launch(tmp_path, "--overwrite")
    assert replaced.returncode == 0, replaced.stderr[-3000:]
    assert "replaced the run in out" in replaced.stdout and not stored.exists()


def test_a_dry_run_checks_everything_and_starts_nothing(tmp_path: Path) -> None:
    data = write_data(tmp_path)
    keys = configuration(STAND_IN, data_path=data, penalty_data_path=f"{data}_mask", save="out")
    (tmp_path / "run.yml").write_text(json.dumps(keys))
    checked = launch(tmp_path, "--dry-run")
    assert checked.returncode == 0, checked.stderr[-3000:]
    assert checked.stdout.splitlines()[-1] == "dry run: everything was checked, nothing was started"
    assert "penalty: ascent" in checked.stdout and "iteration" not in checked.stdout and not (tmp_path / "out").exists()
    (tmp_path / "run.yml").write_text(json.dumps({**keys, "penalty_lambda": "much"}))
    refused = launch(tmp_path, "--dry-run")
    assert refused.returncode == 2 and "penalty_lambda: " in refused.stderr and "Traceback" not in refused.stderr


def test_the_patch_imports_nothing_that_a_neox_environment_lacks() -> None:
    code = (
        "import sys\n"
        "allowed = {'torch', 'numpy', 'yaml', 'ifguide', 'ifguide_patch', 'deepspeed', 'packaging'}\n"
        "class Block:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        top = name.split('.')[0]\n"
        "        if top in {'transformers', 'megatron', 'kronfluence', 'tokenizers', 'safetensors', 'datasets',\n"
        "                   'sklearn', 'matplotlib', 'jinja2', 'zstandard', 'sentencepiece', 'accelerate'}:\n"
        "            raise ImportError(f'{name} is blocked')\n"
        "        if name in {'ifguide.engine', 'ifguide.influence', 'ifguide.evaluation', 'ifguide.quickstart',\n"
        "                    'ifguide.pages', 'ifguide.cli', 'ifguide.scorers', 'ifguide.models'}:\n"
        "            raise ImportError(f'{name} is blocked')\n"
        "sys.meta_path.insert(0, Block())\n"
        "import ifguide_patch, ifguide_patch.check, ifguide_patch.launch, ifguide_patch.worker\n"
        "print('imported')"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert result.stdout.splitlines()[-1:] == ["imported"], result.stderr[-2000:]

"""Checkpoints of a run, around what DeepSpeed writes: which one is named, kept, exported; and what cannot be loaded."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ifguide.engine.checkpoint import export, load_checkpoint, loads_huggingface, save_checkpoint
from ifguide.errors import InputError, MismatchError, OutOfSpaceError
from ifguide.objectives.keys import LM, REPO

ORDER = {"seed": 1, "seq_length": 16, "train_batch_size": 8, "train_samples": 100}
OBJECTIVE = SimpleNamespace(name=LM, state=dict)


class Model:
    """Writes its ``text`` as weights; ``fault`` comes after half of the files."""

    def __init__(self, text: str = "weights", fault: Exception | None = None):
        self.text, self.fault = text, fault

    def save_pretrained(self, folder: Path) -> None:
        (Path(folder) / "config.json").write_text("{}")
        if self.fault:
            raise self.fault
        (Path(folder) / "model.safetensors").write_text(self.text)
        (Path(folder) / "model.safetensors").chmod(0o600)


class Tokenizer:
    def __init__(self, fault: Exception | None = None):
        self.fault = fault

    def save_pretrained(self, folder: Path) -> None:
        if self.fault:
            raise self.fault
        (Path(folder) / "tokenizer.json").write_text("{}")


class Engine:
    """As DeepSpeed's: a folder named by the tag, then ``latest``; loading gives what was saved."""

    def __init__(self, state: dict[str, Any] | None = None, fault: Exception | None = None):
        self.module, self.state, self.fault = Model(), state, fault
        self.asked: dict[str, Any] = {}

    def save_checkpoint(self, save: str, tag: str, client_state: dict[str, Any]) -> None:
        (Path(save) / tag).mkdir(parents=True)
        (Path(save) / tag / "state").write_text(str(client_state["iteration"]))
        if self.fault:
            raise self.fault
        (Path(save) / "latest").write_text(tag)

    def load_checkpoint(self, folder: str, **asked: Any) -> tuple[str | None, dict[str, Any]]:
        self.asked = asked
        if self.fault:
            raise self.fault
        return (None, {}) if self.state is None else (folder, self.state)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize(("keep_last", "left"), [(0, [2, 4, 10]), (2, [4, 10]), (1, [10]), (9, [2, 4, 10])])
def test_the_newest_are_kept_by_their_numbers(
    process_group: None, tmp_path: Path, keep_last: int, left: list[int]
) -> None:
    """10 is newer than 4, although its name sorts before it; nothing else in the folder is touched."""
    (tmp_path / "global_step_notes").mkdir()
    for iteration in (2, 4, 10):
        save_checkpoint(Engine(), Tokenizer(), str(tmp_path), iteration, ORDER, keep_last, OBJECTIVE)  # type: ignore[arg-type]
    steps = {f"global_step{iteration}" for iteration in left}
    assert names(tmp_path) == {*steps, "global_step_notes", "latest", "hf"}
    assert (tmp_path / "latest").read_text() == "global_step10"


def test_a_full_disk_keeps_the_checkpoint_before(
    process_group: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(Engine(), Tokenizer(), str(tmp_path), 2, ORDER, 1, OBJECTIVE)  # type: ignore[arg-type]
    broken = Engine(fault=RuntimeError("unexpected pos"))
    with pytest.raises(RuntimeError, match="unexpected pos"):  # there is room: the fault is another one
        save_checkpoint(broken, Tokenizer(), str(tmp_path), 4, ORDER, 1, OBJECTIVE)  # type: ignore[arg-type]
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    with pytest.raises(OutOfSpaceError, match="checkpoint of iteration 6 was not written"):
        save_checkpoint(broken, Tokenizer(), str(tmp_path), 6, ORDER, 1, OBJECTIVE)  # type: ignore[arg-type]
    assert names(tmp_path) == {"global_step2", "global_step4", "latest", "hf"}
    assert (tmp_path / "latest").read_text() == "global_step2"


def test_an_export_is_whole_and_readable(tmp_path: Path) -> None:
    folder = tmp_path / "hf"
    export(Model("old"), Tokenizer(), folder)  # type: ignore[arg-type]
    with pytest.raises(OSError, match="half"):
        export(Model("new", OSError("half")), Tokenizer(), folder)  # type: ignore[arg-type]
    assert (folder / "model.safetensors").read_text() == "old" and names(tmp_path) == {"hf"}
    export(Model("new"), Tokenizer(), folder)  # type: ignore[arg-type]
    assert (folder / "model.safetensors").read_text() == "new" and names(tmp_path) == {"hf"}
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o644}
    assert folder.stat().st_mode & 0o777 == 0o755


def test_a_tokenizer_without_that_form_is_said(tmp_path: Path) -> None:
    export(Model(), Tokenizer(InputError("SPMTokenizer has no such form")), tmp_path / "hf")  # type: ignore[arg-type]
    assert names(tmp_path / "hf") == {"config.json", "model.safetensors", "TOKENIZER_MISSING.txt"}
    assert (tmp_path / "hf" / "TOKENIZER_MISSING.txt").read_text() == "SPMTokenizer has no such form\n"


def test_continuing_says_what_changes_the_order(tmp_path: Path) -> None:
    (tmp_path / "latest").write_text("global_step4\n")
    engine = Engine({"iteration": 4, "order": {**ORDER, "seed": 2}})
    iteration, notes, _ = load_checkpoint(engine, tmp_path, False, ORDER, LM)
    assert iteration == 4 and notes[0] == f"continuing {tmp_path / 'global_step4'}"
    assert notes[1:] == ["seed was 2 and is 1: the order of samples differs from before"]
    assert engine.asked["load_optimizer_states"] and not engine.asked["load_module_only"]


def test_continuing_gives_the_objective_what_it_saved(process_group: None, tmp_path: Path) -> None:
    """A checkpoint of before objectives had a state is one of `lm`, without any."""
    given: list[dict[str, Any]] = []
    engine = Engine()
    monitored = SimpleNamespace(name=REPO, state=lambda: {"weights": 3})
    engine.save_checkpoint = lambda save, tag, client_state: given.append(client_state)  # type: ignore[method-assign]
    save_checkpoint(engine, Tokenizer(), str(tmp_path), 4, ORDER, 0, monitored)  # type: ignore[arg-type]
    (tmp_path / "latest").write_text("global_step4")
    assert load_checkpoint(Engine(given[0]), tmp_path, False, ORDER, REPO)[2] == {"weights": 3}
    old = {"iteration": 4, "order": ORDER}
    assert load_checkpoint(Engine(old), tmp_path, False, ORDER, LM)[2] == {}
    with pytest.raises(MismatchError, match="is of a run with objective repo, not lm"):
        load_checkpoint(Engine(given[0]), tmp_path, False, ORDER, LM)
    assert load_checkpoint(Engine(given[0]), tmp_path, True, ORDER, LM)[2] == {}, "other weights to start from"


def test_finetuning_takes_weights_alone(tmp_path: Path) -> None:
    (tmp_path / "latest").write_text("global_step4")
    engine = Engine({"iteration": 4, "order": {}})
    assert load_checkpoint(engine, tmp_path, True, ORDER, LM)[0] == 0
    assert engine.asked["load_module_only"] and not engine.asked["load_optimizer_states"]


def test_what_cannot_be_loaded(tmp_path: Path) -> None:
    assert load_checkpoint(Engine(), tmp_path, False, ORDER, LM)[0] == 0, "a first start of a run that loads itself"
    with pytest.raises(InputError, match="holds neither a checkpoint"):
        load_checkpoint(Engine(), tmp_path, True, ORDER, LM)
    (tmp_path / "latest").write_text("global_step4")
    with pytest.raises(InputError, match=f"{tmp_path / 'latest'} names it"):
        load_checkpoint(Engine(), tmp_path, False, ORDER, LM)
    other = Engine(fault=RuntimeError("Error(s) in loading state_dict:\n\tsize mismatch for embed_in"))
    with pytest.raises(MismatchError, match="does not fit the configured model: size mismatch for embed_in"):
        load_checkpoint(other, tmp_path, False, ORDER, LM)


def test_a_model_folder_is_fine_tuned_and_not_continued(tmp_path: Path) -> None:
    assert not loads_huggingface(None, True) and not loads_huggingface(str(tmp_path), True)
    (tmp_path / "config.json").write_text("{}")
    assert loads_huggingface(str(tmp_path), True)
    with pytest.raises(InputError, match="not continued"):
        loads_huggingface(str(tmp_path), False)
    (tmp_path / "latest").write_text("global_step4")
    assert not loads_huggingface(str(tmp_path), False), "a checkpoint counts for more"

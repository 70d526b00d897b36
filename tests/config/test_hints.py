"""Paths that are nearly right, as people type them: the message names the right one, in every command that opens such
a path."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from ifguide import cli, launch
from ifguide.config import hints
from ifguide.config.yaml_files import config_paths, merge_files
from ifguide.errors import ConfigError, InputError
from ifguide.verbs import make_parser
from tests.engine.tiny import MODEL, ROOT
from tests.support.datasets import write_tokens

Say = Callable[..., list[str]]


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    """What a verb that must refuse says on stderr, a line each."""

    def run(verb: str, *argv: str | Path) -> list[str]:
        capsys.readouterr()
        assert cli.main([verb, *map(str, argv)]) == 2
        said = capsys.readouterr()
        assert "Traceback" not in said.out + said.err
        return said.err.splitlines()

    return run


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")


def neox_save(folder: Path) -> Path:
    """Names of files as GPT-NeoX leaves them, sequential layout."""
    touch(folder / "global_step10" / "mp_rank_00_model_states.pt", folder / "global_step10" / "configs" / "model.yml")
    (folder / "latest").write_text("global_step10")
    return folder


def embedded_save(folder: Path) -> Path:
    touch(folder / "global_step10" / "mp_rank_00_model_states.pt", folder / "hf" / "config.json")
    (folder / "latest").write_text("global_step10")
    return folder


def test_the_export_of_a_run(tmp_path: Path) -> None:
    run = embedded_save(tmp_path / "proxy")
    assert hints.model_hint(run) == hints.model_hint(run / "global_step10") == f"did you mean {run / 'hf'}?"
    assert hints.model_hint(run / "hf" / "config.json") == f"did you mean {run / 'hf'}?"
    assert hints.model_hint(tmp_path / "nowhere") == hints.model_hint(tmp_path) == ""
    assert not hints.is_neox_checkpoint(run) and not hints.is_neox_checkpoint(run / "global_step10")


def test_an_embedded_run_killed_before_its_first_export_can_be_continued(tmp_path: Path) -> None:
    for name in ("run.json", "global_step10/mp_rank_00_model_states.pt"):
        touch(tmp_path / name)
    (tmp_path / "latest").write_text("global_step10")
    assert not hints.is_neox_checkpoint(tmp_path)


def test_a_checkpoint_of_neox_is_answered_with_a_command_that_parses(tmp_path: Path) -> None:
    save = neox_save(tmp_path / "my runs")
    hint = hints.model_hint(save)
    assert hint.startswith("it is a GPT-NeoX checkpoint")
    command = shlex.split(hint[hint.index("ifguide convert") :])
    arguments = make_parser("convert").parse_args(command[2:])
    assert (vars(arguments)["from"], vars(arguments)["to"]) == ("neox", "hf")
    assert (arguments.input, arguments.output) == (str(save), f"{save}-hf")
    layers = tmp_path / "layers" / "global_step3"
    touch(layers / "layer_00-model_00-model_states.pt")
    assert "ifguide convert" in hints.model_hint(layers)
    assert "--input . --output converted-hf" in hints.convert_command(".")


def test_every_command_that_takes_a_model_says_so(tmp_path: Path, say: Say) -> None:
    prompts, data = tmp_path / "prompts.jsonl", tmp_path / "data"
    prompts.write_text(json.dumps({"prompt": "a"}) + "\n")
    write_tokens(data, [range(1, 9)])
    commands: dict[str, tuple[str | Path, ...]] = {
        "plan": ("--data", data),
        "fit-factors": ("--data", data, "--output", tmp_path / "factors"),
        "evaluate": ("--tasks", "ifguide_rtp", "--output", tmp_path / "evaluation"),
        "generate": ("--prompts", prompts, "--output", tmp_path / "said.jsonl"),
    }
    for number, (verb, options) in enumerate(commands.items()):
        run = embedded_save(tmp_path / f"run{number}")
        (line,) = say(verb, "--model", run, *options)
        assert line.endswith(f"did you mean {run / 'hf'}?"), line
        neox = neox_save(tmp_path / f"neox{number}")
        (line,) = say(verb, "--model", neox, *options)
        assert f"ifguide convert --from neox --to hf --input {neox} --output {neox}-hf" in line, line


def test_convert_in_the_wrong_direction(tmp_path: Path, say: Say) -> None:
    neox, run = neox_save(tmp_path / "neox"), embedded_save(tmp_path / "run")
    output = ("--output", tmp_path / "new")
    (line,) = say("convert", "--from", "hf", "--to", "neox", "--input", neox, *output)
    assert line.endswith("it is a GPT-NeoX checkpoint: give --from neox --to hf")
    (line,) = say("convert", "--from", "hf", "--to", "neox", "--input", run, *output)
    assert line.endswith(f"did you mean {run / 'hf'}?")
    (line,) = say("convert", "--from", "neox", "--to", "hf", "--input", run / "hf", *output)
    assert line.endswith("it is a Hugging Face folder: give --from hf --to neox")


def test_a_folder_for_a_file_of_a_tokenizer(tmp_path: Path, say: Say) -> None:
    folder, text = tmp_path / "model", tmp_path / "text.jsonl"
    text.write_text('{"text": "a"}\n')
    touch(folder / "tokenizer.json", folder / "vocab.json", folder / "merges.txt", tmp_path / "run/hf/tokenizer.json")

    def refused(*options: str | Path) -> str:
        (line,) = say("preprocess", "--input", text, "--output-prefix", tmp_path / "p", *options)
        return line

    as_hf = ("--tokenizer-type", "HFTokenizer", "--vocab-file")
    # the file in the folder is read, and is none
    assert f"{folder / 'tokenizer.json'} is not a tokenizer.json" in refused(*as_hf, folder)
    assert refused(*as_hf, tmp_path / "run").endswith(f"did you mean {tmp_path / 'run/hf/tokenizer.json'}?")
    gpt2 = ("--tokenizer-type", "GPT2BPETokenizer", "--vocab-file")
    assert f"vocabulary file {folder / 'vocab.json'} has no <|endoftext|>" in refused(*gpt2, folder)
    assert refused(*gpt2, tmp_path / "run").endswith(f"none of {', '.join(hints.GPT2_VOCABULARIES)} is in it")
    both = (*gpt2, folder / "vocab.json", "--merge-file", folder)
    assert refused(*both).endswith(f"did you mean {folder / 'merges.txt'}?")
    assert "none of tokenizer.model" in refused("--tokenizer-type", "SPMTokenizer", "--vocab-file", folder)
    assert "; " not in refused(*as_hf, tmp_path / "absent")


@pytest.mark.parametrize("end", [".bin", ".idx", ".json"])
def test_a_file_for_a_prefix(tmp_path: Path, end: str) -> None:
    from ifguide.data.indexed import IndexedDataset
    from ifguide.penalties.keys import missing_files

    write_tokens(tmp_path / "mask", [range(1, 9)])
    with pytest.raises(InputError, match=f"did you mean the prefix {tmp_path / 'mask'}\\?"):
        IndexedDataset.open(tmp_path / f"mask{end}")
    (line,) = missing_files("penalty_data_path", str(tmp_path / f"mask{end}"), mask=True)
    assert line.endswith(f"did you mean the prefix {tmp_path / 'mask'}?")


def test_other_names_for_a_prefix(tmp_path: Path) -> None:
    write_tokens(tmp_path / "corpus_text_document", [range(1, 9)])
    wanted = f"did you mean the prefix {tmp_path / 'corpus_text_document'}?"
    assert hints.prefix_hint(tmp_path / "corpus") == hints.prefix_hint(tmp_path) == wanted
    write_tokens(tmp_path / "other", [range(1, 9)])
    assert hints.near_prefix(tmp_path) == ""  # two datasets: neither is meant for sure
    assert "named by its prefix" in hints.prefix_hint(tmp_path / "absent")


def test_a_configuration_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "configs" / "model.yml")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "data.yml").write_text("a: 1\n")
    (tmp_path / "configs" / "model.yml").write_text("b: 1\n")
    monkeypatch.chdir(tmp_path)
    values, faults = merge_files(config_paths(["model", "mine/data"], "configs"))
    assert (values, faults) == ({"a": 1, "b": 1}, [])
    with pytest.raises(ConfigError, match=r"does not exist$"):
        merge_files(config_paths(["absent"], "configs"))


def test_training_from_a_checkpoint_of_neox(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tokens(tmp_path / "data", [range(1, 9)])
    touch(tmp_path / "model" / "tokenizer.json")
    neox = neox_save(tmp_path / "neox")
    values = {
        **MODEL, "data_path": str(tmp_path / "data.idx"), "load": str(neox), "finetune": True,
        "tokenizer_type": "HFTokenizer", "vocab_file": str(tmp_path / "model"),
    }  # fmt: skip
    (tmp_path / "run.yml").write_text(json.dumps(values))
    assert launch.main([str(ROOT / "train.py"), str(tmp_path / "run.yml")]) == 2
    said = capsys.readouterr().err
    assert f"did you mean the prefix {tmp_path / 'data'}?" in said
    assert f"did you mean {tmp_path / 'model/tokenizer.json'}?" in said
    assert f"load: {neox} is a GPT-NeoX checkpoint" in said and "ifguide convert --from neox --to hf" in said

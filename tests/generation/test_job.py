from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ifguide.cli import main
from ifguide.errors import ConfigError, InputError
from ifguide.generation.draw import Sampling, generate
from ifguide.generation.job import _is_complete, generate_file, partial_path, sidecar_path
from ifguide.generation.options import GenerateOptions
from ifguide.models.language_model import load_language_model
from ifguide.system.files import read_json, read_jsonl, write_jsonl
from ifguide.system.locks import only_writer
from tests.support.killing import kill_after_lines
from tests.support.tiny_scorers import save_causal

SAMPLING = Sampling(samples=3, max_new_tokens=5, seed=4)
PROMPTS = [
    {"prompt": "The cat", "toxicity": 0.25, "id": "a1"},
    {"prompt": "a dog"},
    {"prompt": "The cat", "domain": "animals"},
    {"prompt": "héllo"},
]


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    write_jsonl(tmp_path / "prompts.jsonl", PROMPTS)
    return tmp_path / "prompts.jsonl"


def test_lines_are_prompts_with_their_continuations(model_dir: Path, prompts: Path, tmp_path: Path) -> None:
    output = tmp_path / "g.jsonl"
    result = generate_file(model_dir, prompts, output, SAMPLING)
    texts = generate(model_dir, [row["prompt"] for row in PROMPTS], samples=3, max_new_tokens=5, seed=4)
    assert read_jsonl(output) == [
        {"id": "a1", "prompt": "The cat", "continuations": texts[0], "toxicity": 0.25},
        {"id": 1, "prompt": "a dog", "continuations": texts[1]},
        {"id": 2, "prompt": "The cat", "continuations": texts[2], "domain": "animals"},
        {"id": 3, "prompt": "héllo", "continuations": texts[3]},
    ]
    sidecar = read_json(sidecar_path(output))
    assert sidecar["sampling"] == {
        "samples": 3, "max_new_tokens": 5, "top_p": 0.9, "temperature": 1.0, "seed": 4, "top_k": 0,
    }  # fmt: skip
    assert sidecar["continuations"] == 12 and sidecar["rad"] is None and "torch" in sidecar["versions"]
    assert result["hash"] == sidecar["hash"] and not partial_path(output).exists()


@pytest.mark.parametrize("batch_size", [1, 7])
def test_batches_change_nothing(model_dir: Path, prompts: Path, tmp_path: Path, batch_size: int) -> None:
    generate_file(model_dir, prompts, tmp_path / "a", SAMPLING, GenerateOptions(dtype="float64"))
    generate_file(model_dir, prompts, tmp_path / "b", SAMPLING, GenerateOptions(dtype="float64", batch_size=batch_size))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.slow
def test_a_killed_run_goes_on_and_writes_the_same_file(model_dir: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "many.jsonl"
    write_jsonl(prompts, [{"prompt": f"{'ab ' * (i % 3)}prompt {i % 50}"} for i in range(120)])
    command = ["generate", "--model", str(model_dir), "--prompts", str(prompts), "--samples", "4", "--device", "cpu"]
    command += ["--max-new-tokens", "8", "--batch-size", "8"]
    whole, killed = tmp_path / "whole.jsonl", tmp_path / "killed.jsonl"
    done = kill_after_lines([*command, "--output", str(killed)], partial_path(killed), 3)
    assert not killed.exists() and not sidecar_path(killed).exists() and done < 60
    with open(partial_path(killed), "a") as stream:
        stream.write('{"key": "torn')
    assert main([*command, "--output", str(killed)]) == 0
    assert main([*command, "--output", str(whole)]) == 0
    assert killed.read_bytes() == whole.read_bytes() and not partial_path(killed).exists()


def test_what_is_finished_is_not_drawn_again(
    model_dir: Path, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ifguide.generation.draw import Drawing

    draw, drawn = Drawing.draw, []

    def counting(self, batch):
        if len(drawn) == 2:
            raise KeyboardInterrupt
        drawn.append(list(batch))
        return draw(self, batch)

    output = tmp_path / "g.jsonl"
    monkeypatch.setattr(Drawing, "draw", counting)
    with pytest.raises(KeyboardInterrupt):
        generate_file(model_dir, prompts, output, SAMPLING, GenerateOptions(batch_size=1))
    first = list(drawn)
    drawn.clear()
    generate_file(model_dir, prompts, output, SAMPLING, GenerateOptions(batch_size=1))
    assert sorted(first + drawn) == [[0], [1], [2], [3]]
    before = output.read_bytes()
    drawn.clear()
    generate_file(model_dir, prompts, output, SAMPLING, GenerateOptions(batch_size=1))  # complete: nothing to do
    assert not drawn and output.read_bytes() == before
    output.write_text(output.read_text().replace("dog", "fox"))  # edited: not what the sidecar speaks of
    drawn.clear()
    with pytest.raises(KeyboardInterrupt):
        generate_file(model_dir, prompts, output, SAMPLING, GenerateOptions(batch_size=1))
    assert len(drawn) == 2


def test_finished_batches_of_other_settings_are_not_used(model_dir: Path, prompts: Path, tmp_path: Path) -> None:
    generate_file(model_dir, prompts, tmp_path / "a", SAMPLING)
    generate_file(model_dir, prompts, tmp_path / "b", Sampling(3, 5, seed=5))
    assert (tmp_path / "a").read_bytes() != (tmp_path / "b").read_bytes()
    generate_file(model_dir, prompts, tmp_path / "a", Sampling(3, 5, seed=5))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_broken_logits_are_one_line_and_what_is_finished_stays(
    model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lm = load_language_model(model_dir)
    (spoilt,) = lm.encode(["z"])[0]
    lm.model.gpt_neox.embed_in.weight.data[spoilt] = float("nan")
    broken, prompts, output = tmp_path / "broken", tmp_path / "prompts.jsonl", tmp_path / "g.jsonl"
    lm.model.save_pretrained(broken)
    lm.reader.tokenizer.save_pretrained(broken)
    write_jsonl(prompts, [{"prompt": text} for text in ("z", "a dog", "The cat")])
    command = ["generate", "--model", str(broken), "--prompts", str(prompts), "--output", str(output)]
    capsys.readouterr()
    options = ["--device", "cpu", "--samples", "2", "--max-new-tokens", "2", "--batch-size", "2", "--seed", "1"]
    assert main([*command, *options]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("ifguide generate: ")]
    assert len(lines) == 1 and f"model {broken}: logits after prompt 0 ('z')" in lines[0]
    assert len(read_jsonl(partial_path(output))) == 2 and not output.exists()
    assert {path.name for path in tmp_path.iterdir()} == {
        "broken", "prompts.jsonl", "g.jsonl.partial", ".g.jsonl.unfinished.json",
    }  # fmt: skip


def test_one_process_writes_an_output(
    model_dir: Path, prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "g.jsonl"
    command = ["generate", "--model", str(model_dir), "--prompts", str(prompts), "--output", str(output)]
    command += ["--device", "cpu", "--samples", "1", "--max-new-tokens", "1"]
    with only_writer(output):
        assert main(command) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("ifguide generate: ")]
    assert len(lines) == 1 and f"another process is writing {output}" in lines[0]
    assert [path.name for path in tmp_path.iterdir()] == ["prompts.jsonl"]
    assert main(command) == 0


@pytest.mark.parametrize("classifier", [False, True])
def test_nothing_of_another_tokenizer_is_reused(
    model_dir: Path, prompts: Path, tmp_path: Path, classifier: bool
) -> None:
    """The model's, or that of the classifier that steers: the same weights, another reading of the prompts."""
    model, reward = tmp_path / "m", save_causal(tmp_path / "reward")
    shutil.copytree(model_dir, model)
    options = {"rad": f"hf:{reward}#toxic"} if classifier else {}
    first = generate_file(model, prompts, tmp_path / "g.jsonl", SAMPLING, GenerateOptions(**options))
    again = generate_file(model, prompts, tmp_path / "g.jsonl", SAMPLING, GenerateOptions(**options))
    assert again == first, "nothing was drawn anew"
    tokenizer = (reward if classifier else model) / "tokenizer.json"
    data = json.loads(tokenizer.read_text())
    data["normalizer"] = {"type": "Prepend", "prepend": "x"}
    tokenizer.write_text(json.dumps(data))
    (tmp_path / "g.jsonl").rename(tmp_path / "before.jsonl")
    sidecar_path(tmp_path / "g.jsonl").rename(sidecar_path(tmp_path / "before.jsonl"))
    other = generate_file(model, prompts, tmp_path / "other.jsonl", SAMPLING, GenerateOptions(**options))
    assert (other["model"] == first["model"]) is classifier
    assert (other["rad"] == first["rad"]) is not classifier
    # what was finished before the change is not taken for this run's
    for name in ("before.jsonl", "before.jsonl.json"):
        (tmp_path / name).rename(tmp_path / name.replace("before", "g"))
    assert not _is_complete(tmp_path / "g.jsonl", {"model": other["model"], "rad": other["rad"]})
    assert _is_complete(tmp_path / "g.jsonl", {"model": first["model"], "rad": first["rad"]})


def test_rad_is_an_option(model_dir: Path, prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reward = f"hf:{save_causal(tmp_path / 'reward')}#toxic"
    command = ["generate", "--model", str(model_dir), "--prompts", str(prompts), "--samples", "3", "--device", "cpu"]
    command += ["--max-new-tokens", "5", "--seed", "4", "--json"]
    steered, plain = tmp_path / "steered.jsonl", tmp_path / "plain.jsonl"
    options = ["--rad", reward, "--rad-weight", "8", "--rad-top-k", "6"]
    assert main([*command, *options, "--output", str(steered)]) == 0
    sidecar = json.loads(capsys.readouterr().out)
    assert sidecar["rad"]["weight"] == 8 and sidecar["rad"]["top_k"] == 6 and sidecar["rad"]["cached"]
    assert sidecar["rad"]["scorer"]["name"] == reward and sidecar["rad"]["scorer"]["identity"]
    assert main([*command, "--output", str(plain)]) == 0
    assert steered.read_bytes() != plain.read_bytes()
    assert main([*command, "--rad", "lexicon", "--output", str(plain), "--overwrite"]) == 0


def test_texts_too_long_for_the_steering_classifier_are_told(
    model_dir: Path, prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It reads 10 tokens of a text whose candidates stand at the end."""
    reward = f"hf:{save_causal(tmp_path / 'reward', positions=10)}#toxic"
    command = ["generate", "--model", str(model_dir), "--prompts", str(prompts), "--samples", "2", "--device", "cpu"]
    command += ["--max-new-tokens", "5", "--seed", "4", "--rad", reward, "--rad-top-k", "2"]
    assert main([*command, "--output", str(tmp_path / "g")]) == 0
    cut = read_json(sidecar_path(tmp_path / "g"))["truncated"]
    assert cut > 0 and f"{cut} texts were longer than {reward} reads" in capsys.readouterr().out
    assert main([*command[:-4], "--rad", "lexicon", "--output", str(tmp_path / "plain")]) == 0
    assert read_json(sidecar_path(tmp_path / "plain"))["truncated"] == 0
    assert "were longer" not in capsys.readouterr().out


def test_faults_are_told_together_and_first(tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    write_jsonl(bad, [{"prompt": "ok"}, {"text": "x"}, {"prompt": {"text": "x"}}, {"prompt": "x", "continuations": []}])
    with pytest.raises(ConfigError) as raised:
        generate_file("nowhere", bad, tmp_path / "g.jsonl", SAMPLING)
    assert [f"line {n}" in line for n, line in zip((2, 3, 4), raised.value.faults)] == [True] * 3
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(InputError, match="the file is empty"):
        generate_file("nowhere", tmp_path / "empty.jsonl", tmp_path / "g.jsonl", SAMPLING)
    with pytest.raises(InputError, match="does not exist"):
        generate_file("nowhere", bad, tmp_path / "no" / "g.jsonl", SAMPLING)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.jsonl", "empty.jsonl"]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--samples", "0"], "samples"),
        (["--top-k", "-1"], "top_k"),
        (["--batch-size", "0"], "batch_size 0"),
        (["--model", "nowhere"], "nowhere is not a folder"),
        (["--prompts", "nowhere.jsonl"], "nowhere.jsonl"),
        (["--rad", "perspective"], "is not known"),
        (["--rad", "lexicon", "--rad-top-k", "0"], "at least one candidate"),
        (["--device", "abacus"], "--device abacus"),
        (["--max-new-tokens", "64"], "leaves no room"),
    ],
)
def test_bad_options_are_one_line(
    model_dir: Path, prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: list[str], message: str
) -> None:
    output = tmp_path / "g.jsonl"
    command = ["generate", "--model", str(model_dir), "--prompts", str(prompts), "--output", str(output)]
    assert main([*command, "--device", "cpu", *option]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("ifguide generate: ")]
    assert len(lines) == 1 and message in lines[0]
    assert [path.name for path in tmp_path.iterdir()] == ["prompts.jsonl"]

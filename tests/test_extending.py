"""The examples of docs/extending.md, run as the page says: its new files, and its lines in the registries."""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from ifguide import cli
from tests.engine.conftest import corpus, private_cache, train
from tests.engine.tiny import MODEL, losses

__all__ = ["corpus", "private_cache", "train"]

PAGE = Path(__file__).parents[1] / "docs" / "extending.md"
# a Python block, and the last file that the text before it names
_BLOCK = re.compile(r"`(ifguide/[\w/]+\.py)`(?:(?!`ifguide/|^```)[\s\S])*?^```python\n([\s\S]*?)^```$", re.MULTILINE)


def blocks(example: str) -> list[tuple[str, str]]:
    """(file, Python text) of every block under the heading ``example``, in order."""
    text = PAGE.read_text().split(f"\n## {example}\n")[1].split("\n## ")[0]
    return _BLOCK.findall(text)


@pytest.fixture
def follow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Do as an example says: a file that is not there yet becomes one of its package, any other gets the lines."""
    undo: list[Callable[[], object]] = []

    def add_file(module: str, text: str) -> None:
        package = importlib.import_module(module.rpartition(".")[0])
        folder = tmp_path / "new" / package.__name__
        folder.mkdir(parents=True)
        (folder / f"{module.rpartition('.')[2]}.py").write_text(text)
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])
        importlib.invalidate_caches()
        undo.append(lambda: (sys.modules.pop(module, None), vars(package).pop(module.rpartition(".")[2], None)))

    def add_lines(module: str, text: str) -> None:
        space = vars(importlib.import_module(module))
        for table, key in re.findall(r'^([A-Z]+)\["(.+?)"\] = ', text, re.MULTILINE):
            undo.append(lambda table=space[table], key=key: table.pop(key, None))
        before = set(space)
        exec(compile(text, module, "exec"), space)
        undo.append(lambda: [space.pop(name) for name in set(space) - before])

    def run(example: str) -> None:
        for name, text in blocks(example):
            there = (PAGE.parents[1] / name).exists()
            (add_lines if there else add_file)(name.removesuffix(".py").replace("/", "."), text)

    yield run
    for step in reversed(undo):
        step()


def test_every_example_is_within_a_page() -> None:
    examples = PAGE.read_text().split("\n## ")[1:]
    assert [text.split("\n")[0] for text in examples] == [
        "A scorer", "A penalty form", "An objective", "An architecture", "A verb",
    ]  # fmt: skip
    assert all(text.count("\n") < 80 for text in examples)


def test_the_scorer_scores_what_a_command_gives_it(follow: Callable[[str], None], tmp_path: Path) -> None:
    given, output = tmp_path / "generations.jsonl", tmp_path / "scored.jsonl"
    given.write_text(json.dumps({"prompt": "a", "continuations": ["SHOUT", "Ab", "quiet", "..."]}) + "\n")
    command = ["score-generations", "--generations", str(given), "--scorer", "capitals", "--output", str(output)]
    assert cli.main(command) == 2, "the command knew it before"
    follow("A scorer")
    assert cli.main(command) == 0
    assert json.loads(output.read_text())["scores"] == {"capitals": [1.0, 0.5, 0.0, 0.0]}
    assert "capitals, version 1" in Path(f"{output}.json").read_text()


def test_the_objective_trains_a_model(
    follow: Callable[[str], None], train: Callable[..., int], corpus: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    from ifguide.engine.settings import load_config
    from ifguide.errors import ConfigError

    values = {"data_path": str(corpus / "data"), "split": "80,10,10", "eval_iters": 0, "checkpoint_factor": 6}
    given = tmp_path / "focal.yml"
    given.write_text(json.dumps({**MODEL, **values, "objective": "focal"}))
    with pytest.raises(ConfigError, match="objective: 'focal' is not known"):
        load_config([given])
    follow("An objective")
    assert load_config([given]).keys.objective == "focal"

    runs = {name: tmp_path / name for name in ("lm", "focal")}
    for name, save in runs.items():
        assert train(**values, save=str(save), objective=name) == 0
    plain, focal = losses(runs["lm"]), losses(runs["focal"])
    weighted = losses(runs["focal"], "objective")
    # the same weights and the same text at first; p is near 1/V for every token there, so the weight is near 1
    assert focal[0] == plain[0] and weighted[0] == pytest.approx(focal[0], rel=0.05)
    assert focal[-1] != plain[-1] and weighted[-1] < weighted[0] - 0.05
    assert all(below < whole for below, whole in zip(weighted, focal, strict=True))

    masked = {"penalty_data_path": str(corpus / "mask"), "save": str(tmp_path / "masked")}
    assert train(**values, **masked, objective="focal") == 2
    assert "objective: focal has no penalty" in capsys.readouterr().err


def test_the_verb_counts(follow: Callable[[str], None], corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    follow("A verb")
    assert "count-tokens" in cli._overview()
    assert cli.main(["count-tokens", "--data", str(corpus / "data")]) == 0
    tokens = len(np.fromfile(corpus / "data.bin", np.int32))
    assert capsys.readouterr().out == f"{corpus / 'data'}: 120 documents, {tokens} tokens\n"
    assert cli.main(["count-tokens", "--data", "nowhere"]) == 2


def test_the_architecture_is_read(
    follow: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tiny Mistral model to NeoX, held against NeoX's own definition."""
    from transformers import MistralConfig, MistralForCausalLM

    from ifguide.architectures import registry
    from ifguide.checkpoints import check, convert

    follow("An architecture")
    from ifguide.architectures.mistral import Mistral

    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = MistralConfig(
        vocab_size=512, num_key_value_heads=2, head_dim=8, max_position_embeddings=48, sliding_window=None, **shape
    )
    MistralForCausalLM(config).save_pretrained(tmp_path / "hf")
    families = {"mistral": Mistral()}
    monkeypatch.setattr(convert, "family_named", lambda kind: families.get(kind) or registry.family_named(kind))
    result = convert.to_neox(
        tmp_path / "hf",
        tmp_path / "neox",
        tensor_parallel=2,
        pipeline_parallel=0,
        tokenizer=convert.TokenizerFiles("CharLevelTokenizer"),
        check_text=check.TEXT,
    )
    assert result["check"]["passed"]

"""Commands of an experiment without processes: verbs are called, trainings only save a model that could have come of
them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedTokenizerFast

from ifguide.cli import main
from ifguide.errors import IFGuideError
from ifguide.experiments import judging
from ifguide.system.children import Children, Cost


class InProcess:
    """Stands for `Children.run`.

    Attributes:
        ran: what was asked for, by the first words: verbs, ``train NAME``, ``judge``.
        broken: of those, what fails.
        keys: name of a model -> the keys that it would be trained with.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.ran: list[str] = []
        self.broken: set[str] = set()
        self.keys: dict[str, dict[str, Any]] = {}
        own = self

        def run(
            children: Children,
            command: Sequence[str],
            log: Path,
            name: str,
            say: Callable[[str], None] | None = None,
            what: str = "",
        ) -> Cost:
            return own.run(list(command), what or name)

        monkeypatch.setattr(Children, "run", run)

    def run(self, command: list[str], what: str) -> Cost:
        arguments = command[3:]
        if command[1] == "-c":
            said, work = arguments[0], lambda: main(arguments)
        elif "ifguide.launch" in command:
            path = Path(command[-2])
            said, work = f"train {path.stem}", lambda: self._train(path)
        else:
            said, work = "judge", lambda: judging.main(Path(arguments[0]))
        self.ran.append(said)
        if said in self.broken or any(said.startswith(f"{one}-") for one in self.broken) or work():
            raise IFGuideError(f"{what} failed (exit 2, log nowhere): broken")
        return Cost(0.5, 1 << 20)

    def _train(self, config: Path) -> int:
        keys = self.keys[config.stem] = yaml.safe_load(config.read_text())
        for key in ("data_path", "penalty_data_path"):
            assert key not in keys or Path(f"{keys[key]}.bin").is_file(), f"{key} of {config.stem}"
        for key in ("load", "pairs_data_path", "vocab_file"):
            assert key not in keys or Path(keys[key]).exists(), f"{key} of {config.stem}"
        folder = Path(keys["save"]) / "hf"
        shutil.rmtree(folder, ignore_errors=True)
        tokenizer = PreTrainedTokenizerFast(tokenizer_file=keys["vocab_file"], eos_token="<|endoftext|>")
        width, seed = keys["hidden_size"], sum(map(ord, config.stem))
        import torch

        torch.manual_seed(seed)
        config = GPTNeoXConfig(
            vocab_size=640,
            hidden_size=width,
            num_hidden_layers=keys["num_layers"],
            num_attention_heads=2,
            intermediate_size=4 * width,
            max_position_embeddings=256,
            initializer_range=0.2,
            bos_token_id=0,
            eos_token_id=0,
        )
        model = GPTNeoXForCausalLM(config)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return 0

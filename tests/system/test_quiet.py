from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("transformers")
from transformers.utils import logging

from ifguide.system.quiet import no_foreign_bars, no_loading_bar


@pytest.mark.parametrize("shown", [True, False])
def test_it_is_as_it_was_afterwards(shown: bool) -> None:
    before = logging.is_progress_bar_enabled()
    (logging.enable_progress_bar if shown else logging.disable_progress_bar)()
    try:
        with pytest.raises(KeyError), no_loading_bar():
            assert not logging.is_progress_bar_enabled()
            raise KeyError
        assert logging.is_progress_bar_enabled() == shown
    finally:
        (logging.enable_progress_bar if before else logging.disable_progress_bar)()


def test_models_and_classifiers_load_in_silence(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from ifguide.models.language_model import load_language_model
    from ifguide.scorers.registry import load_scorer
    from tests.support.tiny_models import byte_tokenizer, tiny_neox
    from tests.support.tiny_scorers import save_causal

    tiny_neox().save_pretrained(tmp_path / "model")
    byte_tokenizer().save_pretrained(tmp_path / "model")
    save_causal(tmp_path / "classifier")
    capfd.readouterr()
    load_language_model(tmp_path / "model")
    load_scorer(f"hf:{tmp_path / 'classifier'}#toxic")
    assert capfd.readouterr().err == ""


def test_bars_of_others_are_silent_and_count_on(capsys: pytest.CaptureFixture[str]) -> None:
    from tqdm import tqdm
    from tqdm.auto import tqdm as automatic

    original = vars(tqdm)["__init__"]
    for kind in (tqdm, automatic):
        with no_foreign_bars():
            assert list(kind(range(3), disable=False)) == [0, 1, 2]
        assert capsys.readouterr().err == ""
    assert vars(tqdm)["__init__"] is original
    assert list(tqdm(range(3))) == [0, 1, 2] and "3/3" in capsys.readouterr().err

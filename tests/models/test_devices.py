"""One rule for the device: a flag, this process's GPU, or the processor."""

from __future__ import annotations

import pytest
import torch

from ifguide.errors import InputError
from ifguide.models.devices import choose_device, own_device


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """As many GPUs as the test says."""
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: request.param > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: request.param)


@pytest.mark.parametrize(
    ("gpus", "local_rank", "name", "expected"),
    [
        (0, None, None, "cpu"),
        (0, "1", "auto", "cpu"),
        (2, None, "auto", "cuda"),
        (2, None, None, "cuda"),
        (2, "1", None, "cuda:1"),
        (2, "1", "auto", "cuda:1"),
        (2, "1", "cuda", "cuda:1"),
        (2, "3", "cuda", "cuda:1"),
        (2, "1", "cuda:0", "cuda:0"),
        (2, "1", "cpu", "cpu"),
        (2, "", "cuda", "cuda"),
    ],
    indirect=["gpus"],
)
def test_each_process_has_its_own_gpu(
    gpus: None, monkeypatch: pytest.MonkeyPatch, local_rank: str | None, name: str | None, expected: str
) -> None:
    if local_rank is not None:
        monkeypatch.setenv("LOCAL_RANK", local_rank)
    assert own_device(name) == expected


@pytest.mark.parametrize("name", ["nothing", "cuda:99"])
def test_a_device_that_is_not_here_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"--device {name} cannot be used: ") as error:
        choose_device(name)
    assert "\n" not in str(error.value)
    assert choose_device("cpu") == "cpu"

"""Whether the pretended GPU notices what it is there for. Every check raises AssertionError where it does not."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

from tests.support.pretended.device import pretended


def checks() -> Iterable[Callable[[], None]]:
    return (mixed_devices, mixed_gpus, waits, bytes_that_lie_there, a_whole_backward_pass, a_model_with_a_mistake)


def refused(work: Callable[[], Any]) -> str:
    try:
        work()
    except RuntimeError as error:
        return str(error)
    raise AssertionError("devices were mixed and nobody noticed")


def mixed_devices() -> None:
    with pretended():
        here, there = torch.ones(3), torch.ones(3, device="cuda")
        assert "same device" in refused(lambda: there + here)
        assert "same device" in refused(lambda: torch.mm(there[None], here[:, None]))
        assert "indices" in refused(lambda: here[torch.tensor([0, 1], device="cuda")])
        assert "same device" in refused(lambda: there.mul_(here))
        assert (there * torch.tensor(2.0)).tolist() == [2, 2, 2], "one number may come from anywhere"
        assert there.device.type == "cuda" and (there + 1).device.type == "cuda" and there.cpu().device.type == "cpu"
        assert "numpy" in refused(there.numpy), "numpy does not read the memory of a GPU"


def mixed_gpus() -> None:
    with pretended() as ledger:
        first, second = torch.ones(4, device="cuda:0"), torch.ones(4, device="cuda:1")
        assert torch.cuda.device_count() == 2 and ledger.now == [16, 16]
        assert "cuda:0, cuda:1" in refused(lambda: first + second)
        assert "cuda:0, cuda:1" in refused(lambda: first[second.long()])
        assert (first + second.to("cuda:0")).device == torch.device("cuda", 0)


def waits() -> None:
    with pretended() as ledger:
        x = torch.arange(6.0).to("cuda")
        ledger.start_anew()
        y = (x @ x + x.sum()) * 2 - x.masked_fill(x > 3, 0.0).mean()
        x[x > 4] = 0.0
        assert not ledger.waits, ledger.waits
        for count, work in enumerate((y.item, lambda: bool(y > 0), x.cpu, lambda: x[x > 1], lambda: x.nonzero()), 1):
            work()
            assert sum(ledger.waits.values()) == count, (count, ledger.waits)
        before = sum(ledger.waits.values())
        torch.ones(3).to("cuda", non_blocking=True)
        assert sum(ledger.waits.values()) == before
        assert all("device_checks.py" in place for place in ledger.waits)


def bytes_that_lie_there() -> None:
    with pretended() as ledger:
        x = torch.zeros(1000, device="cuda")
        view = x.view(10, 100)[2:]
        assert ledger.now == [4000, 0], "a view takes nothing"
        y = x.double()
        assert ledger.now == ledger.peak == [12000, 0] and torch.cuda.memory_allocated() == 12000
        del y
        assert ledger.now == [4000, 0] and ledger.peak == [12000, 0]
        ledger.start_anew()
        assert ledger.peak == [4000, 0]
        del x
        assert ledger.now == [4000, 0], "the view keeps it"
        del view
        assert ledger.now == [0, 0]


def a_whole_backward_pass() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.GELU(), torch.nn.Linear(7, 3))
    x = torch.randn(4, 5)
    model(x).square().sum().backward()
    expected = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad(set_to_none=True)
    with pretended():
        model.to("cuda")
        model(x.to("cuda")).square().sum().backward()
        found = [parameter.grad.cpu() for parameter in model.parameters()]
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def a_model_with_a_mistake() -> None:
    """The mistake that this is for: a tensor that is made in the middle of a model, on the CPU."""

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x) + torch.arange(4)

    model = Model()
    model(torch.ones(2, 4))
    with pretended():
        model.to("cuda")
        message = refused(lambda: model(torch.ones(2, 4, device="cuda")))
        assert "cpu, cuda:0" in message and "device_checks.py" in message

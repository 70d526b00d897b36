"""The fastest way that passes the gate is taken, once; TF32 only where it is asked for, possible and precise enough."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from ifguide.errors import NumericsError
from ifguide.influence.options import Method
from ifguide.influence.passes import choice, step_search
from ifguide.influence.passes.choice import Way, choose_fastest
from ifguide.influence.passes.method import InTF32, make_pass, settle, settled
from ifguide.influence.windows import cut
from ifguide.models.precision import tf32_fault, tf32_matmuls
from ifguide.models.tracked import load_model
from tests.influence.conftest import EOD, WINDOW, save_tiny_model
from tests.influence.reference import random_direction
from tests.support.datasets import random_documents, write_tokens


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    """A float32 model that a difference suits."""
    return load_model(save_tiny_model(tmp_path_factory.mktemp("mild") / "neox", "neox", scale=1.0), device="cpu")


@pytest.fixture
def decide(tmp_path, single):
    """Settle a method on a small sample."""
    windows = cut(write_tokens(tmp_path / "s_text_document", random_documents([30] * 8)), EOD, WINDOW, 4)
    directions = [random_direction(single)]

    def decide(asked: Method, quiet: bool = True) -> Method:
        return settle(asked, single, directions, windows, 256, tmp_path / "m.json", {"run": 1}, quiet)

    return decide


@pytest.fixture
def two_batches(tmp_path):
    windows = cut(write_tokens(tmp_path / "t_text_document", random_documents([16, 16])), EOD, WINDOW, 4)
    return step_search.sample_batches(windows, 16)


def took(monkeypatch, **seconds: float) -> list[str]:
    """Fixed times of the ways: jvp, difference, and each with _tf32."""
    timed = []

    def seconds_of(way, batches, device):
        timed.append(way.method.method + "_tf32" * way.method.tf32)
        return seconds[timed[-1]]

    monkeypatch.setattr(choice, "seconds_of", seconds_of)
    return timed


@pytest.mark.parametrize(
    ("jvp", "difference", "taken"), [(2.0, 1.0, "difference"), (1.0, 2.0, "jvp"), (1.0, 0.96, "jvp")]
)
def test_auto_takes_the_faster_way(decide, monkeypatch, tmp_path, capsys, jvp, difference, taken):
    """Of equals the exact one."""
    took(monkeypatch, jvp=jvp, difference=difference)
    found = decide(Method(), quiet=False)
    assert found.method == taken and (found.step is None) == (taken == "jvp")
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith("timed on ") and told.split("taken: ")[1].split()[0] == taken
    kept = json.loads((tmp_path / "m.json").read_text())
    assert kept["method"] == found.record() and "tf32" not in kept["method"]
    found_times = {row["method"]["method"]: row["seconds"] for row in kept["timed"]}
    assert found_times == {"jvp": jvp, "difference": difference}


def test_what_was_chosen_is_never_timed_again(decide, monkeypatch, tmp_path):
    """By a run that goes on, or by another process: also where the other way would be faster by then."""
    took(monkeypatch, jvp=2.0, difference=1.0)
    first = decide(Method())
    took(monkeypatch, jvp=1.0, difference=2.0)
    monkeypatch.setattr(step_search, "search_step", lambda *_: pytest.fail("searched again"))
    assert decide(Method()) == first == settled(Method(), tmp_path / "m.json", {"run": 1})
    assert settled(Method(), tmp_path / "m.json", {"run": 2}) is None
    assert settled(Method(method="difference"), tmp_path / "m.json", {"run": 1}) is None


def test_only_what_passes_the_gate_is_timed(decide, monkeypatch):
    timed = took(monkeypatch, jvp=2.0, difference=1.0)
    monkeypatch.setattr(step_search, "GATE", (1.1, 0.0))
    assert decide(Method()).method == "jvp" and not timed, "one way is no choice"


def test_what_is_asked_by_name_is_not_timed(decide, monkeypatch):
    timed = took(monkeypatch)
    assert decide(Method(method="difference")).method == "difference"
    assert decide(Method(method="jvp")) == Method(method="jvp")
    assert decide(Method(dtype="bfloat16")) == Method(method="jvp", dtype="bfloat16")
    assert decide(Method("position")) == Method("position", "jvp") and not timed


def test_a_way_is_timed_after_a_warm_up_by_its_faster_turn(monkeypatch, two_batches):
    clock, cost = [0.0], iter([100.0, 5.0, 5.0, 4.0, 3.0])
    monkeypatch.setattr(choice.time, "perf_counter", lambda: clock[0])

    class Fake:
        def scores(self, batch):
            clock[0] += next(cost)
            return torch.zeros(1, *batch.labels.shape)

    assert len(two_batches) == 2
    assert choice.seconds_of(Way(Method(), Fake), two_batches, torch.device("cpu")) == 7.0


def test_tf32_competes_with_the_exact_arithmetic(decide, monkeypatch):
    timed = took(monkeypatch, jvp=3.0, jvp_tf32=2.0, difference_tf32=1.0)
    found = decide(Method(tf32=True))
    assert timed == ["jvp", "jvp_tf32", "difference_tf32"]
    assert (found.method, found.tf32) == ("difference", True) and found.record()["tf32"]


def test_auto_goes_on_without_tf32_where_it_is_too_coarse(decide, monkeypatch):
    timed = took(monkeypatch, jvp=3.0, difference_tf32=4.0)
    monkeypatch.setattr(step_search, "agreement", lambda *_: (0.5, 0.5))
    assert decide(Method(tf32=True)) == Method(method="jvp") and timed == ["jvp", "difference_tf32"]
    for asked in (Method(method="jvp", tf32=True), Method("position", tf32=True)):
        with pytest.raises(NumericsError, match="leave out --tf32"):
            decide(asked)


def test_tf32_asked_by_name_passes_the_gate_first(decide, monkeypatch):
    compared = []
    original = step_search.agreement
    monkeypatch.setattr(step_search, "agreement", lambda *a: compared.append(type(a[0])) or original(*a))
    took(monkeypatch)
    assert decide(Method(method="jvp", tf32=True)) == Method(method="jvp", tf32=True)
    assert decide(Method("position", tf32=True)) == Method("position", "jvp", tf32=True)
    assert compared == [InTF32, InTF32]
    half = Method(method="jvp", dtype="bfloat16", tf32=True)
    assert decide(half) == half and len(compared) == 2, "the head of a bfloat16 model loses nothing"


def test_tf32_is_on_in_the_pass_and_nowhere_else(single, monkeypatch):
    seen = []

    class Fake:
        def __init__(self, *_: object):
            seen.append(torch.backends.cuda.matmul.fp32_precision)

        def scores(self, batch):
            seen.append(torch.backends.cuda.matmul.fp32_precision)
            raise KeyError

        first_bad_layer = scores

    before = torch.backends.cuda.matmul.fp32_precision
    monkeypatch.setattr("ifguide.influence.passes.forward_mode.ForwardModePass", Fake)
    made = make_pass(single, [random_direction(single)], Method(method="jvp", tf32=True))
    for call in (made.scores, made.first_bad_layer):
        with pytest.raises(KeyError):
            call(None)
        assert torch.backends.cuda.matmul.fp32_precision == before
    assert seen == ["tf32"] * 3
    seen.clear()
    make_pass(single, [random_direction(single)], Method(method="jvp"))
    assert seen == [before] != ["tf32"]


def test_an_old_torch_has_a_switch(monkeypatch):
    class Old:
        allow_tf32 = False

    monkeypatch.setattr(torch.backends.cuda, "matmul", Old())
    with tf32_matmuls():
        assert torch.backends.cuda.matmul.allow_tf32 is True
    assert torch.backends.cuda.matmul.allow_tf32 is False


@pytest.mark.parametrize(
    ("device", "capability", "hip", "fault"),
    [
        ("cpu", None, None, "this run is on cpu; leave it out"),
        ("cuda", (7, 5), None, "Tesla T4 is none; leave it out"),
        ("cuda", (9, 4), "6.2", "Tesla T4 is none; leave it out"),
        ("cuda", (8, 0), None, None),
        ("cuda", (9, 0), None, None),
    ],
)
def test_where_tf32_cannot_apply_it_is_refused(monkeypatch, device, capability, hip, fault):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    monkeypatch.setattr(torch.version, "hip", hip)
    found = tf32_fault(torch.device(device))
    assert found is None if fault is None else found.endswith(fault) and found.startswith("--tf32 needs")


def test_records_of_earlier_versions_stay_what_they_were():
    """An unused --tf32 is no part of a run's identity: what was begun without it goes on."""
    assert list(Method().record()) == ["attribution", "method", "step", "one_sided", "rank", "dtype"]
    assert Method(**Method(tf32=True).record()) == Method(tf32=True)
    assert replace(Method(), tf32=True).record() != Method().record()


def test_real_passes_are_timed(single, two_batches):
    way = Way(Method(method="jvp"), lambda: make_pass(single, [random_direction(single)], Method(method="jvp")))
    chosen, table = choose_fastest([way, way], two_batches, single.device, quiet=True)
    assert chosen == way.method and all(row["seconds"] > 0 for row in table)

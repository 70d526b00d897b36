"""A plan against what it plans: files to the byte, counted operations, a batch that fits and one more that does not."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from ifguide.cli import main
from ifguide.data.aligned import write_aligned
from ifguide.influence.batches import group_by_length
from ifguide.influence.curvature.store import save_factors
from ifguide.influence.direction import save_direction
from ifguide.influence.options import Method
from ifguide.influence.passes.cut_directions import cut_and_keep
from ifguide.influence.passes.method import make_pass
from ifguide.influence.planning import work as plan_work
from ifguide.influence.planning.advice import disk_bytes, disk_faults, fitting, memory_faults
from ifguide.influence.planning.disk import (
    File,
    aligned_bytes,
    factor_shapes,
    fit_files,
    safetensors_bytes,
    score_files,
)
from ifguide.influence.planning.live import BatchSize
from ifguide.influence.planning.machine import Limits
from ifguide.influence.planning.memory import direction_peak, fitting_peaks, pass_peak
from ifguide.influence.planning.needs import Needs
from ifguide.influence.planning.plan import plan
from ifguide.influence.planning.settings import Settings
from ifguide.influence.planning.shape import read_shape
from ifguide.influence.windows import cut
from ifguide.models.tracked import load_model
from tests.influence.conftest import WINDOW
from tests.support.datasets import random_documents, write_tokens

ARCHITECTURES = ("neox", "llama", "gpt2")
STRATEGIES = ("ekfac", "kfac", "diagonal", "identity")
PLENTY = Limits(1 << 60, 1 << 60, 1 << 60, None)


@pytest.fixture
def needs(model_folders, dataset) -> Needs:
    return Needs(read_shape(model_folders["neox"]), dataset, int(dataset.lengths.max()), 10_000)


def settled(**changes) -> Settings:
    return replace(Settings(method=Method(method="jvp"), seq_length=WINDOW, context=4, device="cpu"), **changes)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_shape_is_the_loaded_model_s_without_its_weights(architecture, model_folders, tmp_path):
    shutil.copytree(model_folders[architecture], tmp_path / "m", ignore=shutil.ignore_patterns("*.safetensors"))
    shape = read_shape(tmp_path / "m")
    model = load_model(model_folders[architecture], device="cpu")
    assert shape.parameters == sum(parameter.numel() for parameter in model.model.parameters())
    assert shape.tracked == {name: model.matrix_shape(name) for name in model.tracked}
    assert (shape.window, shape.eod, shape.vocab) == (model.window, model.eod, model.vocab_size)
    assert shape.gated == (architecture == "llama")


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_factor_file_has_the_predicted_size(architecture, strategy, model_folders, tmp_path):
    shape = read_shape(model_folders[architecture])
    layers = {name: {} for name in shape.tracked}
    for name, sizes in factor_shapes(shape, strategy).items():
        layer, key = name.rsplit("/", 1)
        layers[layer][key] = torch.zeros(sizes)
    save_factors(tmp_path, layers, {})
    assert fit_files(shape, strategy)[0].bytes == (tmp_path / "factors.safetensors").stat().st_size


def test_fitted_factors_have_the_predicted_size(fitted, model_folders):
    shape = read_shape(model_folders["neox"])
    assert fit_files(shape, "ekfac")[0].bytes == (fitted / "factors.safetensors").stat().st_size


def test_scores_and_directions_have_the_predicted_sizes(model_folders, dataset, tmp_path):
    shape = read_shape(model_folders["gpt2"])
    for k in range(2):
        write_aligned(tmp_path / f"s{k}", dataset, iter([np.zeros(dataset.num_tokens, np.float32)]), np.float32, {})
        save_direction(tmp_path / f"s{k}", {name: torch.zeros(size) for name, size in shape.tracked.items()}, {})
    sizes = {file.name: file.bytes for file in score_files(shape, dataset, 2)}
    found = {path.name: path.stat().st_size for path in tmp_path.glob("s*")}
    assert sizes["scores (.bin, .idx)"] == sum(found[f"s{k}.{end}"] for k in range(2) for end in ("bin", "idx"))
    assert sizes["direction.safetensors"] == 2 * found["s0.direction.safetensors"]
    direction = {name: torch.zeros(size) for name, size in shape.tracked.items()}
    for rank in (3, 99):
        cut_and_keep([direction], rank, [tmp_path / "s0"], [{}], torch.device("cpu"))
        sizes = {file.name: file.bytes for file in score_files(shape, dataset, 2, rank)}
        name = f"direction.rank-{rank}.safetensors"
        assert sizes[name] == 2 * (tmp_path / f"s0.{name}").stat().st_size


def test_a_mask_has_the_predicted_size(dataset, tmp_path):
    write_aligned(
        tmp_path / "m", dataset, iter([np.zeros(dataset.num_tokens, np.uint8)]), np.uint8, {"encoding": "binary"}
    )
    assert aligned_bytes(dataset, 1) == sum((tmp_path / f"m.{end}").stat().st_size for end in ("bin", "idx"))


def test_names_that_are_not_ascii_have_their_size(tmp_path):
    from safetensors.torch import save_file

    shapes = {'a"é': (3, 1), "b": (2,), "": (1, 1, 1)}
    save_file({name: torch.zeros(size) for name, size in shapes.items()}, tmp_path / "t")
    assert safetensors_bytes(shapes) == (tmp_path / "t").stat().st_size


def test_work_counts_windows_overlap_and_padding(dataset):
    windows = cut(dataset, 0, WINDOW, 4)
    work = plan_work.measure(windows, 3 * WINDOW, tokens_per_shard=40)
    padded = squares = 0
    for piece in windows.pieces(40):
        lengths = windows.of(piece).lengths
        for group in group_by_length(lengths, 3 * WINDOW):
            padded += len(group) * max(lengths[group])
            squares += len(group) * max(lengths[group]) ** 2
    assert (work.windows, work.scored, work.longest) == (len(windows), dataset.num_tokens, WINDOW)
    assert (work.padded, work.squares) == (padded, squares)
    assert work.overlap == pytest.approx((windows.lengths.sum() - dataset.num_tokens) / dataset.num_tokens)
    assert work.padding == pytest.approx(1 - windows.lengths.sum() / padded)


def test_a_large_dataset_is_looked_at_in_part(tmp_path, monkeypatch):
    lengths = np.random.default_rng(0).integers(1, WINDOW, 4000)
    windows = cut(write_tokens(tmp_path / "d", random_documents(lengths.tolist())), 0, WINDOW, 4)
    whole = plan_work.measure(windows, 8 * WINDOW, tokens_per_shard=500)
    monkeypatch.setattr(plan_work, "_LOOKED_AT", 400)
    part = plan_work.measure(windows, 8 * WINDOW, tokens_per_shard=500)
    assert part.padded != whole.padded and part.padded == pytest.approx(whole.padded, rel=0.02)
    assert (part.scored, part.positions) == (whole.scored, whole.positions)


@pytest.mark.parametrize("directions", [1, 3])
@pytest.mark.parametrize(
    "method",
    [Method(method="difference", step=1e-2), Method(method="difference", step=1e-2, one_sided=True)],
    ids=["two-sided", "one-sided"],
)
@pytest.mark.parametrize("architecture", ["neox", "llama"])
def test_operations_are_those_that_the_pass_makes(architecture, method, directions, model_folders, tmp_path):
    """Of the matrix products that torch counts; the fused attention is counted apart."""
    folder = model_folders[architecture]
    model, shape = load_model(folder, device="cpu"), read_shape(folder)
    windows = cut(write_tokens(tmp_path / "d", random_documents([WINDOW] * 4)), 0, WINDOW, 4)
    batch = windows.batch(np.arange(4))
    drawn = [{name: torch.randn(size) for name, size in shape.tracked.items()} for _ in range(directions)]
    scorer = make_pass(model, drawn, method)
    with FlopCounterMode(display=False) as counter:
        scorer.scores(batch)
    counts = counter.get_flop_counts()["Global"]
    found = sum(count for name, count in counts.items() if "attention" not in str(name))
    work = plan_work.of_batch(int(batch.labelled.sum()), *batch.inputs.shape)
    attention = plan_work.forward(shape, work) - 2 * shape.linear * work.padded
    passes = directions + 1 if method.one_sided else 2 * directions
    assert found == pytest.approx(plan_work.scoring(shape, work, method, directions) - passes * attention, rel=0.01)


@pytest.mark.parametrize("job", ["fit-factors", "score"])
def test_the_advice_names_the_largest_values_that_fit(job, needs):
    asked = settled(batch_size=64, seq_length=64)
    needed = max(peak.device_bytes for peak in needs.memory(job, asked))
    smallest = max(peak.device_bytes for peak in needs.memory(job, settled(batch_size=1, seq_length=1)))
    limit = Limits(None, (needed + smallest) // 2, 1 << 60, None)
    (fault,) = memory_faults(needs, [job], asked, limit)
    assert fault.startswith(f"{job} (") and "what fits: --batch-size " in fault
    for flag, name in (("--batch-size", "batch_size"), ("--seq-length", "seq_length")):
        value = int(re.search(rf"{flag} (\d+)", fault)[1])
        assert 1 <= value < 64
        assert not memory_faults(needs, [job], replace(asked, **{name: value}), limit)
        assert memory_faults(needs, [job], replace(asked, **{name: value + 1}), limit)


def test_what_fits_is_no_fault(needs):
    assert memory_faults(needs, ["fit-factors", "score"], settled(), PLENTY) == []
    assert disk_faults(needs, ["fit-factors", "score"], settled(), PLENTY) == []


def test_nothing_that_fits_is_told_so(needs):
    (fault,) = memory_faults(needs, ["score"], settled(), Limits(None, 1, 1 << 60, None))
    assert "no single flag makes it fit" in fault


def test_processes_share_the_memory_of_the_machine(needs):
    one = max(peak.device_bytes for peak in needs.memory("score", settled()))
    limit = Limits(None, int(2.5 * one), 1 << 60, None)
    (fault,) = memory_faults(needs, ["score"], settled(ranks=4), limit)
    assert "in 4 processes" in fault and "--ranks 2" in fault


def test_gpu_and_host_have_limits_of_their_own(needs):
    asked = settled(device="cuda")
    peaks = needs.memory("score", asked)
    device, host = max(peak.device_bytes for peak in peaks), max(peak.host_bytes for peak in peaks)
    assert memory_faults(needs, ["score"], asked, Limits(device, host, 1, None)) == []
    assert "GPU memory" in memory_faults(needs, ["score"], asked, Limits(device - 1, host, 1, None))[0]
    assert "of memory" in memory_faults(needs, ["score"], asked, Limits(device, host - 1, 1, None))[0]


def test_a_disk_that_is_too_small_names_what_needs_less(needs):
    files = {job: needs.disk(job, settled()) for job in ("fit-factors", "score", "build-mask")}
    limit = Limits(None, None, disk_bytes(files, all_on_one=True) - 1, None)
    (fault,) = disk_faults(needs, list(files), settled(), limit)
    # it has the same factors, but no second moments beside them while it is fitted
    assert "--strategy kfac" in fault and "--disk on another one" in fault
    (fault,) = disk_faults(needs, list(files), settled(), Limits(None, None, 1 << 60, 10))
    assert "temporary files" in fault and "--strategy identity" in fault


def test_temporary_files_of_jobs_do_not_add_up():
    files = {
        "a": [File("x", 10), File("t", 5, temporary=True)],
        "b": [File("y", 1), File("u", 7, True, elsewhere=True)],
    }
    assert disk_bytes(files, all_on_one=True) == 18
    assert disk_bytes(files, all_on_one=False) == 16


def test_each_way_to_score_needs_what_it_keeps(model_folders):
    shape = read_shape(model_folders["neox"])

    def peak(directions=1, **options):
        return pass_peak(shape, Method(**options), directions, BatchSize(4, 16, "cpu")).device

    assert peak(method="difference")["moved weights"] == 8 * shape.matrices
    assert peak(4, method="difference", one_sided=True)["moved weights"] == 16 * shape.matrices
    assert peak(3, method="jvp")["tangents of the weights"] == 12 * shape.matrices
    assert peak(method="jvp", rank=2)["tangents of the weights"] == 8 * shape.sides
    assert peak(method="jvp", dtype="bfloat16")["weights"] == 2 * shape.parameters


@pytest.mark.parametrize("batch_size", [2, 16, 64])
def test_backward_passes_are_planned_in_their_pieces(model_folders, batch_size):
    """On a GPU too: of a batch of 16 full windows a fit and position scores hold what two windows take."""
    shape = read_shape(model_folders["neox"])
    one, many = BatchSize(2, 2048, "cuda"), BatchSize(batch_size, 2048, "cuda")
    position = Method(attribution="position")
    assert pass_peak(shape, position, 1, one) == pass_peak(shape, position, 1, many)
    assert fitting_peaks(shape, "ekfac", one) == fitting_peaks(shape, "ekfac", many)
    assert direction_peak(shape, 1, "ekfac", one, 1 << 20) == direction_peak(shape, 1, "ekfac", many, 1 << 20)
    jvp = Method(method="jvp")
    assert pass_peak(shape, jvp, 1, one).device_bytes <= pass_peak(shape, jvp, 1, many).device_bytes


def test_a_plan_cuts_the_fit_as_fit_factors_will(model_folders, dataset, tmp_path):
    """By the memory of the device; the cut one fits, and the work grows by the passes."""
    shape = read_shape(model_folders["neox"])
    batch = BatchSize(4, WINDOW, "cuda")
    items = fitting_peaks(shape, "ekfac", batch)[0].device
    needed = items["covariances"] + items["activations"]
    memory = items["weights"] + items["CUDA context"] + int((needed - 400) / 0.9)
    cut_fit = fitting_peaks(shape, "ekfac", batch, memory)
    assert cut_fit[0].phase == "covariances, 2 partitions" and cut_fit[0].device_bytes <= memory
    cut_plan, plain = (
        plan(
            model_folders["neox"],
            dataset.prefix,
            Settings(device="cuda", device_memory=gigabytes, disk=tmp_path, method=Method(method="jvp")),
        )
        for gigabytes in (memory / 1e9, 80)
    )
    assert cut_plan["partitions"]["covariances"] > 1 == plain["partitions"]["covariances"]
    work = [{row["phase"]: row["operations"] for row in found["operations"]} for found in (cut_plan, plain)]
    assert work[0]["covariances"] > work[1]["covariances"]
    assert work[0]["eigendecomposition"] == work[1]["eigendecomposition"]


def test_flags_that_fit_only_together_are_named(needs):
    """A direction in float32 fits, and of the passes only one in half of the precision."""
    tracked = {f"layers.{n}": (4000, 4000) for n in range(50)}
    large = replace(needs, shape=replace(needs.shape, parameters=10**9, tracked=tracked))
    asked = settled(device="cuda", strategy="identity", method=Method(method="difference"))
    limit = Limits(5_200_000_000, 1 << 60, 1 << 60, None)
    together = replace(asked, method=Method(method="jvp", dtype="bfloat16"))
    assert fitting(large, "score", replace(asked, method=Method()), limit) == ("--dtype bfloat16", together)
    assert fitting(large, "score", asked, limit) == ("--method jvp --dtype bfloat16", together)
    (fault,) = memory_faults(large, ["score"], asked, limit)
    assert fault.endswith("no single flag makes it fit; what fits: --method jvp --dtype bfloat16")
    assert fitting(large, "score", asked, PLENTY) == ("", asked)
    assert fitting(large, "score", asked, Limits(1, 1, 1 << 60, None)) is None
    assert fitting(needs, "fit-factors", settled(device="cuda"), Limits(1, 1, 1 << 60, None)) is None


def test_a_direction_needs_no_copy_of_the_weights(model_folders):
    """Beside them: one pass over a few thousand tokens, and one layer's gradient."""
    shape = replace(read_shape(model_folders["neox"]), parameters=10**9, blocks=16)
    items = direction_peak(shape, 3, "identity", BatchSize(16, 2048, "cuda"), 1 << 20).device
    assert items["weights"] == 4 * 10**9
    assert sum(items.values()) - items["weights"] - items["CUDA context"] < 10**9


def test_a_plan_from_the_configuration_alone(model_folders, dataset, tmp_path):
    shutil.copytree(model_folders["neox"], tmp_path / "m", ignore=shutil.ignore_patterns("*.safetensors"))
    found = plan(tmp_path / "m", dataset.prefix, Settings(device="cpu", disk=tmp_path))
    json.dumps(found, allow_nan=False)
    assert found["faults"] == [] and found["seconds"] is None and found["timing"] is None
    assert found["data"]["scored_tokens"] == dataset.num_tokens
    assert {row["phase"] for row in found["operations"]} >= {"scoring pass (jvp)", "scoring pass (difference)"}


@pytest.mark.parametrize("options", [{}, {"method": "jvp", "rank": 4}, {"attribution": "position"}])
def test_a_timed_batch_gives_every_phase_a_time(options, model_folders, dataset, tmp_path):
    settings = Settings(method=Method(**options), directions=2, device="cpu", disk=tmp_path)
    found = plan(model_folders["neox"], dataset.prefix, settings, timing=True)
    assert all(row["seconds"] >= 0 for row in found["operations"]) and found["seconds"] > 0
    for timed in found["timing"].values():
        assert timed["seconds"] > 0 and timed["rows"] * timed["columns"] <= 16 * WINDOW


def test_the_verb_refuses_with_exit_2_and_one_line_a_job(model_folders, dataset, tmp_path, capsys):
    command = ["plan", "--model", str(model_folders["neox"]), "--data", dataset.prefix, "--no-timing"]
    command += ["--device", "cpu", "--disk", str(tmp_path)]
    assert main(command) == 0
    out, err = capsys.readouterr()
    assert "factors.safetensors" in out and "scoring pass (jvp)" in out and err == ""
    assert main([*command, "--device-memory", "0.01", "--json"]) == 2
    out, err = capsys.readouterr()
    assert json.loads(out)["faults"] and err.count("\n") == 2
    assert all(line.startswith("ifguide plan: ") for line in err.splitlines())


def test_bad_options_are_told_together(model_folders, dataset, capsys):
    command = ["plan", "--model", str(model_folders["neox"]), "--data", dataset.prefix, "--no-timing"]
    assert main([*command, "--batch-size", "0", "--directions", "0", "--rank", "0", "--device-memory", "-1"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 4 and "Traceback" not in error
    for flag in ("--batch-size 0", "--directions 0", "--rank 0", "--device-memory -1"):
        assert flag in error


@pytest.mark.parametrize(
    "config", ["{", "{}", '{"model_type": "unheard-of"}', '{"model_type": "gpt_neox", "vocab_size": "x"}']
)
def test_a_configuration_that_cannot_be_used_is_one_line(config, dataset, tmp_path, capsys):
    (tmp_path / "config.json").write_text(config)
    assert main(["plan", "--model", str(tmp_path), "--data", dataset.prefix, "--no-timing"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "Traceback" not in error

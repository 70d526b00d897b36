"""What cannot fit, and which one flag would make it fit: for numbers the largest value that does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from ifguide.influence.options import METHODS, STRATEGIES
from ifguide.influence.planning.disk import File
from ifguide.influence.planning.machine import Limits
from ifguide.influence.planning.memory import Peak
from ifguide.influence.planning.needs import Needs
from ifguide.influence.planning.settings import Settings

Fits = Callable[[Settings], bool]

_BATCH_SIZES = (8, 4, 2, 1)


def memory_faults(needs: Needs, jobs: Sequence[str], settings: Settings, available: Limits) -> list[str]:
    """A line for each of ``jobs`` that needs more memory than there is."""
    faults = []
    for job in jobs:
        worst = max(needs.memory(job, settings), key=lambda peak: _excess(peak, settings, available), default=None)
        if worst and _excess(worst, settings, available) > 0:
            fits = _fits(needs, job, available)
            options = _memory_options(needs, job, settings, fits)
            found = None if options else _fitting(job, settings, fits)
            together = None if found is None else found[0]
            faults.append(
                f"{job} ({worst.phase}) needs {_shortage(worst, settings, available)}; {_advice(options, together)}"
            )
    return faults


def fitting(needs: Needs, job: str, settings: Settings, available: Limits) -> tuple[str, Settings] | None:
    """The flags with which ``job`` fits, as few as can be, and the settings with them: ("", ``settings``) where it fits
    as it is, None where it cannot."""
    return _fitting(job, settings, _fits(needs, job, available))


def _fits(needs: Needs, job: str, available: Limits) -> Fits:
    return lambda settings: all(_excess(peak, settings, available) <= 0 for peak in needs.memory(job, settings))


def _fitting(job: str, settings: Settings, fits: Fits) -> tuple[str, Settings] | None:
    sizes = [settings.batch_size, *(n for n in _BATCH_SIZES if n < settings.batch_size)]
    for kind, changed in _kinds(job, settings):
        for size in sizes:
            tried = replace(changed, batch_size=size)
            if fits(tried):
                return " ".join([*kind, *([f"--batch-size {size}"] if size != settings.batch_size else [])]), tried
    return None


def _kinds(job: str, settings: Settings) -> Iterator[tuple[list[str], Settings]]:
    """Flags, and the settings with them: the asked ones first, then what needs less."""
    yield [], settings
    if job == "fit-factors":
        for name in STRATEGIES[STRATEGIES.index(settings.strategy) + 1 :]:
            yield [f"--strategy {name}"], replace(settings, strategy=name)
        return
    method = settings.method
    jvp = replace(method, method="jvp", one_sided=False) if method.attribution == "loss-term" else method
    if jvp != method:
        yield ["--method jvp"], replace(settings, method=jvp)
    if method.dtype == "float32":
        # "auto" takes jvp there
        flags = ["--method jvp"] if method.method == "difference" else []
        yield [*flags, "--dtype bfloat16"], replace(settings, method=replace(jvp, dtype="bfloat16"))


def disk_faults(needs: Needs, jobs: Sequence[str], settings: Settings, available: Limits) -> list[str]:
    """A line for each disk that the files of ``jobs`` do not fit on."""

    def files(tried: Settings) -> dict[str, list[File]]:
        return {job: needs.disk(job, tried) for job in jobs}

    faults = []
    needed, free = disk_bytes(files(settings), available.temporary is None), available.disk
    if needed > free:
        fits: Fits = lambda tried: disk_bytes(files(tried), available.temporary is None) <= free  # noqa: E731
        faults.append(
            f"disk: the files need {gigabytes(needed)}, {settings.disk} has {gigabytes(free)} free; "
            + _advice([*_disk_options(settings, fits), "--disk on another one"])
        )
    temporary = temporary_bytes(files(settings))
    if available.temporary is not None and temporary > available.temporary:
        free_temporary = available.temporary
        fits = lambda tried: temporary_bytes(files(tried)) <= free_temporary  # noqa: E731
        faults.append(
            f"fit-factors: its temporary files need {gigabytes(temporary)}, the folder for them has "
            f"{gigabytes(free_temporary)} free; " + _advice([*_disk_options(settings, fits), "TMPDIR on another disk"])
        )
    return faults


def disk_bytes(files: dict[str, list[File]], all_on_one: bool) -> int:
    """The most that lies on the output's disk at once: what stays of every job, and what passes of the largest.

    Args:
        all_on_one: the folder for temporary files is on that disk too.
    """
    stays = sum(file.bytes for found in files.values() for file in found if not file.temporary)
    passing = [
        sum(file.bytes for file in found if file.temporary and (all_on_one or not file.elsewhere))
        for found in files.values()
    ]
    return stays + max(passing, default=0)


def temporary_bytes(files: dict[str, list[File]]) -> int:
    """The most that lies in the folder for temporary files."""
    return max((sum(file.bytes for file in found if file.elsewhere) for found in files.values()), default=0)


def gigabytes(count: float) -> str:
    """Bytes for people."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}" if count < 999 * size else f"{count / size:.0f} {unit}"
    return f"{count:.0f} bytes"


def _excess(peak: Peak, settings: Settings, available: Limits) -> float:
    """Bytes that are missing; negative where there is room."""
    found = [float("-inf")]
    if settings.device == "cpu":
        if available.host is not None:
            found.append(settings.ranks * peak.device_bytes - available.host)
    else:
        if available.device is not None:
            found.append(peak.device_bytes - available.device)
        if available.host is not None:
            found.append(settings.ranks * peak.host_bytes - available.host)
    return max(found)


def _shortage(peak: Peak, settings: Settings, available: Limits) -> str:
    on_device = settings.device != "cpu" and available.device is not None and peak.device_bytes > available.device
    if on_device:
        return f"{gigabytes(peak.device_bytes)} of GPU memory, there is {gigabytes(available.device or 0)}"
    one = peak.device_bytes if settings.device == "cpu" else peak.host_bytes
    each = f" in {settings.ranks} processes" if settings.ranks > 1 else ""
    return f"{gigabytes(settings.ranks * one)} of memory{each}, there is {gigabytes(available.host or 0)}"


def _advice(options: list[str], together: str | None = None) -> str:
    if not options and together:
        return f"no single flag makes it fit; what fits: {together}"
    if not options:
        return "no single flag makes it fit: use a larger machine or a smaller model"
    return "what fits: " + ", or ".join(options)


def _memory_options(needs: Needs, job: str, settings: Settings, fits: Fits) -> list[str]:
    assert settings.seq_length is not None
    found = [
        _number("--batch-size", settings.batch_size, lambda n: replace(settings, batch_size=n), fits),
        _number("--seq-length", settings.seq_length, lambda n: replace(settings, seq_length=n), fits),
        _number("--ranks", settings.ranks, lambda n: replace(settings, ranks=n), fits),
    ]
    method = settings.method
    if job == "fit-factors":
        return [option for option in [*found, *_strategies(settings, fits)] if option]
    if method.attribution == "position" or method.method == "jvp":
        most = max(min(pair) for pair in needs.shape.tracked.values())
        rank = method.rank or most + 1
        found.append(_number("--rank", rank, lambda n: replace(settings, method=replace(method, rank=n)), fits))
    found.append(_number("--directions", settings.directions, lambda n: replace(settings, directions=n), fits))
    if method.attribution == "loss-term":
        for name in METHODS:
            other = replace(settings, method=replace(method, method=name, one_sided=False))
            if name not in ("auto", method.method) and not other.faults() and fits(other):
                found.append(f"--method {name}")
    half = replace(settings, method=replace(method, dtype="bfloat16"))
    if method.dtype == "float32" and not half.faults() and fits(half):
        found.append("--dtype bfloat16")
    return [option for option in found if option]


def _disk_options(settings: Settings, fits: Fits) -> list[str]:
    directions = _number("--directions", settings.directions, lambda n: replace(settings, directions=n), fits)
    return [*([directions] if directions else []), *_strategies(settings, fits)]


def _strategies(settings: Settings, fits: Fits) -> Iterator[str]:
    """The best strategy that fits."""
    weaker = STRATEGIES[STRATEGIES.index(settings.strategy) + 1 :]
    for name in weaker:
        if fits(replace(settings, strategy=name)):
            yield f"--strategy {name}"
            return


def _number(flag: str, value: int, change: Callable[[int], Settings], fits: Fits) -> str | None:
    """``flag`` with the largest number below ``value`` that fits, or None; needs grow with the number."""
    low, high = 0, value
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(change(middle)) else (low, middle)
    return f"{flag} {low}" if low else None

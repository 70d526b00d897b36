"""The table of private and moving parts: it is as the installed versions are, and a broken promise is named."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from ifguide.compat import registry
from ifguide.compat.use import AS_EXPECTED, CHANGED, MISSING, NOT_INSTALLED, TESTED, Use, version_of

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("use", registry.USES, ids=lambda use: use.what)
def test_the_installed_versions_are_as_expected(use: Use) -> None:
    state, reason = use.state()
    if state == NOT_INSTALLED:
        pytest.skip(f"{use.dependency} is not installed")
    assert (state, reason) == (AS_EXPECTED, None)


def test_every_entry_is_whole() -> None:
    assert len({use.what for use in registry.USES}) == len(registry.USES)
    for use in registry.USES:
        assert use.dependency in TESTED
        for path in use.where:
            assert (ROOT / path).is_file(), f"{use.what} is said to be used in {path}"


def entry(what: str) -> Use:
    return next(use for use in registry.USES if use.what == what)


def test_the_part_that_is_not_as_expected_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    yaml = pytest.importorskip("yaml")
    assert registry.check(["PyYAML"]) == []
    monkeypatch.setattr(yaml.SafeLoader, "construct_mapping", lambda self, node, deep=False: {})
    broken = entry("yaml.SafeLoader")
    assert broken.state()[0] == AS_EXPECTED  # ours is called all the same
    monkeypatch.setattr(yaml.SafeLoader, "get_single_data", lambda self: {})
    assert broken.state() == (CHANGED, "the keys that it constructs is [], not [('a', 0), ('a', 1)]")
    (fault,) = registry.check(["PyYAML"])
    assert fault.startswith(f"yaml.SafeLoader is not as expected in PyYAML {version_of('PyYAML')}: ")
    assert fault.endswith("(lets us see each key, to find one that is given twice; ifguide/config/yaml_files.py)")


def test_a_part_that_is_gone_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = dataclasses.replace(entry("yaml.SafeLoader"), what="yaml.SaferLoader")
    module = dataclasses.replace(gone, what="yaml.elsewhere.SafeLoader")
    monkeypatch.setattr(registry, "USES", (gone, module))
    assert [found.state for found in registry.report()] == [MISSING, MISSING]
    first, second = registry.check()
    assert first.startswith("yaml.SaferLoader is missing in PyYAML ") and "SaferLoader" in first
    assert second.startswith("yaml.elsewhere.SafeLoader is missing in PyYAML ")


def test_what_a_part_takes_and_has_is_looked_at() -> None:
    use = entry("yaml.SafeLoader")
    bare = dataclasses.replace(use, behaves=None, attributes=())
    assert dataclasses.replace(bare, parameters=("stream",)).state() == (AS_EXPECTED, None)
    assert dataclasses.replace(bare, parameters=("streams",)).state() == (CHANGED, "it does not take streams")
    assert dataclasses.replace(bare, attributes=("compose_node",)).state() == (AS_EXPECTED, None)
    assert dataclasses.replace(bare, attributes=("composed",)).state() == (CHANGED, "it has no composed")


def test_a_trial_that_fails_is_a_fault() -> None:
    def raising(_: object) -> None:
        raise TypeError("it took\ntwo lines")

    broken = dataclasses.replace(entry("yaml.SafeLoader"), behaves=raising)
    assert broken.state() == (CHANGED, "TypeError: it took")


def test_the_cache_layer_of_another_transformers_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """What happened once: layers changed, and generation was the first to notice."""
    pytest.importorskip("torch")
    cache_utils = pytest.importorskip("transformers.cache_utils")

    def update(self: object, *_: object) -> None:
        raise AttributeError("'DynamicLayer' object has no attribute 'dtype'")

    monkeypatch.setattr(cache_utils.DynamicLayer, "update", update)
    faults = registry.check(["transformers"])
    assert [fault.split(" ", 1)[0] for fault in faults] == ["transformers.cache_utils.DynamicLayer"]
    assert "AttributeError: 'DynamicLayer' object has no attribute 'dtype'" in faults[0]
    assert "ifguide/compat/transformers_cache.py" in faults[0]


def test_what_is_not_installed_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ifguide.compat.use.version_of", lambda _: None)
    found = list(registry.report())
    assert {finding.state for finding in found if TESTED[finding.use.dependency]} == {NOT_INSTALLED}
    assert registry.check() == []


def test_it_imports_no_dependency_of_its_own() -> None:
    heavy = ["torch", "transformers", "lm_eval", "kronfluence", "megatron.core", "deepspeed", "datasets", "yaml"]
    code = f"import sys, ifguide.compat.registry; print([name for name in {heavy} if name in sys.modules])"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"

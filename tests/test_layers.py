"""The house: imports go down only, no circles, no crowded folders, no long modules (docs/architecture.md)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.support.imports import Graph, circles, composed_loads, imports_of, modules_of, reached

ROOT = Path(__file__).parents[1]

# from the bottom to the top; a room is a folder of ifguide/, or a module that lies there
LAYERS = (
    ("errors",),
    ("system", "config", "statistics", "compat", "requirements"),
    ("data", "pages"),
    ("selection", "penalties", "models", "architectures"),
    ("scorers", "objectives", "checkpoints"),
    ("masks",),
    ("engine", "influence", "generation"),
    ("validation", "inspection", "evaluation", "analysis", "attacks"),
    ("quickstart", "experiments", "route"),
    ("verbs",),
    ("cli", "launch"),
)
MOST_MODULES, MOST_LINES = 14, 400

# What runs in the environment of GPT-NeoX's users, which has numpy and torch: a room, or one module of it.
FOR_THE_PATCH = (
    "errors", "system", "config", "penalties",
    "objectives.penalised", "objectives.base", "objectives.cross_entropy", "objectives.keys",
    "data.aligned", "data.fingerprint", "data.index_file", "data.indexed", "data.sidecar",
    # tokenizer files as they are: a library comes in with the first text, and the patch reads none
    "data.text.content", "data.text.record", "data.text.tokenizers",
    # what the worker on a CPU keeps DeepSpeed from compiling
    "compat.deepspeed",
)  # fmt: skip
PATCH_FOR_EVALUATION = "ifguide_patch.neox_eval"
# scores tokens: what `ifguide score` needs, it needs too
PATCH_FOR_SCORING = "ifguide_patch.scoring."
CHOOSES_THE_ENGINE = "ifguide.launch"
# the one that loads verbs by their names, which is no import of them
LOADS_VERBS = ("ifguide.cli", "ifguide.verbs")


def upward(graph: Graph) -> Iterator[str]:
    """Imports from a layer into a higher one, and rooms that have no layer."""
    height = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
    for name in sorted(graph):
        if not name.startswith("ifguide."):
            continue
        if _room(name) not in height:
            yield f"{name}: {_room(name)} is in no layer"
            continue
        for target in sorted(graph[name]):
            if target.startswith("ifguide.") and height.get(_room(target), -1) > height[_room(name)]:
                yield f"{name} imports {target}, which lies above it"


def into_the_patch(graph: Graph) -> Iterator[str]:
    """Imports of ifguide_patch by anything but the module that chooses the engine."""
    for name in sorted(graph):
        if name.split(".")[0] == "ifguide" and name != CHOOSES_THE_ENGINE:
            yield from (
                f"{name} imports {target}" for target in sorted(graph[name]) if target.split(".")[0] == "ifguide_patch"
            )


def out_of_the_patch(graph: Graph) -> Iterator[str]:
    """What ifguide_patch imports of ifguide, or what that imports, and must not."""
    for name in sorted(graph):
        if name.split(".")[0] != "ifguide_patch":
            continue
        if name.startswith(PATCH_FOR_SCORING) and name != f"{PATCH_FOR_SCORING}keys":
            continue
        direct = {target for target in graph[name] if target.startswith("ifguide.")}
        if name == PATCH_FOR_EVALUATION:
            direct = {target for target in direct if _room(target) != "evaluation"}
        for target in sorted(direct.union(*(reached(graph, one) for one in direct))):
            if target.startswith("ifguide.") and not _for_the_patch(target):
                yield f"{name} imports {target}, itself or through others"


def crowded(root: Path) -> Iterator[str]:
    """Folders with more modules than a reader holds in mind; verbs are one a file, and many."""
    modules = modules_of(root, ("ifguide",))
    for folder in sorted({path.parent for path in modules.values()}):
        count = sum(path.parent == folder and path.name != "__init__.py" for path in modules.values())
        if count > MOST_MODULES and folder != root / "ifguide" / "verbs":
            yield f"{folder.relative_to(root)} has {count} modules"


def long_modules(root: Path) -> Iterator[str]:
    for name, path in modules_of(root, ("ifguide", "ifguide_patch")).items():
        lines = len(path.read_text().splitlines())
        if lines > MOST_LINES:
            yield f"{name} has {lines} lines"


def by_room(graph: Graph) -> Graph:
    """The graph of the rooms of ifguide: rooms of one layer may know each other in one direction."""
    rooms: Graph = {}
    for name, targets in graph.items():
        if name.startswith("ifguide."):
            known = {_room(target) for target in targets if target.startswith("ifguide.")}
            rooms.setdefault(_room(name), set()).update(known - {_room(name)})
    return rooms


def hold(faults: Iterable[str]) -> None:
    """Fail with all of ``faults``, one a line."""
    found = list(faults)
    assert not found, "\n" + "\n".join(found)


def _room(name: str) -> str:
    return name.split(".")[1]


def _for_the_patch(target: str) -> bool:
    inside = target.removeprefix("ifguide.")
    return any(inside == allowed or inside.startswith(f"{allowed}.") for allowed in FOR_THE_PATCH)


@pytest.fixture(scope="module")
def graph() -> Graph:
    return imports_of(modules_of(ROOT, ("ifguide", "ifguide_patch")), LOADS_VERBS)


def test_the_whole_house_is_read(graph: Graph) -> None:
    assert {
        "ifguide.errors",
        "ifguide.objectives.base",
        "ifguide_patch.training.loss",
        "ifguide.verbs.score",
    } <= graph.keys()
    assert sum(map(len, graph.values())) > 500


def test_imports_go_down_only(graph: Graph) -> None:
    hold(upward(graph))


def test_no_circle_among_modules(graph: Graph) -> None:
    hold(" -> ".join(group) for group in circles(graph))


def test_no_circle_among_rooms(graph: Graph) -> None:
    hold(" -> ".join(group) for group in circles(by_room(graph)))


def test_only_the_launcher_knows_the_patch(graph: Graph) -> None:
    hold(into_the_patch(graph))


def test_the_patch_imports_what_runs_beside_neox(graph: Graph) -> None:
    hold(out_of_the_patch(graph))


def test_one_module_loads_verbs_and_no_other_puts_names_together() -> None:
    found = composed_loads(modules_of(ROOT, ("ifguide", "ifguide_patch")))
    assert found in [{name: ["ifguide.verbs."]} for name in LOADS_VERBS]


def test_no_folder_is_crowded() -> None:
    hold(crowded(ROOT))


def test_no_module_is_long() -> None:
    hold(long_modules(ROOT))


# ---- the rules see what breaks them ----


def tree(root: Path, files: Mapping[str, str]) -> Graph:
    """A house of the given modules (path without suffix -> text) and its graph."""
    for name, text in files.items():
        path = root / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return imports_of(modules_of(root, ("ifguide", "ifguide_patch")), LOADS_VERBS)


UPWARD = {
    "a statement": "import ifguide.masks.build",
    "a module of a package": "from ifguide.masks import build",
    "a name of a module": "from ifguide.masks.build import build_masks",
    "inside a function": "def f():\n    from ifguide.masks.build import build_masks",
    "for types alone": (
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ifguide.masks.build import build_masks"
    ),
    "relative": "from ..masks import build",
    "by name": "import importlib\nimportlib.import_module('ifguide.masks.build')",
    "by a relative name": "from importlib import import_module\nimport_module('..masks.build', __package__)",
    "by a name that is put together": "import importlib\nimportlib.import_module(f'ifguide.masks.{what}')",
    "by a sum": "import importlib\nimportlib.import_module('ifguide.masks.' + what)",
    "by a format": "import importlib\nimportlib.import_module('ifguide.masks.{}'.format(what))",
    "by the builtin": "__import__('ifguide.masks.build')",
}


@pytest.mark.parametrize("how", UPWARD)
def test_an_upward_import_is_seen(tmp_path: Path, how: str) -> None:
    graph = tree(tmp_path, {"ifguide/data/sidecar": UPWARD[how], "ifguide/masks/build": "def build_masks(): ..."})
    assert list(upward(graph)) == ["ifguide.data.sidecar imports ifguide.masks.build, which lies above it"]
    assert circles(graph) == []


def test_imports_down_and_beside_are_free(tmp_path: Path) -> None:
    graph = tree(
        tmp_path,
        {
            "ifguide/masks/build": "import ifguide.masks.words\nfrom ifguide.data import sidecar\nimport ifguide",
            "ifguide/masks/words": "import numpy",
            "ifguide/data/sidecar": "from ifguide.errors import InputError",
            "ifguide/errors": "",
            "ifguide/__init__": "",
        },
    )
    assert graph["ifguide.masks.build"] == {"ifguide.masks.words", "ifguide.data.sidecar", "ifguide"}
    assert list(upward(graph)) == circles(graph) == []


def test_a_room_without_a_layer_is_seen(tmp_path: Path) -> None:
    graph = tree(tmp_path, {"ifguide/helpers/strings": ""})
    assert list(upward(graph)) == ["ifguide.helpers.strings: helpers is in no layer"]


def test_a_circle_is_seen_even_where_one_side_hides_it(tmp_path: Path) -> None:
    graph = tree(
        tmp_path,
        {
            "ifguide/scorers/base": "def load():\n    from ifguide.scorers.linear import Linear",
            "ifguide/scorers/linear": "from ifguide.scorers.shared import help",
            "ifguide/scorers/shared": "from ifguide.scorers.base import Scorer",
            "ifguide/scorers/apart": "from ifguide.scorers.base import Scorer",
        },
    )
    assert circles(graph) == [["ifguide.scorers.base", "ifguide.scorers.linear", "ifguide.scorers.shared"]]


def test_loading_a_verb_by_its_name_is_no_import_of_it(tmp_path: Path) -> None:
    graph = tree(
        tmp_path,
        {
            "ifguide/cli": "import importlib\ndef f(verb):\n    importlib.import_module(f'ifguide.verbs.{verb}')",
            "ifguide/verbs/score": "from ifguide import cli",
        },
    )
    assert circles(graph) == []
    assert list(upward(graph)) == ["ifguide.verbs.score imports ifguide.cli, which lies above it"]


def test_a_circle_of_rooms_is_seen_where_no_modules_make_one(tmp_path: Path) -> None:
    graph = tree(
        tmp_path,
        {
            "ifguide/engine/model": "from ifguide.influence import windows",
            "ifguide/influence/score": "from ifguide.engine import schedule",
            "ifguide/influence/windows": "",
            "ifguide/engine/schedule": "",
        },
    )
    assert list(upward(graph)) == circles(graph) == []
    assert circles(by_room(graph)) == [["engine", "influence"]]


def test_an_import_of_the_patch_is_seen(tmp_path: Path) -> None:
    graph = tree(
        tmp_path,
        {
            "ifguide/launch": "from ifguide_patch.launch import main",
            "ifguide/evaluation/run": "def f():\n    import ifguide_patch.launch",
            "ifguide_patch/launch": "",
        },
    )
    assert list(into_the_patch(graph)) == ["ifguide.evaluation.run imports ifguide_patch.launch"]


def test_what_the_patch_must_not_import_is_seen(tmp_path: Path) -> None:
    graph = tree(
        tmp_path,
        {
            "ifguide_patch/dataset": "import ifguide.data.indexed\nimport ifguide.engine.packing",
            "ifguide_patch/loss": "from ifguide.objectives.penalised import reported",
            "ifguide_patch/neox_eval": "import ifguide.evaluation.tasks.registry, ifguide.influence.score",
            "ifguide_patch/scoring/run": "import ifguide.influence.score",
            "ifguide_patch/scoring/keys": "import ifguide.influence.score",
            "ifguide/data/indexed": "import numpy",
            "ifguide/objectives/penalised": "from ifguide.objectives.registry import OBJECTIVES",
            "ifguide/objectives/registry": "",
            "ifguide/engine/packing": "",
            "ifguide/evaluation/tasks/registry": "import ifguide.generation.draw",
            "ifguide/generation/draw": "",
            "ifguide/influence/score": "",
        },
    )
    assert list(out_of_the_patch(graph)) == [
        "ifguide_patch.dataset imports ifguide.engine.packing, itself or through others",
        "ifguide_patch.loss imports ifguide.objectives.registry, itself or through others",
        "ifguide_patch.neox_eval imports ifguide.influence.score, itself or through others",
        "ifguide_patch.scoring.keys imports ifguide.influence.score, itself or through others",
    ]


def test_a_name_that_is_put_together_is_seen(tmp_path: Path) -> None:
    tree(
        tmp_path,
        {
            "ifguide/scorers/base": "import importlib\nimportlib.import_module(f'ifguide.scorers.{kind}')",
            "ifguide/compat/use": "import importlib\nimportlib.import_module(name), __import__(f'torch.{name}')",
        },
    )
    assert composed_loads(modules_of(tmp_path, ("ifguide",))) == {"ifguide.scorers.base": ["ifguide.scorers."]}


def test_a_crowded_folder_and_a_long_module_are_seen(tmp_path: Path) -> None:
    tree(
        tmp_path,
        {
            **{f"ifguide/{room}/m{number}": "" for room in ("data", "verbs") for number in range(15)},
            **{f"ifguide/masks/m{number}": "" for number in range(14)},
            "ifguide/masks/__init__": "",
            "ifguide/engine/long": "\n" * 401,
            "ifguide/engine/whole": "\n" * 400,
            "ifguide_patch/long": "\n" * 401,
        },
    )
    assert list(crowded(tmp_path)) == ["ifguide/data has 15 modules"]
    assert list(long_modules(tmp_path)) == ["ifguide.engine.long has 401 lines", "ifguide_patch.long has 401 lines"]

"""Stages: kept when nothing changed, redone with what depends on them when something did."""

import pytest

from ifguide.experiments.stages import Stage, Stages


class Chain:
    """corpus -> model -> report, each copying a number into a file, counting how often it ran."""

    def __init__(self, folder):
        self.folder, self.ran = folder, []

    def run(self, number=1, depth=1):
        stages = Stages(self.folder, lambda line: None)

        def stage(name, settings, needs, content):
            def work():
                self.ran.append(name)
                (self.folder / name).write_text(content)
                return {"content": content}

            return Stage(name, work, settings, needs, (name,))

        stages.run(stage("corpus", {"number": number}, (), str(number)))
        stages.run(stage("model", {"depth": depth}, ("corpus",), f"{number} {depth}"))
        result = stages.run(stage("report", {}, ("model",), f"about {number} {depth}"))
        ran, self.ran = self.ran, []
        return ran, result["content"]


def test_redoes_what_depends_on_a_change_and_nothing_else(tmp_path):
    chain = Chain(tmp_path)
    assert chain.run() == (["corpus", "model", "report"], "about 1 1")
    assert chain.run() == ([], "about 1 1")
    assert chain.run(depth=2) == (["model", "report"], "about 1 2")
    assert chain.run(number=5, depth=2) == (["corpus", "model", "report"], "about 5 2")
    assert chain.run(number=5, depth=2) == ([], "about 5 2")


def test_redoes_a_stage_whose_output_was_lost_or_edited(tmp_path):
    chain = Chain(tmp_path)
    chain.run()
    (tmp_path / "model").unlink()
    assert chain.run()[0] == ["model"]
    (tmp_path / "report").write_text("edited by hand")
    assert chain.run()[0] == ["report"]


def test_a_failed_stage_is_not_kept(tmp_path):
    stages = Stages(tmp_path, lambda line: None)

    def fail():
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        stages.run_together([Stage("a", lambda: {"x": 1}, {}), Stage("b", fail, {})])
    again = Stages(tmp_path, lambda line: None)
    assert again.run(Stage("a", lambda: pytest.fail("a was kept"), {})) == {"x": 1}
    with pytest.raises(RuntimeError):
        again.run(Stage("b", fail, {}))

"""The engine's tiny corpus, for whole runs."""

from tests.engine.conftest import corpus

__all__ = ["corpus"]

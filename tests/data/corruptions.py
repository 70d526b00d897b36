"""Every way to corrupt a dataset that the tests know, by name."""

from tests.data import corruptions_of_content, corruptions_of_index  # noqa: F401  (importing them registers them)
from tests.data.corruptible import ALL

__all__ = ["ALL"]

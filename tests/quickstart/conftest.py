"""The folders of `tests.support.quickstart_folders`."""

from tests.support.quickstart_folders import make_folder, planted_folder

__all__ = ["make_folder", "planted_folder"]

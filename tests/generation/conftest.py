"""The models of `tests.support.language_models`."""

from tests.support.language_models import model_dir, no_eod_dir, no_network

__all__ = ["model_dir", "no_eod_dir", "no_network"]

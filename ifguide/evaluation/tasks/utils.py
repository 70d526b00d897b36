"""What the YAML files beside this one call; the code is in `ifguide.evaluation`."""

from ifguide.evaluation.tasks.parts import part as __getattr__  # noqa: F401
from ifguide.evaluation.tasks.registry import prepare_lm_eval

prepare_lm_eval()

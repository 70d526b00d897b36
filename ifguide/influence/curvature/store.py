"""The curvature of the tracked layers as it is kept: whoever scores reads it, `fit` makes it.

``H~ = (U_G ⊗ U_A) (Λ + damping) (U_G ⊗ U_A)^T`` per tracked layer, with ``U_A``[I, I], ``U_G``[O, O] and ``Λ``[O, I]:

    ekfac      U_A, U_G eigenvectors of the input and output-gradient covariance, Λ second moments in that basis
    kfac       the same basis, Λ = outer product of the two covariances' eigenvalues
    diagonal   no basis, Λ second moments of the gradient's entries
    identity   nothing: H~ = I

Shapes: O outputs, I inputs with the bias column.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from ifguide.data.text.record import tokenizer_difference
from ifguide.errors import IFGuideWarning, InputError, MismatchError
from ifguide.influence.tensors import are_recorded, save_recorded
from ifguide.models.tracked import ScoredModel
from ifguide.system.files import read_json

FORMAT = 1
_TENSORS = {"ekfac": ("U_A", "U_G", "Lambda"), "kfac": ("U_A", "U_G", "Lambda"), "diagonal": ("Lambda",)}


@dataclass(frozen=True, eq=False)
class Factors:
    """Fitted curvature.

    Attributes:
        strategy: one of `STRATEGIES`.
        layers: tracked layer -> its tensors ("U_A", "U_G", "Lambda", as the strategy has them).
        record: the contents of ``factors.json``.
        fingerprint: hash of the tensors' file and of what the record says about them.
    """

    strategy: str
    layers: Mapping[str, dict[str, Tensor]]
    record: dict[str, Any]
    fingerprint: str


def save_factors(output: Path, layers: dict[str, dict[str, Tensor]], record: dict[str, Any]) -> None:
    """Write the tensors, then the record with their hashes: a record is never there without its tensors."""
    tensors = {f"{name}/{key}": tensor for name, layer in layers.items() for key, tensor in layer.items()}
    save_recorded(output / "factors.safetensors", output / "factors.json", tensors, record)


def describe_factors(directory: str | Path) -> Factors:
    """What the record of `save_factors` says, without any tensor: they may be larger than the model.

    Raises:
        InputError: not a factors folder, or another format.
    """
    path = Path(directory) / "factors.json"
    record = read_json(path, "factors")
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise InputError(f"{path} is not of format {FORMAT}; run fit-factors again")
    return Factors(record["strategy"], {}, record, f"{record['strategy']}-{record['tensors'][:32]}")


def load_factors(directory: str | Path) -> Factors:
    """Read what `save_factors` wrote.

    Raises:
        InputError: not a factors folder, another format, or the two files do not belong together.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    described = describe_factors(directory)
    path = Path(directory) / "factors.safetensors"
    try:
        if not are_recorded(path, described.record):
            raise InputError(f"{path} is not the file that factors.json describes; run fit-factors again")
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} cannot be read: {error}") from None
    keys = _TENSORS.get(described.strategy, ())
    layers = {name: {key: tensors[f"{name}/{key}"] for key in keys} for name in described.record["modules"]}
    return replace(described, layers=layers)


def check_model(factors: Factors, model: ScoredModel) -> None:
    """
    Raises:
        MismatchError: the factors belong to another model.
    """
    if factors.record["model"]["identity"] != model.fingerprint:
        raise MismatchError(
            f"the factors were fitted on another model ({factors.record['model']['path']}), not on {model.directory}; "
            "run fit-factors on this one"
        )
    if model.reader is None:
        return
    difference = tokenizer_difference(factors.record.get("tokenizer"), model.reader.record())
    if difference:
        raise MismatchError(
            f"the factors were fitted on text of another tokenizer than that of {model.directory} ({difference}); "
            "run fit-factors again"
        )
    fitted = factors.record.get("eod", model.eod)
    if fitted != model.eod:
        warnings.warn(
            f"the factors were fitted with token {fitted} before each document, scores are taken with {model.eod} "
            f"({model.reader.eod_token!r}); run fit-factors again",
            IFGuideWarning,
            stacklevel=2,
        )

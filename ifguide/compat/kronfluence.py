"""kronfluence's fit of curvature: its task, its arguments, and the names of what it computes."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Callable, Sequence
from typing import Any


def fit(
    model: Any,
    batches: Any,
    loss: Callable[[dict[str, Any], bool], Any],
    layers: Sequence[str],
    strategy: str,
    dtype: Any,
    cpu: bool,
    covariance_partitions: int = 1,
    second_moment_partitions: int = 1,
    offload: bool = False,
) -> dict[str, dict[str, Any]]:
    """Factors of ``layers``: factor name -> layer -> tensor. Afterwards ``model`` is wrapped: do not use it again.

    Args:
        model: a torch module.
        batches: a torch data set; an item is one padded batch, a dictionary with the padding's mask under ``real``.
        loss: (batch, whether labels are drawn from the model) -> its summed loss.
        layers: names of linear layers in ``model``.
        strategy: ``ekfac``, ``kfac`` or ``diagonal``.
        dtype: of covariances and gradients.
        cpu: False to run on a GPU.
        covariance_partitions: of the layers, each with a pass of its own.
        second_moment_partitions: likewise.
        offload: what layers take waits in the host's memory for its gradients.
    """
    from kronfluence import Analyzer, FactorArguments, prepare_model
    from kronfluence.utils.dataset import DataLoaderKwargs

    arguments = FactorArguments(
        strategy=strategy,
        use_empirical_fisher=False,
        covariance_max_examples=None,
        lambda_max_examples=None,
        activation_covariance_dtype=dtype,
        gradient_covariance_dtype=dtype,
        per_sample_gradient_dtype=dtype,
        lambda_dtype=dtype,
        covariance_module_partitions=covariance_partitions,
        lambda_module_partitions=second_moment_partitions,
        offload_activations_to_cpu=offload,
    )
    task = _task(loss, layers)
    with tempfile.TemporaryDirectory(prefix="ifguide-factors-") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # kronfluence's use of an old torch name
        analyzer = Analyzer(
            "fit",
            prepare_model(model, task),
            task,
            cpu=cpu,
            log_level=logging.ERROR,
            disable_tqdm=True,
            output_dir=folder,
        )
        # an "example" is one of our batches: kronfluence's own batching would pad by count, not by length
        analyzer.set_dataloader_kwargs(DataLoaderKwargs(collate_fn=lambda examples: examples[0]))
        analyzer.fit_all_factors("factors", batches, per_device_batch_size=1, factor_args=arguments)
        return analyzer.load_all_factors("factors")


def _task(loss: Callable[[dict[str, Any], bool], Any], layers: Sequence[str]) -> Any:
    """kronfluence's view of the model: its loss, its layers, its padding."""
    from kronfluence import Task

    class Fit(Task):
        def compute_train_loss(self, batch: dict[str, Any], model: Any, sample: bool = False) -> Any:
            return loss(batch, sample)

        def compute_measurement(self, batch: dict[str, Any], model: Any) -> Any:
            return loss(batch, False)

        def get_influence_tracked_modules(self) -> list[str]:
            return list(layers)

        def get_attention_mask(self, batch: dict[str, Any]) -> Any:
            return batch["real"]

    return Fit()

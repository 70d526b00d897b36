"""The model as lm-eval sees it: sampled continuations by one prefill a prompt, all else by lm-eval's own Hugging Face class.

lm-eval asks for the K repeats of a prompt as K requests. Here they are one piece of work for
`ifguide.evaluation.generation`, whose random numbers depend on the seed and the prompt alone: neither the batch size nor a
run that was killed and continued changes a continuation. Every finished piece goes into a journal.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import normalize_gen_kwargs

from ifguide.errors import InputError
from ifguide.evaluation.generation import Sampling, continuation_texts, prompt_contexts, sample_continuations
from ifguide.evaluation.journal import Journal, key_of
from ifguide.evaluation.models import LanguageModel
from ifguide.progress import Progress

# elements of logits that one batch may hold: log_softmax makes a second copy
_LOGITS_ON_CPU = 1 << 26
_SHARE_OF_FREE_MEMORY = 0.25
_MOST_ROWS = 1024
_ROWS_ON_CPU = 512
_CHUNK_BATCHES = 4
_SAMPLING_KEYS = {"do_sample", "temperature", "top_p", "top_k", "until", "max_gen_toks"}


@dataclass(frozen=True)
class _Work:
    """One prompt and the places of its repeats among the requests.

    Attributes:
        request: lm-eval's.
        places: of its repeats; their number is K.
        sampling: what to draw.
        until: texts that end a continuation, besides EOD.
        context: tokens before the continuation.
        key: in the journal.
    """

    request: Instance
    places: list[int]
    sampling: Sampling
    until: tuple[str, ...]
    context: list[int]
    key: str


class EvaluationLM(HFLM):
    """A `LanguageModel` for lm-eval.

    Args:
        lm: the loaded model.
        folder: for the journals; must exist.
        seed: of all sampling.
        batch_size: rows (sequences) at once, or ``auto``: what fits.
        decoding: name of a way to decode other than plain sampling, part of the journals' keys.
        progress: show progress.
    """

    def __init__(
        self,
        lm: LanguageModel,
        folder: Path,
        *,
        seed: int = 0,
        batch_size: int | str = "auto",
        progress: bool = False,
    ):
        # logits_cache gives a wrong likelihood when one context is asked about with pieces of two lengths,
        # as the windows of a repetitive text are
        super().__init__(
            pretrained=lm.model,
            tokenizer=lm.tokenizer,
            backend="causal",
            max_length=lm.max_length,
            batch_size=batch_size,
            logits_cache=False,
        )
        self._lm, self._folder, self._seed, self._progress = lm, folder, seed, progress
        self._likelihoods = Journal(folder / "likelihoods.jsonl")
        self.cache_hook = _JournalHook(self._likelihoods)

    def get_model_info(self) -> dict:
        """Nothing: lm-eval's own would ask the hub about the model."""
        return {}

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

    # --- likelihoods: lm-eval's, remembered ------------------------------------------------------------------------

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """``(log-likelihood in nats, whether greedy decoding gives it)`` of each continuation."""
        missing = self._not_known("loglikelihood", requests)
        if missing:
            super().loglikelihood(missing, disable_tqdm=disable_tqdm or not self._progress)
        likelihood: Callable[[Instance], Any] = self._known("loglikelihood")
        return [(value, greedy) for value, greedy in map(likelihood, requests)]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Log-likelihood in nats of each whole text after the start-of-document token."""
        missing = self._not_known("loglikelihood_rolling", requests)
        missing.sort(key=lambda request: -len(request.args[0]))
        given = self.batch_size_per_gpu
        with Progress(len(missing), "texts", "likelihood", quiet=disable_tqdm or not self._progress) as bar:
            for start in range(0, len(missing), _TEXTS_AT_ONCE):
                texts = missing[start : start + _TEXTS_AT_ONCE]
                if given == "auto":
                    self.batch_size_per_gpu = self._rows_of_logits(self.max_length)
                super().loglikelihood_rolling(texts, disable_tqdm=True)
                self.batch_size_per_gpu = given
                bar.update(len(texts))
        return [*map(self._known("loglikelihood_rolling"), requests)]

    def _not_known(self, kind: str, requests: Sequence[Instance]) -> list[Instance]:
        """The requests that are not in the journal, each once."""
        wanted = {key_of(kind, list(request.args)): request for request in requests}
        return [request for key, request in wanted.items() if key not in self._likelihoods]

    def _known(self, kind: str) -> Callable[[Instance], Any]:
        return lambda request: self._likelihoods[key_of(kind, list(request.args))]["value"]

    def _loglikelihood_tokens(
        self, requests: list, disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        # lm-eval's bar is for all requests, or, of rolling windows, one for every batch: that is noise
        quiet = disable_tqdm or override_bs is not None
        return super()._loglikelihood_tokens(requests, disable_tqdm=quiet, override_bs=override_bs)

    # --- batches ----------------------------------------------------------------------------------------------------

    def _batch_scheduler(self, pos: int, n_reordered_requests: Sequence) -> int:
        """Rows of the batch that starts at ``pos``: lm-eval sorts by length, so its first row is its longest."""
        _, (_, context, continuation) = n_reordered_requests[pos]
        return self._rows_of_logits(min(len(context) + len(continuation), self.max_length))

    def _detect_batch_size(self, requests: Sequence | None = None, pos: int = 0) -> int:
        return self._rows_of_logits(self.max_length)

    def _rows_of_logits(self, length: int) -> int:
        """How many sequences of ``length`` tokens may have all their logits in memory at once."""
        elements = _LOGITS_ON_CPU
        if self.device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self.device)
            elements = int(free * _SHARE_OF_FREE_MEMORY) // self._lm.model.dtype.itemsize
        return max(1, min(_MOST_ROWS, elements // (length * self._lm.model.config.vocab_size)))

    def _rows_of_cache(self, length: int) -> int:
        """How many sequences of ``length`` tokens may have their keys and values in memory at once."""
        if self.batch_size_per_gpu != "auto":
            return int(self.batch_size_per_gpu)
        if self.device.type != "cuda":
            return _ROWS_ON_CPU
        config = self._lm.model.config
        free, _ = torch.cuda.mem_get_info(self.device)
        cached = 2 * config.num_hidden_layers * config.hidden_size * length * self._lm.model.dtype.itemsize
        logits = 8 * 4 * config.vocab_size  # copies that sampling makes, in float32
        return max(1, min(8192, int(free * 2 * _SHARE_OF_FREE_MEMORY) // (cached + logits)))

    # --- continuations ----------------------------------------------------------------------------------------------

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """A continuation a request; sampled ones by one prefill a prompt, any other decoding as lm-eval does it.

        Raises:
            InputError: a prompt without room or tokens.
            NumericsError: the model's logits are not finite.
        """
        places: dict[int, list[int]] = defaultdict(list)
        for place, request in enumerate(requests):
            places[id(request)].append(place)  # repeats of a prompt are one object
        answers: list[str] = [""] * len(requests)
        works, other = [], []
        seen: Counter[str] = Counter()
        for same in places.values():
            request = requests[same[0]]
            drawing = sampling_of(request.args[1], len(same), self._seed, self.max_gen_toks)
            if drawing is None:
                other += same
            else:
                works.append(self._work(request, same, *drawing, seen))
        for work, texts in self._continued(works, quiet=disable_tqdm or not self._progress):
            for place, text in zip(work.places, texts, strict=True):
                answers[place] = text
        if other:
            plain = super().generate_until(
                [requests[place] for place in other], disable_tqdm=disable_tqdm or not self._progress
            )
            for place, text in zip(other, plain, strict=True):
                answers[place] = text
        return answers

"""The model as lm-eval sees it: sampled continuations by one prefill a prompt, all else by lm-eval's own class.

lm-eval asks for the K repeats of a prompt as K requests. Here they are one piece of work for
`ifguide.evaluation.generation`, whose random numbers depend on the seed and the prompt alone: neither the batch size
nor a kill changes a continuation. Every finished piece goes into a journal.
"""

from __future__ import annotations

import contextlib
import math
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

from ifguide.errors import InputError, NumericsError
from ifguide.evaluation.generation import Drawing, Sampling, continuation_texts, prompt_contexts
from ifguide.evaluation.journal import Journal, key_of
from ifguide.evaluation.models import LanguageModel
from ifguide.evaluation.rad import Rad
from ifguide.progress import Progress

# elements of logits that one batch may hold on a CPU: 256 MiB in float32, and log_softmax makes a copy
_LOGITS_ON_CPU = 1 << 26
_SHARE_FOR_LOGITS = 0.2
_MOST_ROWS = 1024
_ROWS_ON_CPU = 512
_MOST_SAMPLES = 8192
_SHARE_FOR_CACHE = 0.5
# copies of float32 logits that sampling makes
_SAMPLING_COPIES = 8
# texts between two writes to the journal: what a kill can cost
_TEXTS_AT_ONCE = 64
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


@dataclass(frozen=True)
class _Part:
    """The prompts of one task with one sampling.

    Attributes:
        works: the prompts.
        drawing: draws batches of them.
        journal: where their continuations are kept.
    """

    works: list[_Work]
    drawing: Drawing
    journal: Journal

    @property
    def samples(self) -> int:
        return self.works[0].sampling.samples

    @property
    def missing(self) -> list[list[int]]:
        """Batches with a prompt that is not in the journal."""
        return [
            batch for batch in self.drawing.batches if any(self.works[index].key not in self.journal for index in batch)
        ]


class EvaluationLM(HFLM):
    """A `LanguageModel` for lm-eval.

    Args:
        lm: the loaded model.
        folder: for the journals; must exist.
        seed: of all sampling.
        batch_size: rows (sequences) at once, or ``auto``: what fits.
        rad: rewards that steer every sampled token.
        progress: show progress.
    """

    def __init__(
        self,
        lm: LanguageModel,
        folder: Path,
        *,
        seed: int = 0,
        batch_size: int | str = "auto",
        rad: Rad | None = None,
        progress: bool = False,
    ):
        super().__init__(
            pretrained=lm.model,
            tokenizer=lm.tokenizer,
            backend="causal",
            max_length=lm.max_length,
            batch_size=batch_size,
        )
        self._lm, self._folder, self._seed, self._rad, self._progress = lm, folder, seed, rad, progress
        self._likelihoods = Journal(folder / "likelihoods.jsonl")
        self.cache_hook = _JournalHook(self._likelihoods)

    def close(self) -> None:
        """Close the journal."""
        self._likelihoods.close()

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
        given: Any = self.batch_size
        quiet = disable_tqdm or not self._progress or not missing
        with Progress(len(missing), "texts", "likelihood", quiet=quiet) as bar:
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
        """Rows of the batch that holds request ``pos``; lm-eval asks for each, in falling order of length."""
        if pos == 0:
            lengths = [min(len(context) + len(target), self.max_length) for _, context, target in n_reordered_requests]
            self._plan: list[int] = []
            while len(self._plan) < len(lengths):
                # the first of a batch is its longest, to which the others are padded
                rows = self._rows_of_logits(lengths[len(self._plan)])
                self._plan += [rows] * rows
        return self._plan[pos]

    def _detect_batch_size(self, requests: Sequence | None = None, pos: int = 0) -> int:
        return self._rows_of_logits(self.max_length)

    def _rows_of_logits(self, length: int) -> int:
        """How many sequences of ``length`` tokens may have all their logits in memory at once."""
        elements = _LOGITS_ON_CPU
        if self.device.type == "cuda":
            elements = int(_free_memory(self.device) * _SHARE_FOR_LOGITS) // self._lm.model.dtype.itemsize
        return max(1, min(_MOST_ROWS, elements // (length * self._lm.model.config.get_text_config().vocab_size)))

    def _rows_of_cache(self, length: int) -> int:
        """How many sequences of ``length`` tokens may have their keys and values in memory at once."""
        if self.batch_size_per_gpu != "auto":
            return int(self.batch_size_per_gpu)
        if self.device.type != "cuda":
            return _ROWS_ON_CPU
        config = self._lm.model.config.get_text_config()
        cached = 2 * config.num_hidden_layers * config.hidden_size * length * self._lm.model.dtype.itemsize
        logits = _SAMPLING_COPIES * 4 * config.vocab_size
        return max(1, min(_MOST_SAMPLES, int(_free_memory(self.device) * _SHARE_FOR_CACHE) // (cached + logits)))

    # --- continuations ----------------------------------------------------------------------------------------------

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """A continuation a request; sampled ones by one prefill a prompt, any other decoding as lm-eval does it.

        Raises:
            InputError: a prompt without room or tokens, or RAD for a task that does not sample.
            NumericsError: the model's logits are not finite.
        """
        places: dict[int, list[int]] = defaultdict(list)
        for place, request in enumerate(requests):
            places[id(request)].append(place)  # repeats of a prompt are one object
        answers: list[str] = [""] * len(requests)
        works, other = [], []
        seen: Counter[tuple[str | None, str]] = Counter()
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
        if other and self._rad:
            raise InputError(
                f"RAD steers sampled continuations; task {requests[other[0]].task_name} decodes in another way"
            )
        if other:
            plain = super().generate_until(
                [requests[place] for place in other], disable_tqdm=disable_tqdm or not self._progress
            )
            for place, text in zip(other, plain, strict=True):
                answers[place] = text
        return answers

    def _work(
        self,
        request: Instance,
        places: list[int],
        sampling: Sampling,
        until: tuple[str, ...],
        seen: Counter[tuple[str | None, str]],
    ) -> _Work:
        """Encode a prompt; ``seen`` counts equal ones of a task, which draw differently."""
        (context,) = prompt_contexts(self._lm, [request.args[0]], sampling.max_new_tokens)
        same = key_of(context, asdict(sampling), until)
        seen[request.task_name, same] += 1
        return _Work(request, places, sampling, until, context, f"{same}-{seen[request.task_name, same]}")

    def _continued(self, works: Sequence[_Work], quiet: bool) -> Iterator[tuple[_Work, list[str]]]:
        """Every prompt with its K continuations, from the journals or drawn now."""
        alike: dict[tuple[str, Sampling], list[_Work]] = defaultdict(list)
        for work in works:
            alike[str(work.request.task_name), work.sampling].append(work)
        with contextlib.ExitStack() as stack:
            parts = [
                _Part(some, self._drawing(some), stack.enter_context(Journal(self._folder / file_name(task))))
                for (task, _), some in alike.items()
            ]
            total = sum(part.samples * len(batch) for part in parts for batch in part.missing)
            with Progress(total, "continuations", "generate", quiet=quiet or not total) as bar:
                for part in parts:
                    for batch in part.missing:
                        self._draw(part, batch)
                        bar.update(part.samples * len(batch))
            for part in parts:
                for work in part.works:
                    yield work, part.journal[work.key]["continuations"]

    def _drawing(self, works: Sequence[_Work]) -> Drawing:
        """Of all prompts, known ones included: a batch then has the same rows as in a run that was not killed."""
        contexts, sampling = [work.context for work in works], works[0].sampling
        rows = self._rows_of_cache(max(map(len, contexts)) + sampling.max_new_tokens)
        return Drawing(self._lm, contexts, sampling, rows_per_batch=rows, rad=self._rad)

    def _draw(self, part: _Part, batch: Sequence[int]) -> None:
        """Draw one batch and write it down."""
        rows = []
        for index, ids in zip(batch, _drawn(part.drawing, batch), strict=True):
            work = part.works[index]
            texts = [_ended(text, work.until) for text in continuation_texts(self._lm, work.context, ids)]
            prompt = work.request.args[0]
            rows.append({"key": work.key, "id": work.request.doc_id, "prompt": prompt, "continuations": texts})
        part.journal.write(rows)


def sampling_of(
    given: dict[str, Any], samples: int, seed: int, max_new_tokens: int
) -> tuple[Sampling, tuple[str, ...]] | None:
    """What a task's ``generation_kwargs`` ask for and the texts that end it, or None if it is not plain sampling.

    A missing ``top_k`` is whatever transformers and the model's folder take it for, so it must be named here.
    """
    asked: dict[str, Any] = dict(normalize_gen_kwargs(given, max_new_tokens))
    plain = asked.get("do_sample") and asked.get("temperature", 0) > 0 and asked.get("top_k") is not None
    if not plain or asked.keys() - _SAMPLING_KEYS:
        return None
    sampling = Sampling(
        samples, asked["max_gen_toks"], asked.get("top_p", 1.0), asked["temperature"], seed, asked["top_k"]
    )
    return sampling, tuple(text for text in asked["until"] if text)


def file_name(task: str) -> str:
    """The journal of a task's continuations."""
    return f"continuations-{re.sub(r'[^A-Za-z0-9_.-]', '_', task)}.jsonl"


class _JournalHook:
    """What lm-eval tells of every finished likelihood, written down; continuations have their own journals."""

    def __init__(self, journal: Journal):
        self._journal = journal

    def add_partial(self, kind: str, arguments: Sequence[Any], value: Any) -> None:
        if not kind.startswith("loglikelihood"):
            return
        nats = value[0] if isinstance(value, tuple) else value
        if not math.isfinite(nats):
            raise NumericsError(f"the log-likelihood of {str(arguments[-1])[:60]!r} is {nats}; is the model intact?")
        self._journal.write([{"key": key_of(kind, list(arguments)), "value": value}])


def _drawn(drawing: Drawing, batch: Sequence[int]) -> list[list[list[int]]]:
    """The batch, or its halves one after the other where the memory does not suffice for it."""
    try:
        return drawing.draw(batch)
    except torch.OutOfMemoryError:
        if len(batch) == 1:
            raise
    torch.cuda.empty_cache()  # outside of the handler, which keeps the failed batch alive
    half = len(batch) // 2
    return _drawn(drawing, batch[:half]) + _drawn(drawing, batch[half:])


def _ended(text: str, until: Sequence[str]) -> str:
    """``text`` before the first of the texts that end it."""
    for stop in until:
        text = text.partition(stop)[0]
    return text


def _free_memory(device: torch.device) -> int:
    """Bytes that tensors can still take, torch's own reserve included."""
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)

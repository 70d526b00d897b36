"""The model as lm-eval sees it: sampled continuations by one prefill a prompt, all else by lm-eval's own class.

lm-eval asks for the K repeats of a prompt as K requests. Here they are one piece of work for
`ifguide.generation.draw`, whose random numbers depend on the seed and the prompt alone: neither the batch size
nor a kill changes a continuation. All work is shared by the ranks, and every finished piece goes into a journal.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.models.utils import normalize_gen_kwargs

from ifguide.errors import InputError, NumericsError
from ifguide.evaluation.lm.batches import BatchedLM
from ifguide.generation.draw import Drawing, Sampling, prompt_contexts
from ifguide.generation.rad import Rad
from ifguide.models.language_model import LanguageModel
from ifguide.system.journal import Journal, key_of
from ifguide.system.progress import Progress
from ifguide.system.ranks import Ranks

# of a piece of work that one rank answers at a time, and what a kill can cost
_CHARACTERS_AT_ONCE = 1 << 15
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
        rows: samples worked on at once, None for what fits.
        missing: batches (indices of ``works``) with a prompt that is not in the journal.
        journal: where their continuations are kept.
    """

    works: list[_Work]
    rows: int | None
    missing: list[list[int]]
    journal: Journal

    @property
    def contexts(self) -> list[list[int]]:
        return [work.context for work in self.works]

    @property
    def sampling(self) -> Sampling:
        return self.works[0].sampling


class EvaluationLM(BatchedLM):
    """A `LanguageModel` for lm-eval, on rank 0.

    Args:
        lm: the loaded model.
        folder: for the journals; must exist.
        seed: of all sampling.
        batch_size: rows (sequences) at once, or ``auto``: what fits.
        rad: rewards that steer every sampled token.
        ranks: processes that share the work, all with the same model (this process alone unless given).
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
        ranks: Ranks | None = None,
        progress: bool = False,
    ):
        super().__init__(lm, batch_size=batch_size, rad=rad)
        self._folder, self._seed, self._progress = folder, seed, progress
        self._ranks = ranks or Ranks()
        self._ranks.jobs |= self.jobs
        self._answers = Journal(folder / "answers.jsonl")

    def close(self) -> None:
        """Close the journal."""
        self._answers.close()

    # --- lm-eval's own answers, remembered --------------------------------------------------------------------------

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """``(log-likelihood in nats, whether greedy decoding gives it)`` of each continuation.

        Raises:
            NumericsError: a likelihood that is not finite; names the text.
        """
        return [(value, greedy) for value, greedy in self._answered("loglikelihood", requests, quiet=disable_tqdm)]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Log-likelihood in nats of each whole text after the start-of-document token.

        Raises:
            NumericsError: as `loglikelihood`.
        """
        return self._answered("loglikelihood_rolling", requests, quiet=disable_tqdm)

    def _answered(self, kind: str, requests: Sequence[Instance], quiet: bool) -> list[Any]:
        """The answer to each request, from the journal or computed now."""
        keys = [key_of(kind, list(request.args)) for request in requests]
        wanted = {key: request.args for key, request in zip(keys, requests, strict=True)}
        # all requests are cut into pieces, known ones too: a piece is the same in a run that was killed
        pieces = [piece for piece in _pieces(wanted) if any(key not in self._answers for key in piece)]
        total = sum(map(len, pieces))
        with Progress(total, "texts", kind, quiet=quiet or not self._progress or not total) as bar:
            asked = [[wanted[key] for key in piece] for piece in pieces]
            for piece, values in zip(pieces, self._ranks.map("answer", (kind,), asked), strict=True):
                rows = [{"key": key, "value": value} for key, value in zip(piece, values, strict=True)]
                for row in rows:
                    _require_finite(row["value"], wanted[row["key"]])
                self._answers.write(row for row in rows if row["key"] not in self._answers)
                bar.update(len(rows))
        return [self._answers[key]["value"] for key in keys]

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
        works: list[_Work] = []
        greedy: list[int] = []
        other: list[int] = []
        seen: Counter[tuple[str | None, str]] = Counter()
        for same in places.values():
            request = requests[same[0]]
            drawing = sampling_of(request.args[1], len(same), self._seed, self.max_gen_toks)
            if drawing is not None:
                works.append(self._work(request, same, *drawing, seen))
            elif dict(normalize_gen_kwargs(request.args[1], self.max_gen_toks)).get("do_sample"):
                other += same
            else:
                greedy += same
        if self._rad and (greedy or other):
            task = requests[(greedy + other)[0]].task_name
            raise InputError(f"RAD steers sampled continuations; task {task} decodes in another way")
        quiet = disable_tqdm or not self._progress
        for work, texts in self._continued(works, quiet=quiet):
            for place, text in zip(work.places, texts, strict=True):
                answers[place] = text
        plain = self._answered("generate_until", [requests[place] for place in greedy], quiet=quiet)
        # what lm-eval draws depends on all that was drawn before: here alone, and anew each time
        drawn = self._answer("generate_until")([requests[place].args for place in other]) if other else []
        for place, text in zip(greedy + other, plain + drawn, strict=True):
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
                self._part(some, stack.enter_context(Journal(self._folder / file_name(task))))
                for (task, _), some in alike.items()
            ]
            total = sum(part.sampling.samples * len(batch) for part in parts for batch in part.missing)
            with Progress(total, "continuations", "generate", quiet=quiet or not total) as bar:
                for part in parts:
                    common = (part.contexts, part.sampling, part.rows)
                    drawn = self._ranks.map("draw", common, part.missing)
                    for batch, continuations in zip(part.missing, drawn, strict=True):
                        part.journal.write(
                            _row(part.works[index], texts) for index, texts in zip(batch, continuations, strict=True)
                        )
                        bar.update(part.sampling.samples * len(batch))
            for part in parts:
                for work in part.works:
                    yield work, part.journal[work.key]["continuations"]

    def _part(self, works: list[_Work], journal: Journal) -> _Part:
        """Batches of all prompts, known ones included: a batch is the same in a run that was killed."""
        contexts, sampling = [work.context for work in works], works[0].sampling
        rows = self.given_rows
        batches = Drawing(self._lm, contexts, sampling, rows_per_batch=rows).batches
        missing = [batch for batch in batches if any(works[index].key not in journal for index in batch)]
        return _Part(works, rows, missing, journal)


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


def _pieces(wanted: Mapping[str, Sequence[Any]]) -> Iterator[list[str]]:
    """Keys of requests to answer together: the longest first, those that share a context side by side."""
    piece: list[str] = []
    characters = 0
    for key in sorted(wanted, key=lambda key: -len(wanted[key][0])):
        length = sum(len(part) for part in wanted[key] if isinstance(part, str))
        if piece and characters + length > _CHARACTERS_AT_ONCE:
            yield piece
            piece, characters = [], 0
        piece.append(key)
        characters += length
    if piece:
        yield piece


def _require_finite(answer: Any, arguments: Sequence[Any]) -> None:
    nats = answer[0] if isinstance(answer, tuple | list) else answer
    if isinstance(nats, float) and not math.isfinite(nats):
        raise NumericsError(f"the log-likelihood of {str(arguments[-1])[:60]!r} is {nats}; is the model intact?")


def _row(work: _Work, continuations: Sequence[str]) -> dict[str, Any]:
    """A prompt's line in the journal."""
    texts = [_ended(text, work.until) for text in continuations]
    return {"key": work.key, "id": work.request.doc_id, "prompt": work.request.args[0], "continuations": texts}


def _ended(text: str, until: Sequence[str]) -> str:
    """``text`` before the first of the texts that end it."""
    for stop in until:
        text = text.partition(stop)[0]
    return text

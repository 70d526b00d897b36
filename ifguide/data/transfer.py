"""Scores of the tokens of one tokenization -> scores of another tokenization of the same documents.

A proxy with another tokenizer can so find the tokens to penalise: `ifguide.data.text.spans` says how scores move.

Shapes: D documents, S and T tokens of source and target.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ifguide.config.options import option
from ifguide.data.aligned import Aligned, load_aligned, require_finite, write_aligned
from ifguide.data.indexed import TokenDataset
from ifguide.data.sidecar import SCORES
from ifguide.data.text.content import files_in
from ifguide.data.text.recorded_tokenizer import find_tokenizer
from ifguide.data.text.spans import Speller, TextDiffers, align, move
from ifguide.data.text.tokenizers import Tokenizer
from ifguide.errors import ConfigError, InputError, MismatchError
from ifguide.system.files import folder_faults
from ifguide.system.progress import Progress
from ifguide.system.provenance import file_record, origin

# tokens of both sides that are worked on together, where a document is not longer
_CHUNK_TOKENS = 1 << 18
_HINT = "both must be made of the same documents, in the same order"


@dataclass(frozen=True)
class TokenizerChoice:
    """A tokenizer as the user names it; all None: the one that the data records."""

    tokenizer_type: str | None = option(
        None, flags=["--tokenizer", "--tokenizer-type"], metavar="TYPE",
        help="as for preprocess (default: what the data records)",
    )  # fmt: skip
    vocab_file: str | Path | None = option(None, metavar="FILE", kind="input", help="its vocabulary")
    merge_file: str | Path | None = option(
        None, metavar="FILE", kind="input", help="its merges, if it is a GPT2BPETokenizer"
    )


@dataclass(frozen=True, eq=False)
class _Inputs:
    scores: Aligned
    source: TokenDataset
    target: TokenDataset
    tokenizers: tuple[Tokenizer, Tokenizer]


@dataclass
class _Counts:
    """What the pass over the documents found.

    Attributes:
        documents_compared_without_blanks: their bytes differ, their text does not.
        moved: sum of the target's scores.
        left_out: sum of scores without a counterpart (an EOD that the other data lacks).
    """

    documents_compared_without_blanks: int = 0
    moved: float = 0.0
    left_out: float = 0.0


def transfer_scores(
    scores: str | Path,
    data: str | Path,
    to_data: str | Path,
    output: str | Path,
    from_tokenizer: TokenizerChoice | None = None,
    to_tokenizer: TokenizerChoice | None = None,
    quiet: bool = True,
) -> dict[str, Any]:
    """Write ``output.{bin,idx,json}``: the scores of ``data``, moved to the tokens of ``to_data``.

    The sum over a document stays the same, but for what ``left_out`` counts.

    Returns:
        ``output``, ``documents``, ``tokens`` ([S, T]), ``documents_compared_without_blanks``, ``moved``,
        ``left_out``, ``seconds``, ``tokens_per_second``.

    Raises:
        InputError: arguments or files that cannot be used; all faults at once.
        MismatchError: scores, data and tokenizers do not belong together, or a document's text differs.
        NumericsError: a score is not finite.
    """
    started = time.monotonic()
    choices = (from_tokenizer or TokenizerChoice(), to_tokenizer or TokenizerChoice())
    inputs = _open(scores, data, to_data, output, choices)
    require_finite(inputs.scores, progress=not quiet)
    counts = _Counts()
    files = [
        path
        for choice, tokenizer in zip(choices, inputs.tokenizers)
        for path in files_in(tokenizer.name, choice.vocab_file, choice.merge_file)
        if path is not None
    ]
    sidecar = {
        "parameters": {"method": "transfer", **_named(inputs.tokenizers)},
        "parts": [
            {
                "prefix": str(Path(inputs.scores.prefix).absolute()),
                "fingerprint": inputs.scores.sidecar["fingerprint"],
            }
        ],
        "tokenizer_files": [file_record(path) for path in files],
        "eod": inputs.tokenizers[1].eod,
        **_cascade_of(inputs.scores.sidecar),
        "counts": vars(counts),  # filled while the values are written
        **origin(),
    }
    write_aligned(output, inputs.target, _moved(inputs, counts, quiet), np.float32, sidecar)
    seconds = time.monotonic() - started
    return {
        "output": str(output),
        "documents": inputs.target.num_documents,
        "tokens": [inputs.source.num_tokens, inputs.target.num_tokens],
        **vars(counts),
        "seconds": round(seconds, 3),
        "tokens_per_second": round(inputs.target.num_tokens / seconds, 1),
    }


def _cascade_of(sidecar: dict[str, Any]) -> dict[str, Any]:
    """What moved scores keep of their cascade: the mask that they are for, and not its units of other tokens."""
    record = sidecar.get("cascade")
    return {"cascade": {key: one for key, one in record.items() if key != "exact_units"}} if record else {}


def _open(
    scores: str | Path,
    data: str | Path,
    to_data: str | Path,
    output: str | Path,
    choices: tuple[TokenizerChoice, TokenizerChoice],
) -> _Inputs:
    """
    Raises:
        InputError: what cannot be used; all faults at once.
    """
    faults: list[str] = []

    def attempt(function: Any, *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except InputError as error:
            faults.append(str(error))
            return None

    source, target = attempt(TokenDataset.open, data), attempt(TokenDataset.open, to_data)
    # tokens that cannot be opened are a fault of their own
    values = attempt(load_aligned, scores, source, SCORES)
    tokenizers = [
        attempt(find_tokenizer, prefix, choice.tokenizer_type, choice.vocab_file, choice.merge_file, options)
        for prefix, choice, options in zip((data, to_data), choices, ("--from-", "--to-"))
    ]
    faults += folder_faults("--output", output)
    if Path(output).absolute() in [Path(prefix).absolute() for prefix in (scores, data, to_data)]:
        faults.append(f"--output {output} is the name of an input; choose another")
    if source and target and source.num_documents != target.num_documents:
        faults.append(
            f"{target.prefix} has {target.num_documents} documents, {source.prefix} {source.num_documents}; {_HINT}"
        )
    if faults:
        raise ConfigError(dict.fromkeys(faults))
    return _Inputs(values, source, target, (tokenizers[0], tokenizers[1]))


def _moved(inputs: _Inputs, counts: _Counts, quiet: bool) -> Iterator[NDArray[np.float32]]:
    """Scores of the target's tokens, some documents at a time."""
    source, target = inputs.source, inputs.target
    spellers = [Speller(tokenizer) for tokenizer in inputs.tokenizers]
    with Progress(target.num_tokens, "tokens", "transfer", quiet=quiet) as progress:
        for first, stop in _chunks(source.starts + target.starts):
            spellings = []
            for data, speller in zip((source, target), spellers):
                begin, end = data.starts[first], data.starts[stop]
                spellings.append(speller.spell(data.tokens[begin:end], data.starts[first : stop + 1] - begin))
            try:
                givers, takers, reduced = align(spellings[0], spellings[1])
            except TextDiffers as difference:
                raise MismatchError(
                    f"document {first + difference.document} is not the same text in {source.prefix} and "
                    f"{target.prefix}: {difference.place}; {_HINT}"
                ) from None
            values, lost = move(inputs.scores.values[source.starts[first] : source.starts[stop]], givers, takers)
            counts.documents_compared_without_blanks += reduced
            counts.moved += float(values.sum())
            counts.left_out += lost
            yield values.astype(np.float32)
            progress.update(len(values))


def _chunks(starts: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Ranges of documents with about `_CHUNK_TOKENS` tokens, or one document with more; ``starts``[D + 1]."""
    first = 0
    while first < len(starts) - 1:
        enough = int(np.searchsorted(starts, starts[first] + _CHUNK_TOKENS, side="right")) - 1
        stop = max(first + 1, enough)
        yield first, stop
        first = stop


def _named(tokenizers: Sequence[Tokenizer]) -> dict[str, str]:
    return {
        f"{side}_tokenizer": f"{tokenizer.name} {tokenizer.vocabulary_fingerprint[:12]}"
        for side, tokenizer in zip(("from", "to"), tokenizers)
    }

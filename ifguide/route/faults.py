"""Everything that speaks against the inputs of a route, found before the first step and told at once."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ifguide.errors import InputError
from ifguide.route.options import WITHIN, RouteOptions

if TYPE_CHECKING:
    from ifguide.data.text.reader import TextReader

T = TypeVar("T")
_FEWEST_QUERIES = 10  # of a kind, where a classifier learns from them


def input_faults(asked: RouteOptions) -> list[str]:
    """One line each; empty where nothing speaks against the inputs.

    Reads the corpus's names and shapes, the proxy's configuration and weights (their hash), and both files of queries.
    """
    from ifguide.influence.planning.shape import read_shape
    from ifguide.influence.queries import load_query_sets
    from ifguide.models.folder import weights_fingerprint
    from ifguide.scorers.classifier import check_queries

    found = _Faults()
    if asked.input is not None:
        _check_texts(asked, found)
    data = asked.data if asked.data is not None and _check_data(asked.data, found) else None
    shape = found.of(lambda: read_shape(asked.model, None, data))
    if shape is not None:
        found.of(lambda: weights_fingerprint(Path(asked.model)))
    reader = found.of(lambda: _reader(asked, data, found))
    if reader is not None and shape is not None and reader.vocab_size > shape.vocab:
        found.lines.append(
            f"--model {asked.model} has {shape.vocab} tokens and the tokenizer {reader.vocab_size}; use the tokenizer "
            "that the proxy was trained with"
        )
    files = {"toxic": asked.toxic_queries, "safe": asked.safe_queries}
    missing = [f"{kind} queries {path} do not exist" for kind, path in files.items() if not Path(path).is_file()]
    found.lines += missing
    if reader is not None and not missing:
        window = None if shape is None else shape.window
        sets = found.of(lambda: load_query_sets(asked.toxic_queries, asked.safe_queries, reader, window))
        if sets is not None and asked.recipe == WITHIN:
            few = [
                f"--{kind}-queries {files[kind]}: {len(queries)} are too few to train a classifier on; give at least "
                f"{_FEWEST_QUERIES}, or take --recipe influence"
                for kind, queries in zip(files, sets)
                if len(queries) < _FEWEST_QUERIES
            ]
            found.lines += few
            if not few:
                found.of(lambda: check_queries(asked.toxic_queries, asked.safe_queries, seed=asked.seed))
    if asked.output.exists() and not asked.output.is_dir():
        found.lines.append(f"--output {asked.output} is a file; name a folder")
    return found.lines


class _Faults:
    """Lines, as they are found."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def of(self, work: Callable[[], T]) -> T | None:
        """What ``work`` returns; None where it refuses, and its lines are kept."""
        try:
            return work()
        except InputError as error:
            self.lines += str(error).splitlines()
            return None


def _check_texts(asked: RouteOptions, found: _Faults) -> None:
    from ifguide.data.sources.names import find_sources

    for path in asked.input or ():
        found.of(partial(find_sources, [path]))


def _check_data(data: str, found: _Faults) -> bool:
    from ifguide.data.indexed import TokenDataset

    return found.of(lambda: TokenDataset.open(data)) is not None


def _reader(asked: RouteOptions, data: str | None, found: _Faults) -> TextReader:
    """The proxy's reader of texts, which must be that of the corpus."""
    from ifguide.data.text.reader import TextReader, describe
    from ifguide.data.text.record import recorded_tokenizer, tokenizer_difference

    reader = TextReader.of_model(asked.model, data)
    if asked.tokenizer_type is None:
        if data is not None and "type" not in recorded_tokenizer(data):
            found.lines.append(f"{data} does not record its tokenizer; name it with --tokenizer-type and --vocab-file")
        if asked.input is not None and not (Path(asked.model) / "tokenizer.json").is_file():
            found.lines.append(
                f"--model {asked.model} has no tokenizer.json; name its tokenizer with --tokenizer-type, --vocab-file"
            )
        return reader
    given = TextReader.from_files(asked.tokenizer_type, asked.vocab_file, asked.merge_file)
    if difference := tokenizer_difference(describe(reader.tokenizer), describe(given.tokenizer)):
        found.lines.append(
            f"--tokenizer-type {asked.tokenizer_type} {asked.vocab_file or ''} is not the tokenizer of --model "
            f"{asked.model} ({difference}); give the proxy's, or another proxy"
        )
    return reader

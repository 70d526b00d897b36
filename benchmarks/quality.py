"""Which scores find planted abuse: attribution, curvature and kind of query, on finished quickstart runs.

    for seed in 1 2 3; do ifguide quickstart --seed $seed --output runs/$seed; done
    python benchmarks/quality.py runs/1 runs/2 runs/3

Everything is measured on the same random sample of each run's documents, whose planted spans are known:

    ROC-AUC     a planted token scores higher than another token
    precision   share of planted tokens among the best n, n being the number of planted tokens
    recall      share of planted tokens in the mask that Algorithm 1 makes of the scores with the run's settings

``position`` is what kronfluence computes: its score at position t belongs to the label that t predicts (shifted by
one), and as published it is given to the token at t (unshifted). ``plain`` queries are the toxic ones alone.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import markdown_table, report
from numpy.typing import NDArray

from ifguide.influence.options import FitOptions

STRATEGIES = ("identity", "diagonal", "kfac", "ekfac")
QUERIES = ("differential", "plain")
ATTRIBUTIONS = ("loss-term", "position shifted", "position unshifted")
MEASURES = ("roc_auc", "precision", "recall")


@dataclass(frozen=True, eq=False)
class Case:
    """A quickstart run, and the sample of its documents that is scored.

    Attributes:
        scored: windows of the sample.
        places: int64[N], flat places of the sample's tokens in the whole dataset.
        starts: int64[D + 1], where each document of the sample begins in it.
        planted: bool[N]
    """

    model: Any
    folder: Path
    scored: Any
    places: NDArray[np.int64]
    starts: NDArray[np.int64]
    planted: NDArray[np.bool_]


def load_case(folder: Path, tokens: int, seed: int) -> Case:
    """A seeded sample of whole documents with about ``tokens`` tokens."""
    from tokenizers import Tokenizer

    from ifguide.data.indexed import TokenDataset
    from ifguide.influence.curvature.store import load_factors
    from ifguide.influence.windows import cut
    from ifguide.models.tracked import load_model
    from ifguide.quickstart.prepare import FILES
    from ifguide.quickstart.truth import planted_tokens
    from ifguide.system.files import read_jsonl

    dataset = TokenDataset.open(folder / "data/corpus_text_document")
    tokenizer = Tokenizer.from_file(str(folder / "data/tokenizer.json"))
    texts = [row["text"] for row in read_jsonl(folder / FILES["corpus"])]
    planted = planted_tokens(texts, read_jsonl(folder / FILES["planted"]), tokenizer, dataset.starts)
    order = np.random.default_rng(seed).permutation(dataset.num_documents)
    enough = int(np.searchsorted(np.cumsum(dataset.lengths[order]), tokens)) + 1
    documents = np.sort(order[:enough])
    places = np.concatenate([np.arange(dataset.starts[d], dataset.starts[d + 1]) for d in documents])
    model = load_model(folder / "models/base")
    record = load_factors(folder / "factors").record
    windows = cut(dataset, model.eod, record["seq_length"], record["context"])
    scored = windows.select(np.flatnonzero(np.isin(windows.document, documents)))
    starts = np.concatenate([[0], np.cumsum(dataset.lengths[documents])])
    return Case(model, folder, scored, places, starts, planted.inside[places])


def directions(case: Case, factor_tokens: int, batch_tokens: int) -> list[tuple[str, str, dict]]:
    """(strategy, kind of query, direction) for all of both; the factors of every strategy on the same sample."""
    import tempfile

    from ifguide.influence.curvature.job import fit_factors
    from ifguide.influence.curvature.store import load_factors
    from ifguide.influence.direction import mean_gradient, precondition
    from ifguide.influence.options import Damping
    from ifguide.influence.queries import load_query_sets

    model, folder = case.model, case.folder
    toxic, safe = load_query_sets(
        folder / "toxic_queries.jsonl", folder / "safe_queries.jsonl", model.reader, model.window
    )
    g_toxic, g_safe = (mean_gradient(model, queries, batch_tokens) for queries in (toxic, safe))
    wanted = {"differential": {name: g_toxic[name] - g_safe[name] for name in g_toxic}, "plain": g_toxic}
    found = []
    with tempfile.TemporaryDirectory() as place:
        for strategy in STRATEGIES:
            options = FitOptions(strategy=strategy, max_tokens=factor_tokens)
            fit_factors(folder / "models/base", case.scored.dataset.prefix, place, options, quiet=True)
            factors = load_factors(place)
            found += [(strategy, kind, precondition(g, factors, Damping())) for kind, g in wanted.items()]
    return found


def all_scores(case: Case, along: list[dict], attribution: str, batch_tokens: int) -> NDArray[np.float32]:
    """Scores[K, N] of the sample's tokens."""
    from ifguide.influence.batches import group_by_length
    from ifguide.influence.options import Method
    from ifguide.influence.passes.method import make_pass

    scorer = make_pass(case.model, along, Method(attribution, "jvp"))
    values = np.zeros((len(along), case.scored.dataset.num_tokens), np.float32)
    for group in group_by_length(case.scored.lengths, batch_tokens):
        batch = case.scored.batch(group).to(case.model.device)
        values[:, case.scored.places(group)] = scorer.scores(batch)[:, batch.labelled].cpu().numpy()
    return values[:, case.places]


def unshifted(scores: NDArray[np.float32], starts: NDArray[np.int64]) -> NDArray[np.float32]:
    """Position scores as published: each at the token that its position holds, not at the one it predicts.

    Position t of ``EOD, x_1 .. x_n`` predicts x_(t+1) and holds x_t; no position holds a document's last token
    without predicting anything, so that one has no score.
    """
    moved = np.concatenate([scores[1:], np.zeros(1, scores.dtype)])
    moved[starts[1:][np.diff(starts) > 0] - 1] = 0
    return moved


def measure(scores: NDArray[np.float32], case: Case, selection: Any) -> dict[str, float]:
    """ROC-AUC, precision at the planted count, recall at the budget of ``selection``."""
    from sklearn.metrics import roc_auc_score

    from ifguide.selection import ScoredCorpus, Source, paint_windows, select

    count = int(case.planted.sum())
    best = np.argpartition(-scores, count)[:count]
    source = Source([ScoredCorpus("sample", scores, case.starts)])
    chosen = select(source, selection)
    ones = np.ones(len(chosen.centres), np.uint8)
    mask = np.concatenate([paint_windows(source, span, chosen, ones) for span in source.spans()]) > 0
    return {
        "roc_auc": float(roc_auc_score(case.planted, scores)),
        "precision": float(case.planted[best].mean()),
        "recall": float((mask & case.planted).sum() / count),
    }


def run(folder: Path, args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """ "attribution, strategy, queries" -> measures, for one run."""
    from ifguide.quickstart.settings import QuickstartSettings

    selection = QuickstartSettings(output=folder).selection
    started = time.monotonic()
    case = load_case(folder, args.tokens, args.seed)
    found = directions(case, args.factor_tokens, args.batch_tokens)
    # fitting wraps no model that scores: `fit_factors` loads its own
    by_term = all_scores(case, [v for *_, v in found], "loss-term", args.batch_tokens)
    by_position = all_scores(case, [v for *_, v in found], "position", args.batch_tokens)
    results = {}
    for (strategy, kind, _), term, position in zip(found, by_term, by_position):
        for attribution, scores in zip(ATTRIBUTIONS, (term, position, unshifted(position, case.starts))):
            results[f"{attribution}, {strategy}, {kind}"] = measure(scores, case, selection)
    seconds = time.monotonic() - started
    print(f"{folder}: {len(case.places)} tokens, {case.planted.mean():.2%} planted, {seconds:.0f} s", file=sys.stderr)
    return results


def table(runs: list[dict[str, dict[str, float]]]) -> str:
    """One row a configuration: mean over the runs, and lowest to highest."""

    def cell(name: str, measure: str) -> str:
        values = [found[name][measure] for found in runs]
        return f"{statistics.mean(values):.3f} ({min(values):.3f}–{max(values):.3f})"

    rows = [[name, *(cell(name, measure) for measure in MEASURES)] for name in runs[0]]
    return markdown_table(["scores", "ROC-AUC", "precision", "recall"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of a finished `ifguide quickstart`")
    parser.add_argument("--tokens", type=int, default=150_000, help="how many are scored, about (default: 150000)")
    parser.add_argument("--factor-tokens", type=int, default=40_000, help="of the fit (default: 40000)")
    parser.add_argument("--batch-tokens", type=int, default=4096)
    parser.add_argument("--seed", type=int, default=0, help="of the samples")
    parser.add_argument("--output", type=Path, help="write the JSON here too")
    args = parser.parse_args()
    runs = [run(folder, args) for folder in args.runs]
    print(table(runs), file=sys.stderr)
    settings = {"tokens": args.tokens, "factor_tokens": args.factor_tokens, "seed": args.seed}
    named = {str(folder): found for folder, found in zip(args.runs, runs)}
    report("quality", {"settings": settings, "runs": named}, args.output)


if __name__ == "__main__":
    main()

"""How long attacks and analyses of one model take on a GPU, from the work that their defaults ask for.

    python benchmarks/insides_cost.py [--parameters 1e9] [--matmul 400e12] [--bandwidth 3.35e12]

No model runs: tokens are counted from the defaults of the commands and the sizes given here, and divided by what the
card is said to do. A token that is read costs 2 N floating-point operations, one that is trained on 6 N. A token that
is said costs 2 N too, but at least the time in which the weights are read once for the batch. Not counted: loading,
scorers, fits of probes, decompositions of weights, and attention (short texts).
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass

from common import markdown_table, report

from ifguide.analysis.options import DirectionOptions
from ifguide.attacks.options import Enhanced, Gcg, Orthogonalise, Relearn


@dataclass(frozen=True)
class Work:
    """Tokens of one model.

    Attributes:
        read: through a forward pass.
        trained: through a forward and a backward pass.
        said: drawn one after another, in batches.
    """

    read: float = 0.0
    trained: float = 0.0
    said: float = 0.0

    def seconds(self, parameters: float, matmul: float, bandwidth: float, batch: int, width: int = 2) -> float:
        """Of a card with ``matmul`` operations and ``bandwidth`` bytes a second; ``width`` bytes a weight."""
        step = max(2 * parameters * batch / matmul, width * parameters / bandwidth)
        return (2 * self.read + 6 * self.trained) * parameters / matmul + self.said / batch * step


def works(args: argparse.Namespace) -> dict[str, Work]:
    """Of each command with its defaults."""
    measured = args.prompts * args.samples * args.new_tokens
    queries = args.queries * args.query_tokens
    gcg, mixed = Gcg(targets="-"), Enhanced()
    relearn = Relearn(toxic="-", clean="-")
    removal = Orthogonalise(toxic="-", safe="-")
    sets, later = 2 * len(relearn.documents), sum(step > 0 for step in relearn.at)
    suffix, target = gcg.suffix_tokens, args.query_tokens / 2
    tried = gcg.restarts * gcg.steps * args.targets
    prefix = (mixed.least + mixed.most) / 2
    return {
        "analyse lens": Work(read=2 * queries),
        "analyse direction": Work(read=queries, said=2 * len(DirectionOptions().scales) * measured),
        "analyse probe": Work(read=queries),
        "analyse neurons": Work(read=2 * queries, said=3 * measured),
        "analyse drift": Work(read=queries),
        "attack relearn": Work(
            trained=sets * relearn.at[-1] * relearn.documents_a_step * args.document_tokens,
            said=(1 + sets * later) * measured,
        ),
        "attack gcg": Work(
            read=tried * gcg.width * (suffix + target),
            trained=tried * (suffix + target),
            said=3 * args.targets * args.new_tokens,
        ),
        "attack gcg --enhanced": Work(
            read=2 * mixed.iterations * mixed.children * args.prefix_prompts * (prefix + args.query_tokens)
        ),
        "attack orthogonalise": Work(
            read=4 * queries, said=(1 + (len(removal.direction) + 1) * len(removal.remove)) * measured
        ),
        "attack prompts": Work(said=measured),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parameters", type=float, default=1e9, help="N (default: 1e9)")
    parser.add_argument(
        "--matmul", type=float, default=400e12, help="operations a second that matrices get in bfloat16"
    )
    parser.add_argument("--matmul-fp32", type=float, default=50e12, help="and in float32, in which relearn trains")
    parser.add_argument("--bandwidth", type=float, default=3.35e12, help="bytes a second of the card's memory")
    parser.add_argument("--batch", type=int, default=256, help="continuations drawn at a time")
    parser.add_argument("--prompts", type=int, default=150)
    parser.add_argument("--samples", type=int, default=25)
    parser.add_argument("--new-tokens", type=int, default=20)
    parser.add_argument("--queries", type=int, default=500, help="toxic and safe ones together")
    parser.add_argument("--query-tokens", type=int, default=40)
    parser.add_argument("--document-tokens", type=int, default=40, help="of a document that is learnt again")
    parser.add_argument("--targets", type=int, default=20, help="of gcg")
    parser.add_argument("--prefix-prompts", type=int, default=6)
    parser.add_argument("--output", metavar="FILE")
    args = parser.parse_args()
    rows, found = [], {}
    for name, work in works(args).items():
        fp32 = name == "attack relearn"
        matmul, width = (args.matmul_fp32, 4) if fp32 else (args.matmul, 2)
        seconds = work.seconds(args.parameters, matmul, args.bandwidth, args.batch, width)
        found[name] = {"read": work.read, "trained": work.trained, "said": work.said, "minutes": seconds / 60}
        tokens = [f"{number:.2g}" if number else "" for number in (work.read, work.trained, work.said)]
        rows.append([name, *tokens, f"{seconds / 60:.2g}"])
    report("insides_cost", {"settings": vars(args), "commands": found}, args.output)
    header = ["command", "tokens read", "trained on", "said", "minutes a model"]
    print(markdown_table(header, rows), file=sys.stderr)


if __name__ == "__main__":
    main()

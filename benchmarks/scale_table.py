"""The table of docs/scale.md: what each job needs on a GPU, for Pythia-160M to 12B, and the flags with which it fits.

No weights, no GPU and no data are needed: sizes come from configurations, and the corpus is an index of full windows.

    python benchmarks/scale_table.py                       80 GB, EK-FAC, 100,000 query tokens
    python benchmarks/scale_table.py --device-memory 24
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from device_memory import PYTHIA, write_config

_WINDOW = 2048
_HOST = 1 << 40


def write_index_of(prefix: Path, documents: int) -> Path:
    """A dataset of ``documents`` of a full window, whose tokens are a hole in a file."""
    import numpy as np

    from ifguide.data.indexed import write_index

    with open(f"{prefix}.bin", "wb") as stream:
        stream.truncate(2 * documents * _WINDOW)
    lengths = np.full(documents, _WINDOW)
    write_index(f"{prefix}.idx", np.uint16, lengths, np.arange(documents + 1) * _WINDOW, np.arange(documents + 1))
    return prefix


def rows_for(name: str, device_memory: float, folder: Path) -> list[dict[str, Any]]:
    """The jobs of one model: peaks by default flags, the flags that fit, and the peaks with those."""
    from ifguide.data.indexed import TokenDataset
    from ifguide.influence.planning.advice import fitting
    from ifguide.influence.planning.machine import Limits
    from ifguide.influence.planning.needs import Needs
    from ifguide.influence.planning.settings import Settings
    from ifguide.influence.planning.shape import read_shape

    dataset = TokenDataset.open(folder / "corpus")
    shape = read_shape(write_config(folder / name, name))
    limit = int(device_memory * 1e9)
    needs = Needs(shape, dataset, _WINDOW, dataset.num_tokens, limit)
    available = Limits(limit, _HOST, _HOST, None)
    asked = Settings(seq_length=_WINDOW, context=0, device="cuda")
    rows = []
    for job in ("fit-factors", "score"):
        flags, settings = fitting(needs, job, asked, available) or (None, asked)
        peaks = needs.memory(job, settings)
        worst = max(peaks, key=lambda peak: peak.device_bytes)
        cut = needs.partitions(settings)
        rows.append(
            {
                "model": name,
                "weights": 4 * shape.parameters,
                "job": job,
                "default": max(peak.device_bytes for peak in needs.memory(job, asked)),
                "flags": flags,
                "phase": worst.phase,
                "peak": worst.device_bytes,
                "host": max(peak.host_bytes for peak in peaks),
                "partitions": [cut.covariances, cut.second_moments, cut.offload] if job == "fit-factors" else None,
                "direction": next((peak.device_bytes for peak in peaks if peak.phase == "direction"), None),
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--models", nargs="+", choices=PYTHIA, default=list(PYTHIA))
    parser.add_argument("--device-memory", type=float, default=80.0, metavar="GB")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_index_of(folder / "corpus", 1024)
        rows = [row for model in args.models for row in rows_for(model, args.device_memory, folder)]
    if args.json:
        print(json.dumps(rows))
        return
    print("| model | S | job | by default | flags that fit | peak | in | partitions | host |")
    print("|---|---|---|---|---|---|---|---|---|")
    for row in rows:
        cut = row["partitions"]
        told = "" if cut is None else f"{cut[0]} + {cut[1]}" + (", offload" if cut[2] else "")
        flags = {None: "none", "": "none needed"}.get(row["flags"], f"`{row['flags']}`")
        print(
            f"| {row['model']} | {row['weights'] / 1e9:.2f} GB | {row['job']} | {row['default'] / 1e9:.1f} GB "
            f"| {flags} | {row['peak'] / 1e9:.1f} GB | {row['phase'].split(',')[0]} | {told} "
            f"| {row['host'] / 1e9:.1f} GB |"
        )


if __name__ == "__main__":
    main()

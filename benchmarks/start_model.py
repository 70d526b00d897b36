"""How long a start of many ranks takes, added up from pieces that `ranks.py` measures."""

from __future__ import annotations

from dataclasses import dataclass

TOKENS_PER_DOCUMENT = 700


@dataclass(frozen=True)
class Pieces:
    """What was measured here, in seconds per unit, and what does not grow with the dataset, in seconds."""

    read_index: float  # per document: lengths, starts and doc_idx into memory
    map_index: float  # per document: the same checks, arrays left on disk
    all_windows: float  # per document: every window, the largest batch, the shards
    cut_shards: float  # per document: the same shards and batch, no windows
    read_tokens: float  # per token: smallest and largest id
    hash: float  # per byte, one thread
    hash_pieces: float  # per byte, of one thread of several
    finite: float  # per byte: whether all numbers are, as it was before
    finite_ends: float  # per byte: the same by the smallest and the largest
    convert: float  # per byte of float32 to float64
    eigen: float  # per cube of a side, float64: one layer's cut to a rank is a Gram matrix and this
    stat: float  # of one file that is looked for
    take_lock: float  # of a free one
    imports: float  # torch, transformers and the scoring


@dataclass(frozen=True)
class Model:
    """A start: what each rank does beside the others, and what one does after the other.

    Processors are as fast as here. Assumed: ``disk`` bytes/s that a machine reads from a shared file system, once for
    all its ranks (weights, directions, factors and index are mapped, and the memory of the machine keeps them); as
    much written by one process; ``threads`` cores that a process which hashes has beside the waiting ones; weights in
    ``files`` files; ``bus`` bytes/s to a GPU; ``fp32`` and ``fp64`` operations/s that a GPU makes of products, of
    which the queries' gradients and H~^-1 consist. ``gpu`` times as fast as here is the cut to a rank there.
    Left out: the search of the step, which only --method difference and auto make.
    """

    ranks: int = 64
    tokens: float = 3e11
    documents: float = 3e11 / TOKENS_PER_DOCUMENT
    query_tokens: float = 1e5
    hidden: int = 2048
    layers: int = 16
    gpu: float = 100.0
    disk: float = 2e9
    bus: float = 2e10
    threads: int = 8
    files: int = 1
    fp32: float = 4e13
    fp64: float = 3e13

    @property
    def weights_bytes(self) -> float:
        return 4 * (12 * self.hidden**2 * self.layers + 2 * 50304 * self.hidden)

    @property
    def direction_bytes(self) -> float:
        return 4 * 12 * self.hidden**2 * self.layers

    @property
    def factors_bytes(self) -> float:
        """EK-FAC: U_A, U_G and Λ of four layers a block, in units of H²: 1+9+3, 1+1+1, 1+16+4, 16+1+4."""
        return 4 * 58 * self.hidden**2 * self.layers

    @property
    def index_bytes(self) -> float:
        return 20 * self.documents

    @property
    def gradients(self) -> float:
        """Seconds of a GPU: forward, forward again, and twice as much back, two operations a weight and token."""
        return 8 * self.weights_bytes / 4 * self.query_tokens / self.fp32

    @property
    def inverse(self) -> float:
        """Seconds of a GPU: 4 O·I·(O + I) of each layer, in units of H³: 3·4, 1·2, 4·5 and 4·5."""
        return 4 * 54 * self.hidden**3 * self.layers / self.fp64 + self.factors_bytes / self.bus

    def cut(self, pieces: Pieces) -> float:
        """All layers cut to a rank on a processor: four eigendecompositions of side H a block."""
        return 4 * self.layers * pieces.eigen * self.hidden**3

    def before(self, pieces: Pieces, rank: bool) -> dict[str, float]:
        """Seconds until the last rank scores, all directions and methods being there."""
        shards = self.tokens / (1 << 18)
        alone = {
            "imports": pieces.imports,
            "index": self.index_bytes / self.disk + pieces.read_index * self.documents,
            "windows and shards": pieces.all_windows * self.documents,
            "check of the tokens": max(2 * self.tokens / self.disk, pieces.read_tokens * self.tokens),
            "weights and factors": (1 / self.disk + pieces.hash) * (self.weights_bytes + self.factors_bytes),
            "look for shards": 2 * pieces.stat * shards,
        }
        in_turn = {"hash of v": self.ranks * pieces.hash * self.direction_bytes}
        if rank:
            in_turn["cut to a rank"] = self.ranks * self.cut(pieces)
        return {**alone, **in_turn}

    def after(self, pieces: Pieces, rank: bool, first: bool, mended: bool = True) -> dict[str, float]:
        """The same.

        Args:
            first: nothing is known but what `preprocess` writes beside the data, so one rank hashes what there is,
                makes the directions and cuts them, while the others wait.
            mended: files are hashed by several threads, numbers looked at by their ends, conversions made on the GPU,
                and factors read while the GPU is at the queries.
        """
        from ifguide.influence.shards import shard_tokens_for

        shards = self.tokens / shard_tokens_for(int(self.tokens))
        found = {
            "imports": pieces.imports,
            "index": self.index_bytes / self.disk + pieces.map_index * self.documents,
            "windows and shards": pieces.cut_shards * self.documents,
            "look for shards": pieces.stat * shards / 1000,
            "locks": pieces.take_lock,
            "weights": self.weights_bytes * (1 / self.disk + 1 / self.bus),
        }
        if not first:
            # every rank's direction goes to its GPU
            return {**found, "v": self.direction_bytes * (1 / self.disk + 1 / self.bus)}
        files = min(self.files, self.threads) if mended else 1
        one = pieces.hash
        several = pieces.hash_pieces / self.threads if mended else one
        look = pieces.finite_ends if mended else pieces.finite
        found["hash of weights"] = one * self.weights_bytes / files
        factors = self.factors_bytes * (1 / self.disk + several + look)
        making = max(factors, self.gradients) if mended else factors + self.gradients
        found["factors, and the queries' gradients"] = making
        found["H~^-1"] = self.inverse + (0 if mended else pieces.convert * self.factors_bytes)
        # looked at, written, hashed, and read by the other machines, which hash it if they have another cache
        found["v"] = self.direction_bytes * (look + 2 / self.disk + one + several + 1 / self.bus)
        if rank:
            found["cut to a rank"] = self.cut(pieces) / self.gpu
        return found

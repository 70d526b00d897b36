"""Finished shards of a long per-token job on disk, so that the same command continues where it was killed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from ifguide.errors import InputError, MismatchError
from ifguide.system.files import atomic_path, read_json, write_json


class ShardStore:
    """Numbered float32 arrays [K, tokens] in ``folder``, all made by the run that ``identity`` describes.

    Args:
        folder: created if it does not exist.
        identity: JSON-able; whatever can change a value.

    Raises:
        MismatchError: the folder holds shards of another run; names what differs.
    """

    def __init__(self, folder: str | Path, identity: dict[str, Any]):
        self.folder = Path(folder)
        self._record = self.folder / "identity.json"
        if self._record.exists():
            known = read_json(self._record, "unfinished shards")
            differing = sorted(key for key in known.keys() | identity.keys() if known.get(key) != identity.get(key))
            if differing:
                raise MismatchError(
                    f"{self.folder} holds unfinished scores of another run (differs: {', '.join(differing)}); "
                    "remove that folder, or choose another --output"
                )
        else:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise InputError(f"folder {self.folder}: {error.strerror}") from None
            write_json(self._record, identity)

    @property
    def removed(self) -> bool:
        """Whether another process has seen all shards finished, merged them and removed the folder."""
        return not self._record.exists()

    def finished(self, shard: int) -> bool:
        return self._path(shard).exists() or self.removed

    def lock(self, shard: int) -> Path:
        """What a process locks while it works on ``shard``."""
        return self.folder / f"part-{shard:06d}.lock"

    def write(self, shard: int, values: np.ndarray) -> None:
        """Store ``values``; the shard counts as finished only once they are on disk."""
        with atomic_path(self._path(shard)) as temporary, open(temporary, "wb") as stream:
            np.lib.format.write_array_header_1_0(stream, np.lib.format.header_data_from_array_1_0(values))
            stream.write(values.data)  # np.save would hide why a disk refuses

    def read(self, shard: int) -> np.ndarray:
        return np.load(self._path(shard), mmap_mode="r")

    def remove(self) -> None:
        """Delete all shards and the folder; its record goes last: a kill leaves a folder that is still known."""
        for path in self.folder.iterdir():
            if path != self._record:
                path.unlink(missing_ok=True)  # a lock goes with its owner
        self._record.unlink()
        shutil.rmtree(self.folder, ignore_errors=True)  # a process that looks for work may just be locking

    def _path(self, shard: int) -> Path:
        return self.folder / f"part-{shard:06d}.npy"

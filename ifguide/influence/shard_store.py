"""Finished shards of a long per-token job on disk, so that the same command continues where it was killed.

They lie in subfolders of a thousand, for a folder of a million files is slow to use. Those that earlier versions wrote
beside the record are found where they are.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ifguide.errors import InputError, MismatchError
from ifguide.system.files import atomic_path, read_json, write_json

_RECORD = "identity.json"
_PER_FOLDER = 1000
_PART = re.compile(r"part-(\d+)\.npy")


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
        self._record = self.folder / _RECORD
        self._finished: set[int] = set()
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
        # nobody writes there any more
        self._flat = set(_numbers_in(self.folder))
        self.look()

    @staticmethod
    def identity_in(folder: str | Path) -> Any:
        """The identity of the run whose shards lie in ``folder``, None where there are none.

        Raises:
            InputError: its record cannot be read.
        """
        record = Path(folder) / _RECORD
        return read_json(record, "unfinished shards") if record.exists() else None

    @property
    def removed(self) -> bool:
        """Whether another process has seen all shards finished, merged them and removed the folder."""
        return not self._record.exists()

    @property
    def known(self) -> frozenset[int]:
        """The shards that were finished when this was made or has last looked, and those written since."""
        return frozenset(self._finished)

    def look(self) -> frozenset[int]:
        """The shards that are finished by now, from one listing of each subfolder; `finished` knows them then."""
        self._finished |= self._flat
        try:
            for entry in os.scandir(self.folder):
                if entry.is_dir():
                    self._finished.update(_numbers_in(entry.path))
        except FileNotFoundError:
            if not self.removed:
                raise
        return self.known

    def finished(self, shard: int) -> bool:
        if shard in self._finished:
            return True
        if self._path(shard).exists():
            self._finished.add(shard)
            return True
        return self.removed

    def lock(self, shard: int) -> Path:
        """What a process locks while it works on ``shard``.

        Raises:
            FileNotFoundError: the folder is gone.
            InputError: it cannot be written.
        """
        path = self._place(shard)
        try:
            path.parent.mkdir(exist_ok=True)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise InputError(f"folder {path.parent}: {error.strerror}") from None
        return path.with_suffix(".lock")

    def write(self, shard: int, values: np.ndarray) -> None:
        """Store ``values`` under the `lock`; the shard counts as finished only once they are on disk."""
        with atomic_path(self._place(shard)) as temporary, open(temporary, "wb") as stream:
            np.lib.format.write_array_header_1_0(stream, np.lib.format.header_data_from_array_1_0(values))
            stream.write(values.data)  # np.save would hide why a disk refuses
        self._finished.add(shard)

    def read(self, shard: int) -> np.ndarray:
        return np.load(self._path(shard), mmap_mode="r")

    def remove(self) -> None:
        """Delete all shards and the folder; its record goes last: a kill leaves a folder that is still known."""
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            elif path != self._record:
                path.unlink(missing_ok=True)  # a lock goes with its owner
        self._record.unlink()
        shutil.rmtree(self.folder, ignore_errors=True)  # a process that looks for work may just be locking

    def _path(self, shard: int) -> Path:
        place = self._place(shard)
        return self.folder / place.name if shard in self._flat else place

    def _place(self, shard: int) -> Path:
        return self.folder / f"{shard // _PER_FOLDER:04d}" / f"part-{shard:06d}.npy"


def _numbers_in(folder: str | os.PathLike[str]) -> Iterator[int]:
    """Numbers of the shards whose files lie in ``folder`` itself."""
    with os.scandir(os.fspath(folder)) as entries:
        for entry in entries:
            if found := _PART.fullmatch(entry.name):
                yield int(found[1])

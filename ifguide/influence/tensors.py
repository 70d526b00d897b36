"""Named tensors on disk."""

from __future__ import annotations

import errno
import os

from torch import Tensor

from ifguide.system.files import atomic_path


def save_tensors(path: str | os.PathLike, tensors: dict[str, Tensor]) -> None:
    """Atomically write ``tensors`` as safetensors.

    Raises:
        InputError: the folder does not exist or cannot be written.
        OutOfSpaceError: the disk filled up.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    with atomic_path(path) as temporary:
        try:
            save_file(tensors, temporary)
        except SafetensorError as error:
            # the library tells the system's error in its text alone
            known = (number for number in (errno.ENOSPC, errno.EDQUOT) if f"(os error {number})" in str(error))
            raise OSError(next(known, errno.EIO), str(error)) from error

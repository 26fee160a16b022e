"""One array in a file that is mapped when it is read, and never believed without its digest.

The file is a .npy array followed by the SHA-256 digest of a text that says what the array is and
of all the bytes before. So a damaged file is noticed, and so is a good one under a wrong name.
"""

import hashlib
import io
from pathlib import Path

import numpy as np

from enn_finetune.errors import InputError
from enn_finetune.files.atomic import atomic_write
from enn_finetune.files.reading import PathLike, check_file

DIGEST = hashlib.sha256().digest_size


def save_checked(path: PathLike, array: np.ndarray, identity: str) -> None:
    """Write an array atomically; `identity` says what it is."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    data = buffer.getvalue()
    atomic_write(path, data + _digest(identity, data))


def map_checked(path: PathLike, identity: str, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """The array, read-only and mapped from the file, after one pass over its bytes.

    Raises:
      InputError: no such file; another digest than that of the identity and the bytes; or another
        array than asked for.
    """
    check_file(path)
    if Path(path).stat().st_size <= DIGEST:
        raise InputError(f"{path}: found an empty or truncated file")
    data = np.memmap(path, np.uint8, "r")
    if _digest(identity, data[:-DIGEST].data) != data[-DIGEST:].tobytes():
        raise InputError(f"{path}: found contents that do not have the SHA-256 digest kept there")
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if array.shape != shape or array.dtype != dtype:
        raise InputError(f"{path}: found {array.dtype} {array.shape}, expected {dtype} {shape}")
    return array


def _digest(identity: str, data: bytes | memoryview) -> bytes:
    found = hashlib.sha256(identity.encode() + b"\n")
    found.update(data)
    return found.digest()

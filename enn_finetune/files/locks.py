"""One process at a time: locks that the kernel drops with the process that holds them."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from enn_finetune.files.reading import PathLike


@contextmanager
def claim(path: PathLike, *, wait: bool) -> Iterator[bool]:
    """Hold the lock file `path` within the block, and remove it at the end.

    Gives False where another process (or another block of this one) holds it and `wait` is False.
    It spares double work and protects nothing: the block looks whether the work was done meanwhile,
    and writes atomically. Where files cannot be locked (a read-only folder, some network file
    systems) it therefore gives True.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError:
        yield True
        return
    try:
        mine = _locked(descriptor, wait)
        try:
            yield mine
        finally:
            if mine:
                with suppress(OSError):
                    os.unlink(path)
    finally:
        os.close(descriptor)


def _locked(descriptor: int, wait: bool) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:  # no locks on this file system
        return True
    return True

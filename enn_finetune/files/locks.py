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
    Where files cannot be locked (a read-only folder, some network file systems) it gives True, so
    that what the block writes has to be written atomically all the same.
    """
    descriptor, mine = _opened(path, wait)
    if descriptor is None:
        yield mine
        return
    try:
        try:
            yield mine
        finally:
            if mine:
                with suppress(OSError):
                    os.unlink(path)
    finally:
        os.close(descriptor)


def _opened(path: PathLike, wait: bool) -> tuple[int | None, bool]:
    """The lock file, open (None where it cannot be), and whether it is ours.

    A holder removes its file at the end: who waited for that one holds what no longer stands
    there, while the next comer makes and locks another. So it is tried again until both are one.
    """
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError:
            return None, True
        mine = _locked(descriptor, wait)
        try:
            if not mine or os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor, mine
        except FileNotFoundError:
            pass
        os.close(descriptor)


def _locked(descriptor: int, wait: bool) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:  # no locks on this file system
        return True
    return True

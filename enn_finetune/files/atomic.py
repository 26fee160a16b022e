"""Files and folders that are either complete or not there.

A save fills a hidden sibling folder (`.NAME.TOKEN.new`), flushes it to the disk and renames it, or
the file in it, so a crash at any moment leaves what was there before. The writer holds a lock on
that sibling; the kernel drops the lock with the process, so the next save of the same name
recognises what a dead writer left and removes it, and never touches what a living one is writing.

A folder that replaces another takes two renames: the old one to `.NAME.TOKEN.old`, the new one to
NAME. A crash between them leaves no NAME but two complete folders beside it; `recover`, which every
later save and load calls, finishes the second rename.
"""

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from enn_finetune.errors import InputError
from enn_finetune.files.reading import PathLike

NEW, OLD = ".new", ".old"


def atomic_write(path: PathLike, content: str | bytes) -> None:
    """Write a whole file at once; text as UTF-8."""
    data = content.encode("utf-8") if isinstance(content, str) else content
    with atomic_file(path) as temporary:
        temporary.write_bytes(data)


@contextmanager
def atomic_file(path: PathLike) -> Iterator[Path]:
    """A temporary path of the same name, which becomes `path` if the block does not raise.

    It is in a temporary folder beside `path`; whatever else the block puts there is removed.

    Raises:
      InputError: `path` is there and is no regular file.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():  # a device or a pipe must not be replaced
        kind = "a folder" if target.is_dir() else "no regular file"
        raise InputError(f"{target}: found {kind} where a file is to be written")
    with _temporary(target) as folder:
        temporary = folder / target.name
        temporary.touch()
        mode = temporary.stat().st_mode
        yield temporary
        temporary.chmod(mode)  # of any new file, also if the block made another file of the name
        _sync(temporary)
        os.replace(temporary, target)
        _sync(target.parent)


@contextmanager
def atomic_folder(path: PathLike, *, replace: str | None = None) -> Iterator[Path]:
    """A temporary sibling folder, which becomes `path` if the block does not raise.

    Args:
      path: the final name. An existing empty folder there is replaced.
      replace: a file name; an existing folder that holds this file is replaced as a whole. So a
        folder is only ever removed if it is of the kind that is being saved.

    Raises:
      InputError: something else is there; raised before any work is done.
    """
    target = Path(os.path.realpath(path))
    recover(target)
    _check_replaceable(target, replace)
    with _temporary(target) as temporary:
        yield temporary
        for place, _, names in os.walk(temporary):
            for name in names:
                _sync(Path(place, name))
            _sync(Path(place))
        _check_replaceable(target, replace)
        old = temporary.with_suffix(OLD)
        if target.exists():
            os.rename(target, old)
        try:
            os.rename(temporary, target)
        except OSError:
            if old.exists():
                os.rename(old, target)
            raise
        _sync(target.parent)
        shutil.rmtree(old, ignore_errors=True)


def recover(path: PathLike) -> None:
    """Finish the replacement of folder `path` that a crash, or a writer at work, left half done."""
    target = Path(os.path.realpath(path))
    if target.exists() or not target.parent.is_dir():
        return
    for old in _siblings(target, OLD):
        new = old.with_suffix(NEW)
        lock = _lock(new, wait=True)  # a living writer is between its two renames: let it finish
        # The new folder was complete and on disk before the old one was moved away.
        if not target.exists() and new.exists():
            os.rename(new, target)
        _unlock(lock)


def _check_replaceable(target: Path, replace: str | None) -> None:
    if not target.exists():
        return
    if not target.is_dir():
        raise InputError(f"{target}: found a file where a folder is to be saved; move it away")
    names = sorted(entry.name for entry in target.iterdir())
    if names and replace not in names:
        kind = f"an empty folder or one that holds {replace}" if replace else "an empty folder"
        raise InputError(
            f"{target}: the folder exists and holds {', '.join(names[:5])}; only {kind} is "
            "replaced, choose another name or move it away"
        )


@contextmanager
def _temporary(target: Path) -> Iterator[Path]:
    """A new locked folder beside `target`, removed at the end if it still has this name."""
    target.parent.mkdir(parents=True, exist_ok=True)
    _sweep(target)
    while True:
        folder = target.with_name(f".{target.name}.{secrets.token_hex(8)}{NEW}")
        folder.mkdir()
        lock = _lock(folder)
        if folder.exists():  # another writer's sweep may have come between creation and lock
            break
        _unlock(lock)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _unlock(lock)


def _sweep(target: Path) -> None:
    """Remove what dead writers of `target` left beside it."""
    for path in _siblings(target, NEW):
        lock = _lock(path)
        if lock is not None:
            shutil.rmtree(path, ignore_errors=True)
            _unlock(lock)
    for path in _siblings(target, OLD):
        if target.exists() and not path.with_suffix(NEW).exists():
            shutil.rmtree(path, ignore_errors=True)


def _siblings(target: Path, suffix: str) -> list[Path]:
    start = f".{target.name}."
    length = len(start) + 16 + len(suffix)
    return [
        path
        for path in target.parent.iterdir()
        if path.name.startswith(start) and path.name.endswith(suffix) and len(path.name) == length
    ]


def _lock(path: Path, *, wait: bool = False) -> int | None:
    """Lock a folder: its descriptor; None if gone, held by another, or not lockable."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        if os.path.samestat(os.stat(path), os.fstat(descriptor)):
            return descriptor
    os.close(descriptor)
    return None


def _unlock(descriptor: int | None) -> None:
    if descriptor is not None:
        os.close(descriptor)


def _sync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

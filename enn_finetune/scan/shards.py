"""Features of a pool where they lie: in memory or in mapped files, in one piece or in several."""

import os
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple, cast

import numpy as np

from enn_finetune.errors import InputError
from enn_finetune.types import Head

Source = np.ndarray | Sequence[np.ndarray]
"""Features (N, V * D): one array, or shards (n, V * D) in order; in memory or mapped."""

FLOATS = ("float16", "float32")


class Shards(NamedTuple):
    """Features that stand one after another, as they are."""

    parts: tuple[np.ndarray, ...]  # (n, V * D) each
    starts: tuple[int, ...]  # the number of each part's first row, and N at the end

    @classmethod
    def of(cls, source: Source, name: str = "features") -> "Shards":
        """Checked: of one width and type, and as long as their files are said to be."""
        parts = (source,) if isinstance(source, np.ndarray) else tuple(source)
        if not parts or not sum(len(part) for part in parts):
            raise InputError(f"{name}: found no rows")
        for number, part in enumerate(parts):
            _check(part, parts[0], f"{name}, part {number + 1} of {len(parts)}")
        return cls(parts, tuple(accumulate((len(part) for part in parts), initial=0)))

    @property
    def rows(self) -> int:
        """N."""
        return self.starts[-1]

    @property
    def width(self) -> int:
        """V * D."""
        return self.parts[0].shape[1]

    def check(self, head: Head, name: str = "features") -> None:
        """That the head takes features of this width; InputError otherwise."""
        wanted = getattr(head, "features", self.width)
        if isinstance(wanted, int) and wanted != self.width:
            raise InputError(
                f"{name}: found width {self.width}, but the head was fitted to width {wanted}; "
                "give it features of the same encoder and layers"
            )

    def read(self, start: int, stop: int) -> np.ndarray:
        """Rows start to stop, those from N on zeros."""
        found = np.zeros((stop - start, self.width), self.parts[0].dtype)
        for part, first in zip(self.parts, self.starts, strict=False):
            low, high = max(start, first), min(stop, first + len(part))
            if low < high:
                _copy(part, low - first, found[low - start : high - start])
        return found


def _check(part: np.ndarray, like: np.ndarray, where: str) -> None:
    if part.ndim != 2 or part.dtype.name not in FLOATS:
        raise InputError(
            f"{where}: found {part.dtype} {part.shape}, expected {' or '.join(FLOATS)} (N, V * D)"
        )
    if part.shape[1] != like.shape[1] or part.dtype != like.dtype:
        raise InputError(
            f"{where}: found {part.dtype} of width {part.shape[1]}, but part 1 is {like.dtype} "
            f"of width {like.shape[1]}"
        )
    if (file := _mapped(part)) is not None:
        needed, there = file.offset + file.nbytes, os.path.getsize(cast(str, file.filename))
        if there < needed:
            raise InputError(
                f"{file.filename}: found {there:,} bytes, expected {needed:,} for "
                f"{part.dtype} {part.shape}; the file is cut off: write it again"
            )


def _mapped(part: np.ndarray) -> np.memmap | None:
    """The array as a whole file mapped in row order, which can be read without the map."""
    known = (
        isinstance(part, np.memmap)
        and not isinstance(part.base, np.ndarray)  # a slice: its place in the file is not known
        and part.flags.c_contiguous
        and part.mode in ("r", "r+")
        and isinstance(part.filename, str | os.PathLike)
    )
    return cast(np.memmap, part) if known else None


def _copy(part: np.ndarray, start: int, out: np.ndarray) -> None:
    """Rows from start on, by reading: pages of a map would count as this process's memory."""
    mapped = _mapped(part)
    if mapped is None:
        out[:] = part[start : start + len(out)]
        return
    with open(cast(str, mapped.filename), "rb", buffering=0) as file:
        file.seek(mapped.offset + start * part.strides[0])
        left = out.reshape(-1).view(np.uint8).data
        while left:
            read = file.readinto(left)
            if not read:
                raise InputError(f"{mapped.filename}: cut off while it was being read")
            left = left[read:]

"""Rows that are encoded and kept together: distinct texts, cut where the texts say so."""

import hashlib
import json
import zlib
from collections.abc import Sequence
from itertools import repeat
from typing import NamedTuple

import numpy as np

SHARD = 4096  # rows, at most; a quarter of that at least, and half on average

TextRow = tuple[str, str | None]


class Shard(NamedTuple):
    """Distinct rows that are encoded and kept together."""

    rows: list[TextRow]
    start: int  # of the first among all distinct rows
    fingerprint: str  # of their texts


def distinct(text: Sequence[str], pair: Sequence[str] | None) -> tuple[list[TextRow], np.ndarray]:
    """The distinct rows in the order in which they first appear, and the place of each row (N,).

    Raises:
      ValueError: another number of second texts than of first ones.
    """
    if pair is not None and len(pair) != len(text):
        raise ValueError(f"found {len(text)} texts but {len(pair)} second ones; give one a text")
    places: dict[TextRow, int] = {}
    rows = zip(text, repeat(None) if pair is None else pair, strict=False)
    where = np.fromiter((places.setdefault(row, len(places)) for row in rows), np.int64, len(text))
    return list(places), where


def shards_of(rows: list[TextRow]) -> list[Shard]:
    """Distinct rows, cut where their texts say so."""
    found, texts = [], []
    for row in rows:
        texts.append(json.dumps(row, separators=(",", ":")))
        size = len(texts)
        if size == SHARD or (size >= SHARD // 4 and ends_shard(texts[-1])):
            found.append(texts)
            texts = []
    starts = np.cumsum([0, *map(len, found)]).tolist()
    return [
        Shard(rows[start : start + len(one)], start, _fingerprint(one))
        for start, one in zip(starts, [*found, *([texts] if texts else [])], strict=False)
    ]


def ends_shard(text: str) -> bool:
    """True for one row in SHARD / 4, whatever the file it is in."""
    return zlib.crc32(text.encode()) % (SHARD // 4) == 0


def _fingerprint(texts: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:32]

"""Which rows stand in the pool and which are scored: parts carved off, rare classes, repeated rows.

Everything here is a pure function of the splits and returns row ids, so that all variants of a task
share its texts and their features. All draws rank raw Philox words under one fixed seed, whose
stream numpy guarantees: every machine has the same pools.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from enn_finetune.data.faults import DataError
from enn_finetune.data.oracle import carve
from enn_finetune.data.splits import Split

Kind = Literal["plain", "rare", "repeated"]

HELD, DEVELOP = "held", "develop"  # names of the carved parts
LARGEST = 5000  # rows of a carved part, at the most
ENOUGH = 2000  # evaluation rows that need no second split beside them
_CARVE_SEED, _RARE_SEED, _FEWER_SEED = 0, 1, 2


class Part(NamedTuple):
    """Rows that are scored: `rows` (n,) of the split with the number `split`, 0 for training."""

    name: str
    split: int
    rows: np.ndarray


class Selection(NamedTuple):
    """What a pool is made of, as row ids of the splits as they were read."""

    pool: np.ndarray  # (N,) training rows, copies repeated
    parts: tuple[Part, ...]  # what is scored


def select(
    splits: Sequence[Split],
    kind: Kind = "plain",
    *,
    carved: int | Literal["auto"] = 0,
    develop: bool = False,
    share: float = 0.05,
    rows: int | None = None,
    repeats: int = 5,
) -> Selection:
    """The pool and the evaluation parts of a task.

    Args:
      splits: training first, then those for evaluation.
      kind: see `rare` and `repeated`; the class balance of rare pools holds in every part.
      carved: size of the part `held`, or auto: `held_size`.
      develop: score rows carved from the pool, and nothing else.
      share: of the rare class.
      rows: different ones in the pool, at most: see `fewer`; None takes all. A rare pool has
        fewer, for these are thinned.
      repeats: copies of each row in a repeated pool.

    Raises:
      DataError: a part leaves no pool; a rare pool of other than two classes, or without rows.
    """
    train, *others = splits
    held = held_size(len(train), [len(split) for split in others]) if carved == "auto" else carved
    more = min(LARGEST, max(len(train) - held, 0) // 4) if develop else 0
    if held + more >= len(train):
        raise DataError(
            f"task.carve: {held + more} rows held out of the {len(train)} for training leave no "
            "pool; give fewer"
        )
    found = carve(len(train), [held, more], _CARVE_SEED)
    parts = [
        Part(split.name, number, np.arange(len(split))) for number, split in enumerate(others, 1)
    ]
    if held:
        parts.append(Part(HELD, 0, found.held[0]))
    if develop:
        parts = [Part(DEVELOP, 0, found.held[1])]
    pool = found.pool if rows is None else fewer(found.pool, rows)
    if kind == "rare":
        pool = _thinned(train, pool, share)
        parts = [
            part._replace(rows=_thinned(splits[part.split], part.rows, share)) for part in parts
        ]
    return Selection(repeated(pool, repeats) if kind == "repeated" else pool, tuple(parts))


def held_size(train: int, evaluation: Sequence[int]) -> int:
    """Rows held out of training beside small evaluation splits: a quarter, at most 5,000."""
    return 0 if max(evaluation, default=0) >= ENOUGH else min(LARGEST, train // 4)


def fewer(rows: np.ndarray, most: int) -> np.ndarray:
    """Of the rows (n,) at most so many, drawn at random, in the order they had.

    Those of a smaller number are among those of a larger one.
    """
    order = np.argsort(np.random.Philox(_FEWER_SEED).random_raw(len(rows)), kind="stable")
    return rows[np.sort(order[:most])]


def repeated(rows: np.ndarray, times: int) -> np.ndarray:
    """Every row (n,) `times` times: (times * n,); a copy has a place, and a price, of its own."""
    return np.tile(rows, times)


def rare(targets: np.ndarray, share: float, seed: int = _RARE_SEED) -> np.ndarray:
    """Rows (n,), ascending, in which the second of two classes has the given share.

    All rows of the first class stay, and of the second a random part; all of it where it is as
    rare as that already. At least one row of it stays.
    """
    second = targets[:, 1] > targets[:, 0]
    wanted = max(1, round(share / (1 - share) * np.count_nonzero(~second)))
    order = np.argsort(np.random.Philox(seed).random_raw(len(targets)), kind="stable")
    kept = order[second[order]][:wanted]
    return np.sort(np.concatenate([np.flatnonzero(~second), kept]))


def _thinned(split: Split, rows: np.ndarray, share: float) -> np.ndarray:
    if split.targets is None or split.targets.shape[1] != 2:
        raise DataError(
            f"task.pool: a rare pool thins the second of two classes, {split.name} has "
            f"{len(split.classes)}; use plain or repeated"
        )
    kept = rows[rare(split.targets[rows], share)]
    if split.targets[kept].sum(0).min() < 1:
        raise DataError(f"task.pool: {split.name} has rows of one class only; use plain")
    return kept

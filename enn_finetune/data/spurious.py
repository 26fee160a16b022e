"""Splits in which a label can be told by a spurious attribute: for any rows that have both.

Labels and attribute values are paired by position: a row *agrees* where its attribute is the one
that goes with its label, and *disagrees* elsewhere. Disagreeing rows settle which of the two is
meant. An agreement is the share of rows that agree; with two classes of equal size the correlation
of label and attribute (phi) is 2 * agreement - 1. A group is a label with an attribute.

    seed set   `start` rows of agreement 1 or nearly so: they leave open what the task is
    pool       rows to buy from, of a stated agreement
    test set   as many rows of each group, so that neither predicts the other

The test set is one for all seeds. Pool and seed sets share their rows: each seed draws its seed set
by group, and whatever it draws, the rows that are left to it are a pool of exactly the stated
counts. All draws rank raw Philox words, whose stream numpy guarantees.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from enn_finetune.data.faults import DataError

_SPLIT, _START = 0, 1  # streams of a seed


class Sizes(NamedTuple):
    """What a split is to be."""

    start: int
    """Rows of a seed set."""
    pool: int
    """Rows to buy from beyond the seed set; 0 takes as many as there are rows for."""
    test: int
    """Rows of each group in the test set."""
    start_agreement: float = 1.0
    pool_agreement: float = 0.95


class SpuriousSplit(NamedTuple):
    """Row ids, and how many rows of each group (C, C), label by attribute, there are."""

    rows: np.ndarray  # (N,) ids, ascending: the pool and one seed set together
    test: np.ndarray  # (M,) ids, ascending
    start: np.ndarray  # (C, C) rows of a seed set
    pool: np.ndarray  # (C, C) rows left to buy, the same for every seed set

    @property
    def disagreeing(self) -> float:
        """Share of the pool's rows that disagree."""
        return float(1 - np.trace(self.pool) / self.pool.sum())


def group_counts(rows: int, agreement: float, classes: int) -> np.ndarray:
    """How many of so many rows each group has: (C, C), label by attribute.

    The disagreeing rows are rows * (1 - agreement), rounded; the agreeing groups differ by one row
    at most, and so do the disagreeing ones.

    Raises:
      ValueError: rows below 0, an agreement that is no share, fewer than two classes.
    """
    if rows < 0 or not 0 <= agreement <= 1 or classes < 2:
        raise ValueError(f"no such groups: {rows=}, {agreement=}, {classes=}")
    disagreeing = round(rows * (1 - agreement))
    counts = np.zeros((classes, classes), np.int64)
    agrees = np.eye(classes, dtype=bool)
    counts[agrees] = _shared(rows - disagreeing, classes)
    counts[~agrees] = _shared(disagreeing, classes * (classes - 1))
    return counts


def _shared(rows: int, groups: int) -> np.ndarray:
    """Rows over groups as evenly as it goes, the first ones having one more."""
    return rows // groups + (np.arange(groups) < rows % groups)


def build_split(
    labels: np.ndarray,
    attributes: np.ndarray,
    sizes: Sizes,
    *,
    names: tuple[Sequence[str], Sequence[str]],
    seed: int = 0,
) -> SpuriousSplit:
    """Draw the test set, and the rows that pools and seed sets are made of; no row is in both.

    Args:
      labels: (N,) class of each row, 0 to C - 1.
      attributes: (N,) attribute of each row, 0 to C - 1; value c goes with class c.
      sizes: how many rows of which agreement.
      names: of the C classes and of the C attribute values, for messages.
      seed: of the draw.

    Raises:
      DataError: a group has too few rows (each such group, how many were found and are needed), or
        sizes that make no split.
    """
    classes = _check(labels, attributes, sizes, names)
    found = _counted(labels, attributes, classes)
    start = group_counts(sizes.start, sizes.start_agreement, classes)
    share = sizes.pool_agreement
    pool = group_counts(sizes.pool, share, classes)
    least = np.where(np.eye(classes, dtype=bool), share > 0, share < 1).astype(np.int64)
    _check_groups(found, pool if sizes.pool else least, start, sizes, names)
    if not sizes.pool:
        pool = group_counts(_largest(found - start - sizes.test, share), share, classes)
    if sizes.pool_agreement < 1 and np.trace(pool) == pool.sum():
        raise DataError(
            f"the pool: {pool.sum()} rows at an agreement of {sizes.pool_agreement} have no row "
            "that disagrees; give more rows, or a lower agreement"
        )
    order = _ranks(len(labels), seed, _SPLIT)
    test, rest = [], []
    for label, attribute in np.ndindex(classes, classes):
        here = order[(labels[order] == label) & (attributes[order] == attribute)]
        test.append(here[: sizes.test])
        rest.append(here[sizes.test :][: start[label, attribute] + pool[label, attribute]])
    return SpuriousSplit(np.sort(np.concatenate(rest)), np.sort(np.concatenate(test)), start, pool)


def draw_start(
    labels: np.ndarray, attributes: np.ndarray, split: SpuriousSplit, seed: int
) -> np.ndarray:
    """A seed's seed set: places (n,) in `split.rows`, in a random order.

    Args:
      labels: (N,) of all rows, as `build_split` was given them.
      attributes: (N,) likewise.
      split: what it returned.
      seed: of the draw; other seeds have other seed sets.
    """
    labels, attributes = labels[split.rows], attributes[split.rows]
    order = _ranks(len(split.rows), seed, _START)
    chosen = np.zeros(len(order), bool)
    for label, attribute in np.ndindex(*split.start.shape):
        here = (labels[order] == label) & (attributes[order] == attribute)
        chosen[np.flatnonzero(here)[: split.start[label, attribute]]] = True
    return order[chosen]


def _ranks(rows: int, seed: int, stream: int) -> np.ndarray:
    """Row numbers (N,) in a random order."""
    words = np.random.Philox(key=np.array([seed, stream], np.uint64)).random_raw(rows)
    return np.argsort(words, kind="stable")


def _counted(labels: np.ndarray, attributes: np.ndarray, classes: int) -> np.ndarray:
    found = np.zeros((classes, classes), np.int64)
    np.add.at(found, (labels, attributes), 1)
    return found


def _largest(left: np.ndarray, agreement: float) -> int:
    """The most rows of this agreement whose groups these rows (C, C) suffice for; 0 if none do."""
    classes, agrees = len(left), np.eye(len(left), dtype=bool)
    most = int(left.clip(0).sum())
    # No more than the scarcest group allows, give or take a rounding in every group.
    for part, share in ((left[agrees], agreement), (left[~agrees], 1 - agreement)):
        if share > 0:
            most = min(most, int(len(part) * (part.min() + 1) / share) + classes**2)
    for rows in range(max(most, 0), 0, -1):
        if (group_counts(rows, agreement, classes) <= left).all():
            return rows
    return 0


def _check(
    labels: np.ndarray,
    attributes: np.ndarray,
    sizes: Sizes,
    names: tuple[Sequence[str], Sequence[str]],
) -> int:
    """C, where all is as it should be."""
    classes = len(names[0])
    if classes < 2 or len(names[1]) != classes:
        raise DataError(
            f"found {classes} labels ({', '.join(names[0])}) and {len(names[1])} attribute values "
            f"({', '.join(names[1])}); a split pairs as many of one as of the other, two at least: "
            "name those to keep, in pairs (task.labels, task.attributes)"
        )
    if labels.shape != attributes.shape or labels.ndim != 1:
        raise DataError(f"found {labels.shape} labels and {attributes.shape} attributes; give one "
                        "of each a row")  # fmt: skip
    outside = [
        values for values in (labels, attributes) if ((values < 0) | (values >= classes)).any()
    ]
    if outside:
        raise DataError(f"labels and attributes are numbers from 0 to {classes - 1}")
    shares = (sizes.start_agreement, sizes.pool_agreement)
    if sizes.start < 1 or sizes.pool < 0 or sizes.test < 1 or not all(0 <= a <= 1 for a in shares):
        raise DataError(
            f"no split of {sizes}: the seed set and the test groups have one row at least, and an "
            "agreement is a share from 0 to 1"
        )
    return classes


def _check_groups(
    found: np.ndarray,
    pool: np.ndarray,
    start: np.ndarray,
    sizes: Sizes,
    names: tuple[Sequence[str], Sequence[str]],
) -> None:
    short = [
        f"  label {names[0][label]}, attribute {names[1][attribute]}: found "
        f"{found[label, attribute]} rows, needed {needed} ({sizes.test} for the test set, "
        f"{start[label, attribute]} for the seed set, {pool[label, attribute]}"
        f"{'' if sizes.pool else ' at least'} for the pool)"
        for label, attribute in np.ndindex(*found.shape)
        if found[label, attribute]
        < (needed := int(sizes.test + start[label, attribute] + pool[label, attribute]))
    ]
    if short:
        raise DataError(
            "too few rows of a group:\n" + "\n".join(short) + "\ngive more rows of it, or ask for "
            "a smaller test set, seed set or pool"
        )

"""A split in memory: texts, optional second texts, and targets as distributions over classes."""

import hashlib
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from enn_finetune.data.faults import DataError, FaultKind, Row, RowError, row_faults, shown

_INTEGER = re.compile(r"[+-]?\d+")
_LISTED = 30  # labels an error message lists


@dataclass(frozen=True, eq=False)
class Split:
    """N rows of one split, in the order of the file; `len(split)` is N."""

    name: str  # "train", "dev", ...
    text: list[str]
    pair: list[str] | None  # second texts, where a task has them
    targets: np.ndarray | None  # (N, C) float32 class distributions; None without labels
    classes: tuple[str, ...]  # C names; () without labels
    lines: np.ndarray  # (N,) int64, 1-based line (hub: row) numbers in the source
    skipped: tuple[int, ...] = ()  # lines left out as known faults of the source

    def __len__(self) -> int:
        return len(self.text)

    def take(self, rows: np.ndarray) -> "Split":
        """The rows with the ids (n,), in that order."""
        return replace(
            self,
            text=[self.text[row] for row in rows],
            pair=None if self.pair is None else [self.pair[row] for row in rows],
            targets=None if self.targets is None else self.targets[rows],
            lines=self.lines[rows],
        )

    def without_labels(self) -> "Split":
        """The same rows with no targets: what an acquisition may see."""
        return replace(self, targets=None)


@dataclass(frozen=True)
class Labels:
    """How labels are written, and what they mean."""

    classes: tuple[str, ...]  # C names
    written: tuple[str, ...]  # C spellings in the file, in the order of `classes`
    values: tuple[float, ...] | None = None  # ascending grid, where the label is a score on it

    def code(self, label: str) -> float:
        """The class index of a label, or its score where there is a grid.

        Raises:
          ValueError: an unknown label or a score off the grid, in words fit for a user.
        """
        if self.values is None:
            if label not in self.written:
                known = ", ".join(map(repr, self.written[:_LISTED]))
                more = len(self.written) - _LISTED
                known += f" and {more} more" if more > 0 else ""
                raise ValueError(f"found the label {shown(label)}; the known labels are {known}")
            return float(self.written.index(label))
        low, high = self.values[0], self.values[-1]
        try:
            score = float(label)
        except ValueError:
            score = math.nan
        if not low <= score <= high:
            raise ValueError(f"found {shown(label)}; expected a score from {low:g} to {high:g}")
        return score

    def targets(self, codes: Sequence[float]) -> np.ndarray:
        """Class distributions (N, C) float32 of codes (N,)."""
        if self.values is None:
            return one_hot(np.asarray(codes, np.int64), len(self.classes))
        return grid_targets(np.asarray(codes, np.float64), self.values)


def label_name(cell: object) -> str:
    """A label cell as a string: 1, 1.0, "1" and " 1 " in JSON are all the label 1.

    Raises:
      ValueError: an empty or null label, or a value that cannot be a label.
    """
    name = cell.strip() if isinstance(cell, str) else ""
    if isinstance(cell, bool):
        name = "true" if cell else "false"
    elif isinstance(cell, int):
        name = str(cell)
    elif isinstance(cell, float) and math.isfinite(cell):
        name = str(int(cell)) if cell.is_integer() else repr(cell)
    elif cell is None or isinstance(cell, str):
        if not name:
            raise ValueError(
                "the label is empty; label the row (`enn-finetune next` says which ones pay), or "
                "keep unlabelled rows in a file of their own"
            )
    else:
        raise ValueError(f"found {shown(cell)}; a label is a string or a whole number")
    name.encode()  # half of a surrogate pair is a ValueError here, not later in a saved file
    return name


def sort_labels(names: Iterable[str]) -> tuple[str, ...]:
    """Distinct labels in class order: by value where all are integers, else by code point."""
    distinct = set(names)
    if all(_INTEGER.fullmatch(name) for name in distinct):
        return tuple(sorted(distinct, key=lambda name: (int(name), name)))
    return tuple(sorted(distinct))


def one_hot(indices: np.ndarray, classes: int) -> np.ndarray:
    """Class indices (N,) as distributions (N, C) float32."""
    targets = np.zeros((len(indices), classes), np.float32)
    targets[np.arange(len(indices)), indices] = 1
    return targets


def grid_targets(scores: np.ndarray, values: Sequence[float]) -> np.ndarray:
    """Scores (N,) as distributions (N, C) float32 over an ascending grid of C values.

    The mass is shared by the two grid points around a score so that the expected grid value is
    the score (Tai, Socher & Manning 2015, arXiv 1503.00075, eq. 15).
    """
    grid = np.asarray(values, np.float64)
    rows = np.arange(len(scores))
    below = np.clip(np.searchsorted(grid, scores, side="right") - 1, 0, len(grid) - 2)
    share = (scores - grid[below]) / (grid[below + 1] - grid[below])
    targets = np.zeros((len(scores), len(grid)), np.float32)
    targets[rows, below] = 1 - share
    targets[rows, below + 1] = share
    return targets


def fingerprint(*splits: Split) -> str:
    """First 16 hex digits of the SHA-256 over texts, pairs and targets of all splits, in order."""
    digest = hashlib.sha256()
    for split in splits:
        for column in (split.text, split.pair):
            digest.update(b"\0" if column is None else b"\1")
            for text in column or ():
                data = text.encode()
                # Lengths first: ("ab", "c") and ("a", "bc") must differ.
                digest.update(len(data).to_bytes(8, "little") + data)
        if split.targets is not None:
            digest.update(repr(split.targets.shape).encode())
            digest.update(np.ascontiguousarray(split.targets, "<f4").tobytes())
    return digest.hexdigest()[:16]


def to_split(
    rows: Iterable[Row | RowError],
    source: object,
    *,
    name: str,
    text: str,
    pair: str | None,
    label: str | None,
    labels: Labels | None = None,
    skip: Sequence[FaultKind] = (),
    unit: str = "line",
) -> Split:
    """A split of checked rows.

    Without `labels` the classes are the labels found, sorted. Rows with a fault of a kind in
    `skip` are left out and their lines kept in `Split.skipped`.

    Raises:
      DataError: every other fault, all at once; no rows; or fewer than two labels to discover.
    """
    good: list[Row] = []
    names: list[str] = []
    faults: list[RowError] = []
    skipped: list[int] = []
    for row in rows:
        if isinstance(row, RowError):
            skipped.append(row.line) if row.kind in skip else faults.append(row)
            continue
        try:
            names.append("" if label is None else label_name(row.columns[label]))
            good.append(row)
        except ValueError as error:
            faults.append(RowError(row.line, label, "label", str(error), unit))
    if not good and not faults:
        raise DataError(f"{source}: no rows; there is nothing but a header or blank lines")
    if label is not None and labels is None:
        found = sort_labels(names)
        if len(found) < 2 and not faults:
            raise DataError(
                f"{source}, column {label!r}: expected two labels at least, found {list(found)}"
            )
        labels = Labels(found, found)
    codes: list[float] = []
    if labels is not None and label is not None:
        for row, written in zip(good, names, strict=True):
            try:
                codes.append(labels.code(written))
            except ValueError as error:
                faults.append(RowError(row.line, label, "label", str(error), unit))
    if faults:
        raise row_faults(source, faults)
    return Split(
        name=name,
        text=[str(row.columns[text]) for row in good],
        pair=None if pair is None else [str(row.columns[pair]) for row in good],
        targets=None if labels is None or label is None else labels.targets(codes),
        classes=() if labels is None or label is None else labels.classes,
        lines=np.asarray([row.line for row in good], np.int64),
        skipped=tuple(skipped),
    )

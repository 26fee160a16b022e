"""The texts of a session: each once, with its label where some file has one."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from enn_finetune.data.faults import DataError, Row, RowError, shown
from enn_finetune.data.splits import label_name, sort_labels
from enn_finetune.data.tables import stream_rows

PREDICTED = ("enn_label", "enn_probability", "enn_unsettled")
"""Columns that `next` writes beside those of its input: the likeliest class, its probability, and
the share of the indices that see another one. Empty before two classes are known, or described."""
LISTED = 10  # contradictions that an error names
LIKE = 0.8  # how much alike two names are, of which one is taken for misspelt
NONE = -1


class Place(NamedTuple):
    """Where a row stands."""

    path: Path
    line: int

    def __str__(self) -> str:
        return f"{self.path}, line {self.line}"


@dataclass(frozen=True, eq=False)
class Texts:
    """N distinct texts, or pairs of them, in the order in which they first appear."""

    text: list[str]
    pair: list[str] | None
    columns: list[Mapping[str, object]]  # of the row that each was first found in
    labels: np.ndarray  # (N,) class, or NONE
    files: np.ndarray  # (N,) number of the file that the label stands in, or NONE
    classes: tuple[str, ...]  # C names, sorted as a training file's
    skipped: list[str]  # what is wrong with rows that cannot be read, and where they stand
    doubts: list[str]  # what looks like a mistake, and stops nobody

    def __len__(self) -> int:
        return len(self.text)

    @property
    def rounds(self) -> list[int]:
        """Numbers of the files that have labels of their own, in order."""
        return np.unique(self.files[self.files != NONE]).tolist()


class _Labelled(NamedTuple):
    name: str
    place: Place
    file: int


Key = tuple[str, ...]


class _Sheets:
    """What is seen of files that `next` wrote, and of the others."""

    def __init__(self) -> None:
        self._sheets: dict[Path, dict[Key, Place]] = {}  # texts of each file that `next` wrote
        self._others: set[Key] = set()

    def see(self, key: Key, columns: Mapping[str, object], place: Place) -> None:
        """Take note of a row."""
        if set(PREDICTED) <= columns.keys():
            self._sheets.setdefault(place.path, {}).setdefault(key, place)
        else:
            self._others.add(key)

    def doubts(self, labelled: Mapping[Key, _Labelled]) -> list[str]:
        """Files without labels or out of order, and texts that somebody seems to have edited."""
        found = [
            f"{path}: `next` wrote it, and none of its rows has a label (yet?); it asks about the "
            "same rows again"
            for path, places in self._sheets.items()
            if not places.keys() & labelled.keys()
        ]
        answered = {one.place.path for one in labelled.values()}
        found += _out_of_order([path for path in self._sheets if path in answered])
        for path, places in self._sheets.items():
            lone = [key for key in places if key not in self._others]
            # Where most of them are, the file that they were asked of is not given (any more).
            if 0 < len(lone) < len(places) / 2:
                found.append(
                    f"{path}: texts that stand in no file it was asked of: {len(lone):,}, such as "
                    f"{shown(lone[0][0])} in line {places[lone[0]].line}; a text that was edited "
                    "is another row, and the one it was is asked about again"
                )
        return found


def _out_of_order(paths: Sequence[Path]) -> list[str]:
    """Numbered files of which one stands before a smaller number, as a shell sorts them."""
    for one, other in pairwise(paths):
        (kind, number), (same, later) = _numbered(one), _numbered(other)
        if kind == same and number > later:
            return [
                f"{one} stands before {other}: files count in the order in which they are given; "
                "give them as they were labelled, or number them 01, 02, ..."
            ]
    return []


def _numbered(path: Path) -> tuple[str, int]:
    """A name without its last number, and that number; -1 where it has none."""
    found = re.fullmatch(r"(.*?)(\d+)(\D*)", str(path))
    return (str(path), -1) if found is None else (found[1] + found[3], int(found[2]))


def read(
    files: Sequence[Path],
    *,
    text: str = "text",
    pair: str | None = None,
    label: str = "label",
    declared: Iterable[str] = (),
) -> Texts:
    """Read .csv, .tsv and .jsonl files; rows without text or with a faulty one are skipped.

    Args:
      files: a text that stands in several of them is one row.
      text: column of the text.
      pair: column of the second text, if there is one.
      label: column of the label, which may be missing as long as nothing is labelled. Empty cells
        are no labels.
      declared: classes that there are, though no row may have them yet.

    Raises:
      DataError: a file that cannot be read; texts that have two labels, with where they stand; a
        label column that no file has, where one has a name much like it; not one row that can be
        read.
    """
    wanted = [text] if pair is None else [text, pair]
    first: dict[Key, Mapping[str, object]] = {}
    labelled: dict[Key, _Labelled] = {}
    sheets = _Sheets()
    skipped: list[str] = []
    clashes: list[str] = []
    for number, path in enumerate(files):
        for row in stream_rows(path, texts=wanted, optional=[label]):
            found = row if isinstance(row, RowError) else _label(row, label)
            if isinstance(found, RowError) or isinstance(row, RowError):
                skipped.append(f"{path}, {found}")
                continue
            _check_label(row, label, path)
            key = tuple(str(row.columns[name]) for name in wanted)
            first.setdefault(key, row.columns)
            sheets.see(key, row.columns, Place(Path(path), row.line))
            if found is None:
                continue
            mine = _Labelled(found, Place(Path(path), row.line), number)
            theirs = labelled.setdefault(key, mine)
            if theirs.name != mine.name:
                clashes.append(
                    f"{shown(key[0])} is {theirs.name!r} in {theirs.place} and {mine.name!r} in "
                    f"{mine.place}"
                )
    _check(files, first, clashes, skipped)
    classes = sort_labels([*(one.name for one in labelled.values()), *declared])
    return Texts(
        text=[key[0] for key in first],
        pair=None if pair is None else [key[1] for key in first],
        columns=list(first.values()),
        labels=_numbers(first, {k: classes.index(one.name) for k, one in labelled.items()}),
        files=_numbers(first, {key: one.file for key, one in labelled.items()}),
        classes=classes,
        skipped=skipped,
        doubts=sheets.doubts(labelled),
    )


def _label(row: Row, column: str) -> str | RowError | None:
    """The label of a row, None where there is none."""
    cell = row.columns.get(column)
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        return None
    try:
        return label_name(cell)
    except ValueError as error:
        return RowError(row.line, column, "label", str(error))


def _check_label(row: Row, label: str, path: Path) -> None:
    """Raise where a row has a column much like that of the label, and not that one."""
    if label in row.columns:
        return
    names = {name.casefold(): name for name in row.columns}
    like = get_close_matches(label.casefold(), names, n=1, cutoff=LIKE)
    if like:
        raise DataError(
            f"{path}, line {row.line}: no column {label!r} for the label, but there is "
            f"{names[like[0]]!r}; name that one with --label, or rename it if it is something else"
        )


def _numbers(keys: Iterable[Key], found: Mapping[Key, int]) -> np.ndarray:
    return np.array([found.get(key, NONE) for key in keys], np.int64)


def _check(
    files: Sequence[Path],
    first: Mapping[Key, Mapping[str, object]],
    clashes: Sequence[str],
    skipped: Sequence[str],
) -> None:
    if not first:
        reasons = "".join(f"\n  {reason}" for reason in skipped[:LISTED])
        raise DataError(f"{', '.join(map(str, files))}: not one row can be read{reasons}")
    if clashes:
        more = len(clashes) - LISTED
        raise DataError(
            "texts with two labels; correct one of each, or empty it:\n  "
            + "\n  ".join(clashes[:LISTED])
            + (f"\n  and {more} more" if more > 0 else "")
        )

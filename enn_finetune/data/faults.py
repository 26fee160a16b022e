"""Rows, the faults they can have, and the one error that reports them."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from enn_finetune.errors import InputError

FaultKind = Literal["encoding", "length", "format", "missing", "type", "empty", "label"]

_LISTED = 20  # faults, or column names, that one message lists


def shown(value: object, width: int = 60) -> str:
    """A value as an error message quotes it: its repr, cut to `width` characters."""
    text = repr(value)
    return text if len(text) <= width else text[: width - 3] + "..."


class Row(NamedTuple):
    """One row: the 1-based line it starts on, and its cells by column name."""

    line: int
    columns: Mapping[str, object]  # str in TSV and CSV, any JSON value in JSON lines


class RowError(NamedTuple):
    """A fault of one row; `str` of it says line, column, what was found and what to do."""

    line: int
    column: str | None
    kind: FaultKind
    message: str
    unit: str = "line"  # "row" where the source is no text file

    def __str__(self) -> str:
        column = "" if self.column is None else f", column {self.column!r}"
        return f"{self.unit} {self.line}{column}: {self.message}"


class DataError(InputError):
    """Data that cannot be read. `faults` lists the faults of single rows, in line order."""

    def __init__(self, message: str, faults: Sequence[RowError] = ()) -> None:
        super().__init__(message)
        self.faults = tuple(faults)


def row_faults(source: object, faults: Iterable[RowError]) -> DataError:
    """One error for all the faults of a source; the message lists the first 20."""
    ordered = sorted(faults, key=lambda fault: fault.line)
    if len(ordered) == 1:
        return DataError(f"{source}, {ordered[0]}", ordered)
    listed = [f"  {fault}" for fault in ordered[:_LISTED]]
    if len(ordered) > _LISTED:
        listed.append(f"  and {len(ordered) - _LISTED} more")
    return DataError("\n".join([f"{source}: {len(ordered)} faulty rows", *listed]), ordered)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The most similar of the known names, letter case aside; None where there is none."""
    by_fold = {other.casefold(): other for other in known}
    found = difflib.get_close_matches(name.casefold(), by_fold, n=1, cutoff=0.0)
    return by_fold[found[0]] if found else None


def no_column(name: str, known: Sequence[str], holder: str) -> str:
    """Says that a column is not there, what is, and which is nearest."""
    listed = ", ".join(shown(column, 40) for column in known[:_LISTED]) or "nothing"
    listed += f" and {len(known) - _LISTED} more" if len(known) > _LISTED else ""
    near = nearest(name, known)
    hint = f"; the nearest is {shown(near, 40)}" if near else ""
    return f"no column {name!r}: {holder} {listed}{hint}"


def check_row(
    row: Row, texts: Sequence[str], others: Sequence[str] = (), unit: str = "line"
) -> RowError | None:
    """The first fault among the cells: a column that is not there, or text that is no text."""
    for name in (*texts, *others):
        if name not in row.columns:
            message = no_column(name, list(row.columns), "the row has")
            return RowError(row.line, None, "missing", message, unit)
    for name in texts:
        cell = row.columns[name]
        if not isinstance(cell, str):
            return RowError(row.line, name, "type", f"found {shown(cell)}; text is a string", unit)
        if not cell.strip():
            message = "the text is empty; remove the row or fill it in"
            return RowError(row.line, name, "empty", message, unit)
        try:
            cell.encode()
        except UnicodeEncodeError:  # JSON can write half of a pair as an escape
            message = f"half of a surrogate pair in {shown(cell)}; it is no Unicode text"
            return RowError(row.line, name, "encoding", message, unit)
    return None


def check_file(path: Path) -> None:
    """Raise a `DataError` that lists what is near, unless the path is a file."""
    if path.is_file():
        return
    if path.is_dir():
        raise DataError(f"{path}: a folder where a file is expected")
    if not path.parent.is_dir():
        raise DataError(f"{path}: no such file, and no folder {path.parent}")
    siblings = sorted(item.name for item in path.parent.iterdir() if item.is_file())
    near = difflib.get_close_matches(path.name, siblings, n=5, cutoff=0.4) or siblings[:5]
    beside = f"beside it are {', '.join(near)}" if near else "its folder holds no files"
    raise DataError(f"{path}: no such file; {beside}")

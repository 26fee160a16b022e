"""Filters on columns of a file: `domain=kitchen`, `domain!=books and stars=1,2`.

    filter    = condition, { " and ", condition }
    condition = column, ( "=" | "!=" ), value, { ",", value }

A row passes if every condition holds; `=` holds where the cell is one of the values, `!=` where it
is none of them. Names and values that hold one of , = ! or the word "and" stand in double quotes.
Cells are compared as strings: 1, 1.0 and "1" in JSON are all 1, true and false are words, and a
cell that is null, empty or not there is "".
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from enn_finetune.data.faults import DataError, nearest, no_column, shown

_OUTSIDE = r'(?=(?:[^"]*"[^"]*")*[^"]*$)'  # an even number of quotes follows
_AND = re.compile(r"\s+and\s+" + _OUTSIDE, re.IGNORECASE)
_OPERATOR = re.compile(r"(!=|=)" + _OUTSIDE)
_COMMA = re.compile("," + _OUTSIDE)
_LISTED = 12  # values of a column that an error message lists


class Condition(NamedTuple):
    """One column's part of a filter."""

    column: str
    equal: bool  # False: the cell is none of the values
    values: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.column}{'=' if self.equal else '!='}{','.join(self.values)}"


def is_filter(text: str) -> bool:
    """True where the text has a filter's operator, as few names of files do."""
    return "=" in text


def parse_filter(text: str) -> tuple[Condition, ...]:
    """The conditions of a filter, in order.

    Raises:
      DataError: text that is no filter; the message has the faulty part and an example.
    """
    if text.count('"') % 2:
        raise DataError(f"{shown(text)}: a double quote is not closed")
    return tuple(_condition(part) for part in _AND.split(text.strip()))


def _condition(part: str) -> Condition:
    column, *rest = _OPERATOR.split(part)
    if len(rest) != 2:
        found = "two operators" if rest else "no operator"
        raise DataError(
            f"{shown(part)}: found {found}; a condition is column=value, column!=value or "
            'column=value,value, joined by " and "; put names and values that hold , = ! or '
            '"and" in double quotes'
        )
    operator, values = rest
    name = _unquoted(column, part)
    if not name:
        raise DataError(f"{shown(part)}: no column stands before {operator!r}")
    listed = [value.strip() for value in _COMMA.split(values)]
    if "" in listed:
        raise DataError(
            f'{shown(part)}: a value is missing after {operator!r} or ","; an empty cell is ""'
        )
    return Condition(name, operator == "=", tuple(_unquoted(value, part) for value in listed))


def _unquoted(word: str, part: str) -> str:
    word = word.strip()
    if '"' not in word:
        return word
    inner = word[1:-1]
    if len(word) < 2 or word[0] != '"' or word[-1] != '"' or '"' in inner:
        raise DataError(f'{shown(part)}: quote a whole name or value, as in "like this"')
    return inner.strip()


def passing(
    conditions: Iterable[Condition],
    rows: Sequence[tuple[int, Mapping[str, object]]],
    source: object,
) -> list[bool]:
    """Which rows (n,) pass every condition.

    Args:
      conditions: from `parse_filter`.
      rows: line number and cells by column name, of each row.
      source: the file, for errors.

    Raises:
      DataError: a column that no row has, or a value that none of its cells has (each with the
        nearest that is there); a cell that is a list or an object; no row that passes.
    """
    passed, conditions = [True] * len(rows), list(conditions)
    for condition in conditions:
        if not any(condition.column in cells for _, cells in rows):
            known = dict.fromkeys(name for _, cells in rows for name in cells)
            raise DataError(f"{source}: {no_column(condition.column, list(known), 'there are')}")
        column = [
            _as_string(cells.get(condition.column), line, condition.column, source)
            for line, cells in rows
        ]
        _check_values(condition, column, source)
        for row, cell in enumerate(column):
            passed[row] &= (cell in condition.values) == condition.equal
    if not any(passed):
        raise DataError(
            f"{source}: none of {len(rows)} rows passes {' and '.join(map(str, conditions))}"
        )
    return passed


def _as_string(cell: object, line: int, column: str, source: object) -> str:
    if cell is None:
        return ""
    if isinstance(cell, str):
        return cell.strip()
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, float) and math.isfinite(cell) and cell.is_integer():
        return str(int(cell))
    if isinstance(cell, int | float):
        return str(cell)
    raise DataError(
        f"{source}, line {line}, column {column!r}: found {shown(cell)}; a filter compares "
        "strings, numbers, true and false"
    )


def _check_values(condition: Condition, column: Sequence[str], source: object) -> None:
    """Raise where a value is not in its column: misspelt, `=` would miss it and `!=` keep all."""
    held = dict.fromkeys(column)
    for value in condition.values:
        if value not in held:
            listed = ", ".join(shown(other, 40) for other in list(held)[:_LISTED])
            more = f" and {len(held) - _LISTED} more" if len(held) > _LISTED else ""
            near = nearest(value, held)
            raise DataError(
                f"{source}, column {condition.column!r}: no row has {value!r}; the nearest is "
                f"{near!r}; there are {listed}{more}"
            )

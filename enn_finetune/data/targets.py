"""The rows that predictions should become better for, as the user names them.

    acquisition.targets = visits.csv          # a file of rows, in the task's text columns
    acquisition.targets = domain=kitchen      # rows of the pool, by any column of its file

A file may hold any texts of the kind the task has; its labels, if it has some, are not read. A
filter (`filters.py`) reads the columns of the pool's own file that the task makes no other use of.
"""

from pathlib import Path

import numpy as np

from enn_finetune.data.faults import DataError, Row
from enn_finetune.data.filters import is_filter, parse_filter, passing
from enn_finetune.data.splits import Split, to_split
from enn_finetune.data.tables import stream_rows
from enn_finetune.data.tasks import Places, Task, where

NAME = "targets"
"""What the split of target rows is called."""

_SEED = 2


def find_targets(
    named: str, task: Task, places: Places, training: Split, pool: np.ndarray
) -> Split | np.ndarray:
    """The target rows: a split without labels (M rows), or places (M,) in the pool.

    Args:
      named: `acquisition.targets`: a file that exists, or a filter.
      task: whose columns a file has.
      places: where the task was read from (`task.data`).
      training: the training split, as read.
      pool: ids (N,) in the training split of the pool's rows.

    Raises:
      DataError: no such file or column or value, a faulty row, no rows: what, where, and what to
        write instead.
    """
    try:
        if is_filter(named) and not Path(named).is_file():
            return pool_targets(named, task, places, training, pool)
        return read_targets(named, task)
    except DataError as error:
        raise DataError(f"acquisition.targets: {error}", error.faults) from error


def read_targets(path: Path | str, task: Task) -> Split:
    """A CSV, TSV or JSON-lines file of texts, without labels; other columns are not looked at.

    Raises:
      DataError: whatever is wrong with the file, with every faulty row in one message.
    """
    texts = [task.text] if task.pair is None else [task.text, task.pair]
    return to_split(
        stream_rows(path, texts=texts),
        path,
        name=NAME,
        text=task.text,
        pair=task.pair,
        label=None,
    )


def pool_targets(
    text: str, task: Task, places: Places, training: Split, pool: np.ndarray
) -> np.ndarray:
    """Places (M,) in the pool, ascending, of the rows that pass a filter; copies count once.

    The training split's file is read again: splits keep the texts of a row and the line it is on,
    and no other cell.

    Raises:
      DataError: as `find_targets`; a pool that came from no file; or that has none of the rows.
    """
    conditions = parse_filter(text)
    known = columns_of(task, places, training)
    passed = np.asarray(passing(conditions, known, where(task, places)))
    _, first = np.unique(pool, return_index=True)
    places_in_pool = np.sort(first)
    found = places_in_pool[passed[pool[places_in_pool]]]
    if not len(found):
        raise DataError(
            f"{passed.sum()} of {len(training)} training rows pass {text!r}, and none of them is "
            f"among the {len(pool)} rows of the pool: task.carve, task.pool or task.rows "
            "leaves them out"
        )
    return found


def columns_of(task: Task, places: Places, training: Split) -> list[Row]:
    """Every cell of every row of the training split, in its order.

    Raises:
      DataError: a split of no file, or of one that has changed since it was read.
    """
    source = where(task, places, training.name)
    if source is None or not Path(source).is_file():
        raise DataError(
            f"task {task.name} was read from {source or 'no file'}, which has no columns to filter "
            "by; name the target rows in a file of their own"
        )
    rows = {
        row.line: row for row in stream_rows(source, header=task.header) if isinstance(row, Row)
    }
    missing = [line for line in training.lines.tolist() if line not in rows]
    if missing:
        raise DataError(f"{source}, line {missing[0]}: the row is gone; the file has changed")
    return [rows[line] for line in training.lines.tolist()]


def at_most(rows: np.ndarray, count: int) -> np.ndarray:
    """Up to `count` of rows (M,), in their order: a fixed draw, the same on every machine."""
    if len(rows) <= count:
        return rows
    order = np.argsort(np.random.Philox(_SEED).random_raw(len(rows)), kind="stable")
    return rows[np.sort(order[:count])]

"""Lists of bought rows: `train` and `bench` write them, `bench.replay` and `proxy.replay` read.

A list is a JSON-lines file with one line for each task, arm and seed:

    {"task": "sst2", "seed": 0, "head": "epinet", "rule": "margin", "rows": [512, 7, 66001, ...]}

`rows` are the rows of the training file, counted from 0 as they were read and before anything was
carved off, in the order in which their labels were bought; the first `budget.start` are those that
no rule chose. In a repeated pool a row's number stands as often as copies of it were bought. Only
`task`, `seed` and `rows` are needed; what else a line may say, its readers say (`bench.replay`,
`policies.replaying`).

The rows of `enn-finetune bench` for reviews are those of the file less the quarter that is tested
on; carved rows (`task.carve`) are not in any pool, and a list that has them is refused.
"""

import json
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np

from enn_finetune.errors import InputError


class BoughtRows(NamedTuple):
    """One line of a list of bought rows."""

    where: str  # file and line
    task: str
    pool: str  # empty where the line names none
    seed: int
    rows: Sequence[int]
    values: Mapping[str, object]  # all that the line says


def read_bought(path: Path) -> list[BoughtRows]:
    """The lines of a list of bought rows.

    Raises:
      InputError: the file cannot be read, or a line is no list of bought rows.
    """
    try:
        texts = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); give a list of bought rows") from error
    numbered = [(number, text) for number, text in enumerate(texts, 1) if text.strip()]
    return [_line(text, f"{path}, line {number}") for number, text in numbered]


def pool_places(ids: np.ndarray, rows: Sequence[int], where: str) -> list[int]:
    """The pool rows of the training rows of a list; `ids` (N,) are the training rows of a pool.

    Raises:
      InputError: a row that is not in the pool, or more often than its copies are.
    """
    places: dict[int, deque[int]] = defaultdict(deque)
    for place, row in enumerate(ids.tolist()):
        places[row].append(place)
    found = []
    for row in rows:
        if not places.get(row):
            raise InputError(
                f"{where}: training row {row} is not in the pool (any more): it is of other "
                "data, carved off for evaluation, left out by task.pool or task.rows, or stands in "
                "the list too often"
            )
        found.append(places[row].popleft())
    return found


def _line(text: str, where: str) -> BoughtRows:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not JSON ({error}); write one object a line") from error
    if not isinstance(found, dict):
        raise InputError(f"{where}: found a {type(found).__name__}; write one object a line")
    for name, kind in (("task", str), ("seed", int), ("rows", list)):
        if not isinstance(found.get(name), kind):
            raise InputError(
                f"{where}: {name}: found {found.get(name)!r}; every line has a task (text), a seed "
                "(whole number) and rows (a list of row numbers)"
            )
    for number, row in enumerate(found["rows"], 1):
        if type(row) is not int:
            raise InputError(
                f"{where}: rows, number {number}: found {row!r}; give whole numbers, those of the "
                "training rows"
            )
    task, _, pool = str(found["task"]).partition(":")
    rows = cast(list[int], found["rows"])
    return BoughtRows(where, task, str(found.get("pool") or pool), found["seed"], rows, found)

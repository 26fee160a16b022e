"""A list of rows that were bought before, for another model to be trained on.

The file is the bought.jsonl of `enn-finetune train` or `bench` (see `bench.replay` for its format):
one line a task, arm and seed, `rows` being rows of the training file in the order of purchase.
"""

import json
from collections import defaultdict, deque
from pathlib import Path

import numpy as np

from enn_finetune.config import Config
from enn_finetune.errors import InputError
from enn_finetune.problem import Problem


def listed(problem: Problem, config: Config) -> np.ndarray | None:
    """Pool rows (n,) in the order in which `proxy.replay` lists them; None where it names no file.

    Raises:
      InputError: the file cannot be read, has not exactly one line for the task and seed, or lists
        rows that are not in the pool or too few for the budget.
    """
    name = config.proxy.replay
    if not name:
        return None
    found = [line for line in _lines(Path(name)) if _matches(line, config)]
    if len(found) != 1:
        raise InputError(
            f"{name}: found {len(found)} lists of task {config.task.name} and seed {config.seed}, "
            "expected one; give a file of one arm (its lines have the same head and rule)"
        )
    if problem.origin is None:
        raise ValueError("a pool that knows where its rows come from is expected")
    places: dict[int, deque[int]] = defaultdict(deque)
    for place, row in enumerate(problem.origin.rows.tolist()):
        places[row].append(place)
    rows = found[0]["rows"]
    if not isinstance(rows, list) or len(rows) < config.budget.labels:
        raise InputError(
            f"{name}: seed {config.seed}: expected at least the {config.budget.labels} rows of "
            "budget.labels; lower it, or give a longer list"
        )
    for number, row in enumerate(rows, 1):
        if type(row) is not int:
            raise InputError(
                f"{name}: seed {config.seed}: rows, number {number}: found {row!r}; give whole "
                "numbers, those of the training rows"
            )
        if not places.get(row):
            raise InputError(
                f"{name}: seed {config.seed}: training row {row} is not in the pool (any more): it "
                "is of other data, carved off for evaluation, or stands in the list too often"
            )
    return np.asarray([places[row].popleft() for row in rows], np.int64)


def _lines(path: Path) -> list[dict[str, object]]:
    try:
        texts = path.read_text(encoding="utf-8").splitlines()
        return [dict(json.loads(text)) for text in texts if text.strip()]
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path}: no list of bought rows ({error})") from error


def _matches(line: dict[str, object], config: Config) -> bool:
    task, _, pool = str(line.get("task")).partition(":")
    same = task == config.task.name and line.get("seed") == config.seed
    return same and (line.get("pool") or pool or "plain") == config.task.pool

"""A list of rows bought before (see `data.bought`), for another model to be trained on."""

from pathlib import Path

import numpy as np

from enn_finetune.config import Config
from enn_finetune.data.bought import BoughtRows, pool_places, read_bought
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
    found = [line for line in read_bought(Path(name)) if _matches(line, config)]
    if len(found) != 1:
        raise InputError(
            f"{name}: found {len(found)} lists of task {config.task.name} and seed {config.seed}, "
            "expected one; give a file of one arm (its lines have the same head and rule)"
        )
    (line,) = found
    if problem.origin is None:
        raise ValueError("a pool that knows where its rows come from is expected")
    labels = config.budget.labels
    if len(line.rows) < labels:
        raise InputError(
            f"{line.where}: found {len(line.rows)} rows, expected at least the {labels} rows "
            "of budget.labels; lower it, or give a longer list"
        )
    return np.asarray(pool_places(problem.origin.rows, line.rows[:labels], line.where), np.int64)


def _matches(line: BoughtRows, config: Config) -> bool:
    same = line.task == config.task.name and line.seed == config.seed
    return same and (line.pool or "plain") == config.task.pool

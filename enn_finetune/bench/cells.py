"""Running one arm: all missing seeds side by side on frozen features, or one seed of a trained one.

Both go through the code that single runs and the demo use.
"""

import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from enn_finetune import online, policies, pool
from enn_finetune.bench import replay
from enn_finetune.bench.plan import Arm, Study, config_of
from enn_finetune.config import proxied
from enn_finetune.problem import Problem
from enn_finetune.progress import Display
from enn_finetune.records import Record
from enn_finetune.session import Session
from enn_finetune.study import Course, Ground, run_course


class Results(NamedTuple):
    """What an arm leaves: its records, and a list of bought rows for each seed."""

    records: list[Record]
    bought: list[replay.BoughtLine]


def frozen(
    study: Study,
    arm: Arm,
    seeds: Sequence[int],
    problem: Problem,
    ground: Ground,
    lists: replay.Lists,
    progress: Callable[[int], None],
) -> Results:
    """All the given seeds of an arm, in the same compiled programs.

    Raises:
      InputError: a list of bought rows that does not fit the pool.
    """
    course = Course(arm.rule, (arm.head,))
    if course.replayed:
        given, ids = lists.seeds(study.place, arm), replay.origin_of(problem).rows
        course = course._replace(rows={seed: replay.pool_rows(ids, given[seed]) for seed in seeds})
    found = run_course(course, problem, study.config, seeds, progress, ground=ground)
    bought = [
        replay.bought_line(study, arm, seed, problem, oracle.bought, found.rounds)
        for seed, oracle in zip(seeds, found.oracles, strict=True)
    ]
    return Results([_named(record, study, arm) for record in found.records], bought)


def trained(
    study: Study, arm: Arm, seed: int, problem: Problem, display: Display, cells: Path
) -> Results:
    """One seed of an arm whose encoder is trained; it goes on from its last checkpoint, if any.

    Raises:
      RunStoppedError: a signal came; the checkpoint is saved.
    """
    config = config_of(study, arm, seed)
    problem = problem._replace(oracle=problem.oracle.fresh())
    folder = cells / cell_name(study, arm, seed)
    folder.mkdir(parents=True, exist_ok=True)
    session = Session(folder, config, display, problem.fingerprint, resume=True)
    run = online.run if config.regime == "online" else pool.run
    (policies.run if proxied(config) else run)(problem, config, session)
    bought = problem.oracle.bought
    rounds = sorted({record["labels_bought"] for record in session.records.records})
    if config.regime == "pool":
        rounds = list(config.budget.rounds)
    lines = [
        Record(**{**record, "head": arm.head, "rule": arm.rule, "seed": seed})  # type: ignore[typeddict-item]
        for record in session.records.records
    ]
    return Results(
        [_named(record, study, arm) for record in lines],
        [replay.bought_line(study, arm, seed, problem, bought, rounds)],
    )


def clean(study: Study, arm: Arm, seed: int, cells: Path) -> None:
    """Remove the checkpoint of a seed whose results are kept."""
    shutil.rmtree(cells / cell_name(study, arm, seed), ignore_errors=True)


def cell_name(study: Study, arm: Arm, seed: int) -> str:
    """The folder of one seed of a trained arm."""
    parts = (*study.place, *arm, str(seed))
    return "--".join(re.sub(r"[^\w.-]", "_", part) for part in parts)


def _named(record: Record, study: Study, arm: Arm) -> Record:
    """A record with the columns of its study before all others."""
    rest = {name: value for name, value in record.items() if name != "arm"}
    return Record(**{**study.place._asdict(), **arm._asdict(), **rest})  # type: ignore[typeddict-item]

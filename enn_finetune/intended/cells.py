"""Running one arm from given seed sets: all its seeds side by side, or one of a trained arm.

A record is of one round: the test groups' accuracies, their mean (which is the accuracy on the
balanced test set), and the worst of them. Rows bought are numbered as the task's rows were kept
(`rows.Attributed`), from 0.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from enn_finetune import pool
from enn_finetune.bench.cells import Results, cell_name
from enn_finetune.bench.plan import Arm, config_of
from enn_finetune.bench.replay import BoughtLine, bought_line
from enn_finetune.intended.material import Drawn
from enn_finetune.intended.plan import Intended
from enn_finetune.problem import Problem
from enn_finetune.progress import Display
from enn_finetune.records import Record
from enn_finetune.session import Session
from enn_finetune.study import Course, Ground, run_course

SPLIT = "test"
ACCURACY, WORST = "accuracy", "worst_group_accuracy"
AGREEING, DISAGREEING = "agreeing_accuracy", "disagreeing_accuracy"
MEANS = ("nll", "brier")


def frozen(
    one: Intended,
    arm: Arm,
    seeds: Sequence[int],
    problem: Problem,
    drawn: Drawn,
    ground: Ground,
    progress: Callable[[int], None],
) -> Results:
    """All the given seeds of an arm, in the same compiled programs."""
    first = {seed: drawn.first(seed).tolist() for seed in seeds}
    course = Course(arm.rule, (arm.head,), first=first)
    found = run_course(course, problem, one.study.config, seeds, progress, ground=ground)
    lines = [
        _bought(one, arm, seed, problem, drawn, oracle.bought, found.rounds)
        for seed, oracle in zip(seeds, found.oracles, strict=True)
    ]
    return Results(joined(found.records, one, arm, drawn), lines)


def trained(
    one: Intended, arm: Arm, seed: int, problem: Problem, drawn: Drawn, display: Display, at: Path
) -> Results:
    """One seed of an arm whose encoder is trained; it goes on from its last checkpoint, if any.

    Raises:
      RunStoppedError: a signal came; the checkpoint is saved.
    """
    config = config_of(one.study, arm, seed)
    problem = problem._replace(oracle=problem.oracle.fresh())
    problem.oracle.buy(drawn.first(seed))
    folder = at / cell_name(one.study, arm, seed)
    folder.mkdir(parents=True, exist_ok=True)
    session = Session(folder, config, display, problem.fingerprint, resume=True)
    pool.run(problem, config, session)
    lines = [Record(**{**record, "seed": seed}) for record in session.records.records]  # type: ignore[typeddict-item]
    bought = problem.oracle.bought
    return Results(
        joined(lines, one, arm, drawn),
        [_bought(one, arm, seed, problem, drawn, bought, config.budget.rounds)],
    )


def joined(records: Iterable[Record], one: Intended, arm: Arm, drawn: Drawn) -> list[Record]:
    """One record a seed and round, of those of its groups; the study's columns first."""
    rounds: dict[tuple[int, int], dict[str, Record]] = {}
    for record in records:
        rounds.setdefault((record["seed"], record["step"]), {})[record["split"]] = record
    found = []
    for groups in rounds.values():
        last = groups[drawn.groups[-1]]
        rest = {name: value for name, value in last.items() if name not in ("arm", "head", "rule")}
        columns = {**one.study.place._asdict(), **arm._asdict(), **rest}
        scores = together(groups, drawn)
        found.append(Record(**{**columns, "split": SPLIT, "metrics": scores}))  # type: ignore[typeddict-item]
    return found


def together(groups: dict[str, Record], drawn: Drawn) -> dict[str, float]:
    """Scores of the whole test set, whose groups are of one size, from those of its groups."""
    names, count = drawn.groups, len(drawn.rows.values)
    accuracies = np.array([groups[name]["metrics"][ACCURACY] for name in names])
    agrees = np.eye(count, dtype=bool).reshape(-1)
    found = {
        ACCURACY: accuracies.mean(),
        WORST: accuracies.min(),
        AGREEING: accuracies[agrees].mean(),
        DISAGREEING: accuracies[~agrees].mean(),
    }
    found |= {name: np.mean([groups[g]["metrics"][name] for g in names]) for name in MEANS}
    found |= {f"{ACCURACY} {name}": value for name, value in zip(names, accuracies, strict=True)}
    return {name: float(value) for name, value in found.items()}


def _bought(
    one: Intended,
    arm: Arm,
    seed: int,
    problem: Problem,
    drawn: Drawn,
    bought: np.ndarray,
    rounds: Sequence[int],
) -> BoughtLine:
    """The line of an arm and seed; `disagreeing` counts such rows bought so far, round by round.

    Those of the seed set, if it has some, are among them.
    """
    line = bought_line(one.study, arm, seed, problem, bought, rounds)
    so_far = np.concatenate([[0], np.cumsum(drawn.disagrees[bought])])
    line["disagreeing"] = [int(so_far[count]) for count in rounds]
    return line

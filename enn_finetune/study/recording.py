"""The records of a round: scores of every evaluation split, seed by seed, and what they cost."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from enn_finetune import metrics
from enn_finetune.costs import Work
from enn_finetune.data.oracle import Oracle
from enn_finetune.problem import Evaluation, Problem
from enn_finetune.records import Record
from enn_finetune.study.arms import Course, arm
from enn_finetune.study.heads import Predicted
from enn_finetune.study.programs import Workers


class Spent(NamedTuple):
    """Cumulative costs of an arm, for one seed."""

    seconds: float  # wall seconds so far, everything included, over the number of seeds
    encoding: Work  # as when the features were computed, whoever did
    scoring: Work
    training: Work


def scored(
    course: Course,
    head: str,
    problem: Problem,
    seeds: Sequence[int],
    step: int,
    oracles: Sequence[Oracle],
    predicted: Sequence[Sequence[Predicted]],
    thresholds: Sequence[dict[str, float]],
    spent: Spent,
    work: Workers,
) -> list[Record]:
    """One record a split and seed, from each seed's predictions of each split and thresholds."""
    rule = course.rule_of(head)
    cells = [
        (split, seed, oracle, found[place], at)
        for place, split in enumerate(problem.evaluations)
        for seed, oracle, found, at in zip(seeds, oracles, predicted, thresholds, strict=True)
    ]
    scores = work.map(lambda cell: _scores(problem, cell[0], *cell[3:]), cells)
    return [
        Record(
            arm=arm(head, rule),
            head=head,
            rule=rule,
            seed=int(seed),
            step=step,
            labels_bought=len(oracle.bought),
            split=split.name,
            metrics=found,
            seconds=round(spent.seconds, 3),
            encoding=spent.encoding.columns(),
            scoring=spent.scoring.columns(),
            training=spent.training.columns(),
        )
        for (split, seed, oracle, *_), found in zip(cells, scores, strict=True)
    ]


def _scores(
    problem: Problem, split: Evaluation, predicted: Predicted, at: dict[str, float]
) -> dict[str, float]:
    """The task's metrics and proper scores of the mean prediction, and the joint log-losses."""
    task = problem.task
    mean = np.asarray(predicted.mean)
    alone = metrics.evaluate(mean, split.targets, task.metrics, task.values, at)
    return alone | {name: float(loss) for name, loss in predicted.joint.items()}

"""Figures over several tasks: the mean of paired gains, with what is known of its noise."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import special

from enn_finetune.savings.schema import ArmJson, MeanJson


class Gain(NamedTuple):
    """A paired gain of one arm over another on one task."""

    mean: float
    error: float | None  # standard error over seeds; None: one seed
    seeds: int


def area_gain(arm: ArmJson, other: ArmJson) -> Gain | None:
    """Area under the curve gained over another arm of the same study, paired by seed.

    Both gains are over the baseline on the same seed, so their difference is of the two arms
    where both cover the same labels. None where the two share no seed.
    """
    theirs = {entry["seed"]: entry["auc_gain"] for entry in other["per_seed"]}
    gains = [
        entry["auc_gain"] - theirs[entry["seed"]]
        for entry in arm["per_seed"]
        if entry["seed"] in theirs
    ]
    if not gains:
        return None
    count = len(gains)
    error = float(np.std(gains, ddof=1)) / math.sqrt(count) if count > 1 else None
    return Gain(float(np.mean(gains)), error, count)


def gain_json(gain: Gain) -> MeanJson:
    """One task's gain and its 95 % t-interval."""
    return mean_of_gains([gain])


def mean_of_gains(gains: Sequence[Gain]) -> MeanJson:
    """Mean over tasks of paired gains, each task with the same weight, and its 95 % interval.

    The tasks are these ones, not a sample of tasks: the interval is of the noise of the seeds,
    which are independent between tasks. Its standard error is the root of the summed squares of
    the tasks' over their number, its degrees of freedom are Welch and Satterthwaite's.

    Raises:
      ValueError: there is no gain.
    """
    if not gains:
        raise ValueError("a mean over tasks needs at least one task, found none")
    mean = float(np.mean([gain.mean for gain in gains]))
    squares = [gain.error**2 for gain in gains if gain.error is not None]
    if len(squares) < len(gains):
        return MeanJson(mean=mean, ci95=None)
    total = sum(squares)
    if total == 0:
        return MeanJson(mean=mean, ci95=[mean, mean])
    spread = sum(square**2 / (gain.seeds - 1) for square, gain in zip(squares, gains, strict=True))
    freedom = total**2 / spread if spread > 0 else math.inf
    quantile = special.stdtrit(freedom, 0.975) if math.isfinite(freedom) else 1.959964
    half = float(quantile) * math.sqrt(total) / len(gains)
    return MeanJson(mean=mean, ci95=[mean - half, mean + half])


class Row(NamedTuple):
    """One arm against another over the tasks that have both."""

    tasks: dict[str, MeanJson]
    mean: MeanJson
    wins: int  # tasks whose whole interval is above 0
    losses: int  # below 0


def over_tasks(studies: Mapping[str, Mapping[str, ArmJson]], reference: str) -> dict[str, Row]:
    """Every arm's paired gain in area over the arm `reference`, by task and on their mean.

    Args:
      studies: task -> arm -> its figures.
      reference: an arm's name; tasks without it do not count.
    """
    gains: dict[str, dict[str, Gain]] = {}
    for task, arms in studies.items():
        for name, arm in arms.items():
            if name == reference or reference not in arms:
                continue
            gain = area_gain(arm, arms[reference])
            if gain is not None:
                gains.setdefault(name, {})[task] = gain
    return {name: _row(found) for name, found in gains.items()}


def _row(gains: Mapping[str, Gain]) -> Row:
    tasks = {task: gain_json(gain) for task, gain in gains.items()}
    intervals = [found["ci95"] for found in tasks.values() if found["ci95"] is not None]
    return Row(
        tasks,
        mean_of_gains(list(gains.values())),
        wins=sum(low > 0 for low, _ in intervals),
        losses=sum(high < 0 for _, high in intervals),
    )

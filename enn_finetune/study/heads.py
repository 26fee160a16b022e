"""Heads in a study: fitted to what each seed bought, asked about evaluation splits."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jax import Array

from enn_finetune import decisions
from enn_finetune.costs import Work
from enn_finetune.data.oracle import Oracle
from enn_finetune.joint import joint_scores
from enn_finetune.models.shaped_features import ShapedPool
from enn_finetune.predicting import mean_prediction, predictor
from enn_finetune.study.ground import POOL, Ground, Make, Marking
from enn_finetune.study.programs import Program, Workers

DECIDING = 4096  # rows of the pool, about, that decision thresholds are found on


class Predicted(NamedTuple):
    """What a head says of an evaluation split."""

    mean: Array  # (N, C): log of the mean prediction
    joint: dict[str, Array]  # joint log-losses () by their names in records


def padded(labels: int) -> int:
    """The size that bought rows are padded to, so that rounds share few programs.

    At least 32, then powers of two, and from 512 on the half-way points too: there padding costs
    more than one more program.
    """
    size = 32
    while size < labels:
        size *= 2
    return size * 3 // 4 if size >= 1024 and size * 3 // 4 >= labels else size


def fit_all(
    solver: Callable[..., Any],
    ground: Ground,
    oracles: Sequence[Oracle],
    keys: Sequence[Array],
    work: Workers,
) -> tuple[list[Any], Work]:
    """Each seed's fit to what it bought, and what one cost."""
    bought = [_labelled(ground, oracle) for oracle in oracles]
    seeds = [(*rows, ground.shapes, key) for rows, key in zip(bought, keys, strict=True)]
    return work.each(fitting(solver), seeds)


def predict_all(
    make: Make,
    fits: Sequence[Any],
    ground: Ground,
    keys: Sequence[Array],
    indices: int,
    work: Workers,
) -> list[list[Predicted]]:
    """What each seed's head says of each evaluation split."""
    numbers = range(POOL + 1, POOL + 1 + len(ground.splits))
    found: list[list[Predicted]] = [[] for _ in fits]
    for places, rows in ground.groups(make, fits, numbers):
        for part, marking in zip(rows, ground.markings, strict=True):
            seeds = [(fits[place], part, marking, keys[place]) for place in places]
            results, _ = work.each(predicting(make, indices), seeds)
            for place, result in zip(places, results, strict=True):
                found[place].append(result)
    return found


def thresholds_all(
    make: Make,
    fits: Sequence[Any],
    ground: Ground,
    keys: Sequence[Array],
    indices: int,
    work: Workers,
) -> list[dict[str, float]]:
    """Each seed's decision thresholds, by what its head says of rows of the pool, bought or not."""
    wanted = ground.problem.task.metrics
    found: list[dict[str, float]] = [{} for _ in fits]
    if ground.problem.oracle.classes != 2 or not set(wanted) & set(decisions.SCORES):
        return found
    for places, (rows,) in ground.groups(make, fits, [POOL]):
        sample = rows[:: -(-len(rows) // DECIDING)]
        seeds = [(fits[place], sample, keys[place]) for place in places]
        means, _ = work.each(averaging(make, indices), seeds)
        for place, mean in zip(places, means, strict=True):
            found[place] = decisions.thresholds(np.exp(np.asarray(mean)), wanted)
    return found


def _labelled(ground: Ground, oracle: Oracle) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features (size, D), targets (size, C) and weights (size,) of what was bought."""
    bought = oracle.bought
    size = padded(len(bought))
    targets = np.zeros((size, oracle.classes), np.float32)
    targets[: len(bought)] = oracle.buy(bought)
    weights = (np.arange(size) < len(bought)).astype(np.float32)
    return ground.pool.take(bought, size), targets, weights


@functools.cache
def fitting(solver: Callable[..., Any]) -> Program:
    """Features (n, D), targets (n, C), weights (n,), the pool's shapes and a key -> a fit."""

    def fit(features: Array, targets: Array, weights: Array, pool: ShapedPool, key: Array) -> Any:
        return solver(features, targets, weights, pool, key=key)

    return Program(fit)


@functools.cache
def predicting(make: Make, indices: int) -> Program:
    """A fit, rows (N, .) of a split, what they are scored against and a key -> Predicted."""

    def predict(fit: object, rows: Array, marking: Marking, key: Array) -> Predicted:
        head = make(fit)
        log_probs = predictor(head, key, indices)(rows)
        return Predicted(mean_prediction(head, rows, log_probs), joint_scores(log_probs, *marking))

    return Program(predict)


@functools.cache
def averaging(make: Make, indices: int) -> Program:
    """A fit, rows (N, .) and a key -> log of the mean prediction (N, C)."""

    def average(fit: object, rows: Array, key: Array) -> Array:
        head = make(fit)
        return mean_prediction(head, rows, predictor(head, key, indices)(rows))

    return Program(average)

"""Pool rounds on frozen features for many seeds at once, to be compared pair by pair.

All seeds of a rule go through a round in the same compiled programs, and share with the same seeds
of every other rule the first labels and the randomness of the fits. A rule's purchases can be read
by several heads: those of one fit differ in their predictions only. Labels come from one oracle a
seed.
`pool.py` is the same loop for one run with any backbone and head.
"""

import functools
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from enn_finetune import metrics
from enn_finetune.acquisition.pointwise import RULES
from enn_finetune.config import Config
from enn_finetune.data.inputs import FeatureRows, Rows
from enn_finetune.data.oracle import Oracle
from enn_finetune.models.laplace import LinearEpinetFit, fit_linear_epinet
from enn_finetune.models.linear_epinet import LinearEpinet, ShapedLinear
from enn_finetune.models.shaped_features import ShapedPool, pool_shapes
from enn_finetune.predictive import mixture
from enn_finetune.problem import Problem
from enn_finetune.records import Record


class Course(NamedTuple):
    """What is compared: a rule, and the heads whose predictions are recorded on its purchases."""

    rule: str
    heads: tuple[str, ...]
    """"epinet", or "linear": the plain regression of the same fit. The first one feeds the rule."""


def arm(head: str, rule: str) -> str:
    """What records and tables call a head on a rule's purchases."""
    return f"{head} / {rule}"


class Outcome(NamedTuple):
    """What a course left: its records, and each seed's oracle, which knows what was bought."""

    records: list[Record]
    oracles: list[Oracle]


def run_course(
    course: Course,
    problem: Problem,
    config: Config,
    seeds: Sequence[int],
    progress: Callable[[int], None] | None = None,
) -> Outcome:
    """Buy `budget.labels` by one rule with every seed, `budget.round` at a time.

    Args:
      course: takes the place of the config's rule and head.
      problem: its pool and evaluation splits are features (`backbone.tune` = frozen).
      config: budget and indices; its seed is not used.
      seeds: one run each.
      progress: told the labels bought by each seed so far.
    """
    began, number, budget = time.monotonic(), 0, config.budget
    pool, tests = _features(problem.pool), tuple(_features(e.rows) for e in problem.evaluations)
    shapes = pool_shapes(pool)
    oracles = [problem.oracle.fresh() for _ in seeds]
    orders = [uniform_order(len(pool), seed) for seed in seeds]
    for oracle, order in zip(oracles, orders, strict=True):
        oracle.buy(order[: budget.start])
    run_keys = jax.vmap(jax.random.key)(jnp.asarray(seeds))
    records: list[Record] = []
    while True:
        labels = len(oracles[0].bought)
        keys = jax.vmap(jax.random.fold_in, (0, None))(run_keys, number)
        fits = _fit(*_labelled(pool, oracles, _padded(labels, budget.labels)), shapes, keys)
        for head in course.heads:
            found = _predict(fits, tests, keys, head=head, indices=config.evaluation.indices)
            seconds = round(time.monotonic() - began, 3)
            records += _records(course.rule, head, number, labels, seconds, problem, seeds, found)
        if progress is not None:
            progress(labels)
        if oracles[0].remaining == 0:
            return Outcome(records, oracles)
        best = np.stack(orders)
        if course.rule != "random":
            scores = _score(
                fits,
                pool,
                keys,
                head=course.heads[0],
                rule=course.rule,
                indices=config.acquisition.indices,
            )
            best = np.argsort(-np.asarray(scores), axis=1, kind="stable")
        count = min(budget.round, oracles[0].remaining)
        for oracle, order in zip(oracles, best, strict=True):
            oracle.buy(order[~oracle.owned[order]][:count])
        number += 1


def uniform_order(rows: int, seed: int) -> np.ndarray:
    """A random order of all rows: every arm's first labels, and all those of a random arm."""
    return np.random.Generator(np.random.Philox(key=seed)).permutation(rows)


def _features(rows: Rows) -> Array:
    if not isinstance(rows, FeatureRows):
        raise TypeError("a study runs on features; prepare it with backbone.tune = frozen")
    return jnp.asarray(rows.features)


def _records(
    rule: str,
    head: str,
    step: int,
    labels: int,
    seconds: float,
    problem: Problem,
    seeds: Sequence[int],
    predicted: Sequence[Array],
) -> list[Record]:
    """One record a split and seed, from log-probabilities (S, N, C) of each split."""
    task = problem.task
    return [
        Record(
            arm=arm(head, rule),
            head=head,
            rule=rule,
            seed=seed,
            step=step,
            labels_bought=labels,
            split=split.name,
            metrics=metrics.evaluate(one, split.targets, task.metrics, task.values),
            seconds=seconds,
        )
        for split, log_probs in zip(problem.evaluations, predicted, strict=True)
        for seed, one in zip(seeds, np.asarray(log_probs), strict=True)
    ]


def _padded(labels: int, budget: int) -> int:
    """The size that bought rows are padded to: a quarter, a half or all of the budget."""
    return next(size for size in (-(-budget // 4), -(-budget // 2), budget) if size >= labels)


def _labelled(pool: Array, oracles: Sequence[Oracle], size: int) -> tuple[Array, Array, Array]:
    """Features (S, size, D), targets (S, size, C) and weights (S, size) of what was bought."""
    rows = np.zeros((len(oracles), size), np.int64)
    weights = np.zeros((len(oracles), size), np.float32)
    targets = np.zeros((len(oracles), size, oracles[0].classes), np.float32)
    for seed, oracle in enumerate(oracles):
        bought = oracle.bought
        rows[seed, : len(bought)] = bought
        weights[seed, : len(bought)] = 1
        targets[seed, : len(bought)] = oracle.buy(bought)
    return pool[rows], jnp.asarray(targets), jnp.asarray(weights)


@jax.jit
def _fit(
    features: Array, targets: Array, weights: Array, shapes: ShapedPool, keys: Array
) -> LinearEpinetFit:
    """Fit every seed on what it bought; the results have a leading axis S."""

    def one(arguments: tuple[Array, Array, Array, Array]) -> LinearEpinetFit:
        features, targets, weights, key = arguments
        return fit_linear_epinet(features, targets, weights, shapes, key=key)

    return jax.lax.map(one, (features, targets, weights, keys))


@functools.partial(jax.jit, static_argnames=("head", "indices"))
def _predict(
    fits: LinearEpinetFit, tests: tuple[Array, ...], keys: Array, *, head: str, indices: int
) -> tuple[Array, ...]:
    """Log of the mean prediction (S, N, C) of each split's rows (N, D)."""

    def one(arguments: tuple[LinearEpinetFit, Array]) -> tuple[Array, ...]:
        return tuple(mixture(_log_probs(*arguments, rows, head, indices)) for rows in tests)

    return jax.lax.map(one, (fits, keys))


@functools.partial(jax.jit, static_argnames=("head", "rule", "indices"))
def _score(
    fits: LinearEpinetFit, pool: Array, keys: Array, *, head: str, rule: str, indices: int
) -> Array:
    """Priorities (S, N) of all rows of the pool (N, D)."""

    def one(arguments: tuple[LinearEpinetFit, Array]) -> Array:
        return RULES[rule](_log_probs(*arguments, pool, head, indices), arguments[1])

    return jax.lax.map(one, (fits, keys))


def _log_probs(fit: LinearEpinetFit, key: Array, rows: Array, head: str, indices: int) -> Array:
    """Log-probabilities (K, N, C) under fresh indices; K = 1 where they make no difference."""
    model = LinearEpinet(fit) if head == "epinet" else ShapedLinear(fit)
    z = model.sample_index(jax.random.fold_in(key, 1), indices if model.epistemic else 1)
    return jax.nn.log_softmax(model.many(rows, z), axis=-1)

"""Pool rounds on frozen features for many seeds at once: arms that can be compared pair by pair.

An arm is a head and a rule. All seeds of an arm go through a round in one compiled program; arms of
one seed share the first labels, the head's draws and, with the random rule, the order of purchase.
Labels come from one oracle a seed. `pool.py` is the same loop for one run with any backbone.
"""

import functools
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from enn_finetune import metrics
from enn_finetune.acquisition.pointwise import RULES
from enn_finetune.config import Config
from enn_finetune.data.inputs import FeatureRows, Rows
from enn_finetune.data.oracle import Oracle
from enn_finetune.models.laplace import bucket, fit_linear_epinet
from enn_finetune.models.linear_epinet import LinearEpinet, ShapedLinear
from enn_finetune.models.shaped_features import ShapedPool, pool_shapes
from enn_finetune.predictive import mixture
from enn_finetune.problem import Problem
from enn_finetune.records import Record
from enn_finetune.types import Array


class Arm(NamedTuple):
    """A head ("linear": the plain regression; "epinet": with its epistemic part) and a rule."""

    head: str
    rule: str

    @property
    def name(self) -> str:
        """As records and tables name it."""
        return f"{self.head} / {self.rule}"


class Outcome(NamedTuple):
    """What an arm left: its records, and each seed's oracle, which knows what was bought."""

    records: list[Record]
    oracles: list[Oracle]


def run_arm(
    arm: Arm,
    problem: Problem,
    config: Config,
    seeds: Sequence[int],
    progress: Callable[[int], None] | None = None,
) -> Outcome:
    """Buy `budget.labels` under one arm with every seed, `budget.round` at a time.

    Args:
      arm: takes the place of the config's head and rule.
      problem: its pool and evaluation splits are features (`backbone.tune` = frozen).
      config: budget, indices; its seed is not used.
      seeds: one run each.
      progress: told the labels bought by each seed so far.
    """
    began, number = time.monotonic(), 0
    pool, tests = _features(problem.pool), tuple(_features(e.rows) for e in problem.evaluations)
    shapes, budget = pool_shapes(pool), config.budget
    oracles = [problem.oracle.fresh() for _ in seeds]
    orders = [uniform_order(len(pool), seed) for seed in seeds]
    for oracle, order in zip(oracles, orders, strict=True):
        oracle.buy(order[: budget.start])
    keys = jax.vmap(jax.random.key)(jnp.asarray(seeds))
    records: list[Record] = []
    while True:
        labels = len(oracles[0].bought)
        found = _round(
            *_labelled(pool, oracles, min(bucket(labels), len(pool))),
            shapes,
            pool,
            tests,
            jax.vmap(jax.random.fold_in, (0, None))(keys, number),
            epistemic=arm.head == "epinet",
            rule=arm.rule,
            indices=config.acquisition.indices,
        )
        where = Record(
            arm=arm.name,
            head=arm.head,
            rule=arm.rule,
            step=number,
            labels_bought=labels,
            split="",
            metrics={},
            seconds=round(time.monotonic() - began, 3),
        )
        records += _records(where, problem, seeds, found.tests)
        if progress is not None:
            progress(labels)
        if oracles[0].remaining == 0:
            return Outcome(records, oracles)
        count = min(budget.round, oracles[0].remaining)
        for oracle, order, scores in zip(oracles, orders, np.asarray(found.pool), strict=True):
            best = order if arm.rule == "random" else np.argsort(-scores, kind="stable")
            oracle.buy(best[~oracle.owned[best]][:count])
        number += 1


def uniform_order(rows: int, seed: int) -> np.ndarray:
    """A random order of all rows: every arm's first labels, and all those of a random arm."""
    return np.random.Generator(np.random.Philox(key=seed)).permutation(rows)


def _features(rows: Rows) -> Array:
    if not isinstance(rows, FeatureRows):
        raise TypeError("a study runs on features; prepare it with backbone.tune = frozen")
    return jnp.asarray(rows.features)


def _records(
    where: Record, problem: Problem, seeds: Sequence[int], tests: Sequence[Array]
) -> list[Record]:
    """One record a split and seed, from log-probabilities (S, N, C) of each split."""
    task = problem.task
    return [
        where
        | Record(
            seed=seed,
            split=split.name,
            metrics=metrics.evaluate(one, split.targets, task.metrics, task.values),
        )
        for split, log_probs in zip(problem.evaluations, tests, strict=True)
        for seed, one in zip(seeds, np.asarray(log_probs), strict=True)
    ]


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


class _Result(NamedTuple):
    tests: tuple[Array, ...]  # (S, N, C) each: log of the mean prediction
    pool: Array  # (S, N) priorities


@functools.partial(jax.jit, static_argnames=("epistemic", "rule", "indices"))
def _round(
    features: Array,
    targets: Array,
    weights: Array,
    shapes: ShapedPool,
    pool: Array,
    tests: tuple[Array, ...],
    keys: Array,
    *,
    epistemic: bool,
    rule: str,
    indices: int,
) -> _Result:
    """Fit every seed's head on what it bought; predict the test rows and score the pool."""

    def one(arguments: tuple[Array, Array, Array, Array]) -> _Result:
        features, targets, weights, key = arguments
        fit_key, index_key, rule_key = jax.random.split(key, 3)
        fit = fit_linear_epinet(features, targets, weights, shapes, key=fit_key)
        head = LinearEpinet(fit) if epistemic else ShapedLinear(fit)
        z = head.sample_index(index_key, indices if epistemic else 1)

        def log_probs(rows: Array) -> Array:
            return jax.nn.log_softmax(head.many(rows, z), axis=-1)

        if rule == "random":  # its order does not depend on predictions
            priorities = jnp.zeros(pool.shape[:1])
        else:
            priorities = RULES[rule](log_probs(pool), rule_key)
        return _Result(tuple(mixture(log_probs(rows)) for rows in tests), priorities)

    return jax.lax.map(one, (features, targets, weights, keys))

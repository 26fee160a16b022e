"""The cells of benchmarks/heads.py: all seeds of an encoder, a task and a number of labels."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import joblib
import logistic
import numpy as np
from jax import Array, lax

from enn_finetune.joint import Groups, joint_groups, joint_scores
from enn_finetune.models.linear_epinet import bucket, pool_shapes
from enn_finetune.models.shaped_features import ShapedPool
from enn_finetune.models.solvers import SOLVERS
from enn_finetune.predicting import mean_prediction, rows_of

OURS, THEIRS = "epinet", "lr_cv"
HEADS = (OURS, "shaped", "linear", "mc_dropout", "ensemble")
INDICES = {"ensemble": 10}
DEFAULT_INDICES = 1000  # a hundred cost .01 to .04 nats a group by Jensen's inequality
SCORES = ("accuracy", "nll", "joint_nll_near")


class Data(NamedTuple):
    """Features and classes of a task's pool and test rows."""

    pool: np.ndarray  # (N, V * D)
    labels: np.ndarray  # (N,)
    test: np.ndarray  # (M, V * D)
    test_labels: np.ndarray  # (M,)
    classes: int
    views: int
    fingerprint: str


class Cell(NamedTuple):
    """Every head's scores on the same draws of labels."""

    encoder: str
    task: str
    labels: int
    scores: dict[str, dict[str, np.ndarray]]  # head -> score -> (S,)
    unconverged: int  # of LogisticRegressionCV's fits

    @property
    def name(self) -> str:
        return f"{self.encoder} {self.task} {self.labels}"

    def difference(self, score: str) -> tuple[float, float]:
        """Mean and standard error over seeds of ours minus theirs; no error with one seed."""
        gaps = self.scores[OURS][score] - self.scores[THEIRS][score]
        error = np.std(gaps, ddof=1) / np.sqrt(len(gaps)) if len(gaps) > 1 else 0.0
        return float(np.mean(gaps)), float(error)

    @property
    def wins(self) -> bool:
        """The epinet's joint NLL is the lowest of all heads'."""
        joint = {head: np.mean(found["joint_nll_near"]) for head, found in self.scores.items()}
        return all(joint[OURS] < joint[head] for head in HEADS if head != OURS)


def stratified(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Row numbers (count,) at random, classes as in the pool to the nearest row, and each there.

    Smaller counts of a seed are not parts of larger ones, but every head sees the same rows.
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    rows = [order[labels[order] == one] for one in np.unique(labels)]
    wanted = np.array([len(one) for one in rows]) * count / len(labels)
    sizes = np.maximum(np.floor(wanted).astype(int), 1)
    while sizes.sum() < count:
        sizes[np.argmax(wanted - sizes)] += 1
    return np.sort(np.concatenate([one[:size] for one, size in zip(rows, sizes, strict=True)]))


@functools.cache
def program(fit: Callable[..., Any], names: tuple[str, ...]) -> Callable[..., Any]:
    """All seeds of a cell: fit once, then score each head made of the fit."""

    def scores(mean: Array, log_probs: Array, targets: Array, groups: Groups) -> dict[str, Array]:
        joint = joint_scores(log_probs, targets, groups)
        return {
            "accuracy": jnp.mean(jnp.argmax(mean, axis=1) == jnp.argmax(targets, axis=1)),
            "nll": -jnp.mean(jnp.sum(targets * mean, axis=1)),
            "joint_nll_near": joint["joint_nll_near"],
        }

    @jax.jit
    def run(
        bought: tuple[Array, Array, Array, Array],
        pool: ShapedPool,
        test: tuple[Array, Array, Groups],
    ) -> dict[str, dict[str, Array]]:
        features, targets, groups = test

        def seed(one: tuple[Array, Array, Array, Array]) -> dict[str, dict[str, Array]]:
            rows, labels, weights, key = one
            found = fit(rows, labels, weights, pool, key=jax.random.fold_in(key, 0))
            scored = {}
            for name in names:
                head = SOLVERS[name].make(found)
                count = INDICES.get(name, DEFAULT_INDICES) if head.epistemic else 1
                z = head.sample_index(jax.random.fold_in(key, 1), count)
                log_probs = jax.nn.log_softmax(head.many(features, z), axis=-1)
                mean = mean_prediction(head, rows_of(head, features), log_probs)
                scored[name] = scores(mean, log_probs, targets, groups)
            return scored

        batch = 1 if jax.default_backend() == "cpu" else bought[0].shape[0]
        return lax.map(seed, bought, batch_size=batch)

    return run


def cells(
    name: tuple[str, str], data: Data, labels: Sequence[int], seeds: int, workers: int
) -> Iterator[Cell]:
    """The cells of one encoder and task."""
    draws = {n: [stratified(data.labels, n, seed) for seed in range(seeds)] for n in labels}
    one_hot = np.eye(data.classes, dtype=np.float32)
    groups = joint_groups(data.test)
    test = (jnp.asarray(data.test), jnp.asarray(one_hot[data.test_labels]), groups)
    pool = pool_shapes(jnp.asarray(data.pool), views=data.views)
    # Their fits go on in other processes while ours are compiled and run here.
    theirs = joblib.Parallel(n_jobs=workers, return_as="generator")(
        joblib.delayed(logistic.fit)(data.pool[rows], data.labels[rows], data.test)
        for n in labels
        for rows in draws[n]
    )
    for n in labels:
        bought = _padded(data, one_hot, draws[n])
        scores: dict[str, dict[str, np.ndarray]] = {}
        for names in _sharing_a_fit(HEADS):
            found = program(SOLVERS[names[0]].fit, names)(bought, pool, test)
            scores |= jax.tree.map(np.asarray, found)
        fits = [next(theirs) for _ in range(seeds)]
        scores[THEIRS] = _plain_scores([fit.log_probs for fit in fits], data.test_labels, groups)
        yield Cell(*name, n, scores, sum(not fit.converged for fit in fits))
        # A process may have 65,530 memory maps, and programs on a CPU take them by the dozen.
        program.cache_clear()
        jax.clear_caches()


def _padded(data: Data, one_hot: np.ndarray, draws: list[np.ndarray]) -> tuple[Any, ...]:
    """Features (S, n, V * D), targets (S, n, C), weights (S, n) and keys (S,) of bought rows."""
    count, size = len(draws[0]), bucket(len(draws[0]))
    pad = ((0, 0), (0, size - count), (0, 0))
    weights = np.broadcast_to(np.arange(size) < count, (len(draws), size)).astype(np.float32)
    keys = jax.vmap(jax.random.key)(jnp.arange(len(draws)))
    rows = np.stack(draws)
    return np.pad(data.pool[rows], pad), np.pad(one_hot[data.labels[rows]], pad), weights, keys


def _sharing_a_fit(names: Sequence[str]) -> list[tuple[str, ...]]:
    fits: dict[Any, list[str]] = {}
    for name in names:
        fits.setdefault(SOLVERS[name].fit, []).append(name)
    return [tuple(group) for group in fits.values()]


def _plain_scores(
    log_probs: list[np.ndarray], labels: np.ndarray, groups: Groups
) -> dict[str, np.ndarray]:
    losses = np.stack([-one[np.arange(len(labels)), labels] for one in log_probs])  # (S, M)
    return {
        "accuracy": np.array([np.mean(one.argmax(1) == labels) for one in log_probs]),
        "nll": losses.mean(axis=1),
        "joint_nll_near": losses[:, groups.near].sum(axis=-1).mean(axis=-1),
    }

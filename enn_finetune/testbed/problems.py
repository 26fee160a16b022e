"""Problems whose generator is known: labels from a random network, and rows to be examined on.

The generator is the Neural Testbed's (Osband et al. 2022, arXiv 2110.04629, section 2.2): a network
of two hidden ReLU layers of 50 units, weights truncated normal of scale 1 / sqrt(inputs), biases
N(0, 1 / d) in the first layer and 0 in the others; x ~ N(0, I_d), y ~ softmax(h(x) / temperature).

Joint predictions are examined on *local* rows (polyadic sampling; Osband et al. 2022, arXiv
2202.13509): kappa anchors from N(0, I_d), tau rows each of which is one of the anchors drawn with
replacement, and tau labels. kappa = 2 is dyadic sampling. As a row's labels are exchangeable, what
counts is how often each anchor had each label: tables (kappa, C) that sum to tau.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from enn_finetune.testbed.networks import Layers, apply_mlp, init_mlp
from enn_finetune.testbed.types import Data, Spec

TABLES = 512
"""Up to so many tables of a group all are listed; of more, some are drawn."""


class Problem(NamedTuple):
    """A generator of labels; vmap `sample_problem` for many."""

    layers: Layers
    temperature: Array  # ()


class Tables(NamedTuple):
    """Labels for G groups of tau rows at kappa anchors each, as counts; R tables a group."""

    counts: Array  # (G or 1, R, kappa, C) float32, each summing to tau
    weights: Array  # (G, R): probabilities if all tables are listed, else 1 / R


class Exam(NamedTuple):
    """Anchors, the truth about them, and label tables for each tau."""

    x: Array  # (G * kappa, d), a group's anchors side by side
    log_true: Array  # (G * kappa, C): of the generator
    tables: tuple[Tables, ...]  # as asked for


def sample_problem(key: Array, spec: Spec) -> Problem:
    """Draw a generator from the prior that `spec` names."""
    sizes = (spec.input_dim, spec.hidden, spec.hidden, spec.classes)
    layers = init_mlp(key, sizes, first_bias=spec.input_dim**-0.5)
    return Problem(layers, jnp.asarray(spec.temperature, jnp.float32))


def true_log_probs(problem: Problem, x: Array) -> Array:
    """Log of the generator's class probabilities: (N, d) -> (N, C)."""
    return jax.nn.log_softmax(apply_mlp(problem.layers, x) / problem.temperature, axis=-1)


def sample_data(key: Array, problem: Problem, rows: int) -> Data:
    """Draw N rows of N(0, I_d) and a label for each; the first rows are the same for any N."""
    inputs = problem.layers[0][0].shape[0]
    row_keys = jax.vmap(lambda row: jax.random.fold_in(key, row))(jnp.arange(rows))

    def one(row_key: Array) -> tuple[Array, Array]:
        x_key, y_key = jax.random.split(row_key)
        x = jax.random.normal(x_key, (1, inputs))
        return x[0], jax.random.categorical(y_key, true_log_probs(problem, x)[0])

    x, y = jax.vmap(one)(row_keys)
    return Data(x, y.astype(jnp.int32))


def sample_exam(
    key: Array,
    problem: Problem,
    taus: tuple[int, ...] = (1, 10, 100),
    *,
    groups: int = 200,
    kappa: int = 2,
    draws: int = 64,
) -> Exam:
    """Draw anchors, shared by all taus, and tables of labels.

    Where a group has at most `TABLES` tables all of them are listed with their probabilities, so
    that a score is exact in the labels and only the anchors are sampled (for kappa = C = 2 up to
    tau = 12); else `draws` of them are drawn for each group.

    Args:
      key: of anchors and labels.
      problem: the generator.
      taus: rows predicted together; static, as all that follow.
      groups: G; the standard error of a score falls as 1 / sqrt(G).
      kappa: anchors a group.
      draws: R, where tables are drawn.
    """
    inputs = problem.layers[0][0].shape[0]
    x_key, y_key = jax.random.split(key)
    x = jax.random.normal(x_key, (groups * kappa, inputs))
    log_true = true_log_probs(problem, x)
    cells = log_true.reshape(groups, kappa, -1) - math.log(kappa)
    keys = jax.random.split(y_key, len(taus))
    tables = [_tables(k, cells, tau, draws) for k, tau in zip(keys, taus, strict=True)]
    return Exam(x, log_true, tuple(tables))


def _tables(key: Array, cells: Array, tau: int, draws: int) -> Tables:
    """Tables for log-probabilities (G, kappa, C) of a draw to be of this anchor and label."""
    groups, kappa, classes = cells.shape
    size = kappa * classes
    if math.comb(tau + size - 1, size - 1) <= TABLES:
        return _all_tables(cells, tau)
    edges = jnp.cumsum(jnp.exp(cells).reshape(groups, size), axis=1)[:, :-1]
    uniform = jax.random.uniform(key, (groups, draws, tau))
    below = jnp.sum(uniform[..., None] < edges[:, None, None], axis=2, dtype=jnp.float32)
    below = jnp.concatenate([below, jnp.full((groups, draws, 1), float(tau))], axis=-1)
    counts = jnp.diff(below, axis=-1, prepend=0.0)
    weights = jnp.full((groups, draws), 1 / draws)
    return Tables(counts.reshape(groups, draws, kappa, classes), weights)


def _all_tables(cells: Array, tau: int) -> Tables:
    """Every table with its multinomial probability."""
    _, kappa, classes = cells.shape
    listed = _compositions(tau, kappa * classes).reshape(-1, kappa, classes)
    ways = np.array(
        [math.lgamma(tau + 1) - sum(math.lgamma(n + 1) for n in table.flat) for table in listed]
    )
    counts = jnp.asarray(listed, jnp.float32)
    terms = jnp.where(counts[None] > 0, counts[None] * cells[:, None], 0)
    log_weights = jnp.asarray(ways, jnp.float32)[None] + jnp.sum(terms, axis=(2, 3))
    return Tables(counts[None], jax.nn.softmax(log_weights, axis=1))


def _compositions(total: int, parts: int) -> np.ndarray:
    """All ways to write `total` as an ordered sum of `parts` integers from 0: (R, parts)."""
    if parts == 1:
        return np.full((1, 1), total)
    blocks = []
    for first in range(total + 1):
        rest = _compositions(total - first, parts - 1)
        blocks.append(np.insert(rest, 0, first, axis=1))
    return np.concatenate(blocks)

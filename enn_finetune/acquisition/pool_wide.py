"""Rules that ask what a row's label would tell about *other* rows: those of the pool itself.

BALD prizes what a label tells about the index, even where no row of the pool would be predicted
differently for it; that is how it comes to buy outliers. Weighting the K index samples by the
probability that each gives the label y of a row x is the posterior after that label, so what it
would tell about a target row t is in the joint prediction of the two, in closed form:

  p(y, d) = mean_k p_k(y | x) p_k(d | t) = p(y) p(d) + cov(y, d)

All three rules are expectations of a proper or 0-1 loss over that posterior, from predictions
alone. Expected posterior *entropy* (Roy and McCallum 2001) needs no rule of its own: what it
removes from the entropy of the targets is EPIG.

Rows are scored in chunks of bounded memory. Padding rows count as targets like all others.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from enn_finetune.types import Rule

TARGETS = 100
"""M: rows that stand for the pool, drawn uniformly by the key; all of them where there are fewer.
The number of Bickford Smith et al. (2023)."""

CHUNK = 2**20
"""Entries of the table (rows, C, M, C) that is in memory at a time."""


class Spread(NamedTuple):
    """Predictions about their mean over indices: p_k = mean + deviations[k]."""

    mean: Array  # (N, C)
    deviations: Array  # (K, N, C)


def spread(log_probs: Array) -> Spread:
    """Mean and deviations of the class probabilities; log-probabilities (K, N, C)."""
    probs = jnp.exp(log_probs)
    mean = jnp.mean(probs, axis=0)
    return Spread(mean, probs - mean[None])


def target_rows(log_probs: Array, key: Array) -> Array:
    """Log-probabilities (K, M, C) of the rows that stand for the pool."""
    rows = log_probs.shape[1]
    if rows <= TARGETS:
        return log_probs
    return log_probs[:, jax.random.choice(key, rows, (TARGETS,), replace=False)]


def _over_targets(
    log_probs: Array, key: Array, gain: Callable[[Array, Array, Array], Array]
) -> Array:
    """Means (N,) over targets of gain(p (C,), q (M, C), cov (C, M, C)) -> (M,)."""
    rows, targets = spread(log_probs), spread(target_rows(log_probs, key))
    (indices, _, classes), others = log_probs.shape, targets.mean.shape[0]
    flat = targets.deviations.reshape(indices, -1) / indices  # (K, M * C)

    def one(row: tuple[Array, Array]) -> Array:
        mean, deviations = row  # (C,), (K, C)
        cov = jnp.matmul(deviations.T, flat, precision=jax.lax.Precision.HIGHEST)
        return jnp.mean(gain(mean, targets.mean, cov.reshape(classes, others, classes)))

    size = max(1, CHUNK // (classes * others * classes))
    by_row = (rows.mean, jnp.moveaxis(rows.deviations, 1, 0))
    scores: Array = jax.lax.map(one, by_row, batch_size=size)
    return scores


def _information(p: Array, q: Array, cov: Array) -> Array:
    independent = p[:, None, None] * q[None]
    ratio = jnp.maximum(cov / jnp.where(independent > 0, independent, 1), -1)
    logs = jnp.log1p(jnp.where(ratio > -1, ratio, 0))
    # The terms pq * ratio add up to 0; without them no term is negative.
    return jnp.sum(independent * ((1 + ratio) * logs - ratio), axis=(0, 2))


def epig(log_probs: Array, key: Array) -> Array:
    """Expected predictive information gain (N,), in nats (Bickford Smith et al. 2023, eq. 5).

    Mutual information of a row's label and a target row's label, mean over the targets
    (arXiv 2304.08151). Costs N * M * C^2 * K multiplications.
    """
    return _over_targets(log_probs, key, _information)


def _fewer_errors(p: Array, q: Array, cov: Array) -> Array:
    joint = p[:, None, None] * q[None] + cov
    now = jnp.argmax(q, axis=-1)[None, :, None]
    return jnp.sum(jnp.max(joint, -1) - jnp.take_along_axis(joint, now, -1)[..., 0], axis=0)


def eer(log_probs: Array, key: Array) -> Array:
    """Expected error reduction (N,): errors that a label spares a target row, in expectation.

    Roy and McCallum (2001), with 0-1 loss and the posterior by reweighting the index samples. It
    is 0 for a row whose label, whatever it is, changes no target's predicted class. Costs what
    `epig` costs, without the logarithms.
    """
    return _over_targets(log_probs, key, _fewer_errors)


def eer_brier(log_probs: Array, key: Array) -> Array:
    """Expected Brier score reduction (N,) over *all* rows: sum_y mean_t |cov(y, t)|^2 / p(y).

    Expected error reduction with a proper loss, for which the targets enter through their Gram
    matrix (K, K) alone: N * C * K^2 multiplications, no sample of targets, no randomness. Its
    terms cov^2 / p(y), each over 2 p(d), are the first of EPIG's Taylor series in cov.
    """
    del key
    mean, deviations = spread(log_probs)
    indices, rows, classes = log_probs.shape
    flat = deviations.reshape(indices, rows * classes)
    exact = jax.lax.Precision.HIGHEST
    gram = jnp.matmul(flat, flat.T, precision=exact) / (rows * indices**2)
    squares = jnp.sum(flat * jnp.matmul(gram, flat, precision=exact), axis=0)
    by_class = jnp.maximum(squares, 0).reshape(rows, classes)
    return jnp.sum(jnp.where(mean > 0, by_class / jnp.where(mean > 0, mean, 1), 0), axis=-1)


RULES: Mapping[str, Rule] = MappingProxyType({"epig": epig, "eer": eer, "eer_brier": eer_brier})
"""The rules of this file; with a plain head every score is 0."""

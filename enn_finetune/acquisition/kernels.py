"""Covariances of what labels tell, as factors: f = factors @ w with w ~ N(0, I), y = f + noise.

A joint Gaussian model of a pool is an (N, N) covariance. Each kernel here writes it as factors
(N, R), so that nothing larger than (R, R) is ever needed beside the rows (`conditioning.py`).

- `indices`: f is the label's probability, w the epistemic index. Its K samples are the factors: the
  covariance is that of the head's own joint prediction, and rows bought are in it already.
- `last_layer`: f is a logit, w the weights of a last layer that starts anew from its prior: rows
  bought have to be conditioned on. It needs no epistemic head.
- `gradients`: f is the loss at the label held for true, to first order in the last layer's weights,
  which is how Huebotter et al. (2024, arXiv 2402.15898, section 5) embed rows of a classifier.

The noise of a label is estimated from the predictions; it is never 0.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import Array, lax

from enn_finetune import predictive
from enn_finetune.acquisition.distances import read_in_blocks
from enn_finetune.acquisition.predictions import residuals
from enn_finetune.acquisition.rows import BLOCK, map_blocks, total
from enn_finetune.types import Spread

NOISE_FLOOR = 1e-3
"""Least variance of a label: that of two classes of which one comes 1 time in 2000."""

INFORMATION_FLOOR = 1e-6
"""Least Fisher information of a label about a logit: p (1 - p) at a logit of 14."""

LOGIT_VARIANCE = 4.0
"""Prior variance of a last layer's logits, mean over the free rows. Two standard deviations are
then logits of 4, or probabilities of 0.02 and 0.98."""

RANK = 1536
"""Most columns of the factors from gradients: 5 classes at D = 384 are exact."""

STEPS = 16
"""Power iterations for the reading of a label. Any reading is a valid one, so few are enough."""

EXACT = lax.Precision.HIGHEST

Kept = TypeVar("Kept")


class Factors(NamedTuple):
    """Rows of the Gaussian model: cov(f_i, f_j) = factors[i] @ factors[j]."""

    factors: Array  # (n, R)
    noise: Array  # (n,) variance of a label about f, over 0


@dataclass(frozen=True)
class Kernel(Generic[Kept]):
    """A Gaussian model of rows; `read` is that of the batch rules that use it."""

    read: Callable[[Array, Array], Kept]
    """Log-probabilities (K, n, C) and features (n, D) -> what is kept, leaves (n, ...)."""
    factors_of: Callable[[Kept, Array, Spread], Callable[[Kept], Factors]]
    """Kept of the pool, free (n,), axis -> the function from kept of any rows to their factors."""
    knows_bought: bool
    """The factors are those of a posterior that rows bought are part of."""
    epistemic: bool
    """It reads the spread over indices: a plain head tells it nothing."""


# ---- index samples


def read_indices(log_probs: Array, features: Array) -> Factors:
    """Factors (n, K) from index samples, and the labels' noise; the features are not used.

    The label enters as one number, its reading w(y) with |w| = 1: what is kept of a row is then K
    numbers whatever C. Of two classes all readings say the same, w = (-1, 1) / sqrt 2 (f is sqrt 2
    times the probability less its mean, var f the sum over classes of the variance). Of more
    classes it is the reading with the largest share of epistemic variance, thus that which tells
    most about the index: the first direction of the correspondence analysis of (index, label),
    whose share is the squared maximal correlation of label and index (Hirschfeld 1935, Gebelein
    1941). To know the reading is to know less than the label, never more.

    Its sign, which `ctl` alone sees, is that of class 1 of two, else of the class held for true.
    Noise is the aleatoric variance of the reading, mean over indices.
    """

    def read(log_probs: Array, features: Array) -> Factors:
        del features
        probs = jnp.exp(log_probs)
        mean = jnp.mean(probs, axis=0)
        deviations = probs - mean[None]
        reading = _reading(mean, deviations)  # (n, C)
        factors = jnp.sum(deviations * reading[None], axis=-1).T / jnp.sqrt(probs.shape[0])
        means = jnp.sum(probs * reading[None], axis=-1, keepdims=True)  # (K, n, 1)
        within = jnp.sum(probs * (reading[None] - means) ** 2, axis=-1)
        return Factors(factors, jnp.mean(within, axis=0))

    return read_in_blocks(read, log_probs, features)


def _reading(mean: Array, deviations: Array) -> Array:
    """Values (n, C) of the most telling reading of each row's label, of sum 0 and norm 1.

    Zeros where no index disagrees with another.
    """
    classes = mean.shape[-1]
    if classes <= 2:
        one = jnp.float32([0.0] if classes == 1 else [-(0.5**0.5), 0.5**0.5])
        return jnp.broadcast_to(one[None], mean.shape)
    scale = jnp.where(mean > 0, jax.lax.rsqrt(jnp.where(mean > 0, mean, 1)), 0)
    table = deviations * scale[None]  # (K, n, C)

    def times(direction: Array) -> Array:
        shares = jnp.sum(table * direction[None], axis=-1, keepdims=True)
        return _unit(jnp.sum(table * shares, axis=0))

    widest = jnp.argmax(jnp.sum(table**2, axis=0), axis=-1)
    found = lax.fori_loop(0, STEPS, lambda _, u: times(u), jax.nn.one_hot(widest, classes)) * scale
    found = _unit(found - jnp.mean(found, axis=-1, keepdims=True))
    held = jnp.take_along_axis(found, jnp.argmax(mean, axis=-1)[:, None], axis=-1)
    return jnp.where(held < 0, -found, found)


def _unit(vectors: Array) -> Array:
    """Vectors (n, C) of norm 1; zeros stay zeros."""
    largest = jnp.max(jnp.abs(vectors), axis=-1, keepdims=True)
    vectors = vectors / jnp.where(largest > 0, largest, 1)  # or squares would underflow
    norms = jnp.sqrt(jnp.sum(vectors**2, axis=-1, keepdims=True))
    return vectors / jnp.where(norms > 0, norms, 1)


def _as_kept(kept: Factors, free: Array, axis: Spread) -> Callable[[Factors], Factors]:
    del kept, free, axis
    return lambda rows: Factors(rows.factors, jnp.maximum(rows.noise, NOISE_FLOOR))


indices: Kernel[Factors] = Kernel(read_indices, _as_kept, knows_bought=True, epistemic=True)
"""Covariance of predictions over index samples: see `read_indices`."""


# ---- last-layer features


class LastLayer(NamedTuple):
    """What a label tells about the logit of a row."""

    features: Array  # (n, D)
    information: Array  # (n,) mean over indices of q (1 - q), q that of the class held for true


def read_last_layer(log_probs: Array, features: Array) -> LastLayer:
    """Features, and the Fisher information of a label about the logit "this class or another"."""

    def read(log_probs: Array, features: Array) -> LastLayer:
        held = jnp.argmax(predictive.mixture(log_probs), axis=-1)
        probs = jnp.exp(jnp.take_along_axis(log_probs, held[None, :, None], axis=-1)[..., 0])
        return LastLayer(features, jnp.mean(probs * (1 - probs), axis=0))

    return read_in_blocks(read, log_probs, features)


def _prior(features: Array, free: Array, axis: Spread) -> Array:
    """Prior standard deviation () of a weight, for LOGIT_VARIANCE on the free rows (n, D)."""
    norms = map_blocks(lambda some: jnp.sum(some**2, axis=-1), features)
    both = total(jnp.stack([jnp.where(free, norms, 0), free.astype(norms.dtype)], -1), axis)
    return jnp.sqrt(LOGIT_VARIANCE * both[1] / jnp.where(both[0] > 0, both[0], 1))


def _logits(kept: LastLayer, free: Array, axis: Spread) -> Callable[[LastLayer], Factors]:
    """A label of information i is a logit seen with variance 1 / i (Laplace's approximation)."""
    scale = _prior(kept.features, free, axis)

    def factors(rows: LastLayer) -> Factors:
        return Factors(scale * rows.features, 1 / jnp.maximum(rows.information, INFORMATION_FLOOR))

    return factors


last_layer: Kernel[LastLayer] = Kernel(
    read_last_layer, _logits, knows_bought=False, epistemic=False
)
"""Covariance of the logits of a linear last layer under its prior."""


# ---- hallucinated-label gradients


class Gradients(NamedTuple):
    """Gradients residual (x) features of the last layer's loss, at the label held for true."""

    residuals: Array  # (n, C) p - onehot(argmax p)
    features: Array  # (n, D)


def read_gradients(log_probs: Array, features: Array) -> Gradients:
    """Gradients as factors, with the mean over indices as the prediction (arXiv 1906.03671)."""

    def read(log_probs: Array, features: Array) -> Gradients:
        return Gradients(residuals(log_probs), features)

    return read_in_blocks(read, log_probs, features)


def _losses(kept: Gradients, free: Array, axis: Spread) -> Callable[[Gradients], Factors]:
    """Factors (n, P * D): gradients in an orthonormal basis of residuals.

    P = C - 1 is exact, for residuals sum to 0. Where (C - 1) * D is over RANK the basis holds the
    leading P directions of the free rows' residuals. The prior is that of `last_layer`. The noise
    is one for all rows, such that all labels of the pool together tell what Fisher's information
    says they do: sum |residual|^2 / noise = sum (1 - sum_c p_c^2), the expectation of |residual|^2
    over the label.
    """
    classes, width = kept.residuals.shape[-1], kept.features.shape[-1]
    scale = _prior(kept.features, free, axis)
    freed = jnp.where(free[:, None], kept.residuals, 0)
    second = sum_blocks(lambda some: jnp.matmul(some.T, some, precision=EXACT), freed, axis)
    directions = max(1, min(classes - 1, RANK // width))
    basis = jnp.linalg.eigh(second)[1][:, -directions:]  # (C, P)
    squares = jnp.sum(freed**2, axis=-1)
    expected = -2 * jnp.min(freed, axis=-1) - squares  # 1 - sum p^2, for min is max p - 1
    sums = total(jnp.stack([squares, expected], -1), axis)
    noise = jnp.maximum(sums[0] / jnp.where(sums[1] > 0, sums[1], 1), NOISE_FLOOR)

    def factors(rows: Gradients) -> Factors:
        residuals = jnp.matmul(rows.residuals, basis, precision=EXACT)
        outer = residuals[:, :, None] * (scale * rows.features)[:, None, :]
        flat = outer.reshape(outer.shape[0], directions * width)
        return Factors(flat, jnp.broadcast_to(noise, (outer.shape[0],)))

    return factors


gradients: Kernel[Gradients] = Kernel(read_gradients, _losses, knows_bought=False, epistemic=False)
"""Covariance of first-order changes of the loss."""


def sum_blocks(function: Callable[[Array], Array], rows: Array, axis: Spread) -> Array:
    """Sum of `function` of blocks of rows (n, ...), in one order on any number of devices.

    Rows of zeros, of which blocks are filled up, should add nothing.
    """
    n = rows.shape[0]
    if n <= BLOCK and axis is None:
        return function(rows)
    blocks = -(-n // BLOCK)
    pad = [(0, blocks * BLOCK - n)] + [(0, 0)] * (rows.ndim - 1)
    split = jnp.pad(rows, pad).reshape(blocks, BLOCK, *rows.shape[1:])
    # A block is one row of map_blocks, so that all devices compile it alike.
    sums = map_blocks(lambda one: function(one[0])[None], split, block=1)
    # Blocks, not rows, are summed: no Axis, whose padding is counted in rows.
    return total(sums, axis if axis is None or isinstance(axis, str) else axis.name, block=1)

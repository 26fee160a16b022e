"""Frozen features, shaped by the unlabelled pool: which directions a linear head expects to matter.

A row phi becomes x = [u, h], u = c (phi - mean) V diag(s^alpha): the pool's covariance is
V diag(s) V', alpha the exponent. A Gaussian prior on the weights of x then expects a weight to be
larger where the pool varies more: alpha = 0 is the plain isotropic prior on centred features,
alpha = 1/2 and 1 trust the pool's leading directions more and more. c makes the pool's mean of
|u|^2 one, so that 1 / lambda is the prior variance of a typical row's logit, whatever D and alpha;
the bias column's height h makes the bias's prior variance h^2 / lambda. No label is read.

Rows keep their lengths. Brought to unit norm each, as they once were, they lose what a length
tells: of the difference of two texts' features how far apart they are, which is most of what MRPC
asks (gte-small, 50 labels: accuracy .709 with unit rows, .746 without; 300 labels: .730 and .750);
on SST-2, CoLA, RTE and reviews the NLL is lower without, by up to .03, or the same (rows carved
from train, both encoders, 4 seeds).

One odd row shall spoil neither the scale nor a score: a row is never longer than four times a
typical one (`bounded`), neither in the pool's covariance, where the median says what is typical,
nor in a fit or a prediction.

Features may be V layers of an encoder side by side, (N, V * D). A *reading* is a weighted sum of
them: the last layer, the mean of all, or the first, each layer brought to unit root mean square
norm beforehand, and their sum, once centred, again. Which one suits differs from task to task
(grammar sits in middle layers, and a mean of layers outdoes the last one where there are labels
enough to tell).
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from enn_finetune.models.softmax_regression import with_bias

EXPONENTS = (0.0, 0.5, 1.0)
BIAS_HEIGHT = 1.0
LONGEST = 4.0  # norm of a row, over a typical one's
FLAT = 1e-5  # a centred size that is rounding, over the size before


class ShapedPool(NamedTuple):
    """The pool's mean and covariances, decomposed once, and the exponents to choose from."""

    mean: Array  # (V * D,)
    readings: Array  # (R, V): weights of the layers, for a pool whose readings have a mean square
    # norm of 1; the first reading is the last layer
    vectors: Array  # (R, D, D): eigenvectors of each reading's covariance, in columns
    values: Array  # (R, D): eigenvalues over the largest, from 0 to 1
    exponents: Array  # (E,)
    classes: Array | None = None  # (C, V * D): features of the classes' descriptions, if any


def pool_shapes(
    pool_features: Array,
    exponents: Sequence[float] = EXPONENTS,
    *,
    views: int = 1,
    classes: Array | None = None,
) -> ShapedPool:
    """Decompose the covariances of the pool's features (N, V * D), N at least 1.

    Args:
      pool_features: (N, V * D).
      exponents: to choose from.
      views: V, how many layers stand side by side.
      classes: (C, V * D), what the same encoder makes of a description of each class
        (`class_prior.py`).

    Raises:
      ValueError: for features that are not (N, V * D), or negative or no exponents.
    """
    if classes is not None and (classes.ndim != 2 or classes.shape[1:] != pool_features.shape[1:]):
        raise ValueError(
            f"features of the classes must be (C, D) with the D of the pool, got {classes.shape} "
            f"and {pool_features.shape}"
        )
    if pool_features.ndim != 2 or not pool_features.shape[0]:
        raise ValueError(f"pool features must be (N, D) with rows, got {pool_features.shape}")
    if views < 1 or pool_features.shape[1] % views:
        raise ValueError(
            f"pool features must be (N, views * D), got {pool_features.shape} and {views=}"
        )
    if not exponents or min(exponents) < 0:
        raise ValueError(f"exponents must be some numbers of at least 0, got {tuple(exponents)}")
    mean, readings, vectors, values = _decomposed(jnp.asarray(pool_features, jnp.float32), views)
    return ShapedPool(
        mean,
        readings,
        vectors,
        values,
        jnp.asarray(exponents, jnp.float32),
        None if classes is None else jnp.asarray(classes, jnp.float32),
    )


@partial(jax.jit, static_argnames="views")
def _decomposed(features: Array, views: int) -> tuple[Array, Array, Array, Array]:
    """Mean, readings, eigenvectors and eigenvalues of a pool's features (N, V * D)."""
    mean = jnp.mean(features, axis=0)
    readings = _readings(features.reshape(len(features), views, -1))
    decomposed = [_decompose(read(features, mean, reading)) for reading in readings]
    vectors, values, sizes = (jnp.stack(part) for part in zip(*decomposed, strict=True))
    return mean, readings / sizes[:, None], vectors, values


def read(features: Array, mean: Array, reading: Array) -> Array:
    """Features (N, V * D) -> one reading of them (N, D), centred."""
    views = reading.shape[0]
    centred = (features - mean[None]).reshape(features.shape[0], views, -1)
    return jnp.einsum("nvd,v->nd", centred, reading, precision="highest")


def _readings(layers: Array) -> Array:
    """The last layer, the mean of all, and the first of layers (N, V, D): (R, V), R = 1, 2 or 3."""
    views = layers.shape[1]
    scales = jnp.stack([_root_mean_square(layers[:, view]) for view in range(views)])
    each = jnp.eye(views)
    chosen = [each[-1], jnp.full(views, 1 / views), each[0]][: min(views, 3)]
    return jnp.stack(chosen) / scales[None]


def _root_mean_square(rows: Array) -> Array:
    """Root of the mean square norm of rows (N, D), 1 where all are 0; no overflow."""
    largest = jnp.maximum(jnp.max(jnp.abs(rows)), 1e-30)
    square = jnp.mean(jnp.sum((rows / largest) ** 2, axis=1))
    return jnp.where(square > 0, largest * jnp.sqrt(jnp.maximum(square, 1e-30)), 1)


def _decompose(centred: Array) -> tuple[Array, Array, Array]:
    """Eigenvectors, eigenvalues over the largest, root mean square norm (1 for a flat reading).

    `centred` is a reading's rows (N, D), of which those far longer than the median are shortened.
    """
    typical = jnp.median(_norms(centred))
    rows = jnp.where(typical > 0, bounded(centred / jnp.where(typical > 0, typical, 1)), centred)
    rows = rows * jnp.where(typical > 0, typical, 1)
    covariance = jnp.matmul(rows.T, rows, precision="highest") / rows.shape[0]
    square = jnp.trace(covariance)
    flat = square < FLAT**2  # a reading's rows had a size of about 1 before they were centred
    values, vectors = jnp.linalg.eigh(covariance)
    largest = jnp.maximum(values[-1], jnp.finfo(jnp.float32).tiny)
    values = jnp.where(flat, 0, jnp.clip(values / largest, 0, 1))
    return vectors, values, jnp.where(flat, 1, jnp.sqrt(square))


def _norms(rows: Array) -> Array:
    """Norms (N, 1) of rows (N, D), in two steps, so that squares neither overflow nor vanish."""
    largest = jnp.maximum(jnp.max(jnp.abs(rows), axis=1, keepdims=True), 1e-30)
    return largest * jnp.sqrt(jnp.sum((rows / largest) ** 2, axis=1, keepdims=True))


def bounded(rows: Array) -> Array:
    """Rows (N, D) of a typical norm of 1, those longer than LONGEST shortened to it."""
    return rows * jnp.minimum(1, LONGEST / jnp.maximum(_norms(rows), 1e-30))


def shape_matrix(pool: ShapedPool, exponent: Array | float, reading: Array | int = 0) -> Array:
    """What shapes centred features: reading (x) c V diag(s^alpha), (V * D, D).

    It is the power of the reading's covariance up to a rotation no ridge penalty notices.
    """
    values = pool.values[reading]
    powers = _powers(values, exponent)
    # The readings of the pool have a mean square norm of 1, so that c^2 is this ratio.
    size = jnp.sum(values) / jnp.maximum(jnp.sum(values * powers**2), 1e-30)
    size = jnp.where(jnp.sum(values) > 0, jnp.sqrt(size), 1)
    powered = pool.vectors[reading] * (size * powers)[None]
    weights = pool.readings[reading][:, None, None]
    return (weights * powered[None]).reshape(-1, powered.shape[1])


def shaped_variances(pool: ShapedPool, exponent: Array | float, reading: Array | int = 0) -> Array:
    """Variances (D,) of the pool's shaped rows, bias aside; they sum to 1 unless all are 0."""
    values = pool.values[reading]
    spread = values * _powers(values, exponent) ** 2
    return spread / jnp.maximum(jnp.sum(spread), 1e-30)


def _powers(values: Array, exponent: Array | float) -> Array:
    # 0^0 is 1: with alpha = 0 a direction in which the pool is flat counts like the others.
    return jnp.where(values > 0, jnp.maximum(values, 1e-30) ** exponent, 1.0 * (exponent == 0))


def shaped_rows(features: Array, mean: Array, matrix: Array) -> Array:
    """Features (N, V * D) -> rows (N, D + 1): of the pool, a mean square norm of 1; then the bias.

    `mean` is (V * D,), `matrix` (V * D, D) from `shape_matrix`. No row is longer than LONGEST.
    """
    rows = jnp.matmul(features - mean[None], matrix, precision="highest")
    return with_bias(bounded(rows), BIAS_HEIGHT)

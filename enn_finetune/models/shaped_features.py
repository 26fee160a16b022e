"""Frozen features, shaped by the unlabelled pool: which directions a linear head expects to matter.

A row phi becomes x = [u / |u|, h], u = (phi - mean) V diag(s^alpha): the pool's covariance is
V diag(s) V', alpha the exponent. A Gaussian prior on the weights of x then expects a weight to be
larger where the pool varies more: alpha = 0 is the plain isotropic prior on centred, normalised
features, alpha = 1/2 and 1 trust the pool's leading directions more and more. Rows have unit norm,
so that 1 / lambda is the prior variance of a logit, whatever D and alpha; the bias column's height
h makes the bias's prior variance h^2 / lambda. No label is read.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from enn_finetune.models.softmax_regression import with_bias

EXPONENTS = (0.0, 0.25, 0.5, 1.0)
BIAS_HEIGHT = 1.0


class ShapedPool(NamedTuple):
    """The pool's mean and covariance, decomposed once, and the exponents to choose from."""

    mean: Array  # (D,)
    vectors: Array  # (D, D): eigenvectors of the covariance, in columns
    values: Array  # (D,): eigenvalues over the largest, from 0 to 1
    exponents: Array  # (E,)


def pool_shapes(pool_features: Array, exponents: Sequence[float] = EXPONENTS) -> ShapedPool:
    """Decompose the covariance of the pool's features (N, D), N at least 1.

    Raises:
      ValueError: for features that are not (N, D), or negative or no exponents.
    """
    if pool_features.ndim != 2 or not pool_features.shape[0]:
        raise ValueError(f"pool features must be (N, D) with rows, got {pool_features.shape}")
    if not exponents or min(exponents) < 0:
        raise ValueError(f"exponents must be some numbers of at least 0, got {tuple(exponents)}")
    features = jnp.asarray(pool_features, jnp.float32)
    mean = jnp.mean(features, axis=0)
    centred = features - mean[None]
    covariance = jnp.matmul(centred.T, centred, precision="highest") / features.shape[0]
    values, vectors = jnp.linalg.eigh(covariance)
    largest = jnp.maximum(values[-1], jnp.finfo(jnp.float32).tiny)
    return ShapedPool(
        mean, vectors, jnp.clip(values / largest, 0, 1), jnp.asarray(exponents, jnp.float32)
    )


def shape_matrix(pool: ShapedPool, exponent: Array | float) -> Array:
    """V diag(s^alpha) (D, D): the covariance's power, up to a rotation no ridge penalty notices."""
    return pool.vectors * _powers(pool.values, exponent)[None]


def _powers(values: Array, exponent: Array | float) -> Array:
    # 0^0 is 1: with alpha = 0 a direction in which the pool is flat counts like the others.
    return jnp.where(values > 0, jnp.maximum(values, 1e-30) ** exponent, 1.0 * (exponent == 0))


def shaped_rows(features: Array, mean: Array, matrix: Array) -> Array:
    """Features (N, D) -> rows (N, D + 1): unit norm (a row at the mean stays 0), then the bias."""
    rows = jnp.matmul(features - mean[None], matrix, precision="highest")
    # Two steps, so that squares neither overflow nor vanish.
    rows = rows / jnp.maximum(jnp.max(jnp.abs(rows), axis=-1, keepdims=True), 1e-30)
    norms = jnp.sqrt(jnp.sum(rows**2, axis=-1, keepdims=True))
    return with_bias(rows / jnp.maximum(norms, 1e-30), BIAS_HEIGHT)

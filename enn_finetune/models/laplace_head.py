"""Last-layer Laplace as it is usually done: draws of the weights, mean of the softmax over them.

"Full": the exact covariance H^-1 for any C, prior precision (and shape) by marginal likelihood,
as `laplace.py` fits it. "Kron" (Ritter et al. 2018; Daxberger et al. 2021, arXiv 2106.14806): the
same mode, and H taken to be

    (sum_i w_i x_i x_i') (x) B + lambda I,   B = mean_i (diag p_i - p_i p_i')

whose eigenvalues are a_j b_c + lambda; lambda is post hoc the largest marginal likelihood's under
that approximation. Neither preserves the mean prediction: the mean over draws is flatter than the
mode's. Draws are fixed by the fit's key and come in mirrored pairs.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from enn_finetune.models.laplace import LinearEpinetFit, fit_linear_epinet
from enn_finetune.models.members import Members
from enn_finetune.models.shaped_features import ShapedPool
from enn_finetune.models.softmax_regression import Rotated, rotate

DRAWS = 64  # and as many mirrored
L2_FACTORS = tuple(2.0 ** (0.5 * power) for power in range(-8, 9))


def fit_laplace(
    features: Array, targets: Array, weights: Array, pool: ShapedPool, *, key: Array
) -> LinearEpinetFit:
    """The regression and exact draws from its Laplace posterior, as `fit_linear_epinet`."""
    return fit_linear_epinet(
        features, targets, weights, pool, key=key, index_dim=DRAWS, narrow=False
    )


def laplace(fit: LinearEpinetFit) -> Members:
    """The head of `fit_laplace`'s fit: members W* +- draw."""
    draws = fit.factor * jnp.sqrt(jnp.asarray(fit.factor.shape[0], fit.factor.dtype))
    return Members(fit, mirrored(fit.coefficients, draws), together=2)


def mirrored(centre: Array, draws: Array) -> Array:
    """Weights (2 S, D + 1, C): centre + draw and centre - draw, side by side."""
    both = jnp.stack([centre[None] + draws, centre[None] - draws], axis=1)
    return both.reshape(-1, *centre.shape)


class KronFit(NamedTuple):
    """What the Kronecker-factored head is made of, and what was chosen on the way."""

    shaped: LinearEpinetFit
    draws: Array  # (S, D + 1, C): from N(0, (A (x) B + lambda I)^-1), sums over classes 0
    l2: Array  # (): lambda of the posterior, not of the mode
    evidence: Array  # (L,): up to a constant, of each grid lambda


def fit_laplace_kron(
    features: Array, targets: Array, weights: Array, pool: ShapedPool, *, key: Array
) -> KronFit:
    """The shaped regression, and draws from its Kronecker-factored posterior."""
    shaped_key, draw_key = jax.random.split(key)
    shaped = fit_linear_epinet(features, targets, weights, pool, key=shaped_key, index_dim=1)
    x = shaped.rows(jnp.where(weights[:, None] > 0, features, 0))
    with jax.default_matmul_precision("highest"):
        rotated = rotate(x, weights)
        values, vectors = jnp.linalg.eigh(class_factor(x @ shaped.coefficients, weights))
        curvature = rotated.squares[:, None] * jnp.maximum(values, 0)[None]
        grid = shaped.l2 * jnp.asarray(L2_FACTORS, x.dtype)
        evidence = lax.map(
            lambda l2: (
                -0.5 * (jnp.sum(jnp.log1p(curvature / l2)) + l2 * jnp.sum(shaped.coefficients**2))
            ),
            grid,
        )
        l2 = grid[jnp.argmax(evidence)]
        draws = kron_draws(rotated, curvature, vectors, l2, draw_key)
    return KronFit(shaped, draws, l2, evidence)


def class_factor(logits: Array, weights: Array) -> Array:
    """B (C, C): the weighted mean over rows of diag p - p p', logits (N, C)."""
    probs = jax.nn.softmax(logits, axis=-1)
    share = weights / jnp.maximum(jnp.sum(weights), jnp.finfo(probs.dtype).tiny)
    return jnp.diag(share @ probs) - (share[:, None] * probs).T @ probs


def kron_draws(rotated: Rotated, curvature: Array, vectors: Array, l2: Array, key: Array) -> Array:
    """Draws (S, D + 1, C) in the eigenbases of both factors; outside the rows' span H is lambda I.

    Args:
      rotated: the rows' eigenbasis, (D + 1, r).
      curvature: (r, C) products of eigenvalues.
      vectors: (C, C) eigenvectors of B.
      l2: lambda.
      key: of the draws.
    """
    basis, classes = rotated.basis, vectors.shape[0]
    normal = jax.random.normal(key, (basis.shape[0], DRAWS, classes))
    # In and out of the eigenbasis: a draw depends on H, not on the signs of its eigenvectors.
    inside = (basis.T @ normal.reshape(basis.shape[0], -1)).reshape(-1, DRAWS, classes) @ vectors
    scales = lax.rsqrt(curvature + l2) - lax.rsqrt(l2)
    change = (basis @ (scales[:, None] * inside).reshape(basis.shape[1], -1)).reshape(normal.shape)
    draws = lax.rsqrt(l2) * normal + change @ vectors.T
    return jnp.moveaxis(draws - jnp.mean(draws, axis=-1, keepdims=True), 1, 0)


def laplace_kron(fit: KronFit) -> Members:
    """The head of `fit_laplace_kron`'s fit: members W* +- draw."""
    return Members(fit.shaped, mirrored(fit.shaped.coefficients, fit.draws), together=2)

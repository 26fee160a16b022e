"""Laplace's posterior of a softmax regression on given features, with the exact Hessian.

The posterior of W (F, C) for a penalty alpha / 2 |W|^2 on the summed loss is N(W*, H^-1) with

    H = sum_i w_i (diag p_i - p_i p_i') (x) phi_i phi_i' + alpha I

(generalised Gauss-Newton, which for a softmax regression is the Hessian). F C is a few hundred
here, so H is factored whole; `models/laplace.py` has the solvers for wide features.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.linalg import solve_triangular


class LastLayer(NamedTuple):
    """The posterior of the last layer's weights."""

    weights: Array  # (F, C): W*
    root: Array  # (F * C, F * C): Cholesky factor of H


def last_layer(
    features: Array, weights: Array, weight: Array, precision: float | Array
) -> LastLayer:
    """Posterior of weights (F, C) at features (N, F) of rows with weights (N,), given alpha.

    Features of rows with weight 0 must be finite and do not matter.
    """
    probs = jax.nn.softmax(features @ weights, axis=-1)
    classes = weights.shape[1]
    inner = jnp.eye(classes)[None] * probs[:, :, None] - probs[:, :, None] * probs[:, None]
    weighted = features * weight[:, None]
    hessian = jnp.einsum("nf,ng,nab->fagb", weighted, features, inner, precision="highest")
    size = weights.size
    hessian = hessian.reshape(size, size) + precision * jnp.eye(size)
    return LastLayer(weights, jnp.linalg.cholesky(hessian))


def draw_logits(posterior: LastLayer, key: Array, features: Array, count: int) -> Array:
    """Logits (K, N, C) of draws of the weights at features (N, F)."""
    noise = jax.random.normal(key, (posterior.weights.size, count))
    moves = solve_triangular(posterior.root.T, noise, lower=False)
    moves = moves.reshape(*posterior.weights.shape, count)
    return jnp.einsum("nf,fck->knc", features, posterior.weights[..., None] + moves)


def with_one(features: Array) -> Array:
    """Append a column of ones for the bias: (N, F) -> (N, F + 1)."""
    return jnp.concatenate([features, jnp.ones((features.shape[0], 1))], axis=1)

"""BADGE: a batch of rows that are uncertain and unlike one another (arXiv 1906.03671)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from enn_finetune import predictive
from enn_finetune.types import Shown

ROUNDING = 1e-5
"""Squared distances below this share of the two squared norms are what float32 leaves of 0."""


class Embeddings(NamedTuple):
    """Gradient embeddings residual (x) features, kept as factors: (N, C * D) is never built."""

    residuals: Array  # (N, C) p - onehot(argmax p)
    features: Array  # (N, D)
    norms: Array  # (N,) squared norms of the embeddings


def gradient_embeddings(shown: Shown) -> Embeddings:
    """Gradients of the last layer's loss at the label that the mean prediction holds for true.

    Algorithm 1 of the paper, with the mean over indices as the prediction.
    """
    probs = jnp.exp(predictive.mixture(shown.log_probs))
    residuals = probs - jax.nn.one_hot(jnp.argmax(probs, axis=-1), probs.shape[-1])
    norms = jnp.sum(residuals**2, axis=-1) * jnp.sum(shown.features**2, axis=-1)
    return Embeddings(residuals, shown.features, norms)


def squared_distances(embeddings: Embeddings, row: Array) -> Array:
    """Squared distances (N,) of all embeddings from that of one row (): one product with x."""
    residuals, features, norms = embeddings
    exact = jax.lax.Precision.HIGHEST  # or a duplicate would be far from itself on a GPU
    inner = jnp.matmul(residuals, residuals[row], precision=exact)
    inner *= jnp.matmul(features, features[row], precision=exact)
    both = norms + norms[row]
    found = both - 2 * inner
    return jnp.where(found > ROUNDING * both, found, 0)


def badge(shown: Shown, count: int, key: Array) -> Array:
    """Rows (count,) by k-means++ seeding on gradient embeddings, in order of choice.

    The first is the free row of largest norm, as in the authors' program; each other one is drawn
    with probability proportional to its squared distance from the nearest row chosen. Where no
    row is at any distance (all left are duplicates, or the head is certain of every row) the draw
    is uniform. Time is count * N * (C + D); memory is a few arrays (N,) beside what is shown.
    """
    embeddings = gradient_embeddings(shown)
    first = jnp.argmax(jnp.where(shown.free, embeddings.norms, -1)).astype(jnp.int32)
    tiny = jnp.finfo(embeddings.norms.dtype).tiny

    def choose_next(state: tuple[Array, Array, Array], key: Array) -> tuple[tuple, Array]:
        nearest, free, row = state
        free = free.at[row].set(False)
        nearest = jnp.minimum(nearest, squared_distances(embeddings, row))
        noise = jax.random.gumbel(key, nearest.shape, nearest.dtype)
        drawn = jnp.where(free, jnp.log(jnp.maximum(nearest, tiny)) + noise, -jnp.inf)
        row = jnp.argmax(drawn).astype(jnp.int32)
        return (nearest, free, row), row

    start = (jnp.full_like(embeddings.norms, jnp.inf), shown.free, first)
    _, rest = jax.lax.scan(choose_next, start, jax.random.split(key, count)[1:])
    return jnp.concatenate([first[None], rest])

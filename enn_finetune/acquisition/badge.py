"""BADGE: a batch of rows that are uncertain and unlike one another (arXiv 1906.03671)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from enn_finetune import predictive
from enn_finetune.acquisition.rows import argmax, gumbel, map_blocks, take, without
from enn_finetune.types import BatchRule

ROUNDING = 1e-5
"""Squared distances below this share of the two squared norms are what float32 leaves of 0."""


class Embeddings(NamedTuple):
    """Gradient embeddings residual (x) features, kept as factors: (N, C * D) is never built."""

    residuals: Array  # (N, C) p - onehot(argmax p)
    features: Array  # (N, D)
    norms: Array  # (N,) squared norms of the embeddings


def gradient_embeddings(log_probs: Array, features: Array) -> Embeddings:
    """Gradients of the last layer's loss at the label that the mean prediction holds for true.

    Algorithm 1 of the paper, with the mean over indices as the prediction.
    """
    probs = jnp.exp(predictive.mixture(log_probs))
    residuals = probs - jax.nn.one_hot(jnp.argmax(probs, axis=-1), probs.shape[-1])
    norms = jnp.sum(residuals**2, axis=-1) * jnp.sum(features**2, axis=-1)
    return Embeddings(residuals, features, norms)


def squared_distances(embeddings: Embeddings, one: Embeddings) -> Array:
    """Squared distances (N,) of all embeddings from one: one product with the features."""
    exact = lax.Precision.HIGHEST  # or a duplicate would be far from itself on a GPU

    def block(some: Embeddings) -> Array:
        inner = jnp.matmul(some.residuals, one.residuals, precision=exact)
        inner *= jnp.matmul(some.features, one.features, precision=exact)
        both = some.norms + one.norms
        found = both - 2 * inner
        return jnp.where(found > ROUNDING * both, found, 0)

    return map_blocks(block, embeddings)


def pick_spread(
    kept: Embeddings,
    free: Array,
    count: int,
    key: Array,
    *,
    targets: Embeddings | None = None,
    axis: str | None = None,
) -> Array:
    """Rows (count,) by k-means++ seeding on gradient embeddings, in order of choice.

    The first is the free row of largest norm, as in the authors' program; each other one is drawn
    with probability proportional to its squared distance from the nearest row chosen. Where no
    row is at any distance (all left are duplicates, or the head is certain of every row) the draw
    is uniform. Time is count * N * (C + D); memory is a few arrays (N,) beside what is kept.
    Targets change nothing.
    """
    del targets
    first = argmax(jnp.where(free, kept.norms, -1), axis)
    tiny = jnp.finfo(kept.norms.dtype).tiny

    def choose_next(state: tuple[Array, Array, Array], key: Array) -> tuple[tuple, Array]:
        nearest, free, row = state
        free = without(free, row, axis)
        nearest = jnp.minimum(nearest, squared_distances(kept, take(kept, row, axis)))
        noise = gumbel(key, nearest.shape[0], axis)
        row = argmax(jnp.where(free, jnp.log(jnp.maximum(nearest, tiny)) + noise, -jnp.inf), axis)
        return (nearest, free, row), row

    start = (jnp.full_like(kept.norms, jnp.inf), free, first)
    _, rest = lax.scan(choose_next, start, jax.random.split(key, count)[1:])
    return jnp.concatenate([first[None], rest])


badge = BatchRule(gradient_embeddings, pick_spread, epistemic=False)
"""The rule: see `pick_spread`."""

"""BADGE: a batch of rows that are uncertain and unlike one another (arXiv 1906.03671)."""

import jax
import jax.numpy as jnp
from jax import Array, lax

from enn_finetune.acquisition.distances import Points, distances_from, points, read_in_blocks
from enn_finetune.acquisition.predictions import residuals
from enn_finetune.acquisition.rows import argmax, gumbel, take, without
from enn_finetune.types import BatchRule, Spread


def gradient_embeddings(log_probs: Array, features: Array) -> Points:
    """Gradients of the last layer's loss at the label that the mean prediction holds for true.

    Algorithm 1 of the paper, with the mean over indices as the prediction. The factors are the
    residuals (n, C), p - onehot(argmax p), and the features (n, D).
    """
    return points(residuals(log_probs), features)


def read_gradients(log_probs: Array, features: Array) -> Points:
    """Gradient embeddings of any number of rows: (K, n, C) and (n, D)."""
    return read_in_blocks(gradient_embeddings, log_probs, features)


def pick_spread(
    kept: Points,
    free: Array,
    count: int,
    key: Array,
    *,
    targets: Points | None = None,
    axis: Spread = None,
) -> Array:
    """Rows (count,) by k-means++ seeding on gradient embeddings, in order of choice.

    The first is the free row of largest norm, as in the authors' program; each other one is drawn
    with probability proportional to its squared distance from the nearest row chosen. Where no
    row is at any distance (all left are duplicates, or the head is certain of every row) the draw
    is uniform. As in the paper, rows bought in earlier rounds change nothing.

    Time is count * N * (C + D); memory is a few arrays (N,) beside what is kept. Targets change
    nothing.
    """
    del targets
    first = argmax(jnp.where(free, kept.norms, -1), axis)
    tiny, distances = jnp.finfo(kept.norms.dtype).tiny, distances_from(kept)

    def choose_next(state: tuple[Array, Array, Array], key: Array) -> tuple[tuple, Array]:
        nearest, free, row = state
        free = without(free, row, axis)
        nearest = jnp.minimum(nearest, distances(take(kept, row, axis)))
        noise = gumbel(key, nearest.shape[0], axis)
        row = argmax(jnp.where(free, jnp.log(jnp.maximum(nearest, tiny)) + noise, -jnp.inf), axis)
        return (nearest, free, row), row

    start = (jnp.full_like(kept.norms, jnp.inf), free, first)
    _, rest = lax.scan(choose_next, start, jax.random.split(key, count)[1:])
    return jnp.concatenate([first[None], rest])


badge = BatchRule(read_gradients, pick_spread, epistemic=False)
"""The rule: see `pick_spread`."""

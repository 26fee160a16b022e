"""A batch whose training loss stands for the pool's: sparse approximation (arXiv 2211.00246)."""

import math
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from enn_finetune import predictive
from enn_finetune.acquisition.distances import (
    Points,
    distances_from,
    nearest_bought,
    points,
    read_in_blocks,
)
from enn_finetune.acquisition.rows import argmax, products, take, total, without
from enn_finetune.types import BatchRule, Spread

ALPHA = 1.0
"""What uncertainty weighs beside representation, each in units of its mean over free rows."""

BETA = 1.0
"""What weights other than 1 cost, in mean squared norms of a row's expected loss."""

SMALLEST = -20.0
"""Log-probability, in nats, below which a label's loss grows no more."""


State = tuple[Array, Array, Array, Array]


class Losses(NamedTuple):
    """A row's loss as a function of the index, centred, in units of 1 / sqrt(K)."""

    expected: Points  # one factor (n, K): Phi, the mean over labels
    held: Points  # one factor (n, K): for the label that the mean prediction holds for true
    variance: Array  # (n,): the summed variance over labels


def loss_vectors(log_probs: Array, features: Array) -> Losses:
    """Losses -log p_k(y), for labels y drawn from the mean prediction of (K, n, C).

    The paper's Bayesian case: an index is a draw from the posterior, and what counts of a function
    g of the index is how it differs between draws, q(g)^2 = Var_k g(k).
    """
    del features
    mixed = predictive.mixture(log_probs)
    probs = jnp.exp(mixed)
    losses = -jnp.maximum(log_probs, SMALLEST)
    losses = (losses - jnp.mean(losses, axis=0, keepdims=True)) / math.sqrt(log_probs.shape[0])
    expected = jnp.sum(probs[None] * losses, axis=-1)
    apart = jnp.sum((losses - expected[..., None]) ** 2, axis=0)
    label = jnp.argmax(mixed, axis=-1)
    held = jnp.take_along_axis(losses, label[None, :, None], axis=-1)[..., 0]
    return Losses(points(expected.T), points(held.T), jnp.sum(probs * apart, axis=-1))


def read_losses(log_probs: Array, features: Array) -> Losses:
    """Loss vectors of any number of rows: (K, n, C) and (n, D), of which only the first count."""
    return read_in_blocks(loss_vectors, log_probs, features)


def pick_sparse(
    kept: Losses,
    free: Array,
    count: int,
    key: Array,
    *,
    targets: Losses | None = None,
    axis: Spread = None,
) -> Array:
    """Rows (count,) by greedy sparse approximation of the pool's loss, in order of choice.

    Shen et al. 2022, "Batch active learning from the perspective of sparse approximation",
    arXiv 2211.00246, its finite-dimensional problem and greedy algorithm: with Phi_j the expected
    loss of row j and s_j its variance over labels, b rows get weights w >= 0 that make

      f(w) = |v - Phi w|^2 - alpha sum_j 1(w_j > 0) s_j + beta |w - 1|^2

    small. Each step buys the free row that lowers f most, at its best weight
    u = (<r, Phi_j> + beta) / (|Phi_j|^2 + beta), where r is what is left of v: by
    u^2 (|Phi_j|^2 + beta) + alpha s_j, or alpha s_j where u would be negative.

    It differs from the paper in three ways:

    - v is b times the mean loss of the free rows (of the targets, where there are any), so that
      weights near 1 can reach it: the batch is to have the pool's mean loss, not its sum.
    - alpha and beta are in units of the pool's means (ALPHA, BETA), so that no scale matters.
    - What f falls by is multiplied by the share of the row that is news: with h_j its loss for the
      label held for true, min(1, |h_i - h_j|^2 / |h_j|^2) for the nearest row i bought or chosen.
      The variance term of f counts duplicates as often as they occur, and would buy them all.

    Time is (bought + count) * N * K, memory a few arrays (N,) beside what is kept, 2 K + 3 floats
    a row. The key changes nothing. Where all indices agree the batch is in row order.
    """
    del key
    (phi,), norms = kept.expected
    inner, distances = products(phi), distances_from(kept.held)
    mean, scale, spread = _means(kept, free, axis)
    if targets is not None:
        mean = jnp.mean(targets.expected.factors[0], axis=0)
    beta = BETA * scale
    alpha = ALPHA * scale / jnp.where(spread > 0, spread, 1)

    def choose(rest: Array, nearest: Array, free: Array) -> tuple[Array, Array]:
        weights = _over(jnp.maximum(inner(rest) + beta, 0), norms + beta)
        falls = weights**2 * (norms + beta) + alpha * kept.variance
        news = _over(jnp.minimum(nearest, kept.held.norms), kept.held.norms)
        row = argmax(jnp.where(free, news * falls, -jnp.inf), axis)
        one, weight = take((phi, weights), row, axis)
        return row, rest - weight * one

    def choose_next(state: State, _: None) -> tuple[State, Array]:
        rest, nearest, free, row = state
        free = without(free, row, axis)
        found = distances(take(kept.held, row, axis))
        nearest = jnp.minimum(nearest, found)
        row, rest = choose(rest, nearest, free)
        return (rest, nearest, free, row), row

    nearest = nearest_bought(kept.held, free, axis).distances
    first, rest = choose(count * mean, nearest, free)
    _, others = lax.scan(choose_next, (rest, nearest, free, first), length=count - 1)
    return jnp.concatenate([first[None], others])


def _means(kept: Losses, free: Array, axis: Spread) -> tuple[Array, Array, Array]:
    """Means over free rows of Phi (K,), its squared norm () and the variance ()."""
    many = total(free.astype(jnp.float32), axis)
    (phi,), norms = kept.expected
    return (
        total(jnp.where(free[:, None], phi, 0), axis) / many,
        total(jnp.where(free, norms, 0), axis) / many,
        total(jnp.where(free, kept.variance, 0), axis) / many,
    )


def _over(above: Array, below: Array) -> Array:
    """Their ratio, 0 where `below` is 0."""
    return jnp.where(below > 0, above / jnp.where(below > 0, below, 1), 0)


pool_loss = BatchRule(read_losses, pick_sparse)
"""The rule: see `pick_sparse`."""

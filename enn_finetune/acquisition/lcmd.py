"""LCMD: the farthest row of the cluster that is spread widest (arXiv 2203.09410)."""

import jax
import jax.numpy as jnp
from jax import Array

from enn_finetune.acquisition.badge import read_gradients
from enn_finetune.acquisition.coreset import read_features
from enn_finetune.acquisition.distances import Points, greedy
from enn_finetune.acquisition.rows import argmax, gather, take
from enn_finetune.types import BatchRule, Spread

HALF = 10
"""Bits of half a whole number that stands for a squared distance: see `widest`."""


def widest(distances: Array, centres: Array, axis: Spread) -> Array:
    """Flags (n,) of the rows in the cluster with the largest sum of squared distances.

    The sums are of whole numbers, the largest distance having 2 * HALF bits, so that the order of
    adding does not matter and every device finds the same cluster; in two halves, which hold the
    sums of 4 million rows. Clusters with equal sums are all flagged. Clusters are the row numbers
    centres (n,) int32, and rows that do not count have distances (n,) of 0.
    """
    _, exponent = jnp.frexp(take(distances, argmax(distances, axis), axis))
    whole = (jnp.ldexp(distances, -exponent) * 2 ** (2 * HALF)).astype(jnp.uint32)
    whole, names = gather((whole, centres), axis)
    rest = 2**HALF - 1
    high = jax.ops.segment_sum(whole >> HALF, names, names.shape[0])
    low = jax.ops.segment_sum(whole & rest, names, names.shape[0])
    high, low = high + (low >> HALF), low & rest
    most = high == jnp.max(high)
    return (most & (low == jnp.max(jnp.where(most, low, 0))))[centres]


def pick_largest_cluster(
    kept: Points,
    free: Array,
    count: int,
    key: Array,
    *,
    targets: Points | None = None,
    axis: Spread = None,
) -> Array:
    """Rows (count,) by largest cluster maximum distance, in order of choice.

    Holzmueller et al. 2023, arXiv 2203.09410, LCMD-TP: every row belongs to its
    nearest centre, a row bought or chosen before; of the cluster with the largest sum of squared
    distances of free rows from their centre, the next row is the one farthest from it. With no
    centre yet it is the row of largest norm. Where every row left equals a centre, in row order.

    Time is (bought + count) * N * D; memory is a few arrays of all N rows on every device, beside
    what is kept. Neither the key nor targets change anything.
    """
    del key, targets

    def score(distances: Array, centres: Array, free: Array) -> Array:
        flags = widest(jnp.where(free, distances, 0), centres, axis)
        return jnp.where(flags, distances, -1)

    return greedy(kept, free, count, score, axis)


lcmd = BatchRule(read_features, pick_largest_cluster, epistemic=False)
"""The rule on last-layer features, the paper's kernel k_ll: see `pick_largest_cluster`."""

lcmd_gradients = BatchRule(read_gradients, pick_largest_cluster, epistemic=False)
"""The rule on the gradient embeddings of BADGE: see `pick_largest_cluster`."""

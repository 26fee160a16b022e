"""Squared distances between rows, and greedy choices by distance from the rows chosen before.

A row is a point: the outer product of one factor or more, such as its features (n, D) alone, or
residual (n, C) (x) features (n, D), whose inner products are products of the factors' and which is
never written out.

Distances come from inner products, in float32 and full precision, and are exactly 0 between equal
rows: a duplicate of a row chosen is never mistaken for news.
"""

from collections.abc import Callable
from functools import reduce
from operator import mul
from typing import NamedTuple, TypeVar

import jax.numpy as jnp
from jax import Array, lax

from enn_finetune.acquisition.rows import (
    EXACT,
    argmax,
    map_blocks,
    over_bought,
    products,
    take,
    without,
)
from enn_finetune.types import Spread

ROUNDING = 1e-5
"""Squared distances below this share of the two squared norms are what float32 leaves of 0."""

CENTRES = 64
"""Centres of one product, where all rows are compared with many."""

Kept = TypeVar("Kept")
Score = Callable[[Array, Array, Array], Array]
"""Squared distances (n,) from the nearest centre, its row number (n,) and free (n,) -> (n,)."""


class Points(NamedTuple):
    """Rows as points."""

    factors: tuple[Array, ...]  # each (n, d): the point is their outer product
    norms: Array  # (n,) squared norms


class Nearest(NamedTuple):
    """What is nearest to each row, of the centres so far."""

    distances: Array  # (n,) squared; inf before there is a centre
    centres: Array  # (n,) int32: the row number of the centre, the first of equals


def points(*factors: Array) -> Points:
    """Rows with the factors given, each (n, d)."""
    return Points(factors, reduce(mul, [jnp.sum(factor**2, axis=-1) for factor in factors]))


def read_in_blocks(
    function: Callable[[Array, Array], Kept], log_probs: Array, features: Array
) -> Kept:
    """`function` of log-probabilities (K, n, C) and features (n, D), by blocks of rows.

    For the `read` of a rule: what is kept is then the same on any number of devices.
    """
    rows = jnp.moveaxis(log_probs, 1, 0), features
    return map_blocks(lambda some: function(jnp.moveaxis(some[0], 0, 1), some[1]), rows)


def distances_from(rows: Points) -> Callable[[Points], Array]:
    """Squared distances (n,) of all rows from one, whose leaves have no row axis, for many such."""
    inner = [products(factor) for factor in rows.factors]

    def distances(one: Points) -> Array:
        found = [with_one(factor) for with_one, factor in zip(inner, one.factors, strict=True)]
        return _rounded(rows.norms + one.norms, reduce(mul, found))

    return distances


def between(rows: Points, others: Points) -> Array:
    """Squared distances (n, m) of n rows, few enough for one product, from m others."""
    factors = zip(rows.factors, others.factors, strict=True)
    inner = reduce(mul, [jnp.matmul(x, y.T, precision=EXACT) for x, y in factors])
    return _rounded(rows.norms[:, None] + others.norms[None], inner)


def nearer(rows: Points, before: Nearest, others: Points, names: Array, live: Array) -> Nearest:
    """The nearest of what was nearest before and of m other points, called by names (m,) int32.

    Only those that are live (m,) count.
    """

    def block(some: tuple[Points, Nearest]) -> Nearest:
        distances = jnp.where(live[None], between(some[0], others), jnp.inf)
        best = jnp.argmin(distances, axis=1)
        found = jnp.min(distances, axis=1)
        closer = found < some[1].distances
        return Nearest(
            jnp.where(closer, found, some[1].distances),
            jnp.where(closer, names[best], some[1].centres),
        )

    return map_blocks(block, (rows, before))


def no_centres(rows: Points) -> Nearest:
    """The state before there is any centre."""
    return Nearest(jnp.full_like(rows.norms, jnp.inf), jnp.zeros(rows.norms.shape, jnp.int32))


def nearest_bought(rows: Points, free: Array, axis: Spread) -> Nearest:
    """The bought row nearest to each row, for a traced number of bought rows.

    Time is bought * N * D, in products with CENTRES rows at a time; memory is a few arrays (N,).
    """

    def compare(nearest: Nearest, picked: Array, live: Array) -> Nearest:
        return nearer(rows, nearest, take(rows, picked, axis), picked, live)

    return over_bought(compare, no_centres(rows), free, CENTRES, axis)


def greedy(rows: Points, free: Array, count: int, score: Score, axis: Spread) -> Array:
    """Rows (count,), each the free one of highest score given the rows bought and chosen before.

    Before there is any centre, squared distances are those from the origin: a row's squared norm.
    Equal scores go in row order. Time is (bought + count) * N * D, and memory a few arrays (N,)
    beside the rows.
    """

    def choose(nearest: Nearest, free: Array) -> Array:
        distances = jnp.where(jnp.isinf(nearest.distances), rows.norms, nearest.distances)
        scores = score(distances, nearest.centres, free)
        return argmax(jnp.where(free, scores, -jnp.inf), axis)

    def choose_next(state: tuple[Nearest, Array, Array], _: None) -> tuple[tuple, Array]:
        nearest, free, row = state
        free = without(free, row, axis)
        found = distances(take(rows, row, axis))
        closer = found < nearest.distances
        nearest = Nearest(
            jnp.where(closer, found, nearest.distances), jnp.where(closer, row, nearest.centres)
        )
        row = choose(nearest, free)
        return (nearest, free, row), row

    distances = distances_from(rows)
    nearest = nearest_bought(rows, free, axis)
    first = choose(nearest, free)
    _, rest = lax.scan(choose_next, (nearest, free, first), length=count - 1)
    return jnp.concatenate([first[None], rest])


def _rounded(both: Array, inner: Array) -> Array:
    """Squared distances from the sums of two squared norms and the inner products."""
    found = both - 2 * inner
    return jnp.where(found > ROUNDING * both, found, 0)

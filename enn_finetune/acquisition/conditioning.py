"""Batches by conditioning a Gaussian model (`kernels.py`) on each row chosen, in R dimensions.

With cov the (R, R) covariance of w, what is known of a row of factors phi is var = phi' cov phi,
and its label y = f + noise takes from cov a rank-one term (Kalman's update):

  cov' = cov - s s' / t,   s = cov phi,   t = phi' s + noise

So no (N, N) matrix is built, and the variances of all rows follow a choice by one product (N, R) x
(R,): var' = var - (factors s)^2 / t.

What differences of float32 leave of a variance is bounded: the (R, R) update subtracts a symmetric
term, so cov stays symmetric to the bit; variances are clipped at 0; and variances that have become
small beside what they were are computed anew from cov (FALL).

Rows that are alike to rounding are the same row to whoever labels it: their labels are one, with
one noise. Once one is chosen the others tell nothing, and come after all other rows.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import Array, lax

from enn_finetune.acquisition.distances import ROUNDING
from enn_finetune.acquisition.kernels import EXACT, Factors, Kernel
from enn_finetune.acquisition.rows import (
    BLOCK,
    argmax,
    map_blocks,
    over_bought,
    take,
    total,
    without,
)
from enn_finetune.types import Spread

FALL = 0.25
"""Once the free rows' variances add up to this share of what they were when they were last computed
from the covariance, they are computed from it again."""

FOLD = 64
"""Bought rows that are conditioned on together."""

LAST = float(jnp.finfo(jnp.float32).min)
"""The score of rows that tell nothing because one like them is chosen."""

Kept = TypeVar("Kept")
State = TypeVar("State")
Given = TypeVar("Given")
Found = TypeVar("Found")


class Pool(NamedTuple, Generic[Kept]):
    """Rows to choose from."""

    kept: Kept  # leaves (n, ...)
    norms: Array  # (n,) squared norms of the factors: the prior variances
    free: Array  # (n,) bool
    cov: Array  # (R, R) of w, given the rows bought


def variances(cov: Array, factors: Array) -> Array:
    """The variances phi' cov phi (n,) of factors (n, R)."""
    product = jnp.matmul(factors, cov, precision=EXACT)
    return jnp.maximum(jnp.sum(product * factors, axis=-1), 0)


def condition(cov: Array, factor: Array, noise: Array) -> tuple[Array, Array, Array]:
    """Covariance (R, R) given the label of a row (R,), the direction s (R,) and its variance t ().

    Noise of inf is a label that tells nothing.
    """
    direction = jnp.matmul(cov, factor, precision=EXACT)
    variance = jnp.maximum(jnp.dot(factor, direction, precision=EXACT), 0) + noise
    half = direction / jnp.sqrt(variance)
    return cov - half[:, None] * half[None], direction, variance


def condition_on(cov: Array, rows: Factors) -> Array:
    """Covariance (R, R) given the labels of all rows (m, R), one by one.

    No (m, m) matrix is factorized, so rows that are linearly dependent are as good as others. Noise
    is at least what rounding adds to a row's variance: with less, a row that others explain would
    be divided by next to nothing.
    """

    def one(cov: Array, row: Factors) -> tuple[Array, None]:
        rounding = jnp.finfo(cov.dtype).eps * jnp.sum(row.factors**2)
        return condition(cov, row.factors, jnp.maximum(row.noise, rounding))[0], None

    return lax.scan(one, cov, rows)[0]


def prepare(
    kernel: Kernel[Kept], kept: Kept, free: Array, axis: Spread
) -> tuple[Pool[Kept], Callable[[Kept], Factors]]:
    """The pool before any row is chosen, in whole blocks, and the function of its rows' factors."""
    factors_of = kernel.factors_of(kept, free, axis)

    def given(cov: Array, picked: Array, live: Array) -> Array:
        rows = factors_of(take(kept, picked, axis))
        return condition_on(cov, rows._replace(noise=jnp.where(live, rows.noise, jnp.inf)))

    sizes = jax.eval_shape(factors_of, kept).factors
    cov = jnp.eye(sizes.shape[1], dtype=sizes.dtype)
    if not kernel.knows_bought:
        cov = over_bought(given, cov, free, FOLD, axis)
    if axis is None and sizes.shape[0] > BLOCK:  # filled up once, not with every choice
        more = -sizes.shape[0] % BLOCK
        kept, free = jax.tree.map(
            lambda leaf: jnp.pad(leaf, [(0, more)] + [(0, 0)] * (leaf.ndim - 1)), (kept, free)
        )
    norms = map_blocks(lambda rows: jnp.sum(factors_of(rows).factors ** 2, axis=-1), kept)
    return Pool(kept, norms, free, cov), factors_of


# ---- batches for which every row is looked at with every choice


class Gain(NamedTuple):
    """What the choice of a row changes for all others: two products and two numbers."""

    columns: Array  # (R, 2)
    numbers: Array  # (2,)


@dataclass(frozen=True)
class Criterion(Generic[State]):
    """What a batch is chosen for; `tally` (n, 2) is what is remembered of each row about it."""

    start: Callable[[Array, Array, Factors], State]
    """Covariance (R, R), total (R, R) and targets (M, R) -> what is known at the beginning."""
    tally: Callable[[State, Array], Array]
    """Factors (n, R) -> (n, 2), the first of them never growing, over 0."""
    buy: Callable[[State, Array, Array], tuple[State, Gain]]
    """Factor (R,) and noise () of the row chosen -> what is known then."""
    update: Callable[[Array, Array, Array], Array]
    """Tally (n, 2), factors @ columns (n, 2), numbers (2,) -> tally (n, 2) as `buy` leaves it."""
    score: Callable[[Array, Array, Array], Array]
    """Tally (n, 2), noise (n,), prior variances (n,) -> (n,) finite, the largest is chosen."""


class Scan(NamedTuple, Generic[State]):
    """A batch so far."""

    state: State
    tally: Array  # (n, 2)
    level: Array  # () sum of the tally's first when it was last computed from the state
    copies: Array  # (n,) bool: like a row chosen
    free: Array  # (n,) bool
    row: Array  # () int32, the last one chosen


def greedy(
    criterion: Criterion[State],
    pool: Pool[Kept],
    factors_of: Callable[[Kept], Factors],
    state: State,
    count: int,
    axis: Spread,
) -> Array:
    """Rows (count,) int32, each the free one of highest score given those before it.

    Equal scores go in row order. Time is count * N * 3 R multiplications, and one reading of what
    is kept for each row chosen; memory, some 10 arrays (n,) beside what is kept.
    """

    def level(tally: Array, free: Array) -> Array:
        return total(jnp.where(free, tally[:, 0], 0), axis)

    def anew(state: State) -> tuple[Array, Array]:
        def block(some: tuple[Kept, Array]) -> tuple[Array, Array]:
            rows = factors_of(some[0])
            tally = criterion.tally(state, rows.factors)
            return tally, criterion.score(tally, rows.noise, some[1])

        return map_blocks(block, (pool.kept, pool.norms))

    def best(scores: Array, copies: Array, free: Array) -> Array:
        return argmax(jnp.where(free, jnp.where(copies, LAST, scores), -jnp.inf), axis)

    def buy(bought: tuple[State, Array, Array]) -> tuple[State, Gain, Array]:
        state, factor, noise = bought
        state, gain = criterion.buy(state, factor, noise)
        columns = jnp.concatenate([gain.columns, factor[:, None]], axis=1)
        return state, Gain(columns, gain.numbers), jnp.sum(factor**2)

    def choose_next(scan: Scan[State], _: None) -> tuple[Scan[State], Array]:
        free = without(scan.free, scan.row, axis)
        one = factors_of(take(pool.kept, scan.row[None], axis))
        factor, noise = one.factors[0], one.noise[0]
        noise = jnp.where(take(scan.copies, scan.row, axis), jnp.inf, noise)
        state, gain, norm = apart(buy, (scan.state, factor, noise), scan.row)

        def block(some: tuple[Kept, Array, Array, Array]) -> tuple[Array, Array, Array]:
            kept, norms, tally, copies = some
            rows = factors_of(kept)
            product = jnp.matmul(rows.factors, gain.columns, precision=EXACT)
            tally = criterion.update(tally, product[:, :2], gain.numbers)
            copies |= alike(norms, norm, product[:, 2])
            return tally, copies, criterion.score(tally, rows.noise, norms)

        tally, copies, scores = map_blocks(block, (pool.kept, pool.norms, scan.tally, scan.copies))
        now = level(tally, free)
        fallen = now < FALL * scan.level
        tally, scores = lax.cond(fallen, anew, lambda _: (tally, scores), state)
        row = best(scores, copies, free)
        return Scan(state, tally, jnp.where(fallen, now, scan.level), copies, free, row), row

    tally, scores = anew(state)
    copies = jnp.zeros_like(pool.free)
    first = best(scores, copies, pool.free)
    scan = Scan(state, tally, level(tally, pool.free), copies, pool.free, first)
    _, rest = lax.scan(choose_next, scan, length=count - 1)
    return jnp.concatenate([first[None], rest])


def apart(function: Callable[[Given], Found], given: Given, row: Array) -> Found:
    """`function`, compiled apart from what is around it, which differs with the number of devices.

    A branch does that: a compiler does not know that row numbers () are never under 0.
    """
    shapes = jax.eval_shape(function, given)
    blank = jax.tree.map(lambda one: jnp.zeros(one.shape, one.dtype), shapes)
    found: Found = lax.cond(row >= 0, function, lambda _: blank, given)
    return found


def alike(norms: Array, norm: Array, inner: Array) -> Array:
    """Flags (n,) of rows equal to one but for rounding, by squared norms and inner products."""
    both = norms + norm
    return both - 2 * inner <= ROUNDING * both

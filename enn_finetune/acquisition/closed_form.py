"""Batches for what their labels tell about the index, or about the whole pool, in closed form.

In the Gaussian model of the predictions over index samples (`kernels.indices`) the information of a
batch is a log-determinant and the variance that it leaves is a trace: no joint distribution of C^b
labels has to be summed or sampled, so batches of thousands cost what their rows cost.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from enn_finetune.acquisition.conditioning import (
    FALL,
    alike,
    apart,
    condition,
    greedy,
    prepare,
    variances,
)
from enn_finetune.acquisition.kernels import EXACT, Factors, indices, read_indices, sum_blocks
from enn_finetune.acquisition.rows import (
    everywhere,
    map_blocks,
    put,
    real,
    take,
    top_k,
)
from enn_finetune.acquisition.transductive import vtl_criterion
from enn_finetune.types import BatchRule, Spread

WORKING = 2**15
"""W: rows of highest gain, looked at with every choice; the others are looked at now and then."""


class Batch(NamedTuple):
    """A batch so far, and what is known of all rows."""

    cov: Array  # (R, R) given the batch
    copies: Array  # (n,) bool: like a row chosen, as far as was looked
    free: Array  # (n,) bool
    factors: Array  # (count, R) of the rows chosen; zeros for those to come
    picked: Array  # (count,) int32
    place: Array  # () int32: rows chosen


class Working(NamedTuple):
    """The working set of W rows, in row order, the same on every device."""

    gains: Array  # (W,) variance of f over that of the noise, given the batch; -1 of copies
    left: Array  # (W,) bool: not chosen
    row: Array  # () int32: place of the best one
    exact: Array  # () bool: no row that is not in the set could be better


def pick_logdet(
    kept: Factors,
    free: Array,
    count: int,
    key: Array,
    *,
    targets: Factors | None = None,
    axis: Spread = None,
) -> Array:
    """Rows (count,) that greedily maximize 1/2 log det(I + noise^-1 cov), the batch's information.

    It is the mutual information of the batch's labels and w, the Gaussian counterpart of BatchBALD
    (Kirsch et al. 2019, arXiv 1906.08158, eq. 8) and the MaxDet of Holzmueller et al. (2023, arXiv
    2203.09410, section 4.2.3) with the noise of each row's label in place of one sigma^2. A row
    adds 1/2 log(1 + var f / noise), which never grows with the batch.

    So the search is lazy (Minoux 1978) and exact: a working set of the rows of highest gain is kept
    up to date, for as long as its best is over the highest gain that a row outside of it had. Then
    all gains are computed anew, N * R^2 multiplications, and the set with them: a few times in a
    batch, where plain greedy search would read all rows for every choice. Memory is a few arrays
    (n,) and the working set beside what is kept. Targets and key change nothing.
    """
    del targets, key
    pool, factors_of = prepare(indices, kept, free, axis)
    n, everyone = pool.free.shape[0], everywhere(pool.free.shape[0], axis)
    size = min(WORKING, everyone)

    def choose_some(batch: Batch) -> Batch:
        """Choose from one working set for as long as that is exact."""

        def gains_of(rows: Factors) -> Array:
            rows = factors_of(rows)
            return variances(batch.cov, rows.factors) / rows.noise

        def like_chosen(some: tuple[Factors, Array]) -> Array:
            inner = jnp.matmul(some[0].factors, batch.factors.T, precision=EXACT)
            norms = jnp.sum(batch.factors**2, axis=-1)
            same = alike(some[1][:, None], norms[None], inner)
            return jnp.any(same & (jnp.arange(count) < batch.place)[None], axis=1)

        gains = jnp.where(batch.copies, -1, map_blocks(gains_of, pool.kept))
        priority = jnp.where(batch.free, gains, -jnp.inf)
        numbers = jnp.sort(top_k(priority, size, axis))
        rows, norms, left, copies, start = take(
            (pool.kept, pool.norms, batch.free, batch.copies, gains), numbers, axis
        )
        limit = jnp.min(start) if size < everyone else -jnp.inf
        copies |= map_blocks(like_chosen, (rows, norms))
        now = jnp.where(copies, -1, start)
        top = jnp.max(jnp.where(left, now, -1))

        def best(gains: Array, left: Array) -> Working:
            row = jnp.argmax(jnp.where(left, gains, -jnp.inf))
            gain = gains[row]
            # Rows outside with just the limit come after those inside that always had it.
            exact = (gain > limit) | ((gain == limit) & (start[row] == limit))
            near = (gain >= FALL * top) | (top < 0)
            return Working(gains, left, row, exact & near & left[row])

        def buy(given: tuple[Array, Factors, Array]) -> tuple[Array, Array, Array, Array]:
            cov, one, gain = given
            factor, noise = factors_of(one)
            noise = jnp.where(gain < 0, jnp.inf, noise[0])
            cov, direction, variance = condition(cov, factor[0], noise)
            columns = jnp.stack([direction, factor[0]], axis=-1)
            return cov, columns, variance, jnp.sum(factor[0] ** 2)

        def choose_next(state: tuple[Batch, Working]) -> tuple[Batch, Working]:
            batch, working = state
            row = working.row
            one = jax.tree.map(lambda leaf: leaf[row][None], rows)
            given = (batch.cov, one, working.gains[row])
            cov, columns, variance, norm = apart(buy, given, row)

            def block(some: tuple[Factors, Array, Array]) -> Array:
                here = factors_of(some[0])
                product = jnp.matmul(here.factors, columns, precision=EXACT)
                gains = jnp.maximum(some[2] - product[:, 0] ** 2 / variance / here.noise, 0)
                same = alike(some[1], norm, product[:, 1]) | (some[2] < 0)
                return jnp.where(same, -1, gains)

            batch = batch._replace(
                cov=cov,
                factors=batch.factors.at[batch.place].set(one.factors[0]),
                picked=batch.picked.at[batch.place].set(numbers[row]),
                place=batch.place + 1,
            )
            gains = map_blocks(block, (rows, norms, working.gains))
            return batch, best(gains, working.left.at[row].set(False))

        def more(state: tuple[Batch, Working]) -> Array:
            return state[1].exact & (state[0].place < count)

        batch, working = lax.while_loop(more, choose_next, (batch, best(now, left)))
        return batch._replace(
            copies=put(batch.copies, numbers, working.gains < 0, axis),
            free=put(batch.free, numbers, working.left, axis),
        )

    batch = Batch(
        pool.cov,
        jnp.zeros(n, bool),
        pool.free,
        jnp.zeros((count, pool.cov.shape[0])),
        jnp.zeros(count, jnp.int32),
        jnp.int32(0),
    )
    return lax.while_loop(lambda batch: batch.place < count, choose_some, batch).picked


def pick_condvar(
    kept: Factors,
    free: Array,
    count: int,
    key: Array,
    *,
    targets: Factors | None = None,
    axis: Spread = None,
) -> Array:
    """Rows (count,) whose labels greedily leave the least total variance of all rows' predictions.

    A row adds sum_t cov(f_t, f_x)^2 / var(y_x) over *all* rows t of the pool, bought ones too, or
    over the targets: the V-optimality of BAIT (Ash et al. 2021, arXiv 2106.09675, eq. 4), in the
    space of predictions, and VTL (arXiv 2402.15898, eq. 4) with the pool as its targets. Where
    `logdet` buys what is uncertain by itself, this buys what many rows are uncertain with.

    No targets are sampled, for they enter by an (R, R) matrix; the key changes nothing.
    """
    del key
    pool, factors_of = prepare(indices, kept, free, axis)
    if targets is None:
        rows = jnp.where(real(kept.factors.shape[0], axis)[:, None], kept.factors, 0)
        facing = jnp.zeros_like(pool.cov[:1])
    else:
        rows = facing = targets.factors
    total = sum_blocks(
        lambda some: jnp.matmul(some.T, some, precision=EXACT),
        rows,
        axis if targets is None else None,
    )
    state = vtl_criterion.start(pool.cov, total, Factors(facing, facing[:, 0]))
    return greedy(vtl_criterion, pool, factors_of, state, count, axis)


logdet = BatchRule(read_indices, pick_logdet)
condvar = BatchRule(read_indices, pick_condvar)

RULES: Mapping[str, BatchRule] = MappingProxyType({"logdet": logdet, "condvar": condvar})
"""The rules of this file."""

"""Greedy batches that look again only at rows that could still be the best.

What a row adds to a batch can only shrink as the batch grows, where the batch's value is
submodular: the mutual information of a batch's labels and the index is. A row's gain the last time
that it was computed is then a bound of its gain now, and a row whose bound is below the best gain
just computed needs no look (Minoux 1978). What is looked at is a block of fixed size, those of the
highest bounds, so the shapes are static and the work is matrix products.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from enn_finetune.acquisition.label_table import (
    LabelTable,
    extended,
    faded,
    nothing_known,
    size_for,
)
from enn_finetune.acquisition.predictions import all_classes
from enn_finetune.acquisition.rows import (
    argmax,
    everywhere,
    map_blocks,
    put,
    take,
    top_k,
    without,
)
from enn_finetune.types import Spread

FADED = 1e-3
"""A gain below this share of the first row's says that the index samples are exhausted."""

SAME = 1e-6
"""Rows whose probabilities differ by no more (root mean square) are copies of one another."""

Gains = Callable[[LabelTable, Array], Array]
"""A table and kept probabilities (B, K, .) of any rows -> what each row would add (B,), finite."""


class State(NamedTuple):
    """A batch so far."""

    table: LabelTable  # of the labels of all its rows but the last
    bounds: Array  # (n,)
    free: Array  # (n,) bool
    copies: Array  # (n,) bool: as predicted as some row of the batch
    row: Array  # () int32 its last row
    gain: Array  # () what that added


class Search(NamedTuple):
    """Where the search for the next row stands."""

    bounds: Array  # (n,) the last gain computed of each row
    stale: Array  # (n,) bool: free, and its gain not computed for this batch
    block: Array  # (B,) int32 the rows to look at next
    bound: Array  # () the highest of their bounds
    best: Array  # () the highest gain computed for this batch
    looks: Array  # () int32: blocks looked at


def greedy(
    probs: Array,
    first: Array,
    free: Array,
    count: int,
    key: Array,
    *,
    gains: Gains,
    most: int,
    block: int,
    looks: int | None = None,
    axis: Spread,
) -> tuple[Array, Array]:
    """Rows (count,) chosen one by one for what their labels add, and those gains (count,).

    Copies of a row already in the batch come after all other rows: to the joint of the labels a
    copy's is a new draw from the same prediction, but who labels rows says the same of a copy.

    Args:
      probs: (n, K, C) or (n, K, 1), as `read_predictions` keeps them.
      first: (n,) what each row would add to an empty batch.
      free: (n,) bool.
      count: static.
      key: of the configurations drawn once there are more than `most`.
      gains: what rows would add to the batch whose labels the table is of.
      most: configurations that the table holds.
      block: rows looked at together.
      looks: blocks looked at for each row, at most; None looks until no bound is above the best.
      axis: mesh axis that rows are spread over, or None.
    """
    indices, classes = probs.shape[1], max(2, probs.shape[2])
    bounds = jnp.maximum(first, 0)
    row = argmax(jnp.where(free, bounds, -1), axis)
    gain = take(bounds, row, axis)
    enough = FADED * gain
    table = nothing_known(size_for(count - 1, classes, most), indices)
    marks = fingerprints(probs)

    def choose_next(state: State, key: Array) -> tuple[State, tuple[Array, Array]]:
        table, bounds, free, copies, row, gain = state
        bought = take(probs, row, axis)
        free = without(free, row, axis)
        copies |= jnp.all(jnp.abs(marks - take(marks, row, axis)[None]) <= SAME, axis=-1)
        table = extended(table, all_classes(bought), key)
        exhausted = gain < enough
        table = faded(table, exhausted)
        bounds = jnp.where(exhausted, jnp.maximum(first, 0), bounds)

        def look(rows: Array) -> Array:
            return jnp.maximum(gains(table, take(probs, rows, axis)), 0)

        new = free & ~copies
        none_new = ~take(new, argmax(new, axis), axis)
        allowed = new | (free & none_new)
        row, gain, bounds = search(look, bounds, allowed, block, axis, looks=looks)
        return State(table, bounds, free, copies, row, gain), (row, gain)

    start = State(table, bounds, free, jnp.zeros_like(free), row, gain)
    _, (rest, more) = lax.scan(choose_next, start, jax.random.split(key, count)[1:])
    return jnp.concatenate([row[None], rest]), jnp.concatenate([gain[None], more])


def search(
    look: Callable[[Array], Array],
    bounds: Array,
    free: Array,
    block: int,
    axis: Spread,
    *,
    looks: int | None = None,
) -> tuple[Array, Array, Array]:
    """The free row () of the highest gain, that gain (), and the bounds (n,) as known now.

    `look` computes the gains (block,) of rows by their numbers. At least one block is looked at,
    and `looks` at most.
    """
    width = min(block, everywhere(bounds.shape[0], axis))

    def highest(bounds: Array, stale: Array) -> tuple[Array, Array]:
        rows = top_k(jnp.where(stale, bounds, -1), width, axis)
        # The first of what is taken, not of the rows: a slice of them would have all rows sorted.
        best_stale = take(jnp.where(stale, bounds, -1), rows, axis)[0]
        # A pool smaller than a block: the rest looks at row 0, for nothing.
        return jnp.pad(rows, (0, block - width)), best_stale

    def unfinished(state: Search) -> Array:
        more = (state.bound > state.best) & (state.bound >= 0)
        return more if looks is None else more & (state.looks < looks)

    def look_on(state: Search) -> Search:
        found = look(state.block)
        bounds = put(state.bounds, state.block, found, axis)
        stale = without(state.stale, state.block, axis)
        may = take(free, state.block, axis)
        best = jnp.maximum(state.best, jnp.max(jnp.where(may, found, -1)))
        rows, bound = highest(bounds, stale)
        return Search(bounds, stale, rows, bound, best, state.looks + 1)

    rows, bound = highest(bounds, free)
    start = Search(bounds, free, rows, bound, jnp.full_like(bound, -1), jnp.int32(0))
    last = lax.while_loop(unfinished, look_on, start)
    row = argmax(jnp.where(free & ~last.stale, last.bounds, -1), axis)
    return row, last.best, last.bounds


def fingerprints(probs: Array) -> Array:
    """Four random projections (n, 4) of what is kept (n, K, .): equal where rows are copies.

    Each differs by about the root mean square difference of the probabilities, so that rows which
    are not copies but agree in all four do not occur. Comparing four numbers of every row with
    those of the row just chosen costs nothing; comparing K would cost more than choosing.
    """
    width = probs.shape[1] * probs.shape[2]
    onto = jax.random.normal(jax.random.key(0), (width, 4)) / jnp.sqrt(width)

    def block(some: Array) -> Array:
        flat = some.reshape(some.shape[0], width)
        return jnp.matmul(flat, onto, precision=lax.Precision.HIGHEST)

    return map_blocks(block, probs)

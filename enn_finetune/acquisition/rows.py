"""Rows of a pool that may be spread over devices: the few operations that cross them.

A rule is written once for the rows (n, ...) that one device holds. `axis` says how rows are spread:
over a mesh axis, in equal parts and in order; None where one device holds them all. Whatever the
number of devices, a rule picks the same rows to the last bit, if it keeps four habits:

- products and sums over features, classes or indices go through `map_blocks`, so that their shapes,
  and with them their rounding, do not depend on how many rows a device has;
- sums over rows go through `total`, which adds blocks in the order of their rows;
- draws go through `gumbel` and `sample`, where a row's noise follows from its number;
- rows that are not free may be padding: those bought are `bought(free, axis)`.

Row numbers are global: those of device d begin at d * n. The last bit is that of one kind of
machine and one version of jax: other processors round otherwise.
"""

import functools
import math
from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import Array, lax

from enn_finetune.types import Axis, Spread

BLOCK = 4096
"""Rows of a block. A pool spread over devices is padded so that each has whole blocks."""

EXACT = lax.Precision.HIGHEST  # or a duplicate would be far from itself on a GPU

Tree = TypeVar("Tree")
Result = TypeVar("Result")
State = TypeVar("State")


def _name(axis: Axis | str) -> str:
    return axis if isinstance(axis, str) else axis.name


def numbers(n: int, axis: Spread) -> Array:
    """Global numbers (n,) int32 of this device's rows."""
    first = 0 if axis is None else lax.axis_index(_name(axis)).astype(jnp.int32) * n
    return jnp.arange(n, dtype=jnp.int32) + first


def everywhere(n: int, axis: Spread) -> int:
    """Rows of all devices together, padding among them, where each has n."""
    return n if axis is None else n * lax.axis_size(_name(axis))


def real(n: int, axis: Spread) -> Array:
    """Flags (n,): a row of the pool, not padding."""
    return numbers(n, axis) < axis.rows if isinstance(axis, Axis) else jnp.ones(n, bool)


def bought(free: Array, axis: Spread) -> Array:
    """Flags (n,): rows of the pool that are not free."""
    return ~free & real(free.shape[0], axis)


def over_bought(
    step: Callable[[State, Array, Array], State], state: State, free: Array, few: int, axis: Spread
) -> State:
    """The state after steps with the bought rows, `few` at a time in row order.

    How many are bought is traced.

    Args:
      step: of a state, global numbers (few,) and flags (few,); only rows flagged are bought.
      state: before the first step.
      free: (n,) bool.
      few: at most n are taken at a time.
      axis: how rows are spread.
    """
    few = min(few, free.shape[0])

    def first(left: Array) -> tuple[Array, Array]:
        picked = top_k(left.astype(jnp.float32), few, axis)
        return picked, take(left, picked, axis)

    def more(loop: tuple[State, Array, Array, Array]) -> Array:
        return loop[3][0]  # rows left come first

    def advance(loop: tuple[State, Array, Array, Array]) -> tuple[State, Array, Array, Array]:
        state, left, picked, live = loop
        state = step(state, picked, live)
        left = without(left, picked, axis)
        return state, left, *first(left)

    left = bought(free, axis)
    return lax.while_loop(more, advance, (state, left, *first(left)))[0]


def map_blocks(function: Callable[[Tree], Result], rows: Tree, block: int = BLOCK) -> Result:
    """`function`, which treats each row alone, applied to blocks of rows: (n, ...) -> (n, ...).

    Rows that fit one block are not padded; otherwise the last block is, with zeros.

    Args:
      function: of a block; leaves in and out have rows first.
      rows: leaves (n, ...).
      block: rows at a time; on several devices, BLOCK over a whole number.
    """
    n = jax.tree.leaves(rows)[0].shape[0]
    if n <= block:
        return function(rows)

    found = _loop(function, jax.tree.map(lambda leaf: _blocks(leaf, block), rows))
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:n], found)


def products(rows: Array) -> Callable[[Array], Array]:
    """The inner products (n,) of rows (n, d) with one row (d,), which is given time and again.

    As `map_blocks` gives them. On a CPU all blocks are one batched product, rounded as each alone
    is: they are cut once, and not copied for every row given, which took twice as long as the
    products.
    """
    n = rows.shape[0]
    if n <= BLOCK or jax.default_backend() != "cpu":
        return lambda one: map_blocks(lambda some: jnp.matmul(some, one, precision=EXACT), rows)
    blocks = _blocks(rows, BLOCK)

    def inner(one: Array) -> Array:
        every = jnp.broadcast_to(one[None], (blocks.shape[0], one.shape[0]))
        found = lax.dot_general(blocks, every, (((2,), (1,)), ((0,), (0,))), precision=EXACT)
        return found.reshape(-1)[:n]

    return inner


def argmax(values: Array, axis: Spread) -> Array:
    """The global number () int32 of the largest value (n,), the first of equals."""
    best = jnp.argmax(values)
    if axis is None:
        return best.astype(jnp.int32)
    value, number = values[best], numbers(values.shape[0], axis)[best]
    all_values, all_numbers = (lax.all_gather(one, _name(axis)) for one in (value, number))
    return all_numbers[jnp.argmax(all_values)]  # devices are in row order: ties go to the first


def top_k(values: Array, count: int, axis: Spread) -> Array:
    """Global numbers (count,) int32 of the largest values (n,), best first, ties in row order."""
    n = values.shape[0]
    best, places = lax.top_k(values, min(count, n))
    if axis is None:
        return places.astype(jnp.int32)
    here = numbers(n, axis)[places]
    every, names = (lax.all_gather(one, _name(axis), tiled=True) for one in (best, here))
    return names[lax.top_k(every, count)[1]]


def take(rows: Tree, picked: Array, axis: Spread) -> Tree:
    """Rows of global numbers picked (...), on every device: leaves (n, ...) -> (..., ...)."""
    if axis is None:
        return jax.tree.map(lambda leaf: leaf[picked], rows)
    name = _name(axis)

    def gather(leaf: Array) -> Array:
        n = leaf.shape[0]
        place = picked - lax.axis_index(name) * n
        mine = (place >= 0) & (place < n)
        found = _as_integers(leaf[jnp.clip(place, 0, n - 1)])
        mask = mine.reshape(mine.shape + (1,) * (found.ndim - mine.ndim))
        # One device has the row and the others add zeros, in integers: -0.0 stays -0.0.
        found = lax.psum(jnp.where(mask, found, jnp.zeros_like(found)), name)
        if leaf.dtype == jnp.bool_:
            return found.astype(jnp.bool_)
        return lax.bitcast_convert_type(found, leaf.dtype)

    return jax.tree.map(gather, rows)


def gather(rows: Tree, axis: Spread) -> Tree:
    """All rows, on every device, without padding: leaves (n, ...) -> (N, ...)."""
    if axis is None:
        return rows
    name, stop = _name(axis), axis.rows if isinstance(axis, Axis) else None
    return jax.tree.map(lambda leaf: lax.all_gather(leaf, name, tiled=True)[:stop], rows)


def without(free: Array, picked: Array, axis: Spread) -> Array:
    """Flags free (n,) after rows of global numbers picked () or (m,) are bought."""
    if picked.ndim == 0:
        return free & (numbers(free.shape[0], axis) != picked)
    return put(free, picked, jnp.zeros(picked.shape, bool), axis)


def put(values: Array, picked: Array, new: Array, axis: Spread) -> Array:
    """Values (n, ...) with those of global numbers picked (m,) replaced by new (m, ...)."""
    n = values.shape[0]
    place = picked - numbers(n, axis)[0]
    place = jnp.where((place >= 0) & (place < n), place, n)
    return values.at[place].set(new, mode="drop")


def total(values: Array, axis: Spread, block: int = BLOCK) -> Array:
    """Sums over all rows but padding: (n, ...) -> (...), in one order on any number of devices.

    Rows that fit one block, on one device, are summed at once.
    """
    n = values.shape[0]
    if isinstance(axis, Axis):
        flags = real(n, axis)
        values = jnp.where(flags.reshape(-1, *[1] * (values.ndim - 1)), values, 0)
    if n <= block and axis is None:
        return jnp.sum(values, axis=0)

    sums = _loop(lambda some: jnp.sum(some, axis=0), _blocks(values, block))
    if axis is not None:
        sums = lax.all_gather(sums, _name(axis), tiled=True)
    return lax.scan(lambda sofar, one: (sofar + one, None), jnp.zeros_like(sums[0]), sums)[0]


def gumbel(key: Array, n: int, axis: Spread) -> Array:
    """Gumbel noise (n,), that of a row being a function of the key and its global number."""

    def noise(rows: Array) -> Array:
        return jax.vmap(lambda row: jax.random.gumbel(jax.random.fold_in(key, row)))(rows)

    return map_blocks(noise, numbers(n, axis))


def sample(free: Array, count: int, key: Array, axis: Spread) -> Array:
    """Global numbers (count,) of distinct rows, drawn uniformly from those that are free (n,).

    Fewer than `count` free rows: all of them, then others (padding too) in row order.
    """
    return top_k(jnp.where(free, gumbel(key, free.shape[0], axis), -jnp.inf), count, axis)


def _blocks(leaf: Array, block: int) -> Array:
    """Rows (n, ...) in blocks (ceil(n / block), block, ...), the last one padded with zeros."""
    blocks = math.ceil(leaf.shape[0] / block)
    pad = [(0, blocks * block - leaf.shape[0])] + [(0, 0)] * (leaf.ndim - 1)
    return jnp.pad(leaf, pad).reshape(blocks, block, *leaf.shape[1:])


def _loop(function: Callable[[Tree], Result], blocks: Tree) -> Result:
    """`function` of each block, leaves (B, ...): compiled alike whatever their number.

    Rounding follows from what a compiler fuses with what. A branch whose condition it does not know
    keeps the program of a block apart from the loop, from the reading and writing of blocks and
    from what comes before and after. (A barrier alone is gone before CPU programs are fused.)
    """
    leaves, form = jax.tree.flatten(blocks)
    count = leaves[0].shape[0]
    shapes = jax.eval_shape(function, jax.tree.map(lambda leaf: leaf[0], blocks))
    blank = jax.tree.map(lambda one: jnp.zeros(one.shape, one.dtype), shapes)
    found = jax.tree.map(lambda one: jnp.zeros((count, *one.shape), one.dtype), shapes)
    stop = lax.optimization_barrier(jnp.int32(count))

    def step(number: Array, sofar: Result) -> Result:
        here = [lax.dynamic_index_in_dim(leaf, number, keepdims=False) for leaf in leaves]
        some = jax.tree.unflatten(form, here)
        result = lax.cond(number < stop, function, lambda _: blank, some)
        put = functools.partial(lax.dynamic_update_index_in_dim, index=number, axis=0)
        return jax.tree.map(put, sofar, result)

    return lax.fori_loop(0, stop, step, found)


def _as_integers(values: Array) -> Array:
    """The same bits in a type whose sums are exact."""
    if values.dtype == jnp.bool_:
        return values.astype(jnp.uint8)
    return lax.bitcast_convert_type(values, jnp.dtype(f"uint{8 * values.dtype.itemsize}"))

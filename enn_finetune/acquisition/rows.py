"""Rows of a pool that may be spread over devices: the few operations that cross them.

A rule is written once for the rows (n, ...) that one device holds. `axis` names the mesh axis that
rows are spread over, in equal parts and in order; None where one device holds them all. Whatever
the number of devices, a rule picks the same rows to the last bit, if it keeps two habits:

- products over features or indices go through `map_blocks`, so that their shapes, and with them
  their rounding, do not depend on how many rows a device has;
- sums over rows go through `total`, which adds blocks in the order of their rows.

Row numbers are global: those of device d begin at d * n.
"""

import math
from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import Array, lax

BLOCK = 4096
"""Rows of a block. A pool spread over devices is padded so that each has whole blocks."""

Tree = TypeVar("Tree")
Result = TypeVar("Result")


def numbers(n: int, axis: str | None) -> Array:
    """Global numbers (n,) int32 of this device's rows."""
    first = 0 if axis is None else lax.axis_index(axis).astype(jnp.int32) * n
    return jnp.arange(n, dtype=jnp.int32) + first


def map_blocks(function: Callable[[Tree], Result], rows: Tree, block: int = BLOCK) -> Result:
    """`function`, which treats each row alone, applied to blocks of rows: (n, ...) -> (n, ...).

    Rows that fit one block are not padded; otherwise the last block is, with zeros.
    """
    n = jax.tree.leaves(rows)[0].shape[0]
    if n <= block:
        return function(rows)
    blocks = math.ceil(n / block)

    def split(leaf: Array) -> Array:
        pad = [(0, blocks * block - n)] + [(0, 0)] * (leaf.ndim - 1)
        return jnp.pad(leaf, pad).reshape(blocks, block, *leaf.shape[1:])

    found = lax.map(function, jax.tree.map(split, rows))
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:n], found)


def argmax(values: Array, axis: str | None) -> Array:
    """The global number () int32 of the largest value (n,), the first of equals."""
    best = jnp.argmax(values)
    if axis is None:
        return best.astype(jnp.int32)
    value, number = values[best], numbers(values.shape[0], axis)[best]
    all_values, all_numbers = lax.all_gather(value, axis), lax.all_gather(number, axis)
    return all_numbers[jnp.argmax(all_values)]  # devices are in row order: ties go to the first


def top_k(values: Array, count: int, axis: str | None) -> Array:
    """Global numbers (count,) int32 of the largest values (n,), best first, ties in row order."""
    n = values.shape[0]
    best, places = lax.top_k(values, min(count, n))
    if axis is None:
        return places.astype(jnp.int32)
    here = numbers(n, axis)[places]
    every = lax.all_gather(best, axis).reshape(-1), lax.all_gather(here, axis).reshape(-1)
    return every[1][lax.top_k(every[0], count)[1]]


def take(rows: Tree, picked: Array, axis: str | None) -> Tree:
    """Rows of global numbers picked (...), on every device: leaves (n, ...) -> (..., ...)."""
    if axis is None:
        return jax.tree.map(lambda leaf: leaf[picked], rows)

    def gather(leaf: Array) -> Array:
        n = leaf.shape[0]
        place = picked - lax.axis_index(axis) * n
        mine = (place >= 0) & (place < n)
        found = leaf[jnp.clip(place, 0, n - 1)]
        mask = mine.reshape(mine.shape + (1,) * (found.ndim - mine.ndim))
        # One device has the row and the others add exact zeros.
        return lax.psum(jnp.where(mask, found, jnp.zeros_like(found)), axis)

    return jax.tree.map(gather, rows)


def without(free: Array, picked: Array, axis: str | None) -> Array:
    """Flags free (n,) after rows of global numbers picked () or (m,) are bought."""
    here = numbers(free.shape[0], axis)
    if picked.ndim == 0:
        return free & (here != picked)
    place = picked - here[0]
    place = jnp.where((place >= 0) & (place < free.shape[0]), place, free.shape[0])
    return free.at[place].set(False, mode="drop")


def total(values: Array, axis: str | None, block: int = BLOCK) -> Array:
    """Sums over all rows: (n, ...) -> (...), in one order whatever the number of devices."""
    n = values.shape[0]
    if n <= block and axis is None:
        return jnp.sum(values, axis=0)
    blocks = math.ceil(n / block)
    padded = jnp.pad(values, [(0, blocks * block - n)] + [(0, 0)] * (values.ndim - 1))
    sums = jnp.sum(padded.reshape(blocks, block, *values.shape[1:]), axis=1)
    if axis is not None:
        sums = lax.all_gather(sums, axis).reshape(-1, *values.shape[1:])
    return lax.scan(lambda sofar, one: (sofar + one, None), jnp.zeros_like(sums[0]), sums)[0]


def gumbel(key: Array, n: int, axis: str | None) -> Array:
    """Gumbel noise (n,), that of a row being a function of the key and its global number."""
    return jax.vmap(lambda row: jax.random.gumbel(jax.random.fold_in(key, row)))(numbers(n, axis))


def sample(free: Array, count: int, key: Array, axis: str | None) -> Array:
    """Global numbers (count,) of distinct rows, drawn uniformly from those that are free (n,)."""
    return top_k(jnp.where(free, gumbel(key, free.shape[0], axis), -jnp.inf), count, axis)

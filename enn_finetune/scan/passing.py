"""One pass over a pool: the head and the first half of a rule, block after block."""

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array, lax
from jax.sharding import Mesh

from enn_finetune import sharding
from enn_finetune.acquisition.rows import BLOCK, map_blocks
from enn_finetune.errors import InputError
from enn_finetune.predicting import predictor, rows_of
from enn_finetune.scan.shards import Shards
from enn_finetune.types import BatchRule, Head

Read = Callable[[Array, Array], Any]


def read_pool(
    head: Head, pool: Shards, rule: BatchRule, key: Array, *, indices: int, mesh: Mesh
) -> Any:
    """What a rule keeps of each row, on the mesh: leaves (devices * part, ...).

    Raises:
      InputError: a row of features that are not finite; the message has its number.
    """
    graph, state = nnx.split(head)
    static = {"graph": graph, "read": rule.read, "indices": indices, "mesh": mesh}
    state, key = sharding.replicate((state, key), mesh)
    kept = _blank(state, key, rows=pool.rows, width=pool.width, **static)
    if not jax.tree.leaves(kept):
        return kept
    before = None
    for number, block in enumerate(_blocks(pool, mesh)):
        kept, faulty = _step(kept, (state, key, np.int32(number)), block, **static)
        # Looking at the block before keeps the devices busy, and never more than one ahead.
        _check(before, number - 1, pool, mesh)
        before = faulty
    _check(before, number, pool, mesh)
    return kept


def read_targets(
    head: Head, targets: Shards, rule: BatchRule, key: Array, *, indices: int, mesh: Mesh
) -> Any:
    """What a rule keeps of target rows, on every device: leaves (M, ...).

    Raises:
      InputError: a row of features that are not finite.
    """
    graph, state = nnx.split(head)
    features = targets.read(0, targets.rows).astype(np.float32)
    if not np.isfinite(features).all():
        row = int(np.argmin(np.isfinite(features).all(axis=1)))
        raise InputError(f"targets, row {row} (counted from 0): found a number that is not finite")
    whole = sharding.replicate((state, key, features), mesh)
    return _targets(whole, graph=graph, read=rule.read, indices=indices, mesh=mesh)


def bytes_per_row(head: Head, rule: BatchRule, width: int, indices: int) -> int:
    """What a rule keeps of a row in memory, on the device that has it."""
    graph, state = nnx.split(head)
    shapes = _kept_shapes(graph, state, jax.random.key(0), rule.read, indices, width)
    sizes = [math.prod(one.shape[1:]) * one.dtype.itemsize for one in jax.tree.leaves(shapes)]
    return sum(sizes)


def _blocks(pool: Shards, mesh: Mesh) -> Iterator[Array]:
    """Features (devices * BLOCK, V * D): the same block of each device's part, one read ahead."""
    part = sharding.part(pool.rows, mesh)

    def load(number: int) -> Array:
        def rows_of(index: Any) -> np.ndarray:
            device = (index[0].start or 0) // BLOCK
            start = device * part + number * BLOCK
            return pool.read(start, start + BLOCK)

        shape = (mesh.size * BLOCK, pool.width)
        return jax.make_array_from_callback(shape, sharding.over_rows(mesh), rows_of)

    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(load, 0)
        for number in range(part // BLOCK):
            block = coming.result()
            if number + 1 < part // BLOCK:
                coming = reader.submit(load, number + 1)
            yield block


def _check(faulty: Array | None, number: int, pool: Shards, mesh: Mesh) -> None:
    """That no row of this block has features that are not finite."""
    if faulty is None:
        return
    for piece in faulty.addressable_shards:
        place = int(np.asarray(piece.data)[0])
        if place < BLOCK:
            device = piece.index[0].start or 0
            row = device * sharding.part(pool.rows, mesh) + number * BLOCK + place
            raise InputError(
                f"features, row {row} (counted from 0): found a number that is not finite; "
                "the file is damaged, or features overflowed float16: write it again"
            )


def _reading(
    graph: nnx.GraphDef, state: Any, key: Array, read: Read, indices: int
) -> tuple[Callable[[Array], Any], int]:
    """Features (n, V * D) -> what is kept of them, and how many rows the cache has room for."""
    head = cast(Any, nnx.merge(graph, state))
    predict = predictor(head, key, indices)

    def reading(features: Array) -> Any:
        rows = rows_of(head, features)
        return read(predict.chunk(rows), rows)

    return reading, predict.rows_at_once


def _kept_shapes(
    graph: nnx.GraphDef, state: Any, key: Array, read: Read, indices: int, width: int
) -> Any:
    """Shapes of what is kept of a block."""

    def one(state: Any, key: Array) -> Any:
        reading, _ = _reading(graph, state, key, read, indices)
        return reading(jnp.zeros((BLOCK, width)))

    return jax.eval_shape(one, state, key)


@partial(jax.jit, static_argnames=("graph", "read", "indices", "mesh", "rows", "width"))
def _blank(
    state: Any,
    key: Array,
    *,
    graph: nnx.GraphDef,
    read: Read,
    indices: int,
    mesh: Mesh,
    rows: int,
    width: int,
) -> Any:
    """Room on the mesh for what is kept."""
    shapes = _kept_shapes(graph, state, key, read, indices, width)
    size = mesh.size * sharding.part(rows, mesh)

    def room(one: jax.ShapeDtypeStruct) -> Array:
        blank = jnp.zeros((size, *one.shape[1:]), one.dtype)
        return lax.with_sharding_constraint(blank, sharding.over_rows(mesh))

    return jax.tree.map(room, shapes)


@partial(jax.jit, static_argnames=("graph", "read", "indices", "mesh"), donate_argnames=("kept",))
def _step(
    kept: Any,
    whole: tuple[Any, Array, Any],
    block: Array,
    *,
    graph: nnx.GraphDef,
    read: Read,
    indices: int,
    mesh: Mesh,
) -> tuple[Any, Array]:
    """What was kept with a block's added, and the first row of it that is not finite (or BLOCK)."""

    def here(whole: tuple[Any, Array, Array], kept: Any, block: Array) -> tuple[Any, Array]:
        state, key, number = whole
        reading, room = _reading(graph, state, key, read, indices)
        features = block.astype(jnp.float32)
        found = map_blocks(reading, features, room)
        put = partial(lax.dynamic_update_slice_in_dim, start_index=number * BLOCK, axis=0)
        fine = jnp.all(jnp.isfinite(features), axis=1)
        first = jnp.where(jnp.all(fine), BLOCK, jnp.argmin(fine))
        return jax.tree.map(put, kept, found), first[None]

    out = sharding.BY_ROWS
    return sharding.spread(here, mesh, 1, 2, out=(out, out))(whole, kept, block)


@partial(jax.jit, static_argnames=("graph", "read", "indices", "mesh"))
def _targets(
    whole: tuple[Any, Array, Array], *, graph: nnx.GraphDef, read: Read, indices: int, mesh: Mesh
) -> Any:
    def here(whole: tuple[Any, Array, Array]) -> Any:
        state, key, features = whole
        reading, room = _reading(graph, state, key, read, indices)
        return map_blocks(reading, features, room)

    return sharding.spread(here, mesh, 1, 0, out=sharding.WHOLE)(whole)

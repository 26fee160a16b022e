"""Pools spread over devices and processes: the only file that names devices.

Rows of a pool go to the devices of a one-dimensional mesh in equal parts and in order, each padded
to whole blocks. A process reads the rows of its own devices and no others. What a rule picks is the
same on any mesh, row for row and to the last bit, on one kind of machine (see `acquisition.rows`).

On a cluster every process runs the same program on the same files:

    join_cluster("node0:8476", processes=4, process=RANK)   # or join_cluster() under Slurm
    picked = choose_from(head, features, "bald", free, 1000, key)  # the same in every process
"""

import math
import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from enn_finetune.acquisition.rows import BLOCK, gather
from enn_finetune.types import Axis, Pick

ROWS = "rows"
"""The name of the mesh's one axis."""

COORDINATOR = "JAX_COORDINATOR_ADDRESS"
TASKS = ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE")
"""Where the usual launchers say how many processes there are."""

BY_ROWS, WHOLE = P(ROWS), P()
"""How arrays lie on the mesh: spread by their first axis, or whole on every device."""

Tree = TypeVar("Tree")


def join_cluster(
    coordinator: str | None = None, processes: int | None = None, process: int | None = None
) -> None:
    """Make this process one of several that share their devices; nothing to do for one alone.

    A thin layer over `jax.distributed.initialize`, to be called before anything that uses a
    device. Alone is a process that is given no arguments, runs under no launcher of several
    tasks (Slurm, Open MPI), and finds no JAX_COORDINATOR_ADDRESS.

    Args:
      coordinator: host:port of process 0, which every process can reach.
      processes: how many there are.
      process: the number of this one.

    Raises:
      ValueError: some of the arguments are missing where no launcher gives them.
    """
    tasks = [int(os.environ.get(name, "1")) for name in TASKS]
    given = (coordinator, processes, process)
    if given == (None, None, None) and COORDINATOR not in os.environ and max(tasks) == 1:
        return
    if processes == 1:
        return
    jax.distributed.initialize(coordinator, processes, process)


def rows_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh that pools are spread over: these devices, or all of all processes."""
    return Mesh(np.asarray(jax.devices() if devices is None else devices), (ROWS,))


def part(rows: int, mesh: Mesh) -> int:
    """How many rows each device has of a pool of so many: whole blocks, at least one."""
    return max(1, math.ceil(rows / (mesh.size * BLOCK))) * BLOCK


def over_rows(mesh: Mesh) -> NamedSharding:
    """Arrays whose first axis is spread over the mesh."""
    return NamedSharding(mesh, BY_ROWS)


def place(pool: Tree, mesh: Mesh) -> Tree:
    """A pool's arrays (N, ...), in memory or mapped, on the mesh: (devices * part, ...).

    Rows from N on are zeros (False). Each process reads the rows of its own devices.
    """

    def leaf(array: np.ndarray) -> Array:
        rows = len(array)
        shape = (mesh.size * part(rows, mesh), *array.shape[1:])

        def rows_of(index: Any) -> np.ndarray:
            start, stop, _ = index[0].indices(shape[0])
            found = np.zeros((stop - start, *shape[1:]), array.dtype)
            here = array[start : min(stop, rows)]
            found[: len(here)] = here
            return found

        return jax.make_array_from_callback(shape, over_rows(mesh), rows_of)

    return jax.tree.map(leaf, pool)


def replicate(tree: Tree, mesh: Mesh) -> Tree:
    """Arrays, the same in every process, on every device. Typed keys stay keys."""

    def leaf(array: Any) -> Array:
        if isinstance(array, Array) and jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
            data = leaf(jax.random.key_data(array))
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(array))
        whole = np.asarray(array)
        return jax.make_array_from_callback(
            whole.shape, NamedSharding(mesh, WHOLE), lambda index: whole[index]
        )

    return jax.tree.map(leaf, tree)


def spread(
    function: Callable[..., Any], mesh: Mesh, whole: int, rows: int, *, out: Any = BY_ROWS
) -> Callable[..., Any]:
    """`function` on each device's part of the rows, for use under jit.

    Args:
      function: takes `whole` arguments that every device has all of, then `rows` arguments of
        which it has a part.
      mesh: of the devices.
      whole: how many.
      rows: how many.
      out: the spec of its results.
    """
    specs = (WHOLE,) * whole + (BY_ROWS,) * rows
    return jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=out, check_vma=False)


def pick(
    rule: Pick,
    kept: Tree,
    free: np.ndarray,
    count: int,
    key: Array,
    *,
    mesh: Mesh,
    targets: Tree | None = None,
) -> np.ndarray:
    """The second half of a batch rule on a pool spread over a mesh: row numbers (count,) int32.

    Compiled once for all calls with equal shapes, count and rule; `free` and `key` may change.

    Args:
      rule: such as `BatchRule.pick`.
      kept: placed on the mesh, leaves (devices * part, ...).
      free: (N,) bool, the same in every process.
      count: at most the number of free rows.
      key: of the rule's randomness.
      mesh: of the devices.
      targets: kept of the target rows, leaves (M, ...), the same in every process.

    Raises:
      ValueError: fewer free rows than asked for, or kept of another number of rows.
    """
    free = np.asarray(free, bool)
    rows, left = len(free), int(free.sum())
    if not 1 <= count <= left:
        raise ValueError(f"expected 1 <= count <= free rows, got {count=}; {left} of {rows} free")
    size = mesh.size * part(rows, mesh)
    found = {leaf.shape[0] for leaf in jax.tree.leaves(kept)} - {size}
    if found:
        raise ValueError(f"free has {rows} rows, {size} with padding; found {found} of kept")
    numbers = _picked(
        replicate((key, targets), mesh),
        (kept, place(free, mesh)),
        rule=rule,
        mesh=mesh,
        rows=rows,
        count=count,
    )
    return np.asarray(numbers)


@partial(jax.jit, static_argnames=("rule", "mesh", "rows", "count"))
def _picked(
    whole: tuple[Array, Any],
    parts: tuple[Any, Array],
    *,
    rule: Pick,
    mesh: Mesh,
    rows: int,
    count: int,
) -> Array:
    def here(whole: tuple[Array, Any], parts: tuple[Any, Array]) -> Array:
        (key, targets), (kept, free) = whole, parts
        return rule(kept, free, count, key, targets=targets, axis=Axis(ROWS, rows))

    return spread(here, mesh, 1, 1, out=WHOLE)(whole, parts)


def collect(tree: Tree, mesh: Mesh, rows: int) -> Tree:
    """Arrays spread over the mesh (devices * part, ...) as numpy arrays (N, ...), everywhere."""
    return jax.tree.map(np.asarray, _collected(tree, mesh=mesh, rows=rows))


@partial(jax.jit, static_argnames=("mesh", "rows"))
def _collected(tree: Any, *, mesh: Mesh, rows: int) -> Any:
    return spread(lambda tree: gather(tree, Axis(ROWS, rows)), mesh, 0, 1, out=WHOLE)(tree)

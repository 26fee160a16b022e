"""Pytrees as named arrays, and back. jax is imported when called: readers of data need none."""

from collections.abc import Mapping
from typing import TypeVar

import numpy as np

from enn_finetune.files.arrays import check_layouts, layout

Tree = TypeVar("Tree")


def flatten(tree: object) -> dict[str, np.ndarray]:
    """The array leaves of a pytree by name: their keys on the way down, joined by "/".

    Raises:
      ValueError: two leaves have one name.
    """
    return {name: np.asarray(leaf) for name, leaf in _named_leaves(tree).items()}


def unflatten_like(tree: Tree, arrays: Mapping[str, np.ndarray], where: str) -> Tree:
    """A tree of the structure of `tree` with the leaves that `flatten` made into `arrays`.

    Leaves are numpy where they were numpy, else jax arrays, placed as the ones they replace.
    `tree` may be abstract (`jax.ShapeDtypeStruct`). `where` is the file that errors name.

    Raises:
      InputError: lists all the missing, unexpected, mis-shaped and mis-typed entries.
    """
    import jax  # noqa: PLC0415

    leaves = _named_leaves(tree)
    check_layouts(
        {name: layout(leaf) for name, leaf in leaves.items()},
        {name: layout(array) for name, array in arrays.items()},
        where,
    )
    restored = [_placed_like(leaf, arrays[name]) for name, leaf in leaves.items()]
    return jax.tree.unflatten(jax.tree.structure(tree), restored)


def _named_leaves(tree: object) -> dict[str, object]:
    import jax  # noqa: PLC0415

    named: dict[str, object] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if name in named:
            raise ValueError(f"flatten: found two leaves named {name!r}; rename one of the keys")
        named[name] = leaf
    return named


def _placed_like(leaf: object, array: np.ndarray) -> object:
    import jax  # noqa: PLC0415

    if isinstance(leaf, np.ndarray | np.generic):
        return array.copy()
    if isinstance(leaf, jax.Array) and leaf.committed:
        return jax.device_put(array, leaf.sharding)
    return jax.numpy.array(array)

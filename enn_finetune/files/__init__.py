"""Saving and reading: nothing half-written is ever found under its final name."""

from enn_finetune.files.arrays import (
    Layout,
    check_layouts,
    layout,
    load_arrays,
    open_arrays,
    save_arrays,
)
from enn_finetune.files.atomic import atomic_file, atomic_folder, atomic_write, recover
from enn_finetune.files.checked import map_checked, save_checked
from enn_finetune.files.locks import claim
from enn_finetune.files.reading import PathLike, check_file, read_json, sha256
from enn_finetune.files.trees import flatten, unflatten_like

__all__ = [
    "Layout",
    "PathLike",
    "atomic_file",
    "atomic_folder",
    "atomic_write",
    "check_file",
    "check_layouts",
    "claim",
    "flatten",
    "layout",
    "load_arrays",
    "map_checked",
    "open_arrays",
    "read_json",
    "recover",
    "save_arrays",
    "save_checked",
    "sha256",
    "unflatten_like",
]

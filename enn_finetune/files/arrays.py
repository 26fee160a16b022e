"""Named arrays in safetensors files, bit for bit; and whether they are the ones expected."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple, Protocol, runtime_checkable

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from enn_finetune.errors import InputError
from enn_finetune.files.atomic import atomic_file
from enn_finetune.files.reading import PathLike, check_file

LFS_POINTER = b"version https://git-lfs"
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)  # the import is what teaches numpy this type
STORABLE = frozenset(
    {"bool", "float16", "float32", "float64", str(BFLOAT16)}
    | {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
)


@runtime_checkable
class Shaped(Protocol):
    """An array, concrete or abstract."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its sizes."""
        ...

    @property
    def dtype(self) -> object:
        """Its type."""
        ...


class Layout(NamedTuple):
    """What is known of an array without reading it."""

    shape: tuple[int, ...]
    dtype: str

    def __str__(self) -> str:
        return f"{self.dtype} {self.shape}"


def save_arrays(
    path: PathLike, arrays: Mapping[str, object], metadata: Mapping[str, str] | None = None
) -> None:
    """Write arrays (numpy or jax) to a safetensors file, atomically and bit for bit.

    Raises:
      InputError: entries of a type the format lacks, all of them listed; typed PRNG keys among
        them, which the caller turns into integers with `jax.random.key_data`.
    """
    ready, refused = {}, []
    for name, value in arrays.items():
        dtype = str(getattr(value, "dtype", None) or np.asarray(value).dtype)
        if dtype in STORABLE:
            # Not ascontiguousarray: it makes () into (1,). The format needs C order.
            ready[name] = np.array(value, order="C", copy=None)
        else:
            refused.append(f"  {name}: {dtype}")
    if refused:
        raise InputError(
            f"{path}: these entries cannot be stored as plain arrays:\n" + "\n".join(refused)
        )
    with atomic_file(path) as temporary:
        save_file(ready, temporary, dict(metadata or {}) or None)  # {} makes an unreadable header


def load_arrays(path: PathLike) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """All arrays of a safetensors file, and its metadata.

    Raises:
      InputError: no such file, or a damaged one.
    """
    with open_arrays(path) as file:
        names: list[str] = list(file.keys())
        return {name: file.get_tensor(name) for name in names}, file.metadata() or {}


@contextmanager
def open_arrays(path: PathLike) -> Iterator[safe_open]:
    """A mapped safetensors file: `keys()`, `get_slice(name)`, `get_tensor(name)` read when asked.

    Raises:
      InputError: no such file, or a damaged one.
    """
    check_file(path)
    with open(path, "rb") as file:
        if file.read(len(LFS_POINTER)) == LFS_POINTER:
            raise InputError(
                f"{path}: found a Git LFS pointer, not the file it stands for; run `git lfs pull`"
            )
    try:
        tensors = safe_open(path, framework="np")
    except SafetensorError as error:
        raise InputError(
            f"{path}: found a truncated or damaged safetensors file "
            f"({os.path.getsize(path):,} bytes; {error}); copy, download or save it again"
        ) from error
    with tensors:
        yield tensors


def layout(array: object) -> Layout:
    """Shape and type of an array, of an abstract one, or of a python number."""
    shaped = array if isinstance(array, Shaped) else np.asarray(array)
    return Layout(tuple(shaped.shape), str(shaped.dtype))


def check_layouts(expected: Mapping[str, Layout], found: Mapping[str, Layout], where: str) -> None:
    """Compare by name, shape and type.

    Raises:
      InputError: names `where` and all the entries that differ.
    """
    lines = [f"missing: {name}, {expected[name]}" for name in expected if name not in found]
    lines += [f"unexpected: {name}, {found[name]}" for name in found if name not in expected]
    for name in expected:
        if name in found and found[name] != expected[name]:
            kind = "shape" if found[name].shape != expected[name].shape else "type"
            lines.append(f"{kind}: {name} is {found[name]}, expected {expected[name]}")
    if lines:
        raise InputError(
            f"{where}: {len(lines)} of {len({*expected, *found})} arrays are not what is expected;"
            " the file is damaged or belongs to another model or run\n  " + "\n  ".join(lines)
        )

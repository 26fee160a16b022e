"""Walk rows in chunks that stay in the cache."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array, lax

CACHE_FLOATS = 2**19  # 2 MB of intermediate numbers a chunk may fill on a CPU: about its L2 cache
DEVICE_FLOATS = 2**27  # 512 MB: elsewhere only memory asks for chunks


def map_rows(function: Callable[[Array], Array], rows: Array, *, floats_per_row: int) -> Array:
    """`function`: rows (n, H) -> (K, n, C), applied to (N, H) in chunks of rows -> (K, N, C).

    Rows that fit one chunk are not chunked; otherwise the last chunk is padded with zeros, whose
    results are dropped. Differentiable.

    Args:
      function: works on each row alone.
      rows: (N, H).
      floats_per_row: how many numbers the function holds at once for a row.
    """
    n = rows.shape[0]
    chunks = math.ceil(n / rows_at_once(floats_per_row))
    if chunks <= 1:
        return function(rows)
    size = math.ceil(n / chunks)
    padded = jnp.pad(rows, ((0, chunks * size - n), (0, 0)))
    out = lax.map(function, padded.reshape(chunks, size, -1))  # (chunks, K, size, C)
    return jnp.moveaxis(out, 0, 1).reshape(out.shape[1], chunks * size, -1)[:, :n]


def rows_at_once(floats_per_row: int) -> int:
    """Rows of so many intermediate numbers each that a chunk may have, at least 8."""
    budget = CACHE_FLOATS if jax.default_backend() == "cpu" else DEVICE_FLOATS
    return max(8, budget // max(floats_per_row, 1))

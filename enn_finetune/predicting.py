"""Heads asked about many rows of features, chunk by chunk: what studies and scans share.

It is apart from `study/`, so that a scan loads neither the configs nor the tokenizers of runs.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
from jax import Array

from enn_finetune.acquisition.rows import BLOCK
from enn_finetune.models.row_chunks import map_rows, rows_at_once
from enn_finetune.predictive import mixture
from enn_finetune.types import Head


class Predict(NamedTuple):
    """A head under indices drawn for it: rows (n, .) -> log-probabilities (K, n, C)."""

    chunk: Callable[[Array], Array]
    floats_per_row: int

    @property
    def rows_at_once(self) -> int:
        """How many rows the cache has room for: a power of 2, at most a block of a pool's."""
        return min(BLOCK, 2 ** int(math.log2(rows_at_once(self.floats_per_row))))

    def __call__(self, rows: Array) -> Array:
        """Log-probabilities (K, N, C) of any number of rows."""
        return map_rows(self.chunk, rows, floats_per_row=self.floats_per_row)


def linear(head: Head) -> bool:
    """True for heads whose functions are linear in rows that `rows` makes of features."""
    return hasattr(head, "from_rows")


def rows_of(head: Head, features: Array) -> Array:
    """What a head predicts from, as `Predict` takes it: of features (N, D) the rows (N, .)."""
    return cast(Any, head).rows(features) if linear(head) else features


def predictor(head: Head, key: Array, indices: int) -> Predict:
    """A head under fresh indices: K of them, or one where they make no difference."""
    z = head.sample_index(jax.random.fold_in(key, 1), indices if head.epistemic else 1)
    logits = cast(Any, head).from_rows if linear(head) else head.many
    return Predict(
        lambda rows: jax.nn.log_softmax(logits(rows, z), axis=-1),
        floats_per_row=4 * z.shape[0] * head.classes,
    )


def mean_prediction(head: Head, rows: Array, log_probs: Array) -> Array:
    """Log of the mean prediction (N, C): where it is known, without sampling noise.

    Args:
      head: whose mean over all indices is known if it has `mean_from_rows`.
      rows: (N, .), of `rows_of`.
      log_probs: (K, N, C) under the indices drawn, which are averaged for other heads.
    """
    if hasattr(head, "mean_from_rows"):
        return cast(Any, head).mean_from_rows(rows)
    return mixture(log_probs)

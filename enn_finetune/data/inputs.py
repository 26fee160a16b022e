"""Model inputs of the rows of a data set: tokens, or features computed once. Never labels."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from enn_finetune.data import tokens
from enn_finetune.types import TokenBatch


class TokenRows(NamedTuple):
    """Rows as tokens: what a trainable encoder reads."""

    ragged: tokens.Ragged

    def __len__(self) -> int:
        return len(self.ragged)

    def take(self, rows: np.ndarray, size: int) -> TokenBatch:
        """The given rows (n,), packed, as a batch of `size` >= n examples."""
        return tokens.pack(self.ragged.take(rows), examples=size)

    def batches(self, rows: np.ndarray, size: int) -> Iterator[tuple[np.ndarray, TokenBatch]]:
        """All the given rows in few fixed shapes: (places (n,) in `rows`, inputs of >= n rows)."""
        return tokens.batches(self.ragged.take(rows), size)


class FeatureRows(NamedTuple):
    """Rows as features (N, D): what a head on a frozen encoder reads."""

    features: np.ndarray

    def __len__(self) -> int:
        return len(self.features)

    def take(self, rows: np.ndarray, size: int) -> np.ndarray:
        """The given rows (n,), as (size, D) with zeros after them."""
        taken = np.zeros((size, self.features.shape[1]), np.float32)
        taken[: len(rows)] = self.features[rows]
        return taken

    def batches(self, rows: np.ndarray, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """All the given rows, `size` at a time: (places (n,) in `rows`, features (size, D))."""
        for start in range(0, len(rows), size):
            places = np.arange(start, min(start + size, len(rows)))
            yield places, self.take(rows[places], size)


Rows = TokenRows | FeatureRows

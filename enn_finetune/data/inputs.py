"""Model inputs of the rows of a data set: tokens, or features computed once. Never labels."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from enn_finetune.data.tokens import PackShapes, Ragged, batches, pack
from enn_finetune.types import TokenBatch

TOKENS_A_ROW = 8  # of a scored batch: 2,048 tokens at its default size, which a CPU's cache holds


@dataclass(frozen=True, eq=False)
class TokenRows:
    """Rows as tokens: what a trainable encoder reads. `len` is N."""

    ragged: Ragged
    batch: int  # rows gone through at once, about
    shapes: PackShapes

    @classmethod
    def of(cls, ragged: Ragged, batch: int) -> "TokenRows":
        """Rows whose training batches all have one length, so that only R differs between them."""
        choices = PackShapes()
        longest = int(ragged.lengths.max(initial=1))
        length = choices.fits(longest, int(ragged.lengths.argmax()) if len(ragged) else 0)[0]
        return cls(ragged, batch, PackShapes(lengths=(max(length, 64),)))

    def __len__(self) -> int:
        return len(self.ragged)

    def take(self, rows: np.ndarray, size: int) -> TokenBatch:
        """The given rows (n,), packed, as a batch of `size` >= n examples."""
        return pack(self.ragged.take(rows), examples=size, shapes=self.shapes)

    def batches(self, rows: np.ndarray) -> Iterator[tuple[np.ndarray, TokenBatch]]:
        """All the given rows: (places (n,) in `rows`, inputs of at least these n rows)."""
        return batches(
            self.ragged.take(rows),
            tokens=TOKENS_A_ROW * self.batch,
            examples=2 * self.batch,
            shapes=PackShapes(),
        )


@dataclass(frozen=True, eq=False)
class FeatureRows:
    """Rows as features (N, D): what a head on a frozen encoder reads. `len` is N."""

    features: np.ndarray
    batch: int  # rows gone through at once

    def __len__(self) -> int:
        return len(self.features)

    def take(self, rows: np.ndarray, size: int) -> np.ndarray:
        """The given rows (n,), as (size, D) with zeros after them."""
        taken = np.zeros((size, self.features.shape[1]), np.float32)
        taken[: len(rows)] = self.features[rows]
        return taken

    def batches(self, rows: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """All the given rows in one shape: (places (n,) in `rows`, features (batch, D))."""
        for start in range(0, len(rows), self.batch):
            places = np.arange(start, min(start + self.batch, len(rows)))
            yield places, self.take(rows[places], self.batch)


Rows = TokenRows | FeatureRows

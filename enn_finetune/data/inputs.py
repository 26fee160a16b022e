"""Model inputs of the rows of a data set: tokens, or features computed once. Never labels."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from enn_finetune.data.tokens import (
    PackShapes,
    Ragged,
    Tokenizer,
    batches,
    pack,
    parts_of,
    tokenise,
)
from enn_finetune.types import TokenBatch

TOKENS_A_ROW = 8  # of a scored batch: 2,048 tokens at its default size, which a CPU's cache holds


@dataclass(frozen=True, eq=False)
class TokenRows:
    """Rows as tokens: what an encoder reads. `len` is N.

    A row is one sequence, or the two texts of a pair apart: sequences 2i and 2i + 1, which stay
    side by side as examples of one batch. Rows and places count rows, not texts.
    """

    ragged: Ragged
    batch: int  # rows gone through at once, about
    shapes: PackShapes
    apart: bool = False  # two sequences a row

    @classmethod
    def of(cls, ragged: Ragged, batch: int, *, apart: bool = False) -> "TokenRows":
        """Rows whose training batches all have one length, so that only R differs between them."""
        choices = PackShapes()
        longest = int(ragged.lengths.max(initial=1))
        length = choices.fits(longest, int(ragged.lengths.argmax()) if len(ragged) else 0)[0]
        return cls(ragged, batch, PackShapes(lengths=(max(length, 64),)), apart)

    @classmethod
    def read(
        cls,
        tokenizer: Tokenizer,
        text: Sequence[str],
        pair: Sequence[str] | None,
        max_tokens: int,
        batch: int,
        *,
        apart: bool = False,
    ) -> "TokenRows":
        """Rows of texts; a pair is one sequence, cut as one, or two, each cut by itself (apart).

        Raises:
          ValueError: another number of second texts than of first ones.
        """
        if pair is not None and apart:
            text, pair = one_by_one(text, pair), None
        return cls.of(tokenise(tokenizer, text, pair, max_tokens), batch, apart=apart)

    @property
    def _texts(self) -> int:
        return 2 if self.apart else 1

    def __len__(self) -> int:
        return len(self.ragged) // self._texts

    def take(self, rows: np.ndarray, size: int) -> TokenBatch:
        """The given rows (n,), packed, as a batch of `size` >= n rows."""
        taken = self.ragged.take(parts_of(rows, self._texts))
        return pack(taken, examples=size * self._texts, shapes=self.shapes)

    def batches(self, rows: np.ndarray) -> Iterator[tuple[np.ndarray, TokenBatch]]:
        """All the given rows: (places (n,) in `rows`, inputs of at least these n rows)."""
        shapes = PackShapes()
        return batches(
            self.ragged.take(parts_of(rows, self._texts)),
            tokens=TOKENS_A_ROW * self.batch,
            examples=2 * self.batch,
            # Both texts of a row stand in one packed row, which has to hold two of the longest.
            shapes=PackShapes((*shapes.lengths, 2 * shapes.lengths[-1])) if self.apart else shapes,
            together=self._texts,
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


def subset(rows: Rows, ids: np.ndarray) -> Rows:
    """The rows with the ids (n,), in that order; the same object where they are all of them."""
    if len(ids) == len(rows) and np.array_equal(ids, np.arange(len(rows))):
        return rows
    if isinstance(rows, FeatureRows):
        return FeatureRows(rows.features[ids], rows.batch)
    taken = rows.ragged.take(parts_of(ids, 2 if rows.apart else 1))
    return TokenRows(taken, rows.batch, rows.shapes, rows.apart)


def one_by_one(text: Sequence[str], pair: Sequence[str]) -> list[str]:
    """The texts of all rows in turn: 2i and 2i + 1 are those of row i.

    Raises:
      ValueError: another number of second texts than of first ones.
    """
    if len(pair) != len(text):
        raise ValueError(f"found {len(text)} texts but {len(pair)} second ones; give one a text")
    return [part for row in zip(text, pair, strict=True) for part in row]

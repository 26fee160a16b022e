"""Token sequences of different lengths, end to end, and how text becomes them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

CHUNK = 8192  # texts handed to the tokenizer at a time, which bounds memory


class Tokenizer(Protocol):
    """The part of a Hugging Face tokenizer that is used here."""

    def __call__(
        self, text: list[str], text_pair: list[str] | None = None, **options: object
    ) -> dict[str, list[list[int]]]:
        """Token ids and segment types of each text."""
        ...


@dataclass(frozen=True, eq=False)
class Ragged:
    """N token sequences end to end; example i is ids[offsets[i] : offsets[i + 1]]."""

    ids: np.ndarray  # (tokens,) int32
    types: np.ndarray  # (tokens,) uint8 segment types
    offsets: np.ndarray  # (N + 1,) int64

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each example (N,) int64."""
        return np.diff(self.offsets)

    def take(self, rows: Sequence[int] | np.ndarray) -> "Ragged":
        """The examples of these row numbers, in this order."""
        rows = np.asarray(rows, np.int64)
        lengths = self.lengths[rows]
        offsets = _offsets(lengths)
        within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
        source = np.repeat(self.offsets[:-1][rows], lengths) + within
        return Ragged(self.ids[source], self.types[source], offsets)


def tokenise(
    tokenizer: Tokenizer, text: Sequence[str], pair: Sequence[str] | None, max_tokens: int
) -> Ragged:
    """Token ids with special tokens, cut to max_tokens (of a pair, the longer text is cut first).

    Raises ValueError when text and pair differ in length.
    """
    if pair is not None and len(pair) != len(text):
        raise ValueError(
            f"tokenise: found {len(text)} texts but {len(pair)} pair texts; give one pair a text"
        )
    ids: list[np.ndarray] = [np.zeros(0, np.int32)]
    types: list[np.ndarray] = [np.zeros(0, np.uint8)]
    lengths: list[int] = []
    for start in range(0, len(text), CHUNK):
        part = slice(start, start + CHUNK)
        out = tokenizer(
            list(text[part]),
            None if pair is None else list(pair[part]),
            truncation="longest_first",
            max_length=max_tokens,
            add_special_tokens=True,
            padding=False,
            return_token_type_ids=True,
            return_attention_mask=False,
        )
        lengths += [len(row) for row in out["input_ids"]]
        ids.append(np.fromiter((t for row in out["input_ids"] for t in row), np.int32))
        types.append(np.fromiter((t for row in out["token_type_ids"] for t in row), np.uint8))
    return Ragged(np.concatenate(ids), np.concatenate(types), _offsets(np.asarray(lengths, int)))


def _offsets(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)

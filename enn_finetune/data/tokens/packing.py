"""One batch of N examples in the cheapest of a few fixed shapes."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from enn_finetune.data.tokens.sequences import Ragged
from enn_finetune.types import TokenBatch


@dataclass(frozen=True)
class PackShapes:
    """The (R, L) shapes that packing may use.

    L is one of `lengths`; R is one of 1, 2, 3, 4, then `steps` values an octave. For N examples
    R is at most N, so there are at most len(lengths) * len(rows_upto(N)) shapes (`bound`);
    a data set meets a handful (`shapes_needed`).
    """

    lengths: tuple[int, ...] = (32, 64, 128, 256, 512)
    steps: int = 4
    width: int = 384  # D: weighs attention (R L^2) against the dense layers (6 D R L)
    pad_id: int = 0

    def __post_init__(self) -> None:
        if not self.lengths or list(self.lengths) != sorted(set(self.lengths)):
            raise ValueError(
                f"PackShapes.lengths: found {self.lengths}; give distinct lengths in rising order"
            )
        if self.steps not in (1, 2, 4, 8):
            raise ValueError(f"PackShapes.steps: found {self.steps}; use 1, 2, 4 or 8")

    def rows_upto(self, examples: int) -> list[int]:
        """The allowed R up to the first that is at least `examples`."""
        rows = [1]
        while rows[-1] < examples:
            rows.append(rows[-1] + max(1, (1 << (rows[-1].bit_length() - 1)) // self.steps))
        return rows

    def bound(self, examples: int) -> int:
        """The most shapes that `pack` can return for this many examples."""
        return len(self.lengths) * len(self.rows_upto(examples))

    def cost(self, R: int, L: int) -> int:
        """Relative cost of encoding one (R, L) array."""
        return R * L * (6 * self.width + L)

    def fits(self, longest: int, example: int = 0) -> list[int]:
        """The lengths that hold an example of this many tokens; ValueError when there is none."""
        lengths = [L for L in self.lengths if longest <= L]
        if not lengths:
            raise ValueError(
                f"example {example} has {longest} tokens, more than the longest row "
                f"({self.lengths[-1]}); tokenise with max_tokens={self.lengths[-1]} or less, "
                "or add a longer length to PackShapes.lengths"
            )
        return lengths


class Layout(NamedTuple):
    """Where each example goes: row (n,) and column (n,) of its first token."""

    shape: tuple[int, int]  # (R, L)
    row: np.ndarray
    column: np.ndarray


def layout(lengths: np.ndarray, examples: int, shapes: PackShapes) -> Layout:
    """The cheapest allowed shape that holds examples of these lengths, by first-fit decreasing."""
    longest = int(lengths.max(initial=1))
    allowed = shapes.rows_upto(max(examples, 1))
    order = np.argsort(-lengths, kind="stable").tolist()
    best: Layout | None = None
    for L in shapes.fits(longest, int(lengths.argmax()) if len(lengths) else 0):
        row, column, used = _first_fit(lengths.tolist(), order, L)
        R = next(r for r in allowed if r >= max(used, 1))
        if best is None or shapes.cost(R, L) < shapes.cost(*best.shape):
            best = Layout((R, L), np.asarray(row, np.int64), np.asarray(column, np.int64))
    assert best is not None  # `fits` raises when no length is long enough
    return best


def _first_fit(lengths: list[int], order: list[int], L: int) -> tuple[list[int], list[int], int]:
    row, column, free = [0] * len(lengths), [0] * len(lengths), list[int]()
    for i in order:
        need = lengths[i]
        r = next((r for r, left in enumerate(free) if left >= need), len(free))
        if r == len(free):
            free.append(L)
        row[i], column[i] = r, L - free[r]
        free[r] -= need
    return row, column, len(free)


def pack(ragged: Ragged, *, examples: int, shapes: PackShapes) -> TokenBatch:
    """Pack a batch into the cheapest allowed shape; example i keeps number i in `owner`.

    examples is N, fixed for one compiled function: fewer may be given, the rest own no tokens.
    Raises ValueError when more are given or one is too long.
    """
    if len(ragged) > examples:
        raise ValueError(
            f"pack: found {len(ragged)} examples for a batch of {examples}; give fewer or raise N"
        )
    return place(ragged, layout(ragged.lengths, examples, shapes), examples, shapes.pad_id)


def place(ragged: Ragged, where: Layout, examples: int, pad_id: int) -> TokenBatch:
    """The TokenBatch of N = examples that puts each example of ragged where the layout says."""
    (R, L), lengths = where.shape, ragged.lengths
    start = where.row * L + where.column
    within = np.arange(len(ragged.ids)) - np.repeat(ragged.offsets[:-1], lengths)
    slot = np.repeat(start, lengths) + within

    def spread(values: np.ndarray, fill: int) -> np.ndarray:
        out = np.full(R * L, fill, np.int32)
        out[slot] = values
        return out.reshape(R, L)

    first = np.zeros(examples, np.int32)
    first[: len(ragged)] = start
    return TokenBatch(
        ids=spread(ragged.ids, pad_id),
        types=spread(ragged.types, 0),
        positions=spread(within, 0),
        owner=spread(np.repeat(np.arange(len(ragged)), lengths), examples),
        first=first,
    )


def shapes_needed(
    lengths: np.ndarray, examples: int, shapes: PackShapes, *, draws: int = 200, seed: int = 0
) -> dict[tuple[int, int], int]:
    """Shapes that random batches of N examples of a data set meet, with how often, in `draws`."""
    rng = np.random.default_rng(seed)
    counts: dict[tuple[int, int], int] = {}
    for _ in range(draws):
        rows = rng.choice(len(lengths), min(examples, len(lengths)), replace=False)
        shape = layout(lengths[rows], examples, shapes).shape
        counts[shape] = counts.get(shape, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def efficiency(batch: TokenBatch) -> float:
    """Real tokens over all slots."""
    return float(np.mean(np.asarray(batch.owner) < len(batch.first)))

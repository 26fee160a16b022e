"""A whole pool in full rows, for encoding it once."""

from bisect import bisect_right
from collections.abc import Iterator

import numpy as np

from enn_finetune.data.tokens.packing import Layout, PackShapes, place
from enn_finetune.data.tokens.sequences import Ragged
from enn_finetune.types import TokenBatch


def batches(
    ragged: Ragged,
    *,
    tokens: int = 4096,
    examples: int = 512,
    shapes: PackShapes,
    together: int = 1,
) -> Iterator[tuple[np.ndarray, TokenBatch]]:
    """Every example once, to encode a whole pool: pairs of places (n,) in it and TokenBatch.

    n <= N, and N is `examples` in every batch. Arrays hold at most max(tokens, L) slots, and there
    is one shape for each L in use, so at most len(lengths) shapes. Examples do not come in order:
    scatter results by their places.

    `together` sequences in a row of the pool, i * together and those after it, are the parts of
    its i-th example: they stay in one packed row, places count examples, and the TokenBatch holds
    examples * together sequences, in the same order.

    Raises ValueError when an example is longer than the longest row.
    """
    for L, bins in _pool_bins(np.diff(ragged.offsets[::together]), examples, shapes):
        R = min(max(tokens // L, 1), 1 << (len(bins) - 1).bit_length())
        for group in _groups(bins, R, examples):
            members = np.asarray([i for row in group for i in row], np.int64)
            row = np.repeat(np.arange(len(group)), [len(r) * together for r in group])
            part = ragged.take(parts_of(members, together))
            column = part.offsets[:-1] - part.offsets[np.searchsorted(row, row)]
            yield (
                members,
                place(part, Layout((R, L), row, column), examples * together, shapes.pad_id),
            )


def parts_of(examples: np.ndarray, together: int) -> np.ndarray:
    """Sequence numbers (n * together,) of the parts of examples (n,), in order."""
    return (examples[:, None] * together + np.arange(together)).reshape(-1)


def _groups(bins: list[list[int]], R: int, examples: int) -> Iterator[list[list[int]]]:
    """Cut packed rows into groups of at most R rows and at most N examples."""
    group: list[list[int]] = []
    held = 0
    for members in bins:
        if len(group) == R or held + len(members) > examples:
            yield group
            group, held = [], 0
        group.append(members)
        held += len(members)
    if group:
        yield group


def _pool_bins(
    lengths: np.ndarray, examples: int, shapes: PackShapes
) -> list[tuple[int, list[list[int]]]]:
    """Rows of example numbers for each L, longest L first.

    A row of L is opened only by an example that needs it, and filled with the longest examples
    that still fit; the shortest L in use holds four average examples, so that holes are small.
    """
    if len(lengths) == 0:
        return []
    possible = shapes.fits(min(4 * int(lengths.mean()), shapes.lengths[-1]))
    shapes.fits(int(lengths.max()), int(lengths.argmax()))
    order = np.argsort(lengths, kind="stable")
    cuts = np.searchsorted(lengths[order], np.unique(lengths), side="left")
    stacks = {int(lengths[s[0]]): s.tolist()[::-1] for s in np.split(order, cuts[1:])}
    left = sorted(stacks)  # distinct lengths that still have examples, ascending
    result = []
    for floor, L in reversed(list(zip([-1, *possible], possible, strict=False))):
        bins: list[list[int]] = []
        while left and left[-1] > floor:
            bins.append(_fill_row(stacks, left, L, examples))
        if bins:
            # Rows of few long and of many short examples come in turn, so that batches fill evenly.
            mixed = np.random.default_rng(0).permutation(len(bins))
            result.append((L, [bins[i] for i in mixed]))
    return result


def _fill_row(stacks: dict[int, list[int]], left: list[int], L: int, most: int) -> list[int]:
    members: list[int] = []
    free = L
    while len(members) < most and (at := bisect_right(left, free)):
        length = left[at - 1]
        members.append(stacks[length].pop())
        free -= length
        if not stacks[length]:
            del left[at - 1]
    return members

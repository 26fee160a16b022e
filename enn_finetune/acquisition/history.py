"""Candidates by past scores: most of a pool need not be predicted again every round.

After Nemeth and Matuszka (2023, "Compute-Efficient Active Learning", arXiv 2401.07639): a row's
acquisition score of an earlier round says whether it is worth another look, so that a round scores
a fixed number of candidates, whatever the rule, and not the whole pool. Two of the paper's choices
are made otherwise here. It draws candidates with probability softmax(past score), which has a scale
that suits some scores and not others; here most candidates are the rows of *highest* past score.
And what the paper leaves to that draw, a second look at rows that once scored low, is certain here:
a share EXPLORE of the candidates are the rows whose score is oldest. With F free rows and n
candidates no free row waits more than ceil(F / ceil(EXPLORE n)) rounds (`longest_wait`).

Of the 20 rows that margin sampling would buy with the whole pool in view, the candidates held 49
and 64 % (2,000 rows of SST-2 and of CoLA, twelve rounds, 4 seeds, a fifth as candidates), those of
the paper's draw, by entropy ** 1.2 as in its program, 26 and 25 %, and random ones 21 and 23 %.

The first round scores everything, as the paper does. From there a run of R rounds that buys b rows
in each makes n predictions a round in place of F - r b (`predictions`): with a fifth of the pool as
candidates and ten rounds, 28 % of them.

    history = update(begin(N), all_rows, scores, 0)
    rows = reduce(history, free, n, key)         # what round 1 predicts and scores
    history = update(history, rows, scores, 1)
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from enn_finetune.acquisition.rows import gumbel, numbers, top_k, without
from enn_finetune.types import Spread

EXPLORE = 0.25
"""Share of the candidates that are there because their score is old."""

LOW = float(jnp.finfo(jnp.float32).min)


class History(NamedTuple):
    """What is remembered of every row: arrays, to be saved with a run."""

    scores: Array  # (N,) float32: the last ones; LOW where there are none
    scored: Array  # (N,) int32: the round they are of; -1 where there are none


class Predictions(NamedTuple):
    """Rows predicted over a run."""

    full: int  # were all free rows scored in each round
    made: int

    @property
    def saved(self) -> float:
        """Share of the predictions that were not made."""
        return 1 - self.made / self.full if self.full else 0.0


def begin(rows: int) -> History:
    """No row is scored yet."""
    return History(jnp.full(rows, LOW, jnp.float32), jnp.full(rows, -1, jnp.int32))


def update(
    history: History, rows: Array, scores: Array, number: Array | int, *, axis: Spread = None
) -> History:
    """Remember scores (n,) of the rows (n,), all different, in the round of that number.

    Scores that are not finite are remembered as the lowest: nothing speaks for the row.
    """
    n = history.scores.shape[0]
    place = rows - numbers(n, axis)[0]
    place = jnp.where((place >= 0) & (place < n), place, n)  # those of other devices
    finite = jnp.where(jnp.isfinite(scores), scores, LOW).astype(jnp.float32)
    return History(
        history.scores.at[place].set(finite, mode="drop"),
        history.scored.at[place].set(jnp.asarray(number, jnp.int32), mode="drop"),
    )


def explored(count: int) -> int:
    """How many of n candidates are those of oldest score."""
    return min(count, math.ceil(EXPLORE * count))


def reduce(
    history: History,
    free: Array,
    count: int,
    key: Array,
    *,
    known: bool = False,
    axis: Spread = None,
) -> Array:
    """The rows (n,) int32 to predict and score now, in row order and all different.

    Args:
      history: of the N rows.
      free: (N,) bool: not bought yet.
      count: n, at most N; static.
      key: decides among scores of one age.
      known: the rows bought come first, for rules that look at them (coresets, conditioning).
        Otherwise they only fill up where fewer than n rows are free. Either way `free[rows]` says
        which of the candidates may be bought.
      axis: mesh axis that rows are spread over.
    """
    n, oldest = free.shape[0], explored(count)
    noise = jnp.exp(-jnp.exp(-gumbel(key, n, axis)))  # uniform, each row's own
    age = 0.99 * noise - history.scored
    old = top_k(jnp.where(free, age, -jnp.inf), oldest, axis)
    worth = jnp.where(free, jnp.maximum(history.scores, LOW / 2), jnp.inf if known else LOW)
    untaken = without(jnp.ones_like(free), old, axis)
    best = top_k(jnp.where(untaken, worth, -jnp.inf), count - oldest, axis)
    return jnp.sort(jnp.concatenate([old, best]))


def longest_wait(free: int, count: int) -> int:
    """Rounds within which each of F free rows is among n candidates, unless it is bought."""
    return math.ceil(free / explored(count))


def predictions(free: Sequence[int], count: int) -> Predictions:
    """Rows predicted when round r has `free[r]` rows to choose from; the first predicts all."""
    made = sum(min(count, rows) for rows in free[1:])
    return Predictions(full=sum(free), made=sum(free[:1]) + made)

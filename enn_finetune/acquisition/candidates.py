"""Any rule behind candidates that past scores name (`history.py`): what regimes call.

A regime knows the pool's features, what is bought and how to predict; a rule is shown the
candidates as if they were the pool, and its choice is told in the pool's row numbers.

Where the rule looks at the pool as a whole (EPIG, expected error reduction, batch rules without
targets), the candidates *are* the pool it sees: they stand for uncertain rows more than for all.
Rules that read `Shown.targets` can be given a sample of the whole pool there.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from enn_finetune.acquisition import pointwise, stochastic
from enn_finetune.acquisition.choose import BATCH_RULES, EPISTEMIC, RULES, choose
from enn_finetune.acquisition.history import History, reduce, update
from enn_finetune.types import Rule, Shown, Targets

ROOM = 2
"""Candidates for each row of a batch, at the least: with fewer a rule would have no choice."""


def candidate_count(rows: int, share: float, batch: int, *, first: bool) -> int:
    """How many of N rows a round scores: all in a run's first round, then a share of them.

    Args:
      rows: N.
      share: `acquisition.candidates_share`, in (0, 1].
      batch: rows that are to be bought.
      first: nothing is scored yet.
    """
    return rows if first else min(rows, max(math.ceil(share * rows), ROOM * batch))


def history_score(rule: str) -> Rule:
    """The score that a rule is remembered by: its own, before any noise.

    A batch rule has none of its own: the variance over indices of the prediction stands for an
    epistemic one, and the margin for the others.
    """
    if rule in stochastic.RULES:
        return stochastic.RULES[rule].score
    if rule in BATCH_RULES:
        return pointwise.variance if rule in EPISTEMIC else pointwise.margin
    return RULES[rule]


def choose_reduced(
    rule: str,
    predict: Callable[[Array], Array],
    features: Array,
    free: Array,
    history: History,
    number: Array | int,
    count: int,
    key: Array,
    *,
    candidates: int,
    targets: Targets | None = None,
) -> tuple[Array, History]:
    """Predict the candidates, choose among them, remember their scores.

    With candidates = N this is `choose` on the whole pool, and a history of it.

    Args:
      rule: a name from NAMES; static.
      predict: features (n, D) -> log-probabilities (K, n, C); asked about candidates alone.
      features: (N, D).
      free: (N,) bool; at least `count` are.
      history: of the N rows; where nothing is scored, candidates should be N.
      number: of the round.
      count: rows to choose; static.
      key: of the rule's randomness, and of the candidates'.
      candidates: n, from `candidate_count`; static. A batch rule is also shown the rows bought, in
        place of some, so n should leave room for them.
      targets: what the rule is given as such.

    Returns:
      Row numbers (count,) int32, distinct and free, best first; the history after this round.
    """
    known = rule in BATCH_RULES
    rows = reduce(history, free, candidates, jax.random.fold_in(key, 1), known=known)
    some = features[rows]
    shown = Shown(predict(some), some, free[rows], targets)
    scores = history_score(rule)(shown.log_probs, key)
    return rows[choose(rule, shown, count, key)], update(history, rows, scores, number)


def rows_to_score(history: History, owned: np.ndarray, count: int, key: Array) -> np.ndarray:
    """The free rows (at most `count`,), ascending, that a pass over the pool should score.

    For regimes that predict in batches of their own: `owned` (N,) are the rows bought.
    """
    rows = np.asarray(_reduce(history, jnp.asarray(~owned), count, key), np.int64)
    return rows[~owned[rows]]


_reduce = jax.jit(reduce, static_argnums=2)

"""Any rule behind candidates that past scores name (`history.py`): how many, and by which score.

A rule is shown the candidates as if they were the pool. Where it looks at the pool as a whole
(EPIG, expected error reduction, batch rules without targets), the candidates *are* the pool it
sees: they stand for uncertain rows more than for all. Targets, where rows are named, are as always.
"""

import math

from enn_finetune.acquisition import pointwise, stochastic
from enn_finetune.acquisition.choose import BATCH_RULES, EPISTEMIC, RULES
from enn_finetune.types import Rule

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

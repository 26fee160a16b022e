"""Every rule in two halves: what is kept of a row, and the choice by what was kept."""

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from enn_finetune.acquisition import pointwise, stochastic
from enn_finetune.acquisition.choose import BATCH_RULES, NAMES, RULES
from enn_finetune.acquisition.rows import gather
from enn_finetune.types import BatchRule, Rule, Spread


def score_of(rule: str) -> Rule | None:
    """What a rule computes of each row alone, without the key; None for other rules."""
    if rule in stochastic.RULES:
        return stochastic.RULES[rule].score
    return pointwise.RULES[rule] if rule in pointwise.RULES and rule != "random" else None


@cache
def batch_rule(rule: str) -> BatchRule:
    """Any rule by its name, in two halves.

    Raises:
      ValueError: no such rule.
    """
    if rule in BATCH_RULES:
        return BATCH_RULES[rule]
    if rule not in RULES:
        raise ValueError(f"rule {rule!r}: no such rule; there are {', '.join(NAMES)}")
    score = score_of(rule)

    def read(log_probs: Array, features: Array) -> Any:
        del features
        return () if score is None else score(log_probs, jax.random.key(0))

    def pick(
        kept: Any, free: Array, count: int, key: Array, *, targets: Any = None, axis: Spread = None
    ) -> Array:
        del targets
        scores, left = gather((kept, free), axis)
        if score is None:
            priorities = RULES[rule](jnp.zeros((1, left.shape[0], 1)), key)
        elif rule in stochastic.RULES:
            may = jnp.where(left, scores, -jnp.inf)
            priorities = stochastic.RULES[rule].from_scores(may, key)
        else:
            priorities = scores
        return lax.top_k(jnp.where(left, priorities, -jnp.inf), count)[1].astype(jnp.int32)

    return BatchRule(read, pick)

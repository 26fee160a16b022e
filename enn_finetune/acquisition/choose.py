"""Every rule by its name, and one way to ask any of them for a batch of rows."""

from collections.abc import Mapping
from types import MappingProxyType

import jax
import jax.numpy as jnp
from jax import Array

from enn_finetune.acquisition import closed_form, pointwise, pool_wide, stochastic, transductive
from enn_finetune.acquisition.badge import badge
from enn_finetune.acquisition.batchbald import batchbald
from enn_finetune.acquisition.coreset import confident_coreset, confident_coreset_bald, kcenter
from enn_finetune.acquisition.epig_batch import epig_batch
from enn_finetune.acquisition.lcmd import lcmd, lcmd_gradients
from enn_finetune.acquisition.neuronal import neuronal
from enn_finetune.acquisition.pool_loss import pool_loss
from enn_finetune.acquisition.typiclust import typiclust
from enn_finetune.types import BatchRule, Rule, Shown

RULES: Mapping[str, Rule] = MappingProxyType(
    {**pointwise.RULES, **stochastic.RULES, **pool_wide.RULES}
)
"""Rules that give every row a priority."""

BATCH_RULES: Mapping[str, BatchRule] = MappingProxyType(
    {
        **pool_wide.BATCH_RULES,  # the pool, or named targets
        **stochastic.BATCH_RULES,
        "epig_batch": epig_batch,
        "batchbald": batchbald,
        **closed_form.RULES,
        **transductive.RULES,
        "badge": badge,
        "kcenter": kcenter,
        "confident_coreset": confident_coreset,
        "confident_coreset_bald": confident_coreset_bald,
        "lcmd": lcmd,
        "lcmd_gradients": lcmd_gradients,
        "typiclust": typiclust,
        "pool_loss": pool_loss,
        "neuronal": neuronal,
    }
)
"""Rules that choose rows together, or towards named targets."""

NAMES: tuple[str, ...] = tuple(dict.fromkeys((*RULES, *BATCH_RULES)))
"""All rules."""

EPISTEMIC: frozenset[str] = frozenset(
    pointwise.EPISTEMIC
    | stochastic.EPISTEMIC
    | {name for name, rule in BATCH_RULES.items() if rule.epistemic}
)
"""Rules that read the spread over indices: a plain head tells them nothing."""


def choose(rule: str, shown: Shown, count: int, key: Array) -> Array:
    """The rows that a rule buys next (count,) int32: distinct, free, best first.

    Args:
      rule: a name from NAMES; static.
      shown: predictions and features of N rows, and which of them are free.
      count: at most the number of free rows (not checked: `free` may be traced); static.
      key: of the rule's randomness. Equal priorities go in row order.

    Raises:
      ValueError: no such rule, or more rows asked for than are shown.
    """
    rows = shown.free.shape[0]
    if not 1 <= count <= rows:
        raise ValueError(f"expected 1 <= count <= rows shown, got {count=} rows={rows}")
    if rule in BATCH_RULES:
        return BATCH_RULES[rule](shown, count, key)
    if rule not in RULES:
        raise ValueError(f"rule {rule!r}: no such rule; there are {', '.join(NAMES)}")
    if rule in stochastic.RULES:
        drawn = stochastic.RULES[rule]
        scores = jnp.where(shown.free, drawn.score(shown.log_probs, key), -jnp.inf)
        priorities = drawn.from_scores(scores, key)
    else:
        priorities = RULES[rule](shown.log_probs, key)
    _, best = jax.lax.top_k(jnp.where(shown.free, priorities, -jnp.inf), count)
    return best.astype(jnp.int32)

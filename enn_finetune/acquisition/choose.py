"""Every rule by its name, and one way to ask any of them for a batch of rows."""

from collections.abc import Mapping
from types import MappingProxyType

import jax
import jax.numpy as jnp
from jax import Array

from enn_finetune.acquisition import pointwise, pool_wide, stochastic
from enn_finetune.acquisition.badge import badge
from enn_finetune.types import BatchRule, Rule, Shown

RULES: Mapping[str, Rule] = MappingProxyType(
    {**pointwise.RULES, **stochastic.RULES, **pool_wide.RULES}
)
"""Rules that give every row a priority."""

BATCH_RULES: Mapping[str, BatchRule] = MappingProxyType({"badge": badge})
"""Rules that choose rows together."""

NAMES: tuple[str, ...] = (*RULES, *BATCH_RULES)
"""All rules."""

EPISTEMIC = frozenset(
    pointwise.EPISTEMIC
    | stochastic.EPISTEMIC
    | pool_wide.RULES.keys()
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
    priorities = RULES[rule](shown.log_probs, key)
    _, best = jax.lax.top_k(jnp.where(shown.free, priorities, -jnp.inf), count)
    return best.astype(jnp.int32)

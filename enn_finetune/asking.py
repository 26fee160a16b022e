"""A classifier asked by a rule: what is kept of rows, and which of them to buy.

What a rule reads of a row is computed where the row's features are, batch by batch; the choice is
made of what was kept of all of them. Both are compiled once: shapes do not change between rounds.
"""

import functools
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array

from enn_finetune.acquisition.candidates import history_score
from enn_finetune.acquisition.choose import BATCH_RULES
from enn_finetune.acquisition.halves import batch_rule
from enn_finetune.compiling import encoder_jit
from enn_finetune.config import Config
from enn_finetune.config.rules import TARGETED
from enn_finetune.data.inputs import Rows
from enn_finetune.models.backbone import Inputs
from enn_finetune.train import Parts, merge

Kept = Any  # a pytree of arrays, rows first: a rule's own


class Asked(NamedTuple):
    """What is kept of rows."""

    kept: Kept  # leaves (n, ...)
    scores: Array | np.ndarray | None  # (n,) what candidates of later rounds are found by


def sees_bought(rule: str) -> bool:
    """True for rules that may look at rows already bought, which are then read like the others."""
    return rule in BATCH_RULES


@functools.partial(encoder_jit, static_argnames=("indices", "rule", "remember"))
def read(
    parts: Parts, inputs: Inputs, key: Array, *, indices: int, rule: str, remember: bool = False
) -> Asked:
    """What a rule keeps of a batch of rows, under `indices` indices that all rows share.

    There are scores where later rounds `remember` them.
    """
    classifier = merge(parts)
    head, features = classifier.head, classifier.backbone(inputs)
    z = head.sample_index(jax.random.split(key)[0], indices if head.epistemic else 1)
    log_probs = jax.nn.log_softmax(head.many(features, z), axis=-1)
    rows = head.rows(features) if hasattr(head, "rows") else features
    scores = history_score(rule)(log_probs, jax.random.key(0)) if remember else None
    return Asked(batch_rule(rule).read(log_probs, rows), scores)


def read_rows(
    parts: Parts, pool: Rows, rows: np.ndarray, places: np.ndarray, key: Array, config: Config
) -> Asked:
    """What is kept of the pool's `rows` (n,) that stand at `places`; zeros for the others."""
    found: Asked | None = None
    for some, inputs in pool.batches(rows[places]):
        asked = jax.tree.map(np.asarray, read(parts, inputs, key, **_how(config)))
        if found is None:
            found = jax.tree.map(
                lambda leaf: np.zeros((len(rows), *leaf.shape[1:]), leaf.dtype), asked
            )
        for to, leaf in zip(jax.tree.leaves(found), jax.tree.leaves(asked), strict=True):
            to[places[some]] = leaf[: len(some)]
    if found is None:
        raise ValueError("expected at least one row to read")
    return found


def _how(config: Config) -> dict[str, Any]:
    asked = config.acquisition
    return {
        "indices": asked.indices,
        "rule": asked.rule,
        "remember": asked.candidates_share < 1,
    }


def read_targets(parts: Parts, targets: Rows | None, key: Array, config: Config) -> Kept | None:
    """What is kept of the target rows, if some are named and the rule looks at them."""
    if targets is None or config.acquisition.rule not in TARGETED:
        return None
    rows = np.arange(len(targets))
    return read_rows(parts, targets, rows, rows, key, config).kept


@functools.partial(encoder_jit, static_argnames=("rule", "count"))
def pick(
    kept: Kept, free: Array, key: Array, targets: Kept | None, *, rule: str, count: int
) -> Array:
    """The places (count,) of the rows to buy, best first, among those that are free (n,)."""
    return batch_rule(rule).pick(kept, free, count, jax.random.split(key)[1], targets=targets)

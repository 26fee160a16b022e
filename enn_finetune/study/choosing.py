"""Rules in a study: each seed's fit asked about its pool.

The first half of a rule is applied to a chunk of rows while it is in the cache, so that
log-probabilities (K, N, C) of the whole pool never stand in memory, but for rules that keep them;
what is chosen is what `acquisition.choose` would choose.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from enn_finetune.acquisition.halves import batch_rule
from enn_finetune.acquisition.rows import map_blocks
from enn_finetune.costs import Work
from enn_finetune.data.oracle import Oracle
from enn_finetune.predicting import predictor
from enn_finetune.study.ground import POOL, Ground, Make
from enn_finetune.study.programs import Program, Workers


def choose_all(
    make: Make,
    fits: Sequence[Any],
    ground: Ground,
    oracles: Sequence[Oracle],
    keys: Sequence[Array],
    work: Workers,
    *,
    rule: str,
    count: int,
    indices: int,
) -> tuple[list[np.ndarray], Work]:
    """The pool rows (count,) that each seed's rule would buy, best first, and the cost of asking.

    `count` is lowered to the rows that are left.
    """
    size = min(count, len(oracles[0]) - len(oracles[0].bought))
    program = choosing(make, rule, indices, size)
    found, spent = [np.empty(0, np.int64) for _ in fits], Work()
    named = [] if ground.targets is None else [ground.targets]
    for places, (rows, *targets) in ground.groups(make, fits, [POOL, *named]):
        about = targets[0] if targets else None
        seeds = [(fits[i], rows, about, jnp.asarray(~oracles[i].owned), keys[i]) for i in places]
        results, cost = work.each(program, seeds)
        share = len(places) / len(fits)
        spent = spent.plus(cost.times(share))
        for place, result in zip(places, results, strict=True):
            found[place] = np.asarray(result)
    return found, spent


@functools.cache
def choosing(make: Make, rule: str, indices: int, count: int) -> Program:
    """A fit, the pool's rows (N, .), those of targets (M, .) or None, which are free (N,), a key.

    It returns row numbers (count,).
    """
    halves = batch_rule(rule)

    def chosen(fit: object, rows: Array, targets: Array | None, free: Array, key: Array) -> Array:
        predict = predictor(make(fit), key, indices)
        kept = map_blocks(
            lambda some: halves.read(predict.chunk(some), some), rows, predict.rows_at_once
        )
        about = None if targets is None else halves.read(predict(targets), targets)
        rule_key = jax.random.fold_in(key, 2)
        return halves.pick(kept, free, count, rule_key, targets=about)

    return Program(chosen)

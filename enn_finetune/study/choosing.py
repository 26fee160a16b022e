"""Rules in a study: each seed's fit asked about its pool.

Rules that look at a row alone are applied to a chunk of rows while it is in the cache, so that
log-probabilities (K, N, C) of the whole pool never stand in memory; what is chosen is what
`acquisition.choose` would choose. Rules that look at the pool as a whole get them: 4 K N C bytes a
thread, several times over.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from enn_finetune.acquisition import choose as rules
from enn_finetune.acquisition import pointwise, stochastic
from enn_finetune.data.oracle import Oracle
from enn_finetune.models.row_chunks import map_rows
from enn_finetune.study.ground import POOL, Ground, Make
from enn_finetune.study.heads import Predict, predictor
from enn_finetune.study.programs import Cost, Program, Workers
from enn_finetune.types import Rule, Shown


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
) -> tuple[list[np.ndarray], Cost]:
    """The pool rows (count,) that each seed's rule would buy, best first, and the cost of asking.

    `count` is lowered to the rows that are left.
    """
    size = min(count, len(oracles[0]) - len(oracles[0].bought))
    program = choosing(make, rule, indices, size)
    found, spent = [np.empty(0, np.int64) for _ in fits], Cost()
    for places, (rows,) in ground.groups(make, fits, [POOL]):
        seeds = [(fits[i], rows, jnp.asarray(~oracles[i].owned), keys[i]) for i in places]
        results, cost = work.each(program, seeds)
        share = len(places) / len(fits)
        spent = spent.plus(Cost(cost.seconds * share, cost.flops * share))
        for place, result in zip(places, results, strict=True):
            found[place] = np.asarray(result)
    return found, spent


@functools.cache
def choosing(make: Make, rule: str, indices: int, count: int) -> Program:
    """A fit, the pool's rows (N, .), which are free (N,), and a key -> row numbers (count,)."""

    def chosen(fit: object, rows: Array, free: Array, key: Array) -> Array:
        predict = predictor(make(fit), key, indices)
        rule_key = jax.random.fold_in(key, 2)
        priorities = row_by_row(rule, predict, rows, rule_key)
        if priorities is None:
            shown = Shown(predict(rows), rows, free)
            return rules.choose(rule, shown, count, rule_key)
        _, best = jax.lax.top_k(jnp.where(free, priorities, -jnp.inf), count)
        return best.astype(jnp.int32)

    return Program(chosen)


def row_by_row(rule: str, predict: Predict, rows: Array, key: Array) -> Array | None:
    """The priorities (N,) of a rule that looks at one row at a time; None for other rules."""
    if rule in pointwise.RULES and rule != "random":
        return _scores(pointwise.RULES[rule], predict, rows)
    form = stochastic.RULES.get(rule)
    if form is not None:  # the score of each row alone, then the noise of the whole pool
        return form.from_scores(_scores(form.score, predict, rows), key)
    return None


def _scores(rule: Rule, predict: Predict, rows: Array) -> Array:
    """A deterministic rule, applied to chunks of rows."""
    nothing = jax.random.key(0)
    found = map_rows(
        lambda chunk: rule(predict.chunk(chunk), nothing)[None, :, None],
        rows,
        floats_per_row=predict.floats_per_row,
    )
    return found[0, :, 0]

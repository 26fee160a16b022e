"""EPIG for batches: rows whose labels *together* tell most about each target's label."""

import jax.numpy as jnp
from jax import Array, lax

from enn_finetune.acquisition.label_table import LabelTable, mean_over, nothing_known
from enn_finetune.acquisition.lazy_greedy import Gains, greedy
from enn_finetune.acquisition.pool_wide import TargetRows, block_of, information, target_rows
from enn_finetune.acquisition.predictions import Predictions, read_predictions
from enn_finetune.acquisition.rows import map_blocks
from enn_finetune.types import BatchRule, Spread

CONFIGURATIONS = 2**8
"""Outcomes of a batch's labels in the table: all of 8 rows with two classes, of 5 with three."""

LOOK = 128
"""Rows looked at together. A pool of no more is looked at whole for each row chosen."""


def predictive_gains(aims: TargetRows) -> Gains:
    """I(y; d | labels of the batch), in nats, mean over targets' labels d.

    The mean over configurations of the information that the two labels have under that posterior
    of the index, from p(y), p(d) and cov(y, d) under it: as accurate near 0 as far from it.
    """
    exact = lax.Precision.HIGHEST
    others, indices, kept = aims.probs.shape
    by_index = jnp.moveaxis(aims.probs, 1, 0).reshape(indices, others * kept)

    def signed(of_kept: Array, place: int) -> Array:
        # Of two classes one is kept: what the other's probability gains, that one's loses.
        return jnp.concatenate([-of_kept, of_kept], place) if kept == 1 else of_kept

    def every(of_kept: Array) -> Array:
        return jnp.concatenate([1 - of_kept, of_kept], -1) if kept == 1 else of_kept

    def gains(table: LabelTable, probs: Array) -> Array:
        def of_some(weights: Array, shares: Array) -> Array:
            q = jnp.matmul(weights, by_index, precision=exact).reshape(-1, others, kept)

            def block(some: Array) -> Array:
                rows = some.shape[0]
                flat = jnp.moveaxis(some, 1, 0).reshape(indices, rows * kept)
                p = jnp.matmul(weights, flat, precision=exact)  # (s, B * kept)
                off = weights[:, None] * (flat.T[None] - p[..., None])  # (s, B * kept, K)
                cov = jnp.matmul(off, by_index, precision=exact)
                cov = jnp.moveaxis(cov.reshape(-1, rows, kept, others, kept), 0, 1)
                means = jnp.moveaxis(p.reshape(-1, rows, kept), 0, 1)
                told = information(every(means), every(q)[None], signed(signed(cov, 2), 4))
                told = jnp.matmul(told, aims.weights, precision=exact)  # (B, s)
                return jnp.matmul(told, shares, precision=exact)

            classes = max(2, kept)
            entries = weights.shape[0] * max(classes * others * classes, kept * indices)
            return map_blocks(block, probs, block_of(entries))

        return mean_over(table, of_some)

    return gains


def epig_batch_gains(
    kept: Predictions,
    free: Array,
    count: int,
    key: Array,
    *,
    targets: Predictions | None = None,
    axis: Spread = None,
) -> tuple[Array, Array]:
    """Rows (count,) and what each adds, in nats, to the information of the batch about a target.

    The sum of the gains is mean_t I(y_1, ..., y_b; d_t), the batch's score.
    """
    gains = predictive_gains(target_rows(kept, key, targets, axis))
    table = nothing_known(1, kept.probs.shape[1])
    return greedy(
        kept.probs,
        map_blocks(lambda some: gains(table, some), kept.probs),
        free,
        count,
        key,
        gains=gains,
        most=CONFIGURATIONS,
        block=LOOK,
        axis=axis,
    )


def pick_for_targets(
    kept: Predictions,
    free: Array,
    count: int,
    key: Array,
    *,
    targets: Predictions | None = None,
    axis: Spread = None,
) -> Array:
    """Rows (count,) by greedy joint expected predictive information gain.

    The first is that of `epig` (arXiv 2304.08151, equation 5; towards the targets, or 100 rows of
    the pool). Each other one adds most given the labels before it, whatever they come out as:
    exactly as long as their C^b outcomes fit a table of 256, by drawn outcomes beyond, as for
    `batchbald`, whose treatment of copies and of exhausted indices is also this rule's. Unlike
    what labels tell about the index, what they tell about one target's label can grow with the
    batch (two labels may mean something only together), so a gain computed earlier is not a bound:
    in a pool of more than 128 rows the greedy choice is among those looked at, in the order of
    their last gains, until the best is above all others' last gains.

    Time is N * M * C^2 * K for the first row, then count * (rows looked at) * 256 * M * C^2 * K.
    """
    return epig_batch_gains(kept, free, count, key, targets=targets, axis=axis)[0]


epig_batch = BatchRule(read_predictions, pick_for_targets)
"""The rule: see `pick_for_targets`."""

"""BatchBALD: rows whose labels *together* tell most about the index (arXiv 1906.08158)."""

import jax.numpy as jnp
from jax import Array, lax

from enn_finetune.acquisition.label_table import DRAWS, LabelTable, mean_over
from enn_finetune.acquisition.lazy_greedy import greedy
from enn_finetune.acquisition.predictions import Predictions, entropy, read_predictions
from enn_finetune.types import BatchRule, Spread

CONFIGURATIONS = 2**12
"""Outcomes of a batch's labels in the table: all of 12 rows with two classes, of 7 with three."""

LOOK = 2**18
"""Entries of the table (configurations, rows, C) that is in memory at a time."""


def conditional_information(table: LabelTable, probs: Array) -> Array:
    """I(y; z | labels of the batch) in nats (B,) of rows with kept probabilities (B, K, .).

    The mean over configurations of H(sum_k w_k p_k) - sum_k w_k H(p_k), each of which is the
    information that the label has under that posterior of the index: none is negative, and all are
    0 where the posterior is certain. So the estimate from drawn configurations has no noise left
    where there is nothing left to know; the paper's, H(y, batch) - H(batch) - E H(y | z), has the
    same mean.
    """
    exact = lax.Precision.HIGHEST
    rows, indices, kept = probs.shape
    by_index = jnp.moveaxis(probs, 1, 0).reshape(indices, rows * kept)

    def total(weights: Array, shares: Array) -> Array:
        after = jnp.matmul(weights, by_index, precision=exact).reshape(-1, rows, kept)
        return jnp.matmul(shares, entropy(after), precision=exact)

    of_index = jnp.matmul(table.shares, table.weights, precision=exact)  # 1 / K each, if exact
    return mean_over(table, total) - jnp.matmul(entropy(probs), of_index, precision=exact)


def batchbald_gains(
    kept: Predictions, free: Array, count: int, key: Array, *, axis: Spread = None
) -> tuple[Array, Array]:
    """Rows (count,) and what each adds to the joint information of those before it, in nats.

    The sum of the gains is the score of the batch, I(y_1, ..., y_b; z): equation 7 of the paper.
    """
    return greedy(
        kept.probs,
        kept.information,
        free,
        count,
        key,
        gains=conditional_information,
        most=CONFIGURATIONS,
        block=max(16, LOOK // (DRAWS * kept.probs.shape[2])),
        axis=axis,
    )


def pick_jointly(
    kept: Predictions,
    free: Array,
    count: int,
    key: Array,
    *,
    targets: Predictions | None = None,
    axis: Spread = None,
) -> Array:
    """Rows (count,) by greedy joint mutual information of their labels with the index.

    The first is BALD's. As long as all C^b outcomes of the labels of the batch so far fit the
    table (b = 12 with two classes), gains are exact and so is the greedy choice, to float32: the
    gain of a row can only shrink, so a row not looked at was not better. Beyond, gains are means
    over 4,096 outcomes drawn and kept (`label_table` says what is unbiased); bounds then hold in
    expectation, so a row not looked at may be better by the noise of the estimate, some per cent
    of a gain. Once the K samples are told apart, the gains are 0 whatever is bought, and the order
    of what follows is the heuristic `label_table.faded`; a batch long beyond that is better chosen
    by a rule in closed form, or more indices.

    Copies of rows in the batch come after all other rows (see `lazy_greedy`): the paper's objective
    takes a copy's label for a new draw from the same prediction, and can prefer that of a noisy row
    to any other row. Targets change nothing.

    Time is count * (rows looked at) * S * K, S being the outcomes so far, 4,096 at most; memory is
    the table of a block (512, B, C) and a few arrays (n,) beside what is kept.
    """
    del targets
    return batchbald_gains(kept, free, count, key, axis=axis)[0]


batchbald = BatchRule(read_predictions, pick_jointly)
"""The rule: see `pick_jointly`."""

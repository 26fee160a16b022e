"""Rules that ask what a row's label would tell about *other* rows: named targets, or the pool.

BALD prizes what a label tells about the index, even where no row of the pool would be predicted
differently for it; that is how it comes to buy outliers. Weighting the K index samples by the
probability that each gives the label y of a row x is the posterior after that label, so what it
would tell about a target row t is in the joint prediction of the two, in closed form:

  p(y, d) = mean_k p_k(y | x) p_k(d | t) = p(y) p(d) + cov(y, d)

All three rules are expectations of a proper or 0-1 loss over that posterior, from predictions
alone. Expected posterior *entropy* (Roy and McCallum 2001) needs no rule of its own: what it
removes from the entropy of the targets is EPIG.

Each rule is here twice: as a `Rule`, that scores the rows of a pool, and as a `BatchRule`, that
picks the free rows of the highest scores, towards targets where the user names them. Its rows are
not chosen together: copies of one row have one score (`epig_batch` is for that).

Other programs. On the same targets `epig` is baal's EPIG (2.1), and `bald` its BALD, which tests
hold. What differs: its EPIG has to be given targets, where ours draws them from the pool; its
Variance is the mean over classes and `variance` the sum, which rank alike; its BatchBALD samples
label outcomes however few there are, anew for every row, and returns rows by the score that each
had when it was bought, not in that order (`batchbald` is exact as long as outcomes fit, and is
compared with batchbald_redux).
"""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple, Protocol

import jax.numpy as jnp
from jax import Array, lax

from enn_finetune.acquisition.predictions import Predictions, all_classes, read_predictions
from enn_finetune.acquisition.rows import (
    BLOCK,
    everywhere,
    map_blocks,
    real,
    sample,
    take,
    top_k,
    total,
)
from enn_finetune.types import BatchRule, Rule, Spread

TARGETS = 100
"""M: rows that stand for the pool, drawn uniformly; all of them where there are fewer.
The number of Bickford Smith et al. (2023)."""

CHUNK = 2**20
"""Entries of the table (rows, C, C, M) that is in memory at a time. Targets come last, so that the
arithmetic, which sums over classes, runs along them."""


class TargetRows(NamedTuple):
    """Rows that predictions should become better for, and how much each counts."""

    probs: Array  # (M, K, C) or (M, K, 1)
    weights: Array  # (M,) they add up to 1; 0 where a row only fills up


class Scores(Protocol):
    """What each row's label would tell about the targets, or about the pool for want of them."""

    def __call__(
        self,
        kept: Predictions,
        key: Array,
        *,
        targets: Predictions | None = None,
        axis: Spread = None,
    ) -> Array:
        """Scores (n,), finite, larger first; arguments as `types.Pick`."""
        ...


def target_rows(
    kept: Predictions, key: Array, targets: Predictions | None, axis: Spread
) -> TargetRows:
    """The targets; if there are none, TARGETS of the pool's rows, bought or not, drawn by the key.

    The number drawn is the same whatever the pool, so that padding of a pool changes nothing.
    """
    if targets is not None:
        rows = targets.probs.shape[0]
        return TargetRows(targets.probs, jnp.full(rows, 1 / rows))
    may = real(kept.probs.shape[0], axis)
    # In row order, so that where all rows are drawn nothing depends on the key.
    drawn = jnp.sort(sample(may, min(TARGETS, everywhere(may.shape[0], axis)), key, axis))
    probs, counts = take((kept.probs, may.astype(jnp.float32)), drawn, axis)
    fill = [(0, TARGETS - drawn.shape[0])]
    counts = jnp.pad(counts, fill)
    probs = jnp.pad(probs, [*fill, (0, 0), (0, 0)])
    return TargetRows(probs, counts / jnp.maximum(jnp.sum(counts), 1))


def block_of(entries: int) -> int:
    """Rows of so many entries each that fit a chunk: a power of 2, so that blocks align."""
    return min(BLOCK, 2 ** max(0, int(math.log2(max(1, CHUNK // entries)))))


def _over_targets(gain: Callable[[Array, Array, Array], Array]) -> Scores:
    """Means over targets of gain(p (B, C), q (C, M), cov (B, C, C, M)) -> (B, M)."""

    def scores(
        kept: Predictions,
        key: Array,
        *,
        targets: Predictions | None = None,
        axis: Spread = None,
    ) -> Array:
        aims = target_rows(kept, key, targets, axis)
        others = jnp.moveaxis(all_classes(aims.probs), 0, 2)  # (K, C, M)
        indices, classes, rows = others.shape
        q = jnp.mean(others, axis=0)
        spread = (others - q[None]).reshape(indices, classes * rows) / indices

        def block(probs: Array) -> Array:
            every = all_classes(probs)  # (B, K, C)
            p = jnp.mean(every, axis=1)
            deviations = jnp.moveaxis(every - p[:, None], 1, 2)  # (B, C, K)
            cov = jnp.matmul(deviations, spread, precision=lax.Precision.HIGHEST)
            gains = gain(p, q, cov.reshape(*p.shape, classes, rows))
            return jnp.matmul(gains, aims.weights, precision=lax.Precision.HIGHEST)

        return map_blocks(block, kept.probs, block_of(classes * rows * classes))

    return scores


def information(p: Array, q: Array, cov: Array) -> Array:
    """Mutual information (..., M) in nats of two labels, by their means and covariances.

    p (..., C) of one label, q (..., C, M) of M others, cov (..., C, C, M), the others' classes
    second. It is exact near 0: without the terms that add up to 0, pq * ratio, none is negative.
    """
    independent = p[..., :, None, None] * q[..., None, :, :]
    return jnp.sum(_dependence(independent, cov), axis=(-3, -2))


def information_of_two(p: Array, q: Array, cov: Array) -> Array:
    """`information` (..., M) of labels with two classes, by the second's p (...), q (..., M), cov.

    The other entries of the table of two labels differ from these by sign alone: they are never
    laid out.
    """
    found = jnp.zeros((), cov.dtype)
    for one, sign in ((p, 1.0), (1 - p, -1.0)):
        for other, side in ((q, sign), (1 - q, -sign)):
            found += _dependence(one[..., None] * other, side * cov)
    return found


def _dependence(independent: Array, cov: Array) -> Array:
    """Its share of the information of each pair of classes: joint log(joint / independent) - cov.

    Where a pair is all but impossible the ratio stops short of -1, which costs 1e-6 of its
    probability: selects in place of bounds would keep the compiler from vectors (20 times slower).
    """
    ratio = jnp.maximum(cov / jnp.maximum(independent, 1e-12), -1 + 1e-7)
    return independent * ((1 + ratio) * jnp.log1p(ratio) - ratio)


def _information(p: Array, q: Array, cov: Array) -> Array:
    return information(p, q[None], cov)


def _fewer_errors(p: Array, q: Array, cov: Array) -> Array:
    joint = p[:, :, None, None] * q[None, None] + cov
    now = jnp.argmax(q, axis=0)[None, None, None]
    return jnp.sum(jnp.max(joint, 2) - jnp.take_along_axis(joint, now, 2)[:, :, 0], axis=1)


def _centred(probs: Array) -> tuple[Array, Array]:
    """Means (n, C) over indices and deviations (n, K, C) of all classes."""
    every = all_classes(probs)
    mean = jnp.mean(every, axis=1)
    return mean, every - mean[:, None]


def _gram(probs: Array, weights: Array, axis: Spread) -> Array:
    """Sum over rows of weight * deviations deviations' (K, K), in one order of whole blocks."""
    rows, indices, kept = probs.shape
    blocks = math.ceil(rows / BLOCK)
    fill = blocks * BLOCK - rows

    def block(some: tuple[Array, Array]) -> Array:
        _, deviations = _centred(some[0])
        flat = jnp.moveaxis(deviations, 1, 0)  # (K, B, C)
        weighted = (flat * some[1][None, :, None]).reshape(indices, -1)
        return jnp.matmul(weighted, flat.reshape(indices, -1).T, precision=lax.Precision.HIGHEST)

    padded = jnp.pad(probs, [(0, fill), (0, 0), (0, 0)]).reshape(blocks, BLOCK, indices, kept)
    grams = lax.map(block, (padded, jnp.pad(weights, (0, fill)).reshape(blocks, BLOCK)))
    return total(grams, axis, block=1)


def brier_scores(
    kept: Predictions,
    key: Array,
    *,
    targets: Predictions | None = None,
    axis: Spread = None,
) -> Array:
    """`eer_brier` of each row (n,): towards the targets, or all rows for want of them."""
    del key
    if targets is None:
        counts = real(kept.probs.shape[0], axis).astype(jnp.float32)
        gram = _gram(kept.probs, counts, axis) / total(counts, axis)
    else:
        gram = _gram(targets.probs, jnp.ones(targets.probs.shape[0]), None)
        gram /= targets.probs.shape[0]
    gram /= kept.probs.shape[1] ** 2

    def block(probs: Array) -> Array:
        mean, deviations = _centred(probs)
        after = jnp.einsum("kj,njc->nkc", gram, deviations, precision=lax.Precision.HIGHEST)
        by_class = jnp.maximum(jnp.sum(deviations * after, axis=1), 0)
        return jnp.sum(jnp.where(mean > 0, by_class / jnp.where(mean > 0, mean, 1), 0), axis=-1)

    return map_blocks(block, kept.probs)


SCORES: Mapping[str, Scores] = MappingProxyType(
    {
        "epig": _over_targets(_information),
        "eer": _over_targets(_fewer_errors),
        "eer_brier": brier_scores,
    }
)
"""The scores of each rule."""


def _of_a_pool(name: str, log_probs: Array, key: Array) -> Array:
    kept = read_predictions(log_probs, jnp.zeros((log_probs.shape[1], 0)))
    return SCORES[name](kept, key)


def epig(log_probs: Array, key: Array) -> Array:
    """Expected predictive information gain (N,), in nats (Bickford Smith et al. 2023, eq. 5).

    Mutual information of a row's label and a target row's label, mean over the targets
    (arXiv 2304.08151). Costs N * M * C^2 * K multiplications.
    """
    return _of_a_pool("epig", log_probs, key)


def eer(log_probs: Array, key: Array) -> Array:
    """Expected error reduction (N,): errors that a label spares a target row, in expectation.

    Roy and McCallum (2001), with 0-1 loss and the posterior by reweighting the index samples. It
    is 0 for a row whose label, whatever it is, changes no target's predicted class. Costs what
    `epig` costs, without the logarithms.
    """
    return _of_a_pool("eer", log_probs, key)


def eer_brier(log_probs: Array, key: Array) -> Array:
    """Expected Brier score reduction (N,) over *all* rows: sum_y mean_t |cov(y, t)|^2 / p(y).

    Expected error reduction with a proper loss, for which the targets enter through their Gram
    matrix (K, K) alone: N * C * K^2 multiplications, no sample of targets, no randomness. Its
    terms cov^2 / p(y), each over 2 p(d), are the first of EPIG's Taylor series in cov.
    """
    return _of_a_pool("eer_brier", log_probs, key)


def _best(scores: Scores) -> BatchRule[Predictions]:
    def pick(
        kept: Predictions,
        free: Array,
        count: int,
        key: Array,
        *,
        targets: Predictions | None = None,
        axis: Spread = None,
    ) -> Array:
        priorities = scores(kept, key, targets=targets, axis=axis)
        return top_k(jnp.where(free, priorities, -jnp.inf), count, axis).astype(jnp.int32)

    return BatchRule(read_predictions, pick)


RULES: Mapping[str, Rule] = MappingProxyType({"epig": epig, "eer": eer, "eer_brier": eer_brier})
"""Scores with the pool itself as targets; with a plain head every score is 0."""

BATCH_RULES: Mapping[str, BatchRule[Predictions]] = MappingProxyType(
    {name: _best(scores) for name, scores in SCORES.items()}
)
"""The same rules, asked for rows: the free rows of the highest scores, towards targets if any."""

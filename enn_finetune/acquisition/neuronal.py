"""NeurONAL's two ways to ask (Ban et al. 2024, ICLR, arXiv 2404.12522): of a pool, of a stream.

Both read the gap w between the two largest class scores of a row. In the paper the scores are
f1 + f2: what an exploitation network predicts, and what an exploration network expects it to be
wrong by. Here they are the mean prediction of whatever head a run has; `models/neuronal.py` is the
head whose mean prediction is f1 + f2. So the networks stay a model, and the rules see predictions
alone, as all rules do: under a plain head they read its own gap.

Pool (NeurONAL-P, Algorithm 2; after the weights of Foster and Krishnamurthy 2021, arXiv
2107.02237). With w_min the least gap of the free rows, held by row b,

    p_i = w_min / (mu w_min + gamma (w_i - w_min))  for i != b,    p_b = 1 - sum_{i != b} p_i

A batch is drawn by these without replacement. Here mu is the number of free rows N, the least for
which p is sure to be a distribution (p_b >= 1/N), and gamma = SHARPNESS N. In a big pool w_min is
nearly 0: row b is then all but certain to come first, and the others are drawn in proportion to
1 / (w_min / SHARPNESS + w_i - w_min), near enough one over their gaps.

Stream (NeurONAL-S, Algorithm 1): a row is asked about where w < 2 gamma beta_t, and otherwise taken
to have the label predicted. beta_t falls as 1 / sqrt(t); its constant is of the function class and
not known in practice, so that it is the caller's `scale` here. Smoothed to a probability,
min(1, threshold / w), every row may be asked about, which thresholds do not grant.

The smoothing is ours. The pool's weights agree with a public program made after the paper, whose
text, and with it the numbering of its algorithms, was not at hand.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, random

from enn_finetune.acquisition import pointwise
from enn_finetune.acquisition.rows import argmax, gumbel, numbers, take, top_k, total
from enn_finetune.types import BatchRule, Spread

SHARPNESS = 1.0
"""gamma / mu: equal in published programs too."""

LEAST = 1e-6
"""Gaps below this are ties: float32 cannot tell them from 0."""


class Gaps(NamedTuple):
    """What the rule keeps of a row."""

    gap: Array  # (N,) in [0, 1]; 0 where there is one class


def gaps(log_probs: Array, features: Array | None = None) -> Gaps:
    """Gaps of the two largest probabilities of the mean prediction; log-probabilities (K, N, C)."""
    del features
    return Gaps(-pointwise.margin(log_probs, random.key(0)))


def log_weights(gap: Array, free: Array, *, axis: Spread = None) -> Array:
    """Logarithms of the paper's p (N,) for gaps (N,); -inf where a row is not free.

    Of rows with the same least gap the first is b.
    """
    gap = jnp.maximum(gap, LEAST)
    best = argmax(jnp.where(free, -gap, -jnp.inf), axis)
    count = jnp.maximum(total(free.astype(jnp.float32), axis), 1)
    least = take(gap, best, axis)
    logs = jnp.log(least) - jnp.log(count * (least + SHARPNESS * (gap - least)))
    is_best = numbers(gap.shape[0], axis) == best
    others = total(jnp.where(free & ~is_best, jnp.exp(logs), 0), axis)
    rest = jnp.log(jnp.maximum(1 - others, 1 / count))
    return jnp.where(free, jnp.where(is_best, rest, logs), -jnp.inf)


def pick_by_inverse_gap(
    kept: Gaps,
    free: Array,
    count: int,
    key: Array,
    *,
    targets: Gaps | None = None,
    axis: Spread = None,
) -> Array:
    """Rows (count,) drawn without replacement by `log_weights`, in the order drawn.

    Rows that look alike are drawn alike: nothing keeps duplicates apart. Targets change nothing.
    """
    del targets
    noise = gumbel(key, free.shape[0], axis)
    return top_k(log_weights(kept.gap, free, axis=axis) + noise, count, axis)


neuronal = BatchRule(gaps, pick_by_inverse_gap, epistemic=False)
"""The pool rule: see the module."""


def thresholds(rows: int, scale: float, *, seen: Array | int = 0) -> Array:
    """2 gamma beta_t (n,) of the next n rows of a stream: scale / sqrt(t), t counted from 1.

    Args:
      rows: n.
      scale: the threshold of the very first row; 1 asks about it whatever its gap.
      seen: rows before these.
    """
    return scale / jnp.sqrt(seen + 1 + jnp.arange(rows, dtype=jnp.float32))


def query_probabilities(gap: Array, threshold: Array) -> Array:
    """min(1, threshold / w) (n,): inverse-gap weighting of asking, 1 below the threshold."""
    return jnp.minimum(1, threshold / jnp.maximum(gap, LEAST))


def asked_in_stream(kept: Gaps, scale: float, *, seen: int) -> np.ndarray:
    """Flags (N,) of the next rows of a stream that are to be asked about, `seen` coming before."""
    rows = kept.gap.shape[0]
    return np.asarray(ask(kept.gap, thresholds(rows, scale, seen=seen), rows))


def ask(gap: Array, threshold: Array, budget: Array | int, key: Array | None = None) -> Array:
    """Which rows (n,) of a stream to buy the labels of, in order, until the budget is spent.

    Args:
      gap: (n,) from `gaps`, under the model as it is.
      threshold: (n,), or () for all: from `thresholds`, or a constant.
      budget: labels left; none after it whatever the gap.
      key: asks by `query_probabilities`; None asks where the gap is below the threshold (the
        paper's decision).
    """
    limit = jnp.broadcast_to(jnp.asarray(threshold, gap.dtype), gap.shape)
    wanted = gap < limit
    if key is not None:
        wanted = random.uniform(key, gap.shape) < query_probabilities(gap, limit)
    return wanted & (jnp.cumsum(wanted) <= budget)

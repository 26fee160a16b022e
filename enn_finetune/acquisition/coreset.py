"""Coresets: rows chosen so that none of the pool is far from a row bought."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from enn_finetune import predictive
from enn_finetune.acquisition.distances import Points, greedy, points, read_in_blocks
from enn_finetune.acquisition.rows import map_blocks
from enn_finetune.types import BatchRule, Spread

CERTAIN = 1e-6
"""Nats that every row is uncertain by, at least: among rows of no uncertainty, distance decides."""


class Weighted(NamedTuple):
    """Rows and how uncertain each is."""

    points: Points
    uncertainty: Array  # (n,) in nats, CERTAIN at least


def read_features(log_probs: Array, features: Array) -> Points:
    """Rows as their features."""
    del log_probs
    return map_blocks(points, features)


def pick_farthest(
    kept: Points,
    free: Array,
    count: int,
    key: Array,
    *,
    targets: Points | None = None,
    axis: Spread = None,
) -> Array:
    """Rows (count,) by the greedy algorithm for the k-center problem, in order of choice.

    Algorithm 1 of Sener & Savarese 2018, arXiv 1708.00489: each next row is the free one farthest
    from its nearest centre, u = argmax_i min_{j in S} |x_i - x_j|. Centres are the rows bought and
    those chosen before; with none, the row of largest norm is first, as in the programs of
    Holzmueller et al. 2023 (arXiv 2203.09410, MaxDist). The paper's refinement of that by a mixed
    integer program is left out, as it is by those who followed: greedy is within a factor 2 of the
    smallest possible radius.

    Time is (bought + count) * N * D, memory a few arrays (N,) beside the features. Neither the key
    nor targets change anything.
    """
    del key, targets
    return greedy(kept, free, count, lambda distances, *_: distances, axis)


def pick_confident(
    kept: Weighted,
    free: Array,
    count: int,
    key: Array,
    *,
    targets: Weighted | None = None,
    axis: Spread = None,
) -> Array:
    """Rows (count,) by uncertainty times distance from the nearest centre, in order of choice.

    Confident coreset, Kim, Mushtaq & Navab 2020, arXiv 2004.02200: in the greedy k-center algorithm
    (see `pick_farthest`) the distance is multiplied by the row's uncertainty,
    u = argmax_i U(x_i) min_{j in S} |x_i - x_j|. The paper learns to predict a row's loss and takes
    that for U; here it is the loss that the head itself expects, the entropy of its prediction, or
    the epistemic part of it.

    Cost as for `pick_farthest`. Neither the key nor targets change anything.
    """
    del key, targets

    def score(distances: Array, *_: Array) -> Array:
        return kept.uncertainty * jnp.sqrt(distances)

    return greedy(kept.points, free, count, score, axis)


def confident(measure: Callable[[Array], Array], *, epistemic: bool) -> BatchRule[Weighted]:
    """The rule by uncertainty times distance, for a measure (K, n, C) -> (n,) in nats."""

    def weigh(log_probs: Array, features: Array) -> Weighted:
        return Weighted(points(features), jnp.maximum(measure(log_probs), CERTAIN))

    def read(log_probs: Array, features: Array) -> Weighted:
        return read_in_blocks(weigh, log_probs, features)

    return BatchRule(read, pick_confident, epistemic=epistemic)


kcenter = BatchRule(read_features, pick_farthest, epistemic=False)
"""The rule: see `pick_farthest`."""

confident_coreset = confident(lambda lp: predictive.uncertainty(lp).total, epistemic=False)
"""The rule with the entropy of the prediction: see `pick_confident`."""

confident_coreset_bald = confident(lambda lp: predictive.uncertainty(lp).epistemic, epistemic=True)
"""The rule with the mutual information of label and index: see `pick_confident`."""

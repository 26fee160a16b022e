"""Labels to reach a score, and the saving ratio with its bootstrap interval."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from scipy import special

from enn_finetune.savings.curves import Stack

RESAMPLES = 2000
TOLERANCE = 1e-9  # scores closer than this are equal: rounding must not decide who reached what
FEWEST = 5
"""Seeds that a ratio's interval asks for: of S seeds all lie on one side of the truth by chance in
2^(1 - S) of studies, and no resample of them says otherwise. With two that is every second one."""
Criterion = Literal["sustained", "first", "kept"]


class Ratio(NamedTuple):
    """Labels one arm needs over labels another needs, above 1 where labels are saved."""

    value: float | None  # None where the score was not reached: see the two bounds
    ci95: tuple[float | None, float | None] | None  # an end is None where open; None: too few seeds
    less_than: float | None  # the bound where the divisor did not reach the score, or where the
    # dividend was above it from its first evaluation on
    more_than: float | None  # the bound where the dividend did not reach it
    unreached: float  # share of bootstrap resamples in which either did not


class Saving(NamedTuple):
    """How many labels an arm needs for what its reference scores at the reference's full budget."""

    target: float  # the reference's mean score at the full budget
    reference_labels: float  # labels the reference itself needs for it
    labels: float | None  # labels the arm needs; None: not reached
    last: float  # the arm's largest label count: where a curve that did not reach it is censored
    ratio: Ratio  # reference_labels / labels


class Match(NamedTuple):
    """How many labels the reference needs for what the arm scores at `labels`."""

    labels: float
    score: float
    reference_labels: float | None  # None: the reference never scores as much
    ratio: Ratio  # reference_labels / labels


class Comparison(NamedTuple):
    """An arm against its reference: at the reference's last score, and at fixed label counts."""

    saving: Saving
    matches: tuple[Match, ...]


def labels_to_reach(
    labels: np.ndarray,
    scores: np.ndarray,
    target: np.ndarray | float,
    criterion: Criterion = "sustained",
) -> np.ndarray:
    """Labels at which curves reach a target, linear between the two evaluations around it.

    Which crossing counts is the difference between a finding and a fluke:

    - "sustained" (every headline figure): the first evaluation at or above the target such that
      the mean of this and all later evaluations is at or above it too. One lucky evaluation does
      not count, as it would for "first"; one unlucky one later does not undo all before it, as
      it would for "kept".
    - "first": the first evaluation at or above the target. This is what a best-so-far curve
      would give, and it favours whichever arm is noisier. Shown for comparison only.
    - "kept": the first evaluation from which no later one is below the target. Comparison only.

    There is no extrapolation: a curve that does not reach the target gives inf, and one that is
    there at its first evaluation gives the labels of that evaluation.

    Args:
      labels: (G,) increasing.
      scores: (..., G), larger is better.
      target: scalar or (...).
      criterion: which crossing counts.

    Returns:
      (...) labels, inf where the target is not reached.
    """
    above = scores - np.asarray(target)[..., None]  # (..., G)
    over = above >= -TOLERANCE
    if criterion == "sustained":
        tail = np.flip(np.cumsum(np.flip(above, -1), -1), -1)
        over &= tail >= -TOLERANCE * np.arange(len(labels), 0, -1)
    elif criterion == "kept":
        over = np.flip(np.logical_and.accumulate(np.flip(over, -1), -1), -1)
    index = over.argmax(-1)
    before = np.maximum(index - 1, 0)
    low = np.take_along_axis(above, before[..., None], -1)[..., 0]
    high = np.take_along_axis(above, index[..., None], -1)[..., 0]
    rise = high - low
    share = np.clip(np.where(rise > 0, -low / np.where(rise > 0, rise, 1.0), 1.0), 0.0, 1.0)
    crossing = labels[before] + share * (labels[index] - labels[before])
    return np.where(over.any(-1), crossing, np.inf)


def compare(
    arm: Stack, reference: Stack, counts: Sequence[float] = (), resamples: int = RESAMPLES
) -> Comparison:
    """Labels to reach the reference's full-budget score, labels the reference needs for the arm's
    scores at these label counts, and the ratios of both kinds with 95 % intervals.

    All label counts come from the mean curve over seeds. The interval is a paired percentile
    bootstrap over seeds (Efron and Tibshirani 1993, chapter 13): each resample draws S seeds with
    replacement, the same for both arms, averages both curves over them, and computes the target
    and both label counts anew. The percentiles are those of the expanded interval (`tail_share`).
    A resample in which the arm does not reach the target enters the lower end as a ratio of 0 and
    the upper end as its bound, reference labels / the arm's last label count, so censoring can
    only widen the interval. The lower end is open (None) where it falls among such resamples.
    A resample in which the reference does not reach the arm's score enters the other way round;
    one in which it is above that score from its first evaluation on bounds the ratio from above.
    Fewer than FEWEST seeds have no interval.

    Args:
      arm: curves of S seeds, larger scores better.
      reference: curves of the same seeds in the same order.
      counts: label counts of the arm to match scores at.
      resamples: how many bootstrap resamples.

    Raises:
      ValueError: the two do not have the same seeds.
    """
    weights = _resampling(arm, reference, resamples)
    own, other = weights @ arm.scores, weights @ reference.scores  # (1 + resamples, G)
    return Comparison(
        _saving(arm, reference, own, other), _matches(arm, reference, own, other, counts)
    )


def saving(arm: Stack, reference: Stack, resamples: int = RESAMPLES) -> Saving:
    """Labels to reach the reference's full-budget score, and the ratio; see `compare`."""
    return compare(arm, reference, (), resamples).saving


def match(arm: Stack, reference: Stack, labels: float, resamples: int = RESAMPLES) -> Match:
    """Labels the reference needs to score what the arm scores with `labels`; see `compare`."""
    return compare(arm, reference, (labels,), resamples).matches[0]


def _saving(arm: Stack, reference: Stack, own: np.ndarray, other: np.ndarray) -> Saving:
    target = other[:, -1]
    need = labels_to_reach(reference.labels, other, target)
    took = labels_to_reach(arm.labels, own, target)
    last = float(arm.labels[-1])
    ratio = _ratio(need, took, most=last, seeds=len(arm.seeds))
    return Saving(float(target[0]), float(need[0]), _finite(took[0]), last, ratio)


def _matches(
    arm: Stack, reference: Stack, own: np.ndarray, other: np.ndarray, counts: Sequence[float]
) -> tuple[Match, ...]:
    if not counts:
        return ()
    scores = _at(arm.labels, own, np.asarray(counts, float))  # (B, 1 + resamples)
    needs = labels_to_reach(reference.labels, other, scores)
    early = scores < other[:, 0] - TOLERANCE  # reached before the first evaluation
    most = float(reference.labels[-1])
    return tuple(
        Match(
            labels=float(count),
            score=float(score[0]),
            reference_labels=_finite(need[0]),
            ratio=_ratio(
                need, np.full_like(need, count), most=most, seeds=len(arm.seeds), early=before
            ),
        )
        for count, score, need, before in zip(counts, scores, needs, early, strict=True)
    )


def _at(labels: np.ndarray, scores: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Scores (B, R) of curves (R, G) at label counts (B,), linear, the end's beyond the end."""
    right = np.clip(np.searchsorted(labels, counts), 1, max(len(labels) - 1, 1))
    right = np.minimum(right, len(labels) - 1)
    left = np.maximum(right - 1, 0)
    span = np.where(right > left, labels[right] - labels[left], 1.0)
    share = np.clip((counts - labels[left]) / span, 0.0, 1.0)
    return (scores[:, left] * (1 - share) + scores[:, right] * share).T


def tail_share(seeds: int) -> float:
    """The percentile, from either end, of a 95 % bootstrap interval over so many seeds.

    The plain 2.5 % gives intervals too narrow for few seeds (nominal 95 %, truly some 90 % for
    10 and 80 % for 5): it divides the variance by S instead of S - 1 and knows no t quantile. The
    expanded percentile interval (Hesterberg 2015, The American Statistician 69, 371) mends both:
    Phi(-sqrt(S / (S - 1)) t(.975, S - 1)), which is .9 % for 10 seeds and .1 % for 5.
    """
    return float(special.ndtr(-np.sqrt(seeds / (seeds - 1)) * special.stdtrit(seeds - 1, 0.975)))


def _resampling(arm: Stack, reference: Stack, resamples: int) -> np.ndarray:
    """Weights (1 + resamples, S) of the seeds; the first row weighs all alike.

    Seeds are drawn by the rank of their curves, so their numbering does not touch the interval.
    """
    if arm.seeds != reference.seeds:
        raise ValueError(
            f"a paired comparison needs the same seeds: {arm.arm!r} has {list(arm.seeds)}, "
            f"{reference.arm!r} has {list(reference.seeds)}"
        )
    count = len(arm.seeds)
    rank = np.lexsort(np.concatenate([reference.scores, arm.scores], 1).T[::-1])
    drawn = rank[np.random.default_rng(0).integers(count, size=(resamples, count))]
    counts = (drawn[:, :, None] == np.arange(count)).sum(1)
    return np.concatenate([np.ones((1, count)), counts]) / count


def _ratio(
    need: np.ndarray,
    took: np.ndarray,
    most: float,
    seeds: int,
    early: np.ndarray | None = None,
) -> Ratio:
    """Ratio need / took, point estimate first and resamples after it; `most` stands in for an inf.

    Where `early`, `need` is a bound from above. No labels at all count as one, so that a zero-shot
    start has a finite ratio.
    """
    need, took = np.maximum(need, 1), np.maximum(took, 1)
    no_need, no_took = np.isinf(need), np.isinf(took)
    at_most = no_took if early is None else no_took | early
    bound = np.where(no_need, most, need) / np.where(no_took, most, took)
    low = np.where(at_most, 0.0, bound)
    high = np.where(no_need, np.inf, bound)
    ci95 = None
    if seeds >= FEWEST:
        cut = int(tail_share(seeds) * len(low[1:]))
        ci95 = (_lower(low[1:], cut), _finite(np.sort(high[1:])[-1 - cut]))
    reached = not (no_need[0] or at_most[0])
    return Ratio(
        value=float(bound[0]) if reached else None,
        ci95=ci95,
        less_than=float(bound[0]) if at_most[0] else None,
        more_than=float(bound[0]) if no_need[0] else None,
        unreached=float(np.mean((no_need | at_most)[1:])) if len(need) > 1 else float(not reached),
    )


def _lower(samples: np.ndarray, cut: int) -> float | None:
    value = float(np.sort(samples)[cut])
    return value if value > 0 else None


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None

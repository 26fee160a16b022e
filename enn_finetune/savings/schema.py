"""The JSON form of the figures: what `summarise` returns, one typed dictionary a concept."""

from typing import TypedDict

from enn_finetune.savings.curves import Interval, Stack, mean_interval
from enn_finetune.savings.reach import Match, Ratio


class RatioJson(TypedDict):
    """A `Ratio`; `ci95` is null for fewer than five seeds, an end of it null where open."""

    value: float | None
    ci95: list[float | None] | None
    less_than: float | None
    more_than: float | None
    unreached: float


class MatchJson(TypedDict):
    """Labels that random selection needs to score what the arm scores with `labels`."""

    at: float  # the round number of labels that stands for it in tables
    labels: float  # the evaluated label count nearest to it
    score: float
    baseline_labels: float | None  # null: the baseline never scores as much
    system_ratio: RatioJson
    same_head_labels: float | None  # the same of random selection with the arm's own head
    acquisition_ratio: RatioJson | None


class MeanJson(TypedDict):
    """A mean over seeds with its 95 % t-interval, null for a single seed."""

    mean: float
    ci95: list[float] | None


class CurveJson(TypedDict):
    """A mean learning curve with its 95 % band, null for a single seed."""

    labels: list[float]
    mean: list[float]
    low: list[float] | None
    high: list[float] | None


class SeedJson(TypedDict):
    """One seed of an arm against the same seed of the baseline; above 0 is better."""

    seed: int
    final: float
    final_gain: float
    auc: float
    auc_gain: float


class ArmJson(TypedDict):
    """One arm. Every comparison is over the seeds that both sides have."""

    head: str
    rule: str
    role: str  # baseline, own, head (another head bought for at random) or prioritised
    seeds: int
    seed_ids: list[int]
    labels_last: float
    score_mean: float
    score_ci95: list[float] | None
    auc: float
    auc_gain: MeanJson  # over the baseline, paired
    acquisition_auc_gain: MeanJson | None  # over random selection with the same head, paired
    labels_to_target: float | None
    labels_to_target_by: dict[str, float | None]  # under each criterion, for comparison
    system_ratio: RatioJson
    acquisition_ratio: RatioJson | None  # null where no random arm has the same head
    acquisition_reference: str | None
    losses_to_random: int  # seeds whose area is below the baseline's
    losses_to_same_head: int | None  # the same against random selection with the same head
    losses_final: int  # seeds whose score at the full budget is below the baseline's
    per_seed: list[SeedJson]
    matching: list[MatchJson]
    final: dict[str, MeanJson]  # every metric at the full budget
    curves: dict[str, CurveJson]
    costs: dict[str, float]  # at the last evaluation, mean over seeds: seconds, FLOPs


class Summary(TypedDict):
    """One experiment: arms x paired seeds of one task."""

    metric: str
    split: str
    baseline: str
    own: str | None
    budget: float
    target: float
    target_ci95: list[float] | None
    baseline_labels: float
    seeds: list[int]
    resamples: int
    notes: list[str]
    arms: dict[str, ArmJson]


def curve_json(full: Stack, sign: float = 1.0) -> CurveJson:
    """Mean curve and band of a stack, its scores multiplied by `sign`."""
    band = mean_interval(full.scores * sign)
    return CurveJson(
        labels=full.labels.tolist(),
        mean=band.mean.tolist(),
        low=None if band.low is None else band.low.tolist(),
        high=None if band.high is None else band.high.tolist(),
    )


def ends(interval: Interval) -> list[float] | None:
    """Both ends of an interval, None where there is none."""
    if interval.low is None or interval.high is None:
        return None
    return [float(interval.low), float(interval.high)]


def mean_json(interval: Interval) -> MeanJson:
    """A mean and its interval."""
    return MeanJson(mean=float(interval.mean), ci95=ends(interval))


def ratio_json(ratio: Ratio) -> RatioJson:
    """A ratio, field by field."""
    return RatioJson(
        value=ratio.value,
        ci95=None if ratio.ci95 is None else list(ratio.ci95),
        less_than=ratio.less_than,
        more_than=ratio.more_than,
        unreached=ratio.unreached,
    )


def match_json(at: float, system: Match, alone: Match | None, sign: float) -> MatchJson:
    """A match against the baseline and one against random selection with the same head."""
    return MatchJson(
        at=at,
        labels=system.labels,
        score=system.score * sign,
        baseline_labels=system.reference_labels,
        system_ratio=ratio_json(system.ratio),
        same_head_labels=alone.reference_labels if alone else None,
        acquisition_ratio=ratio_json(alone.ratio) if alone else None,
    )

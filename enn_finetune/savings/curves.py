"""Records to learning curves: one curve an arm and seed, and the seeds of an arm side by side."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import special

from enn_finetune.records import Record

LOWER_IS_BETTER = frozenset({"nll", "brier", "ece"})
COMPLETE = 0.9  # a seed that stopped before this share of its arm's longest curve was interrupted


class Curve(NamedTuple):
    """Scores of one arm on one seed, as evaluated: not smoothed, not best-so-far."""

    arm: str
    seed: int
    labels: np.ndarray  # (G,) float64, strictly increasing: labels bought at each evaluation
    scores: np.ndarray  # (G,) float64


class Stack(NamedTuple):
    """The curves of one arm on a grid of labels that all its seeds cover."""

    arm: str
    seeds: tuple[int, ...]  # S of them, increasing
    labels: np.ndarray  # (G,) float64, strictly increasing
    scores: np.ndarray  # (S, G) float64


class Interval(NamedTuple):
    """A mean over seeds and its 95 % interval, which one seed does not have."""

    mean: np.ndarray  # (...)
    low: np.ndarray | None  # (...)
    high: np.ndarray | None  # (...)


def lower_is_better(metric: str) -> bool:
    """True for losses and calibration errors, joint ones included; False for scores."""
    return metric in LOWER_IS_BETTER or metric.endswith("_nll") or metric.startswith("joint_nll")


def arm_of(record: Record) -> str:
    """The arm a record belongs to: its key `arm`, else "HEAD/RULE".

    Raises:
      ValueError: the record has neither.
    """
    if "arm" in record:
        return record["arm"]
    if "head" in record and "rule" in record:
        return f"{record['head']}/{record['rule']}"
    raise ValueError(
        f"a record at step {record.get('step')} names no arm: it needs the key 'arm', or 'head' "
        f"and 'rule'; it has {sorted(record)}"
    )


Evaluations = dict[tuple[str, int], dict[int, Record]]
"""By arm and seed, then by label count."""


def collate(records: Iterable[Record], split: str = "test") -> Evaluations:
    """One evaluation for each arm (in order of first appearance), seed and label count (both
    increasing).

    Where an arm and seed were evaluated twice at the same number of labels (a resumed run, or an
    online one that trained on for nothing), the later step counts, then the later record.

    Raises:
      ValueError: no record of this split, or a record without an arm.
    """
    found: Evaluations = {}
    arms: dict[str, int] = {}
    splits = set()
    for record in records:
        splits.add(record["split"])
        if record["split"] != split:
            continue
        arm, seed, count = arm_of(record), record.get("seed", 0), record["labels_bought"]
        arms.setdefault(arm, len(arms))
        at = found.setdefault((arm, seed), {})
        if count not in at or record["step"] >= at[count]["step"]:
            at[count] = record
    if not found:
        raise ValueError(f"no record of split {split!r}; the splits found are {sorted(splits)}")
    return {
        key: dict(sorted(at.items()))
        for key, at in sorted(found.items(), key=lambda item: (arms[item[0][0]], item[0]))
    }


def read_curves(records: Iterable[Record], metric: str, split: str = "test") -> list[Curve]:
    """One curve for each arm (in order of first appearance) and seed (increasing); see `collate`.

    Raises:
      ValueError: no record of this split, a record without the metric, a score that is not finite.
    """
    return [curve_of(arm, seed, at, metric) for (arm, seed), at in collate(records, split).items()]


def curve_of(arm: str, seed: int, evaluations: Mapping[int, Record], metric: str) -> Curve:
    """The curve of one metric.

    Raises:
      ValueError: a record without the metric, or a score that is not finite.
    """
    scores = [
        _score(record, metric, f"arm {arm!r}, seed {seed}, {count} labels")
        for count, record in evaluations.items()
    ]
    return Curve(arm, seed, np.array(list(evaluations), float), np.array(scores))


def _score(record: Record, metric: str, where: str) -> float:
    if metric not in record["metrics"]:
        raise ValueError(f"{where}: no metric {metric!r}; it has {sorted(record['metrics'])}")
    score = float(record["metrics"][metric])
    if not math.isfinite(score):
        raise ValueError(
            f"{where}: {metric} is {score}. A diverged run has no label count to report: "
            "remove its records or run it again"
        )
    return score


def without_interrupted(curves: Sequence[Curve]) -> tuple[list[Curve], list[Curve]]:
    """Curves of one arm that ran to (nearly) its largest label count, and those that stopped early.

    Averaging over seeds must not change its seeds along the curve, so a seed that covers less
    than `COMPLETE` of the range is left out whole rather than used for the labels it has.
    """
    longest = max(curve.labels[-1] for curve in curves)
    kept = [curve for curve in curves if curve.labels[-1] >= COMPLETE * longest]
    return kept, [curve for curve in curves if curve.labels[-1] < COMPLETE * longest]


def stack(curves: Sequence[Curve]) -> Stack:
    """Put the seeds of one arm on one grid: every label count any of them was evaluated at,
    inside the range that all of them cover, linear between evaluations and never beyond them.

    Raises:
      ValueError: the seeds' ranges of labels do not overlap.
    """
    start = max(curve.labels[0] for curve in curves)
    end = min(curve.labels[-1] for curve in curves)
    if start > end:
        raise ValueError(
            f"arm {curves[0].arm!r}: its seeds share no label count (one starts at {start:g}, "
            f"another ends at {end:g}); remove the records of the seed that was cut short"
        )
    union = np.unique(np.concatenate([curve.labels for curve in curves]))
    grid = union[(union >= start) & (union <= end)]
    ordered = sorted(curves, key=lambda curve: curve.seed)
    return Stack(
        arm=curves[0].arm,
        seeds=tuple(curve.seed for curve in ordered),
        labels=grid,
        scores=np.stack([np.interp(grid, curve.labels, curve.scores) for curve in ordered]),
    )


def select(full: Stack, seeds: Iterable[int]) -> Stack:
    """The same stack with only these seeds, in increasing order."""
    chosen = tuple(sorted(seeds))
    rows = [full.seeds.index(seed) for seed in chosen]
    return full._replace(seeds=chosen, scores=full.scores[rows])


def mean_interval(values: np.ndarray) -> Interval:
    """Mean over seeds of values (S, ...) with its 95 % interval: +- t(.975, S - 1) sd / sqrt S.

    One seed has a mean and no interval.
    """
    count = len(values)
    mean = values.mean(0)
    if count < 2:
        return Interval(mean, None, None)
    half = special.stdtrit(count - 1, 0.975) * values.std(0, ddof=1) / math.sqrt(count)
    return Interval(mean, mean - half, mean + half)


def at(full: Stack, labels: float) -> np.ndarray:
    """Scores (S,) at a number of labels, linear between evaluations; the end's beyond the end."""
    return np.array([np.interp(labels, full.labels, row) for row in full.scores])


def areas(full: Stack, start: float, end: float) -> np.ndarray:
    """Area under each seed's curve between two label counts, over their distance (S,).

    By the trapezoid rule on a linear label axis: the mean score over that stretch of labels.
    """
    inner = full.labels[(full.labels > start) & (full.labels < end)]
    grid = np.concatenate([[start], inner, [end]])
    scores = np.stack([np.interp(grid, full.labels, row) for row in full.scores])
    if end <= start:
        return scores[:, 0]
    return np.trapezoid(scores, grid, axis=1) / (end - start)

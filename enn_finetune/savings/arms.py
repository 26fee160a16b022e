"""One arm against its two references: the baseline, and random selection with its own head."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from enn_finetune.records import Record
from enn_finetune.savings.curves import Evaluations, Stack, areas, at, mean_interval, select
from enn_finetune.savings.reach import Comparison, compare, labels_to_reach
from enn_finetune.savings.schema import (
    ArmJson,
    MatchJson,
    SeedJson,
    ends,
    match_json,
    mean_json,
    ratio_json,
)

ROUND = tuple(digit * 10**power for power in range(1, 6) for digit in (1, 2, 5))[1:]
"""20, 50, 100, 200, 500, ...: the label counts at which ratios are given."""
NEAR = 1.5  # an evaluation within this factor of a round number stands for it


def compare_arm(
    full: Stack, baseline: Stack, reference: Stack | None, sign: float, resamples: int
) -> ArmJson:
    """All figures of an arm that come from its score. Head, rule and role are filled in later.

    Args:
      full: the arm's curves, larger is better, sharing a seed with the baseline at least.
      baseline: random selection with the plain head.
      reference: random selection with the arm's head, if there is one.
      sign: -1 where smaller scores are better.
      resamples: of the bootstrap.
    """
    seeds = set(full.seeds) & set(baseline.seeds)
    arm, base = select(full, seeds), select(baseline, seeds)
    counts = matched_counts(arm, base)
    system = compare(arm, base, list(counts.values()), resamples)
    alone, alone_gain = _alone(arm, reference, list(counts.values()), resamples)
    start, end = max(arm.labels[0], base.labels[0]), min(arm.labels[-1], base.labels[-1])
    final, area = at(arm, end), areas(arm, start, end)
    final_gain, area_gain = final - at(base, end), area - areas(base, start, end)
    score = mean_interval(final * sign)
    by_criterion = {
        "first": labels_to_reach(arm.labels, arm.scores.mean(0), system.saving.target, "first"),
        "sustained": labels_to_reach(arm.labels, arm.scores.mean(0), system.saving.target),
        "kept": labels_to_reach(arm.labels, arm.scores.mean(0), system.saving.target, "kept"),
    }
    return ArmJson(
        head="",
        rule="",
        role="",
        seeds=len(seeds),
        seed_ids=list(arm.seeds),
        labels_last=float(arm.labels[-1]),
        score_mean=float(score.mean),
        score_ci95=ends(score),
        auc=float(area.mean() * sign),
        auc_gain=mean_json(mean_interval(area_gain)),
        acquisition_auc_gain=None if alone_gain is None else mean_json(mean_interval(alone_gain)),
        labels_to_target=system.saving.labels,
        labels_to_target_by={
            name: float(value) if np.isfinite(value) else None
            for name, value in by_criterion.items()
        },
        system_ratio=ratio_json(system.saving.ratio),
        acquisition_ratio=ratio_json(alone.saving.ratio) if alone else None,
        acquisition_reference=reference.arm if alone and reference else None,
        losses_to_random=int((area_gain < 0).sum()),
        losses_to_same_head=None if alone_gain is None else int((alone_gain < 0).sum()),
        losses_final=int((final_gain < 0).sum()),
        per_seed=[
            SeedJson(seed=seed, final=a * sign, final_gain=b, auc=c * sign, auc_gain=d)
            for seed, a, b, c, d in zip(
                arm.seeds,
                final.tolist(),
                final_gain.tolist(),
                area.tolist(),
                area_gain.tolist(),
                strict=True,
            )
        ],
        matching=_matching(counts, system, alone, sign),
        final={},
        curves={},
        costs={},
    )


def _alone(
    arm: Stack, reference: Stack | None, counts: Sequence[float], resamples: int
) -> tuple[Comparison | None, np.ndarray | None]:
    """The arm against random selection with its own head: ratios, and area gained on each seed."""
    seeds = set(arm.seeds) & set(reference.seeds) if reference else set()
    if reference is None or not seeds:
        return None, None
    arm, reference = select(arm, seeds), select(reference, seeds)
    start = max(arm.labels[0], reference.labels[0])
    end = min(arm.labels[-1], reference.labels[-1])
    gain = areas(arm, start, end) - areas(reference, start, end)
    return compare(arm, reference, counts, resamples), gain


def _matching(
    counts: Mapping[float, float], system: Comparison, alone: Comparison | None, sign: float
) -> list[MatchJson]:
    others = alone.matches if alone else [None] * len(counts)
    return [
        match_json(number, found, other, sign)
        for number, found, other in zip(counts, system.matches, others, strict=True)
    ]


def matched_counts(arm: Stack, base: Stack) -> dict[float, float]:
    """Label counts at which scores are matched: round number -> the arm's nearest evaluation.

    Nearest by ratio, and within a factor of `NEAR`; the last evaluation stands for the budget.
    """
    budget, last = float(base.labels[-1]), float(arm.labels[-1])
    usable = arm.labels[arm.labels > 0]
    found: dict[float, float] = {}
    for number in ROUND:
        if number >= budget or not len(usable):
            break
        nearest = float(usable[np.abs(np.log(usable / number)).argmin()])
        if 1 / NEAR <= nearest / number <= NEAR and nearest != last:
            if nearest in found.values():  # between two round numbers: the nearer one keeps it
                before = next(key for key, value in found.items() if value == nearest)
                if abs(math.log(nearest / before)) <= abs(math.log(nearest / number)):
                    continue
                del found[before]
            found[float(number)] = nearest
    return found | {budget: last}


def costs(evaluations: Evaluations, arm: str, seeds: Sequence[int]) -> dict[str, float]:
    """Seconds and FLOPs that a seed of an arm took up to its last evaluation, mean over seeds.

    Only what all of its seeds have recorded: `seconds`, and of encoding, scoring and training
    `seconds` and `flops`, as `scoring_seconds` and so on.
    """
    rows = [list(evaluations[arm, seed].values())[-1] for seed in seeds]
    found = {"seconds": [_number(row.get("seconds")) for row in rows]}
    for part in ("encoding", "scoring", "training"):
        for unit in ("seconds", "flops"):
            found[f"{part}_{unit}"] = [_part(row, part, unit) for row in rows]
    return {
        name: float(np.mean([value for value in values if value is not None]))
        for name, values in found.items()
        if None not in values
    }


def _part(row: Record, part: str, unit: str) -> float | None:
    inner = row.get(part)
    return _number(inner.get(unit)) if isinstance(inner, dict) else None


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None

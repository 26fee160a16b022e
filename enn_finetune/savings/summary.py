"""All the figures of one experiment as one JSON-able dictionary, which the report draws from."""

from collections.abc import Mapping, Sequence

import numpy as np

from enn_finetune.records import Record
from enn_finetune.savings.arms import compare_arm, costs
from enn_finetune.savings.cautions import cautions
from enn_finetune.savings.curves import (
    Curve,
    Evaluations,
    Stack,
    at,
    collate,
    curve_of,
    lower_is_better,
    mean_interval,
    stack,
    without_interrupted,
)
from enn_finetune.savings.reach import FEWEST, RESAMPLES, saving
from enn_finetune.savings.schema import ArmJson, Summary, curve_json, ends, mean_json

PROTOCOL_SEEDS = 10
DRAWN = ("nll", "joint_nll_near")
"""Metrics whose whole curves are kept beside the score's; the others at the full budget only."""


def summarise(
    records: Sequence[Record],
    metric: str,
    baseline: str,
    own: str | None = None,
    *,
    split: str = "test",
    resamples: int = RESAMPLES,
) -> Summary:
    """Every figure the protocol asks for, from records of one task to one JSON-able dictionary.

    The target is the baseline's mean score over its seeds at its full budget: the largest label
    count that all of them reach. It is an average over seeds of one evaluation each, not the best
    and not smoothed; its noise is in the intervals, since every resample computes it anew.
    The *system* ratio is against the baseline. *Acquisition alone* is against random selection
    with the arm's own head, at the score which that one reaches at its full budget; of several such
    arms, against the one that departs from the config in the same way (`RULE+revisit0.5`).

    Args:
      records: lines of records.jsonl; see `Record`.
      metric: the task's score; all other metrics are reported at the full budget.
      baseline: the arm that selects at random with the plain head.
      own: the arm that selects at random with our head, if there is one.
      split: which split's evaluations count.
      resamples: bootstrap resamples.

    Raises:
      ValueError: the baseline or own arm is not in the records, or the records are not usable.
    """
    notes: list[str] = []
    sign = -1.0 if lower_is_better(metric) else 1.0
    evaluations = collate(records, split)
    stacks = _stacks(evaluations, metric, sign, notes)
    for role, arm in (("baseline", baseline), ("own", own)):
        if arm is not None and arm not in stacks:
            raise ValueError(f"no record of the {role} arm {arm!r}; the arms are {list(stacks)}")
    kinds = _kinds(evaluations)
    uniform, _ = _departing(kinds[baseline][1])
    blind = [arm for arm in stacks if _departing(kinds[arm][1])[0] == uniform]
    references = _references(kinds, blind, [arm for arm in (baseline, own) if arm is not None])
    arms: dict[str, ArmJson] = {}
    for arm, full in stacks.items():
        if not set(full.seeds) & set(stacks[baseline].seeds):
            notes.append(f"{arm} shares no complete seed with {baseline} and is left out.")
            continue
        head, rule = kinds[arm]
        reference = references.get((head, _departing(rule)[1])) or references.get((head, None), "")
        entry = compare_arm(full, stacks[baseline], stacks.get(reference), sign, resamples)
        entry["head"], entry["rule"] = head, rule
        entry["role"] = "head" if arm in blind else "prioritised"
        entry["role"] = {baseline: "baseline", own: "own"}.get(arm, entry["role"])
        entry["curves"][metric] = curve_json(full, sign)
        entry["costs"] = costs(evaluations, arm, full.seeds)
        for name, other in _others(evaluations, full, metric).items():
            entry["final"][name] = mean_json(mean_interval(at(other, _budget(stacks, baseline))))
            if name in DRAWN:
                entry["curves"][name] = curve_json(other)
        arms[arm] = entry
    notes += _doubts(stacks, baseline) + cautions(stacks[baseline], arms)
    notes += _unpaired(arms, uniform) + _otherwise(arms)
    score = mean_interval(stacks[baseline].scores[:, -1] * sign)
    return Summary(
        metric=metric,
        split=split,
        baseline=baseline,
        own=own,
        budget=_budget(stacks, baseline),
        target=float(score.mean),
        target_ci95=ends(score),
        baseline_labels=saving(stacks[baseline], stacks[baseline], 1).reference_labels,
        seeds=list(stacks[baseline].seeds),
        resamples=resamples,
        notes=notes,
        arms=arms,
    )


def _kinds(evaluations: Evaluations) -> dict[str, tuple[str, str]]:
    """Head and rule of each arm."""
    return {
        arm: (row.get("head", ""), row.get("rule", ""))
        for (arm, _), found in evaluations.items()
        for row in list(found.values())[:1]
    }


def _departing(rule: str) -> tuple[str, str]:
    """A rule, and how its arm departs from the config, "" where it does not."""
    chooses, _, departs = rule.partition("+")
    return chooses, departs


def _references(
    kinds: Mapping[str, tuple[str, str]], blind: Sequence[str], named: Sequence[str]
) -> dict[tuple[str, str | None], str]:
    """Head and departure, or head and None -> random selection with it; those named come first."""
    found: dict[tuple[str, str | None], str] = {}
    for arm in (*blind, *named):
        head, rule = kinds[arm]
        found |= {(head, _departing(rule)[1]): arm, (head, None): arm}
    return found


def _stacks(
    evaluations: Evaluations, metric: str, sign: float, notes: list[str]
) -> dict[str, Stack]:
    """Each arm's complete seeds, larger is better; a note about every seed that is left out."""
    curves: dict[str, list[Curve]] = {}
    for (arm, seed), found in evaluations.items():
        curves.setdefault(arm, []).append(curve_of(arm, seed, found, metric))
    stacks = {}
    for arm, seeds in curves.items():
        kept, cut = without_interrupted(seeds)
        full = stack(kept)
        stacks[arm] = full._replace(scores=sign * full.scores)
        notes.extend(
            f"{arm}, seed {curve.seed}, stopped at {curve.labels[-1]:,.0f} labels and is left out."
            for curve in cut
        )
    return stacks


def _others(evaluations: Evaluations, full: Stack, metric: str) -> dict[str, Stack]:
    """The other metrics that every record of an arm's seeds has a finite value of."""
    rows = [row for seed in full.seeds for row in evaluations[full.arm, seed].values()]
    names = [
        name
        for name in rows[0]["metrics"]
        if name != metric and all(np.isfinite(row["metrics"].get(name, np.nan)) for row in rows)
    ]
    return {
        name: stack([curve_of(full.arm, s, evaluations[full.arm, s], name) for s in full.seeds])
        for name in names
    }


def _unpaired(arms: Mapping[str, ArmJson], uniform: str) -> list[str]:
    """A note on the arms whose head was never bought for at random."""
    alone = [name for name, arm in arms.items() if arm["acquisition_ratio"] is None]
    if not alone:
        return []
    return [
        f"{', '.join(alone)}: acquisition alone is not known, for no arm has the same head and "
        f"the rule {uniform}."
    ]


def _otherwise(arms: Mapping[str, ArmJson]) -> list[str]:
    """A note on the arms whose acquisition alone is against arms that are trained otherwise."""
    notes = []
    for name, arm in arms.items():
        other = arm["acquisition_reference"]
        if other is None or other not in arms or arm["role"] != "prioritised":
            continue
        if _departing(arm["rule"])[1] != _departing(arms[other]["rule"])[1]:
            notes.append(
                f"{name}: acquisition alone is against {other}, which is trained in another way: "
                "part of it is the training's."
            )
    return notes


def _doubts(stacks: Mapping[str, Stack], baseline: str) -> list[str]:
    """What a reader should know before believing the figures."""
    base, doubts = stacks[baseline], []
    if len(base.seeds) == 1:
        doubts.append("There is one seed only: no interval can be given, and nothing is settled.")
    elif len(base.seeds) < FEWEST:
        doubts.append(
            f"There are {len(base.seeds)} seeds: ratios have an interval from {FEWEST} on, and "
            "nothing is settled."
        )
    elif len(base.seeds) < PROTOCOL_SEEDS:
        doubts.append(
            f"There are {len(base.seeds)} seeds; it takes {PROTOCOL_SEEDS} or more to settle a "
            "saving."
        )
    for arm, full in stacks.items():
        missing = sorted(set(base.seeds) - set(full.seeds))
        if missing and set(base.seeds) & set(full.seeds):
            doubts.append(
                f"{arm} is compared without the seeds {missing}, which it did not finish."
            )
        if full.labels[-1] < 0.999 * base.labels[-1]:
            doubts.append(
                f"{arm} ends at {full.labels[-1]:,.0f} labels, before the full budget of "
                f"{base.labels[-1]:,.0f}: its last score is not one at the full budget."
            )
    return doubts


def _budget(stacks: Mapping[str, Stack], baseline: str) -> float:
    return float(stacks[baseline].labels[-1])

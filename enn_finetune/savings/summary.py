"""All the figures of one experiment as one JSON-able dictionary, which the report draws from."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from enn_finetune.records import Record
from enn_finetune.savings.curves import (
    Curve,
    Stack,
    areas,
    arm_of,
    at,
    lower_is_better,
    mean_interval,
    read_curves,
    select,
    stack,
    without_interrupted,
)
from enn_finetune.savings.reach import RESAMPLES, labels_to_reach, match, saving
from enn_finetune.savings.schema import (
    ArmJson,
    SeedJson,
    Summary,
    curve_json,
    ends,
    match_json,
    mean_json,
    ratio_json,
)

PROTOCOL_SEEDS = 10
MATCHED_SHARES = (0.125, 0.25, 0.5, 1.0)  # of the full budget


def summarise(
    records: Sequence[Record],
    metric: str,
    baseline: str,
    own: str,
    *,
    split: str = "test",
    resamples: int = RESAMPLES,
) -> Summary:
    """Every figure the protocol asks for, from records of one task to one JSON-able dictionary.

    The target is the baseline's mean score over its seeds at its full budget: the largest label
    count that all of them reach. It is an average over seeds of one evaluation each, not the best
    and not smoothed; its noise is in the intervals, since every resample computes it anew.
    The *system* ratio is against the baseline. *Acquisition alone* is against random selection
    with the arm's own head, at the score which that one reaches at its full budget.

    Args:
      records: lines of records.jsonl; see `Record`.
      metric: the task's score; all other metrics are reported at the full budget.
      baseline: the arm that selects at random with the best plain head.
      own: the arm that selects at random with our head.
      split: which split's evaluations count.
      resamples: bootstrap resamples.

    Raises:
      ValueError: the baseline or own arm is not in the records, or the records are not usable.
    """
    rows = [record for record in records if record["split"] == split]
    notes: list[str] = []
    sign = -1.0 if lower_is_better(metric) else 1.0
    stacks = {
        arm: found._replace(scores=sign * found.scores)
        for arm, found in _stacks(read_curves(records, metric, split), notes).items()
    }
    for role, arm in (("baseline", baseline), ("own", own)):
        if arm not in stacks:
            raise ValueError(f"no record of the {role} arm {arm!r}; the arms are {list(stacks)}")
    kinds = {arm_of(row): (row.get("head", ""), row.get("rule", "")) for row in rows}
    references = {kinds[arm][0]: arm for arm in stacks if kinds[arm][1] == kinds[own][1]}
    references |= {kinds[baseline][0]: baseline, kinds[own][0]: own}
    secondary = _secondary(rows, metric)
    others = {name: _means(rows, name, split, stacks) for name in secondary}
    arms: dict[str, ArmJson] = {}
    for arm, full in stacks.items():
        shared = set(full.seeds) & set(stacks[baseline].seeds)
        if not shared:
            notes.append(f"{arm} shares no complete seed with {baseline} and is left out.")
            continue
        reference = references.get(kinds[arm][0])
        entry = _arm(full, stacks[baseline], stacks.get(reference or ""), sign, resamples)
        entry["head"], entry["rule"] = kinds[arm]
        entry["role"] = {baseline: "baseline", own: "own"}.get(arm, "prioritised")
        entry["curves"][metric] = curve_json(full, sign)
        for name, found in others.items():
            entry["final"][name] = mean_json(
                mean_interval(at(found[arm], _budget(stacks, baseline)))
            )
            if name == "nll":
                entry["curves"][name] = curve_json(found[arm])
        arms[arm] = entry
    notes += _doubts(stacks, baseline)
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


def _arm(
    full: Stack, baseline: Stack, reference: Stack | None, sign: float, resamples: int
) -> ArmJson:
    """One arm against the baseline and against random selection with its own head."""
    seeds = set(full.seeds) & set(baseline.seeds)
    arm, base = select(full, seeds), select(baseline, seeds)
    system = saving(arm, base, resamples)
    own = set(arm.seeds) & set(reference.seeds) if reference else set()
    acquisition = (
        saving(select(arm, own), select(reference, own), resamples) if reference and own else None
    )
    start, end = max(arm.labels[0], base.labels[0]), min(arm.labels[-1], base.labels[-1])
    final, area = at(arm, end), areas(arm, start, end)
    final_gain, area_gain = final - at(base, end), area - areas(base, start, end)
    score = mean_interval(final * sign)
    by_criterion = {
        "first": labels_to_reach(arm.labels, arm.scores.mean(0), system.target, "first"),
        "sustained": labels_to_reach(arm.labels, arm.scores.mean(0), system.target),
        "kept": labels_to_reach(arm.labels, arm.scores.mean(0), system.target, "kept"),
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
        labels_to_target=system.labels,
        labels_to_target_by={
            name: float(value) if np.isfinite(value) else None
            for name, value in by_criterion.items()
        },
        system_ratio=ratio_json(system.ratio),
        acquisition_ratio=ratio_json(acquisition.ratio) if acquisition else None,
        acquisition_reference=reference.arm if acquisition and reference else None,
        losses_to_random=int((area_gain < 0).sum()),
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
        matching=[
            match_json(match(arm, base, labels, resamples), sign) for labels in _budgets(arm, base)
        ],
        final={},
        curves={},
    )


def _stacks(curves: Sequence[Curve], notes: list[str]) -> dict[str, Stack]:
    """Each arm's complete seeds, with a note about every seed that is left out."""
    stacks = {}
    for arm in dict.fromkeys(curve.arm for curve in curves):
        kept, cut = without_interrupted([curve for curve in curves if curve.arm == arm])
        stacks[arm] = stack(kept)
        notes.extend(
            f"{arm}, seed {curve.seed}, stopped at {curve.labels[-1]:,.0f} labels and is left out."
            for curve in cut
        )
    return stacks


def _secondary(rows: Iterable[Record], metric: str) -> list[str]:
    """The metrics, other than the score, that every record has a finite value of."""
    rows = list(rows)
    return [
        name
        for name in rows[0]["metrics"]
        if name != metric and all(np.isfinite(row["metrics"].get(name, np.nan)) for row in rows)
    ]


def _means(
    rows: Sequence[Record], metric: str, split: str, stacks: Mapping[str, Stack]
) -> dict[str, Stack]:
    """Another metric's curves, of the seeds that the score's curves have."""
    found = read_curves(rows, metric, split)
    return {
        arm: stack([c for c in found if c.arm == arm and c.seed in full.seeds])
        for arm, full in stacks.items()
    }


def _doubts(stacks: Mapping[str, Stack], baseline: str) -> list[str]:
    """What a reader should know before believing the figures."""
    base, doubts = stacks[baseline], []
    if len(base.seeds) == 1:
        doubts.append("There is one seed only: no interval can be given, and nothing is settled.")
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


def _budgets(arm: Stack, base: Stack) -> list[float]:
    """Label counts to match scores at: the evaluated ones nearest to shares of the budget."""
    wanted = [share * base.labels[-1] for share in MATCHED_SHARES]
    nearest = [float(arm.labels[np.abs(arm.labels - labels).argmin()]) for labels in wanted]
    return [labels for labels in dict.fromkeys(nearest) if labels > arm.labels[0]]

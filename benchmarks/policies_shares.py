"""Figures of benchmarks/policies.py that compare policies: labels saved by each, who is dearer."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from policies_cells import RANDOM

from enn_finetune import savings
from enn_finetune.records import Record
from enn_finetune.report.bill import CHARGED, ArmCost
from enn_finetune.report.money import Price
from enn_finetune.savings.curves import select
from enn_finetune.savings.reach import FEWEST, tail_share

FIXED = ("standard", "svpp", "asvp")


def charged(records: Sequence[Record], unit: str) -> float:
    """What a seed is charged at its full budget, mean over seeds."""
    last = max(record["labels_bought"] for record in records)
    ends = [record for record in records if record["labels_bought"] == last]
    return float(np.mean([sum(r[part][unit] for part in CHARGED) for r in ends]))  # type: ignore[literal-required]


def in_the_end(arm: ArmCost, price: Price) -> float:
    """What a run costs at the last point of its curve."""
    return price.label * arm["labels"][-1] + price.hour * arm["hours"][-1]


class Share(NamedTuple):
    """A share of labels saved."""

    value: float | None  # None where the reference saves none
    ci95: list[float | None] | None  # an end is None where it is open; None for few seeds
    bound: bool  # the arm does not reach the target: its share is `value` or less


def label_share(records: Sequence[Record], metric: str, arm: str, reference: str) -> Share:
    """Labels that an arm saves over random, over those that the reference saves.

    An arm that does not reach the target counts as what it can have saved at most, with the labels
    of its last evaluation: such failures are censored, never left out. The interval is a paired
    bootstrap over seeds, as that of the ratios (see `savings.compare`): a resample in which the arm
    does not reach the target is without end below, one in which the reference saves nothing is so
    at both ends.
    """
    sign = -1.0 if savings.lower_is_better(metric) else 1.0
    names, stacks = (RANDOM, arm, reference), []
    for name in names:
        curves = savings.read_curves([r for r in records if r["arm"] == name], metric)
        stacks.append(savings.stack(savings.without_interrupted(curves)[0]))
    seeds = sorted(set.intersection(*(set(one.seeds) for one in stacks)))
    drawn = np.random.default_rng(0).integers(len(seeds), size=(savings.RESAMPLES, len(seeds)))
    counts = (drawn[:, :, None] == np.arange(len(seeds))).sum(1)
    weights = np.concatenate([np.ones((1, len(seeds))), counts]) / len(seeds)
    means = [weights @ (sign * select(one, seeds).scores) for one in stacks]
    target = means[0][:, -1]
    need, took, other = (
        savings.labels_to_reach(one.labels, mean, target)
        for one, mean in zip(stacks, means, strict=True)
    )
    missed, saved = np.isinf(took), need - other
    known = saved > 0  # else the reference saves none, or does not get there
    share = (need - np.where(missed, stacks[1].labels[-1], took)) / np.where(known, saved, 1.0)
    low = np.sort(np.where(known & ~missed, share, -np.inf)[1:])
    high = np.sort(np.where(known, share, np.inf)[1:])
    value = float(share[0]) if known[0] else None
    if len(seeds) < FEWEST:
        return Share(value, None, bool(missed[0]))
    cut = int(tail_share(len(seeds)) * len(low))
    ends = [float(end) if math.isfinite(end) else None for end in (low[cut], high[-1 - cut])]
    return Share(value, ends, bool(missed[0]))


def auto_over_best(arms: Mapping[str, Any], price: str) -> tuple[float | None, bool]:
    """What auto costs to the target at its own price, over the best fixed policy's; 1.1 may be.

    Where it does not reach the target, what it has cost in the end, and True: it is a lower bound.
    """
    auto = arms.get(f"auto ({price})")
    fixed = [arms[name]["money_to_target"][price] for name in FIXED]
    reached = [cost for cost in fixed if cost is not None]
    if auto is None or not reached or min(reached) <= 0:
        return None, False
    mine, missed = auto["money_to_target"][price], auto["money_to_target"][price] is None
    return (auto["money_in_the_end"][price] if missed else mine) / min(reached), missed

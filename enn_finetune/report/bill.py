"""What the arms of a study cost, from records that account for it: figures for page and JSON.

Only records with all that a run is charged count: encoding, scoring and training (see
`policies`). Hours are those that the config's machine takes for the operations, so that figures do
not depend on who else was at work on a machine.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypedDict

import numpy as np

from enn_finetune import files
from enn_finetune.config.policy import PriceConfig
from enn_finetune.records import Record
from enn_finetune.report.money import (
    PRICES,
    CostCurve,
    Price,
    cheapest,
    cheapest_ranges,
    cost_at,
    ranges_words,
)
from enn_finetune.savings import Curve, Stack, Summary, labels_to_reach, lower_is_better, stack
from enn_finetune.savings.curves import Evaluations, collate, select

CHARGED = ("encoding", "scoring", "training")
PARTS = (*CHARGED, "evaluation")
RESAMPLES = 1000


class Tariff(NamedTuple):
    """At what prices costs are shown."""

    prices: tuple[Price, ...]
    speed: float  # operations in a second of computing


class ArmCost(TypedDict):
    """One arm."""

    labels_to_target: float | None
    hours_to_target: float | None
    flops: dict[str, float]  # by part, of a seed at its last evaluation, mean over seeds
    labels: list[float]  # the curve's
    hours: list[float]  # if the run ended there
    scores: list[float]


class PriceCost(TypedDict):
    """One price."""

    name: str
    label: float
    hour: float
    to_target: dict[str, float | None]  # money by arm, null where the target is not reached
    cheapest: str | None
    share: dict[str, float] | None  # of resamples of the seeds in which an arm is the cheapest
    sentence: str


class Bill(TypedDict):
    """One study."""

    target: float
    speed: float
    arms: dict[str, ArmCost]
    prices: list[PriceCost]
    ranges: list[dict[str, str | float | None]]  # arm, low, high: what a label is worth, in hours
    sentence: str
    sentences: list[str]  # one for each range, where there are several
    missing: list[str]  # arms without an account


def tariff(folders: Sequence[Path]) -> Tariff:
    """The prices of the folders' configs, each once, then three that are common."""
    own: list[Price] = []
    speeds: list[float] = []
    for folder in folders:
        path = Path(folder) / "config.json"
        found = files.read_json(path).get("prices") if path.is_file() else None
        if isinstance(found, dict):
            prices = PriceConfig(**{str(name): value for name, value in found.items()})
            own.append(Price("the config's", prices.label, prices.hour))
            speeds.append(prices.speed)
    own = [price for price in dict.fromkeys(own) if price[1:] not in {p[1:] for p in PRICES}]
    if len(own) > 1:
        own = [price._replace(name=f"config {number}") for number, price in enumerate(own, 1)]
    return Tariff((*own, *PRICES), (speeds or [PriceConfig().speed])[0])


def bill(records: Sequence[Record], summary: Summary, rates: Tariff) -> Bill | None:
    """The costs of a study's arms on the summary's split; None where no arm has an account."""
    evaluations = collate(records, summary["split"])
    sign = -1.0 if lower_is_better(summary["metric"]) else 1.0
    hours: dict[str, Stack] = {}
    scores: dict[str, Stack] = {}
    for name, arm in summary["arms"].items():
        rows = [one for seed in arm["seed_ids"] for one in evaluations[name, seed].values()]
        if all(map(_complete, rows)):
            hours[name] = _stack(evaluations, name, arm["seed_ids"], lambda r: _hours(r, rates))
            scores[name] = _stack(
                evaluations, name, arm["seed_ids"], lambda r: sign * r["metrics"][summary["metric"]]
            )
    if not hours:
        return None
    curves = {
        name: CostCurve(found.labels, found.scores.mean(0), sign * scores[name].scores.mean(0))
        for name, found in hours.items()
    }
    arms = {name: _arm(curve, name, summary, evaluations) for name, curve in curves.items()}
    needs = {
        name: (arm["labels_to_target"], arm["hours_to_target"])
        for name, arm in arms.items()
        if arm["labels_to_target"] is not None and arm["hours_to_target"] is not None
    }
    ranges = cheapest_ranges(needs)
    sentence, sentences = ranges_words(ranges)
    drawn = _resampled(scores, hours, summary["baseline"])
    return Bill(
        target=summary["target"],
        speed=rates.speed,
        arms=arms,
        prices=[_price(price, curves, arms, drawn) for price in rates.prices],
        ranges=[
            {"arm": r.arm, "low": r.low, "high": r.high if math.isfinite(r.high) else None}
            for r in ranges
        ],
        sentence=sentence,
        sentences=sentences,
        missing=[name for name in summary["arms"] if name not in arms],
    )


def _complete(record: Record) -> bool:
    return all("flops" in (record.get(part) or {}) for part in CHARGED)  # type: ignore[operator]


def _hours(record: Record, rates: Tariff) -> float:
    return sum(record[part]["flops"] for part in CHARGED) / rates.speed / 3600  # type: ignore[literal-required]


def _stack(
    evaluations: Evaluations, arm: str, seeds: Sequence[int], value: Callable[[Record], float]
) -> Stack:
    """Any number of a record, as a curve a seed on the labels that all of them have."""
    curves = []
    for seed in seeds:
        at = evaluations[arm, seed]
        values = np.array([value(record) for record in at.values()], float)
        curves.append(Curve(arm, seed, np.array(list(at), float), values))
    return stack(curves)


def _arm(curve: CostCurve, name: str, summary: Summary, evaluations: Evaluations) -> ArmCost:
    arm = summary["arms"][name]
    last = [list(evaluations[name, seed].values())[-1] for seed in arm["seed_ids"]]
    flops = {
        part: float(np.mean([(record.get(part) or {}).get("flops", 0.0) for record in last]))  # type: ignore[attr-defined]
        for part in PARTS
    }
    labels = arm["labels_to_target"]
    return ArmCost(
        labels_to_target=labels,
        hours_to_target=cost_at(curve, labels, Price("hours", 0.0, 1.0)),
        flops=flops,
        labels=curve.labels.tolist(),
        hours=curve.hours.tolist(),
        scores=curve.scores.tolist(),
    )


class Drawn(NamedTuple):
    """Resamples of the seeds: labels and hours to the target, inf where it is not reached."""

    labels: np.ndarray  # (arms, R)
    hours: np.ndarray  # (arms, R)


def _resampled(
    scores: Mapping[str, Stack], hours: Mapping[str, Stack], baseline: str
) -> Drawn | None:
    """Seeds drawn with replacement, the same for all arms; None where fewer than two are shared.

    The target is computed anew in each resample, as in `savings`.
    """
    shared = set.intersection(*(set(found.seeds) for found in scores.values()))
    if len(shared) < 2 or baseline not in scores:
        return None
    count = len(shared)
    picked = np.random.default_rng(0).integers(count, size=(RESAMPLES, count))
    weights = (picked[:, :, None] == np.arange(count)).sum(1) / count  # (R, S)
    target = weights @ select(scores[baseline], shared).scores[:, -1]
    labels, used = [], []
    for arm, found in scores.items():
        took = labels_to_reach(found.labels, weights @ select(found, shared).scores, target)
        spent = weights @ select(hours[arm], shared).scores
        at = np.where(np.isfinite(took), took, 0.0)
        rows = [np.interp(x, found.labels, row) for x, row in zip(at, spent, strict=True)]
        labels.append(took)
        used.append(np.where(np.isfinite(took), rows, np.inf))
    return Drawn(np.stack(labels), np.stack(used))


def _price(
    price: Price, curves: Mapping[str, CostCurve], arms: Mapping[str, ArmCost], drawn: Drawn | None
) -> PriceCost:
    costs = {name: cost_at(curves[name], arms[name]["labels_to_target"], price) for name in curves}
    reached = {name: cost for name, cost in costs.items() if cost is not None}
    share = None
    if drawn is not None:
        with np.errstate(invalid="ignore"):  # nothing, of what is never reached
            money = np.nan_to_num(price.label * drawn.labels + price.hour * drawn.hours, nan=np.inf)
        first = np.where(np.isfinite(money).any(0), money.argmin(0), -1)
        share = {name: float(np.mean(first == place)) for place, name in enumerate(curves)}
    return PriceCost(
        name=price.name,
        label=price.label,
        hour=price.hour,
        to_target=costs,
        cheapest=min(reached, key=lambda name: reached[name]) if reached else None,
        share=share,
        sentence=cheapest(costs, price),
    )

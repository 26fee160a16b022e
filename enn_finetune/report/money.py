"""Score against money: what a run costs that ends at each point of its curve, at given prices.

Money is linear in two prices, of a label and of an hour. So who reaches a target for the least
depends on their ratio alone, the hours of computing that a label is worth, and the answer for all
prices at once is a lower hull (`cheapest_ranges`).
"""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from enn_finetune.files import atomic_write
from enn_finetune.report.curves import THEME, figure_of, png
from enn_finetune.report.looks import DASHES, LIGHT, MARKERS


class Price(NamedTuple):
    """What is paid, in one currency."""

    name: str
    label: float  # of a label
    hour: float  # of an hour of computing


PRICES = (
    Price("experts", 1.0, 1.0),
    Price("crowd", 0.01, 1.0),
    Price("machine labels", 0.0001, 10.0),
)
"""Labels that people with knowledge give, that anybody gives, and that a model gives while the
machine to train on is dear."""


class CostCurve(NamedTuple):
    """One policy's mean over seeds at each evaluation: what was bought, used and scored."""

    labels: np.ndarray  # (G,) increasing
    hours: np.ndarray  # (G,) of computing, if the run ended there
    scores: np.ndarray  # (G,)

    def money(self, price: Price) -> np.ndarray:
        """Cost (G,) of a run that ends at each point."""
        return price.label * self.labels + price.hour * self.hours


def cost_at(curve: CostCurve, labels: float | None, price: Price) -> float | None:
    """What a run costs that ends with so many labels, linear between evaluations; None for None."""
    if labels is None:
        return None
    return float(np.interp(labels, curve.labels, curve.money(price)))


def cheapest(costs: Mapping[str, float | None], price: Price) -> str:
    """One sentence: who reaches the target for the least money, and by how much.

    Args:
      costs: of each policy, None where the target is not reached.
      price: that they are at.
    """
    reached = {name: cost for name, cost in costs.items() if cost is not None}
    missed = [name for name in costs if name not in reached]
    where = f"At {price.label:g} a label and {price.hour:g} an hour ({price.name})"
    tail = f" Not reached by {', '.join(missed)}." if missed else ""
    if not reached:
        return f"{where} nobody reaches the target."
    order = sorted(reached, key=lambda name: reached[name])
    first = order[0]
    words = f"{where} {first} is the cheapest: {_sum(reached[first])}"
    if len(order) > 1:
        second = order[1]
        more = 100 * (reached[second] / reached[first] - 1) if reached[first] > 0 else 0.0
        words += f", then {second} with {_sum(reached[second])} ({more:+.0f} %)"
    return f"{words}.{tail}"


class Range(NamedTuple):
    """Where an arm is the cheapest: between two worths of a label, in hours of computing."""

    arm: str
    low: float
    high: float  # inf where there is no end


def cheapest_ranges(needs: Mapping[str, tuple[float, float]]) -> list[Range]:
    """Who is the cheapest at which prices, from labels for nothing to computing for nothing.

    Args:
      needs: labels and hours to the target, of each arm that reaches it.
    """
    if not needs:
        return []
    arm, low, found = min(needs, key=lambda name: needs[name][::-1]), 0.0, []
    while True:
        labels, hours = needs[arm]
        turns = {  # where another, with fewer labels and more hours, is as cheap
            name: ((other - hours) / (labels - fewer), fewer)
            for name, (fewer, other) in needs.items()
            if fewer < labels
        }
        following = min(turns, key=lambda name: turns[name]) if turns else ""
        high = turns[following][0] if turns else math.inf
        if high > low:
            found.append(Range(arm, low, high))
        if not turns:
            return found
        arm, low = following, max(high, low)


def ranges_words(ranges: Sequence[Range]) -> tuple[str, list[str]]:
    """The same in words: a sentence, and where prices matter one for each range."""
    if not ranges:
        return "No arm reaches the target: none is the cheapest at any price.", []
    if len(ranges) == 1:
        return f"Whatever the prices, {ranges[0].arm} reaches the target for the least money.", []
    first, *others = ranges
    parts = [f"{first.arm} is the cheapest where a label costs less than {_worth(first.high)}"]
    for one in others:
        until = f" and less than {_worth(one.high)}" if math.isfinite(one.high) else ""
        parts.append(f"{one.arm} where it costs more than that{until}")
    return "Who reaches the target for the least money depends on the prices.", parts


def _worth(hours: float) -> str:
    """A time of computing, in a unit that suits it."""
    units = {"hours": 1.0, "minutes": 1 / 60, "seconds": 1 / 3600}
    unit = next((name for name, size in units.items() if hours >= size), "seconds")
    return f"{hours / units[unit]:.3g} {unit} of computing"


def _sum(value: float) -> str:
    return f"{value:,.2f}" if value >= 1 else f"{value:.3g}"


def draw_money(
    curves: Mapping[str, CostCurve],
    prices: Sequence[Price],
    path: str | os.PathLike[str],
    *,
    title: str,
    score: str,
    target: float | None = None,
) -> None:
    """Write one picture a price, side by side: score against money on a logarithmic axis (PNG).

    Args:
      curves: by policy, drawn in this order.
      prices: one panel each.
      path: of the PNG file, written atomically.
      title: of the whole.
      score: what the score is called.
      target: drawn as a dotted line.

    Raises:
      MissingMatplotlibError: matplotlib is not installed.
      ValueError: no curves or no prices.
    """
    if not curves or not prices:
        raise ValueError("score against money needs at least one curve and one price, found none")
    figure = figure_of(4.6 * len(prices), 4.2)
    panels = figure.subplots(1, len(prices), squeeze=False, sharey=True)[0]
    for axes, price in zip(panels, prices, strict=True):
        for number, (name, curve) in enumerate(curves.items()):
            axes.plot(
                np.maximum(curve.money(price), 1e-12),
                curve.scores,
                color=LIGHT[number % len(LIGHT)],
                ls=DASHES[number // len(LIGHT) % len(DASHES)],
                marker=MARKERS[number % len(MARKERS)],
                ms=4,
                label=name,
            )
        if target is not None:
            axes.axhline(target, color=THEME.muted, ls=":", lw=1)
        axes.set_xscale("log")
        axes.minorticks_off()
        axes.set_title(f"{price.name}: {price.label:g} a label, {price.hour:g} an hour", size=9)
        axes.set_xlabel("money", color=THEME.muted)
        axes.grid(color=THEME.grid)
    panels[0].set_ylabel(score, color=THEME.muted)
    panels[-1].legend(fontsize=8, frameon=False)
    figure.suptitle(title, size=11)
    atomic_write(Path(path), png(figure, THEME))

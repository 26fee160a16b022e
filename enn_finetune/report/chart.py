"""Learning curves as SVG inside the page: light and dark from one drawing, no library needed."""

import math
from collections.abc import Sequence
from typing import NamedTuple
from xml.etree.ElementTree import Element

from enn_finetune.report.curves import spread
from enn_finetune.report.elements import element
from enn_finetune.report.looks import Look
from enn_finetune.savings import CurveJson

WIDTH, HEIGHT = 560, 330
LEFT, TOP, BOTTOM = 46, 30, 36  # margins
LETTER = 6.6  # pixels, about, that a letter of a name is wide
LOG_SPAN = 20.0  # a label axis that spans more than this is logarithmic
BAND_ROOM = 0.4  # of the means' range: how far bands may widen the axis at either end
NAME_GAP = 15.0  # pixels between names
DASHED = {"-": "", "--": "7 4", "-.": "9 3 2 3", ":": "2 3"}


class Curve(NamedTuple):
    """One arm's line."""

    name: str
    curve: CurveJson
    look: Look
    reached: float | None = None  # labels to the target


class Axes(NamedTuple):
    """The two scales of a picture."""

    low: float
    high: float
    first: float
    last: float
    log: bool
    right: float  # margin, in which the names stand
    across: str = "labels bought"

    def x(self, labels: float) -> float:
        """Place of a label count, in pixels."""
        first, last, value = self.first, self.last, labels
        if self.log:
            first, last, value = math.log(first), math.log(last), math.log(max(labels, first))
        share = (value - first) / ((last - first) or 1.0)
        return LEFT + share * (WIDTH - LEFT - self.right)

    def y(self, value: float) -> float:
        """Place of a score, in pixels."""
        share = (value - self.low) / ((self.high - self.low) or 1.0)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def chart(title: str, curves: Sequence[Curve], axes: Axes, target: float | None = None) -> Element:
    """Mean curves with 95 % bands; a dotted line at the target, a ring where an arm reached it."""
    ends = "; ".join(f"{one.name} {one.curve['mean'][-1]:.3f}" for one in curves)
    parts = [element("title", f"{title}. At the end: {ends}."), *_grid(axes)]
    parts.append(text(title, LEFT, 16, "heading"))
    if target is not None:
        y = f"{axes.y(target):.1f}"
        parts.append(element("path", d=f"M{LEFT} {y}H{WIDTH - axes.right:.1f}", class_="target"))
        parts.append(text(f"target {target:.3f}", LEFT + 4, axes.y(target) - 4, "tick"))
    ordered = sorted(curves, key=lambda one: bool(one.look.marker))  # random selection behind
    parts += [_drawn(one, axes, target) for one in ordered]
    parts += _names(curves, axes)
    return element(
        "svg", *parts, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", class_="chart", xmlns=""
    )


def axes_of(curves: Sequence[Curve], target: float | None = None) -> Axes:
    """Scales that hold all these curves, so that pictures of some of them can be compared."""
    means = [value for one in curves for value in one.curve["mean"]]
    means += [] if target is None else [target]
    bands = [
        value
        for one in curves
        for ends in (one.curve["low"], one.curve["high"])
        for value in ends or []
    ]
    # Bands of few seeds are wide: cut off rather than allowed to flatten the curves.
    room = BAND_ROOM * (max(means) - min(means))
    low = max(min(means + bands), min(means) - room)
    high = min(max(means + bands), max(means) + room)
    margin = 0.04 * (high - low) or 0.01
    labels = [one.curve["labels"] for one in curves]
    first, last = min(found[0] for found in labels), max(found[-1] for found in labels)
    log = first > 0 and last / first > LOG_SPAN
    right = min(30 + LETTER * max(len(one.name) for one in curves), WIDTH / 2)
    return Axes(low - margin, high + margin, first, last, log, right)


def _grid(axes: Axes) -> list[Element]:
    parts = []
    for value in ticks(axes.low, axes.high, 5):
        y = f"{axes.y(value):.1f}"
        parts.append(element("path", d=f"M{LEFT} {y}H{WIDTH - axes.right:.1f}", class_="grid"))
        digits = 3 if axes.high - axes.low < 0.05 else 2
        parts.append(text(f"{value:.{digits}f}", LEFT - 6, axes.y(value) + 4, "tick", "end"))
    for labels in _label_ticks(axes):
        x, foot = f"{axes.x(labels):.1f}", HEIGHT - BOTTOM
        parts.append(element("path", d=f"M{x} {TOP}V{foot}", class_="grid"))
        parts.append(text(f"{labels:,.10g}", axes.x(labels), foot + 15, "tick", "middle"))
    middle = (LEFT + WIDTH - axes.right) / 2
    parts.append(text(axes.across, middle, HEIGHT - 5, "tick", "middle"))
    return parts


def ticks(low: float, high: float, count: int) -> list[float]:
    """Round numbers between two, about so many."""
    step = 10 ** math.floor(math.log10((high - low) / count))
    step *= next(m for m in (1, 2, 2.5, 5, 10) if (high - low) / (m * step) <= count)
    return [step * k for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _label_ticks(axes: Axes) -> list[float]:
    if not axes.log:
        return ticks(axes.first, axes.last, 5) if axes.last > axes.first else [axes.first]
    powers = range(math.floor(math.log10(axes.first)), math.ceil(math.log10(axes.last)) + 1)
    digits = (1, 2, 5) if axes.last / axes.first < 1000 else (1, 3)
    found = [digit * 10.0**power for power in powers for digit in digits]
    return [value for value in found if axes.first <= value <= axes.last]


def _drawn(one: Curve, axes: Axes, target: float | None) -> Element:
    """Band, line and ring of an arm; pointing at it brings it out."""
    labels, mean = one.curve["labels"], one.curve["mean"]
    low, high = one.curve["low"], one.curve["high"]
    parts = [element("title", one.name)]
    if low is not None and high is not None:
        above, below = _points(axes, labels, high), _points(axes, labels, low)
        parts.append(element("polygon", points=" ".join([*above, *below[::-1]]), class_="band"))
    parts.append(
        element(
            "polyline",
            points=" ".join(_points(axes, labels, mean)),
            class_="line",
            stroke_dasharray=DASHED[one.look.dash],
        )
    )
    if one.reached is not None and target is not None:
        x, y = f"{axes.x(one.reached):.1f}", f"{axes.y(target):.1f}"
        parts.append(element("circle", cx=x, cy=y, r="4.5", class_="ring"))
    return element("g", *parts, class_="arm", style=colours(one.look))


def _points(axes: Axes, labels: Sequence[float], values: Sequence[float]) -> list[str]:
    top, foot = TOP - 4, HEIGHT - BOTTOM
    return [
        f"{axes.x(x):.1f},{min(max(axes.y(y), top), foot):.1f}"
        for x, y in zip(labels, values, strict=True)
    ]


def _names(curves: Sequence[Curve], axes: Axes) -> list[Element]:
    """Each arm's name at the end of its line, pushed apart where they would overlap."""
    height = HEIGHT - TOP - BOTTOM
    ends = [axes.y(one.curve["mean"][-1]) for one in curves]
    places = spread([(end - TOP) / height for end in ends], NAME_GAP / height)
    found = []
    for one, end, place in zip(curves, ends, places, strict=True):
        x, y = axes.x(one.curve["labels"][-1]), TOP + place * height
        line = f"M{x:.1f} {end:.1f}L{WIDTH - axes.right + 12:.1f} {y:.1f}"
        name = text(one.name, WIDTH - axes.right + 15, y + 4, "name")
        parts = (element("path", d=line, class_="lead"), name)
        found.append(element("g", *parts, class_="arm", style=colours(one.look)))
    return found


def colours(look: Look) -> str:
    """An arm's colours as the style that the sheet reads."""
    return f"--light:{look.light};--dark:{look.dark}"


def text(words: str, x: float, y: float, class_: str, anchor: str = "") -> Element:
    """Words at a place in pixels."""
    return element("text", words, x=f"{x:.1f}", y=f"{y:.1f}", class_=class_, text_anchor=anchor)

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
FEWEST = 2  # logarithmic ticks, up to which a scale has even ones
NAME_GAP = 15.0  # pixels between names
DASHED = {"-": "", "--": "7 4", "-.": "9 3 2 3", ":": "2 3"}


class Curve(NamedTuple):
    """One arm's line."""

    name: str
    curve: CurveJson
    look: Look
    reached: float | None = None  # labels to the target
    shift: float | None = None  # measured at few places: dots and bars there, so many pixels aside


class Axes(NamedTuple):
    """The two scales of a picture."""

    low: float
    high: float
    first: float
    last: float
    log: bool
    right: float  # margin, in which the names stand
    across: str = "labels bought"
    log_up: bool = False  # scores, too, on a logarithmic scale
    marks: tuple[float, ...] = ()  # places that are named across; empty: round numbers
    inside: float = 0.0  # margin on both sides of the places across

    def x(self, labels: float) -> float:
        """Place of a label count, in pixels."""
        first, last, value = self.first, self.last, labels
        if self.log:
            first, last, value = math.log(first), math.log(last), math.log(max(labels, first))
        share = (value - first) / ((last - first) or 1.0)
        return LEFT + self.inside + share * (WIDTH - LEFT - self.right - 2 * self.inside)

    def y(self, value: float) -> float:
        """Place of a score, in pixels."""
        low, high = self.low, self.high
        if self.log_up:
            low, high, value = math.log(low), math.log(high), math.log(max(value, low))
        share = (value - low) / ((high - low) or 1.0)
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


def axes_of(curves: Sequence[Curve], target: float | None = None, *, log_up: bool = False) -> Axes:
    """Scales that hold all these curves, so that pictures of some of them can be compared.

    On a logarithmic scale of scores those not above 0 stand at its foot.
    """
    means = [value for one in curves for value in one.curve["mean"]]
    means += [] if target is None else [target]
    bands = [
        value
        for one in curves
        for ends in (one.curve["low"], one.curve["high"])
        for value in ends or []
    ]
    if log_up := log_up and max(means) > 0:
        means, bands = ([math.log10(v) for v in found if v > 0] for found in (means, bands))
    # Bands of few seeds are wide: cut off rather than allowed to flatten the curves.
    room = BAND_ROOM * (max(means) - min(means))
    low = max(min(means + bands), min(means) - room)
    high = min(max(means + bands), max(means) + room)
    margin = 0.04 * (high - low) or 0.01
    low, high = low - margin, high + margin
    if log_up:
        low, high = 10**low, 10**high
    labels = [one.curve["labels"] for one in curves]
    first, last = min(found[0] for found in labels), max(found[-1] for found in labels)
    log = first > 0 and last / first > LOG_SPAN
    right = min(30 + LETTER * max(len(one.name) for one in curves), WIDTH / 2)
    return Axes(low, high, first, last, log, right, log_up=log_up)


def _grid(axes: Axes) -> list[Element]:
    parts = []
    up = log_ticks(axes.low, axes.high) if axes.log_up else []
    for value in up if len(up) > FEWEST else ticks(axes.low, axes.high, 5):
        y = f"{axes.y(value):.1f}"
        parts.append(element("path", d=f"M{LEFT} {y}H{WIDTH - axes.right:.1f}", class_="grid"))
        digits = 3 if axes.high - axes.low < 0.05 else 2
        words = f"{value:.10g}" if axes.log_up else f"{value:.{digits}f}"
        parts.append(text(words, LEFT - 6, axes.y(value) + 4, "tick", "end"))
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
    if axes.marks:
        return [*axes.marks]
    if not axes.log:
        return ticks(axes.first, axes.last, 5) if axes.last > axes.first else [axes.first]
    return log_ticks(axes.first, axes.last)


def log_ticks(low: float, high: float) -> list[float]:
    """Numbers of one digit between two above 0, for a logarithmic scale."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    digits = (1, 2, 5) if high / low < 1000 else (1, 3)
    found = [digit * 10.0**power for power in powers for digit in digits]
    return [value for value in found if low <= value <= high]


def _drawn(one: Curve, axes: Axes, target: float | None) -> Element:
    """Band or bars, line and ring of an arm; pointing at it brings it out."""
    labels, mean = one.curve["labels"], one.curve["mean"]
    low, high = one.curve["low"], one.curve["high"]
    points = _points(axes, labels, mean, one.shift or 0.0)
    parts = [element("title", one.name)]
    if low is not None and high is not None:
        above, below = (_points(axes, labels, ends, one.shift or 0.0) for ends in (high, low))
        if one.shift is None:
            parts.append(element("polygon", points=" ".join([*above, *below[::-1]]), class_="band"))
        else:
            ends = zip(above, below, strict=True)
            parts += [element("path", d=f"M{top}L{foot}", class_="lead") for top, foot in ends]
    dashes = DASHED[one.look.dash]
    line = {"points": " ".join(points), "class_": "line", "stroke_dasharray": dashes}
    parts.append(element("polyline", **line))
    for x, y in (point.split(",") for point in points if one.shift is not None):
        parts.append(element("circle", cx=x, cy=y, r="3", style="fill:var(--c)"))
    if one.reached is not None and target is not None:
        x, y = f"{axes.x(one.reached):.1f}", f"{axes.y(target):.1f}"
        parts.append(element("circle", cx=x, cy=y, r="4.5", class_="ring"))
    return element("g", *parts, class_="arm", style=colours(one.look))


def _points(
    axes: Axes, labels: Sequence[float], values: Sequence[float], shift: float = 0.0
) -> list[str]:
    top, foot = TOP - 4, HEIGHT - BOTTOM
    return [
        f"{axes.x(x) + shift:.1f},{min(max(axes.y(y), top), foot):.1f}"
        for x, y in zip(labels, values, strict=True)
    ]


def _names(curves: Sequence[Curve], axes: Axes) -> list[Element]:
    """Each arm's name at the end of its line, pushed apart where they would overlap.

    Measured at few places, a line that ends before the others has its name under its last bar.
    """
    height = HEIGHT - TOP - BOTTOM
    whole = [one for one in curves if one.shift is None or one.curve["labels"][-1] >= axes.last]
    ends = [axes.y(one.curve["mean"][-1]) for one in whole]
    places = spread([(end - TOP) / height for end in ends], NAME_GAP / height) if whole else []
    found = []
    for one, end, place in zip(whole, ends, places, strict=True):
        x, y = axes.x(one.curve["labels"][-1]) + (one.shift or 0.0), TOP + place * height
        line = f"M{x:.1f} {end:.1f}L{WIDTH - axes.right + 12:.1f} {y:.1f}"
        name = text(one.name, WIDTH - axes.right + 15, y + 4, "name")
        parts = (element("path", d=line, class_="lead"), name)
        found.append(element("g", *parts, class_="arm", style=colours(one.look)))
    for one in (one for one in curves if one not in whole):
        x, y = axes.x(one.curve["labels"][-1]), axes.y((one.curve["low"] or one.curve["mean"])[-1])
        name = text(one.name, x + (one.shift or 0.0) + 4, min(y + 11, HEIGHT - BOTTOM - 4), "name")
        found.append(element("g", name, class_="arm", style=colours(one.look)))
    return found


def colours(look: Look) -> str:
    """An arm's colours as the style that the sheet reads."""
    return f"--light:{look.light};--dark:{look.dark}"


def text(words: str, x: float, y: float, class_: str, anchor: str = "") -> Element:
    """Words at a place in pixels."""
    return element("text", words, x=f"{x:.1f}", y=f"{y:.1f}", class_=class_, text_anchor=anchor)

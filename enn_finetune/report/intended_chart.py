"""Studies as points: what an encoder separates against what active learning made of it."""

from collections.abc import Sequence
from xml.etree.ElementTree import Element

from enn_finetune.report.chart import BOTTOM, HEIGHT, LEFT, TOP, WIDTH, Axes, colours, text, ticks
from enn_finetune.report.elements import element
from enn_finetune.report.intended_figures import StudyJson
from enn_finetune.report.intended_ranks import PREDICTORS, SCORES, value_of
from enn_finetune.report.looks import DARK, LIGHT, Look

SIDE = 9.0  # pixels


def scatter(studies: Sequence[StudyJson], by: str, of: str) -> Element:
    """One point a study, a colour a task; filled: pretrained, round: frozen."""
    places = [(value_of(study, by), value_of(study, of)) for study in studies]
    tasks = list(dict.fromkeys(study["task"] for study in studies))
    axes = _axes(places, max(map(len, tasks)))
    title = f"{SCORES[of][0].upper()}{SCORES[of][1:]}"
    parts = [element("title", f"{title} by {PREDICTORS[by]}"), *_grid(axes, of == "gain")]
    parts.append(text(title, LEFT, 16, "heading"))
    middle = (LEFT + WIDTH - axes.right) / 2
    parts.append(text(PREDICTORS[by], middle, HEIGHT - 5, "tick", "middle"))
    for study, (x, y) in zip(studies, places, strict=True):
        parts.append(_point(study, axes.x(x), axes.y(y), tasks))
    for number, task in enumerate(tasks):
        name = text(task, WIDTH - axes.right + 12, TOP + 12 + 18 * number, "name")
        parts.append(element("g", name, class_="arm", style=_colour(task, tasks)))
    return element(
        "svg", *parts, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", class_="chart", xmlns=""
    )


def _axes(places: Sequence[tuple[float, float]], letters: int) -> Axes:
    xs, ys = zip(*places, strict=True)
    wide, high = (0.06 * (max(values) - min(values)) or 0.01 for values in (xs, ys))
    right = min(24 + 6.8 * letters, WIDTH / 2)
    return Axes(
        min(ys) - high, max(ys) + high, min(xs) - wide, max(xs) + wide, log=False, right=right
    )


def _grid(axes: Axes, points: bool) -> list[Element]:
    """Lines and figures of both scales; scores as points of 100 where so told."""
    parts, foot = [], HEIGHT - BOTTOM
    for value in ticks(axes.low, axes.high, 5):
        y = f"{axes.y(value):.1f}"
        parts.append(element("path", d=f"M{LEFT} {y}H{WIDTH - axes.right:.1f}", class_="grid"))
        words = f"{100 * value:+.1f}" if points else f"{value:.2f}"
        parts.append(text(words, LEFT - 6, axes.y(value) + 4, "tick", "end"))
    for value in ticks(axes.first, axes.last, 5):
        x = f"{axes.x(value):.1f}"
        parts.append(element("path", d=f"M{x} {TOP}V{foot}", class_="grid"))
        parts.append(text(f"{value:.2f}", axes.x(value), foot + 15, "tick", "middle"))
    return parts


def _point(study: StudyJson, x: float, y: float, tasks: Sequence[str]) -> Element:
    # The sheet has a class for hollow marks only.
    filled = study["weights"] == "pretrained"
    look = {"style": "fill:var(--c)"} if filled else {"class_": "ring"}
    if study["regime"] == "frozen":
        mark = element("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r=f"{SIDE / 2:.1f}", **look)
    else:
        corner = {"x": f"{x - SIDE / 2:.1f}", "y": f"{y - SIDE / 2:.1f}"}
        mark = element("rect", **corner, width=f"{SIDE}", height=f"{SIDE}", **look)
    name = element("title", study["name"])
    return element("g", name, mark, class_="arm", style=_colour(study["task"], tasks))


def _colour(task: str, tasks: Sequence[str]) -> str:
    place = list(tasks).index(task) % len(LIGHT)
    return colours(Look(LIGHT[place], DARK[place], "", "-"))

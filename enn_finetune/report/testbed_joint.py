"""Agents on labels drawn at random: KL against rows predicted together, and against training."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple
from xml.etree.ElementTree import Element

from enn_finetune.report.chart import Curve, axes_of, chart
from enn_finetune.report.elements import Child, element
from enn_finetune.report.looks import DARK, GREYS, LIGHT, Look
from enn_finetune.report.testbed_active import standalone
from enn_finetune.savings import CurveJson
from enn_finetune.testbed.records import FLOOR

Settings = Mapping[str, dict]
JOINT = "joint_kl_"
ASIDE = 5.0  # pixels between agents at a place
MIDDLE = 10
"""Rows together that are drawn against training rows, if so many were: labels are summed exactly
there, and agents differ already."""


class Figure(NamedTuple):
    """Small multiples on the same axes."""

    name: str  # of its files
    title: str
    note: str
    pictures: tuple[Element, ...]


class Place(NamedTuple):
    """Where agents were scored."""

    agents: Mapping[str, dict]  # of a setting
    score: str
    rows: float = 1.0  # that the score is divided by


class Panel(NamedTuple):
    """One of the multiples: what there is at each place across."""

    title: str
    places: Mapping[float, Place]


def figures(settings: Settings, reference: str) -> dict[str, str]:
    """Every picture as an SVG file, by name."""
    return {
        f"supervised-{one.name}-{number}": standalone(picture)
        for one in drawings(settings, reference)
        for number, picture in enumerate(one.pictures, 1)
    }


def drawn(settings: Settings, reference: str) -> list[Child]:
    """The figures as a part of the page."""
    parts: list[Child] = []
    for one in drawings(settings, reference):
        pictures = element("div", *one.pictures, class_="curves")
        parts.append(element("h3", one.title))
        parts.append(element("figure", pictures, element("figcaption", one.note)))
    return parts


def drawings(settings: Settings, reference: str) -> list[Figure]:
    """Joint KL against tau by setting; marginal and joint KL against training rows."""
    if not settings:
        return []
    taus = _taus(settings)
    styles = _looks(settings, reference)
    bands = (
        "Means over problems and their 95 % intervals, side by side where they would overlap, on "
        f"logarithmic scales that the pictures share; lower is better. {reference} is dashed"
    )
    floor = ", the floor dotted, where its particles can be trusted" if FLOOR in styles else ""
    apart = (
        " Problems differ in how hard they are, which the intervals hold: whether an agent is "
        f"settled to be better than {reference} is in the tables. Point at a line to bring it out."
    )
    found = []
    if taus:
        note = (
            "The joint KL of a group over its tau rows, so that an agent of one function, which "
            f"pays for each row anew, keeps its height. {bands}{floor}."
        )
        pictures = _pictures(_by_tau(settings, taus), styles, "rows predicted together (tau)")
        title = "Joint KL against rows predicted together, nats a row of the group"
        found.append(Figure("joint-by-tau", title, note + apart, pictures))
    middle = [f"{JOINT}{tau}" for tau in taus if tau == MIDDLE] or [f"{JOINT}{taus[-1]}"] * bool(
        taus
    )
    for score in ["kl", *middle]:
        tau = score.removeprefix(JOINT)
        what = (
            "Marginal KL, nats a row" if score == "kl" else f"Joint KL, tau = {tau}, nats a group"
        )
        pictures = _pictures(_by_rows(settings, score, what), styles, "training rows per input")
        title = f"{what}, against training rows"
        name = f"{score.replace('_', '-')}-by-rows"
        found.append(Figure(name, title, f"{bands}{floor}.{apart}", pictures))
    return found


def _taus(settings: Settings) -> list[int]:
    names = {
        name for one in settings.values() for agent in one["agents"].values() for name in agent
    }
    return sorted(int(name.removeprefix(JOINT)) for name in names if name.startswith(JOINT))


def _looks(settings: Settings, reference: str) -> dict[str, Look]:
    """A colour an agent, the same everywhere; greys for the reference and the floor."""
    names = dict.fromkeys(name for one in settings.values() for name in one["agents"])
    others = [name for name in names if name not in (reference, FLOOR)]
    found = {}
    for name in names:
        if name in others:
            place = others.index(name) % len(LIGHT)
            found[name] = Look(LIGHT[place], DARK[place], "o", "-")
        else:
            light, dark, dash = GREYS["own" if name == FLOOR else "baseline"]
            found[name] = Look(light, dark, "o" if name == FLOOR else "", dash)
    return found


def _by_tau(settings: Settings, taus: Sequence[int]) -> list[Panel]:
    """One panel a setting."""
    return [
        Panel(
            f"Joint KL / tau, nats a row: {name}",
            {float(tau): Place(one["agents"], f"{JOINT}{tau}", tau) for tau in taus},
        )
        for name, one in settings.items()
    ]


def _by_rows(settings: Settings, score: str, what: str) -> list[Panel]:
    """One panel an input dimension and temperature."""
    groups: dict[tuple[int, float], dict[float, Place]] = {}
    for one in settings.values():
        places = groups.setdefault((one["input_dim"], one["temperature"]), {})
        places[float(one["ratio"])] = Place(one["agents"], score)
    return [
        Panel(f"{what}: {inputs} inputs, temperature {temperature:g}", dict(sorted(of.items())))
        for (inputs, temperature), of in groups.items()
    ]


def _pictures(
    panels: Sequence[Panel], styles: Mapping[str, Look], across: str
) -> tuple[Element, ...]:
    middle = (len(styles) - 1) / 2
    curves = [
        [
            curve
            for number, name in enumerate(styles)
            if (curve := _curve(name, styles[name], panel.places, ASIDE * (number - middle)))
        ]
        for panel in panels
    ]
    axes = axes_of([one for of in curves for one in of], log_up=True)
    places = sorted({place for panel in panels for place in panel.places})
    margin = ASIDE * middle + 4  # in which what stands aside of the first place and the last is
    axes = axes._replace(across=across, log=True, marks=tuple(places), inside=margin)
    return tuple(
        chart(panel.title, of, axes) for panel, of in zip(panels, curves, strict=True) if of
    )


def _curve(name: str, look: Look, places: Mapping[float, Place], shift: float) -> Curve | None:
    """An agent's means and intervals at the places where it was scored."""
    found = {
        across: (place.agents[name][place.score], place.rows)
        for across, place in places.items()
        if place.score in place.agents.get(name, {})
    }
    if not found:
        return None
    scores = [(one["mean"], one["ci95"], rows) for one, rows in found.values()]
    whole = all(ci95 is not None for _, ci95, _ in scores)
    curve = CurveJson(
        labels=list(found),
        mean=[mean / rows for mean, _, rows in scores],
        low=[ci95[0] / rows for _, ci95, rows in scores] if whole else None,
        high=[ci95[1] / rows for _, ci95, rows in scores] if whole else None,
    )
    return Curve(name, curve, look, shift=shift)

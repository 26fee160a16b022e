"""Active learning on the testbed: curves of KL against distinct labels, and their table."""

from collections.abc import Mapping
from typing import NamedTuple, cast
from xml.etree.ElementTree import Element, tostring

from enn_finetune.report.blocks import arm_name, details, ratio_cell, two_lines
from enn_finetune.report.chart import Curve, axes_of, chart
from enn_finetune.report.elements import Child, Row, element, grid
from enn_finetune.report.looks import groups, looks
from enn_finetune.report.style import CSS
from enn_finetune.report.testbed_summary import Json
from enn_finetune.report.testbed_words import WAYS, answer, best, labels_to, papers_level
from enn_finetune.report.words import DASH
from enn_finetune.savings import RatioJson, Summary


class Active(NamedTuple):
    """One way of active learning."""

    way: str
    summary: Summary
    json: Json


def pictures(one: Active, curve: str = "kl") -> list[Element]:
    """Charts of few arms each, on the same axes: the KL, or what is saved of the baseline's."""
    styles, is_kl = looks(one.summary), curve == "kl"
    target = one.summary["target"] if is_kl else None
    arms = cast(dict[str, dict], one.json["arms"])
    lines = {
        name: Curve(name, arm["curves"][curve], styles[name], _ring(one, name) if is_kl else None)
        for name, arm in arms.items()
    }
    axes = axes_of(list(lines.values()), target)
    title = "KL, nats a row" if is_kl else f"KL below {one.summary['baseline']}'s"
    return [
        chart(
            f"{title}: {group.title.replace('head', 'agent')}",
            [lines[name] for name in group.arms],
            axes,
            target,
        )
        for group in groups(one.summary)
    ]


def _ring(one: Active, name: str) -> float | None:
    arm = one.summary["arms"][name]
    return None if name == one.summary["baseline"] else arm["labels_to_target"]


def figures(active: Mapping[str, Active]) -> dict[str, str]:
    """Every picture of the KL as an SVG file, by name."""
    return {
        f"active-{way}-{number}": standalone(picture)
        for way, one in active.items()
        for number, picture in enumerate(pictures(one), 1)
    }


def standalone(picture: Element) -> str:
    """An SVG file of a picture, with the page's style."""
    found = Element("svg", {**picture.attrib, "xmlns": "http://www.w3.org/2000/svg"})
    found.append(element("style", CSS))
    found.extend(list(picture))
    return tostring(found, encoding="unicode") + "\n"


def section(one: Active) -> list[Child]:
    """Its part of the page."""
    problems = len(one.summary["seeds"])
    note = (
        f"Means over {problems} problem{'s' if problems > 1 else ''} and their 95 % intervals; "
        "lower is better. The dotted line is the target, "
        f"{one.summary['baseline']} with all candidates labelled; a ring marks where an arm "
        "reached it. Point at a line to bring it out."
    )
    drawn = element("div", *pictures(one), class_="curves")
    parts: list[Child] = [
        element("h2", f"Active learning: {WAYS[one.way]}"),
        element("p", answer(one.json), class_="headline"),
        element("p", best(one.json), " ", papers_level(one.json)),
        element("figure", drawn, element("figcaption", note)),
        element("h3", f"KL saved against {one.summary['baseline']}, label for label"),
        element(
            "figure",
            element("div", *pictures(one, "kl_saved"), class_="curves"),
            element(
                "figcaption",
                "The baseline's KL less the arm's at the same number of labels, paired by problem, "
                "with its 95 % interval: above 0 is better. Problems differ in how hard they are, "
                "which the bands of the curves above hold and these do not.",
            ),
        ),
        element("h3", "Labels to reach the target"),
        table(one),
    ]
    if one.summary["notes"]:
        notes = (element("li", text) for text in one.summary["notes"])
        parts.append(element("ul", *notes, class_="notes"))
    parts.append(
        details("At the end: accuracy, calibration, and what the way there cost", _end(one))
    )
    return parts


def _end(one: Active) -> Element:
    """Scores at the last label count that the table above has no room for."""
    styles, rows = looks(one.summary), cast(list[Row], [])
    for name, arm in cast(dict[str, dict], one.json["arms"]).items():
        regret, excess = arm["selection_regret"], arm["kl_excess"]
        figures = [f"{arm['accuracy']:.3f}", f"{arm['ece']:.3f}"]
        row: Row = [arm_name(styles, name), *figures, DASH if excess is None else f"{excess:.4f}"]
        for part, form in (("total", ".2f"), ("saved", "+.2f")):
            base = name == one.json["baseline"] and part == "saved"
            if regret is None or base:
                row.append(DASH)
            else:
                found = regret[part]
                row.append(two_lines(format(found["mean"], form), spread(found["ci95"])))
        rows.append(row)
    header = ["arm", "accuracy", "ECE", "excess of the KL", "selection regret", "saved of it"]
    caption = (
        "Means over problems; small figures are 95 % intervals. Excess: what of the KL at the end "
        "is estimated to be due to drawing finitely many functions. Selection regret, in nats: the "
        f"KL summed over all label counts; saved: {one.json['baseline']}'s less the arm's."
    )
    return grid(header, rows, caption)


def table(one: Active) -> Element:
    """Every arm's labels, ratios, scores and regret."""
    styles, rows = looks(one.summary), cast(list[Row], [])
    for name, arm in cast(dict[str, dict], one.json["arms"]).items():
        base = name == one.json["baseline"]
        saved, alone = arm["regret_saved"], cast("RatioJson | None", arm["acquisition_ratio"])
        kind = "" if base else _kind(saved["ci95"])
        rows.append(
            [
                arm_name(styles, name),
                labels_to(arm),
                element("td", "1 (baseline)") if base else ratio_cell(arm["system_ratio"]),
                DASH if base or name.endswith("/random") else ratio_cell(alone),
                two_lines(f"{arm['kl']:.3f}", spread(arm["ci95"])),
                two_lines(f"{arm['regret']['mean']:.3f}", spread(arm["regret"]["ci95"])),
                DASH
                if base
                else two_lines(f"{saved['mean']:+.3f}", spread(saved["ci95"]), f"tone {kind}"),
                DASH if base else f"{arm['losses']} of {arm['problems']}",
                f"{arm['distinct']:.0f}",
            ]
        )
    target, baseline = one.summary["target"], one.summary["baseline"]
    header = [
        "arm", f"labels to a KL of {target:.3f}", f"ratio to {baseline}", "ratio to random",
        "KL at the end", "regret", "regret saved", "problems lost",
        "candidates chosen",
    ]  # fmt: skip
    caption = (
        f"Ratios above 1 are labels saved: those of {baseline}, or of random selection with the "
        "same agent, over those of the arm. Regret and what is saved of it are in nats a row; "
        "small figures are 95 % intervals."
    )
    return grid(header, rows, caption)


def _kind(ci95: list[float] | None) -> str:
    low, high = ci95 or (0.0, 0.0)
    return "fewer" if low > 0 else "more" if high < 0 else "unsettled"


def spread(ci95: list[float] | None) -> str:
    """An interval of three decimals."""
    return "no interval" if ci95 is None else f"{ci95[0]:.3f} to {ci95[1]:.3f}"

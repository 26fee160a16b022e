"""The parts of the page that answer the question: verdict, curves, labels saved."""

from xml.etree.ElementTree import Element

from enn_finetune.report.chart import Curve, axes_of, chart, colours
from enn_finetune.report.elements import Child, Row, element, grid
from enn_finetune.report.looks import FEW, Look, groups, looks
from enn_finetune.report.words import (
    DASH,
    Outcome,
    direction,
    headline,
    interval_text,
    labels_text,
    match_outcome,
    metric_name,
    outcome,
    points_text,
    ratio_text,
    reference,
    tally,
    verdicts,
)
from enn_finetune.savings import ArmJson, MatchJson, RatioJson, Summary


def details(title: str, *children: Child) -> Element:
    """Something to unfold."""
    return element("details", element("summary", title), *children)


def card(tone: str, figure: str, badge: str, title: str, sentence: str, detail: str) -> Element:
    """One finding of a list: a figure, what became of it, and what it says."""
    return element(
        "li",
        element(
            "div",
            element("span", figure, class_="figure"),
            element("span", badge, class_="badge"),
        ),
        element(
            "div",
            element("p", element("strong", title), " ", sentence),
            element("p", detail, class_="small"),
        ),
        class_=tone,
    )


def verdict(summary: Summary) -> Element:
    """The finding in one sentence, then one for every arm, a loss as large as a win.

    Where there are many arms, their names are listed by outcome and the sentences are folded.
    """
    found = verdicts(summary)
    cards = [
        card(one.outcome, one.figure, one.badge, one.arm, one.sentence, one.detail) for one in found
    ]
    each = element("ul", *cards, class_="verdicts")
    parts = [element("p", headline(summary), class_="headline")]
    if len(cards) <= FEW:
        parts.append(each)
    else:
        lists = (
            element(
                "p",
                element("strong", f"{title}: ", class_=f"tone {kind}"),
                ", ".join(names) or "none",
            )
            for kind, title, names in tally(found, summary)
        )
        parts += [element("div", *lists, class_="tally"), details("Each arm in a sentence", each)]
    if summary["notes"]:
        notes = (element("li", note) for note in summary["notes"])
        parts.append(element("ul", *notes, class_="notes"))
    return element("div", *parts)


def curves(summary: Summary, *metrics: str) -> Element:
    """Learning curves of some metrics, in pictures of few arms each."""
    images = [image for metric in metrics for image in _pictures(summary, metric)]
    bands = "bands are 95 % intervals of the mean over seeds"
    if len(summary["seeds"]) == 1:
        bands = "there are no bands, because there is one seed"
    ways = "; ".join(f"{metric_name(metric)}: {direction(metric)}" for metric in metrics)
    note = f"Means over seeds on the {summary['split']} split; {bands}. {ways}."
    if summary["metric"] in metrics:
        note += (
            f" The dotted line is the target, the mean score of {summary['baseline']} at "
            f"{summary['budget']:,.0f} labels; a ring marks where an arm reached it."
        )
    note += " Point at a line to bring it out."
    return element("figure", element("div", *images, class_="curves"), element("figcaption", note))


def _pictures(summary: Summary, metric: str) -> list[Element]:
    is_score, styles = metric == summary["metric"], looks(summary)
    name = metric_name(metric)
    name = f"{name[0].upper()}{name[1:]}"
    target = summary["target"] if is_score else None
    lines = {
        key: Curve(key, arm["curves"][metric], styles[key], _ring(arm) if is_score else None)
        for key, arm in summary["arms"].items()
        if metric in arm["curves"]
    }
    axes = axes_of(list(lines.values()), target)
    images = []
    for group in groups(summary):
        shown = [lines[key] for key in group.arms if key in lines]
        if shown:
            images.append(chart(f"{name}: {group.title}", shown, axes, target))
    return images


def _ring(arm: ArmJson) -> float | None:
    return None if arm["role"] == "baseline" else arm["labels_to_target"]


def drawn(summary: Summary) -> tuple[list[str], list[str]]:
    """The metrics that have whole curves: those to show at once, and those to fold.

    The score first; where all arms are in one picture, the next one, usually NLL, beside it.
    """
    names = dict.fromkeys(name for arm in summary["arms"].values() for name in arm["curves"])
    found = sorted(names, key=lambda name: name != summary["metric"])
    count = 2 if len(groups(summary)) == 1 else 1
    return found[:count], found[count:]


def arm_name(styles: dict[str, Look], arm: str) -> Element:
    """An arm's name with the colour of its curve."""
    swatch = element("span", class_="swatch", style=colours(styles[arm]))
    return element("span", swatch, arm, class_="nowrap")


def two_lines(first: str, second: str, class_: str = "") -> Element:
    """A cell with a figure, and under it, smaller, what qualifies it."""
    return element(
        "td", element("span", first, class_=class_), element("span", second, class_="small")
    )


def ratio_cell(ratio: RatioJson | None) -> Element:
    """A ratio over its interval, in the colour of its outcome."""
    if ratio is None:
        return element("td", DASH)
    spread = interval_text(ratio["ci95"])
    return two_lines(ratio_text(ratio), spread, f"tone {outcome(ratio)}")


def savings_table(summary: Summary) -> Element:
    """Labels to reach the target under each arm, both ratios, and the seeds lost."""
    name = metric_name(summary["metric"])
    rows: list[Row] = []
    styles = looks(summary)
    for arm_key, arm in summary["arms"].items():
        random = arm["role"] == "baseline"
        alone = arm["acquisition_ratio"] if arm["role"] == "prioritised" else None
        lost = f"{arm['losses_to_random']} / {arm['losses_final']}"
        gain = arm["auc_gain"]
        spread = "no interval" if gain["ci95"] is None else points_text(gain["ci95"])
        rows.append(
            [
                arm_name(styles, arm_key),
                labels_text(arm["labels_to_target"], arm["labels_last"]),
                element("td", "1 (baseline)") if random else ratio_cell(arm["system_ratio"]),
                ratio_cell(alone),
                score_cell(arm["score_mean"], arm["score_ci95"]),
                f"{arm['auc']:.3f}",
                element("td", DASH) if random else two_lines(f"{100 * gain['mean']:+.1f}", spread),
                DASH if random else lost,
                DASH if alone is None else str(arm["losses_to_same_head"]),
                str(arm["seeds"]),
            ]
        )
    header = [
        "arm",
        f"labels to {summary['target']:.3f}",
        "system ratio",
        "acquisition alone",
        f"{name} at the end",
        "area",
        "area gained, points",
        "seeds lost by area / at the end",
        "lost to the same head",
        "seeds",
    ]
    note = (
        "Ratios above 1 are labels saved; small figures are 95 % intervals. System: against "
        f"{summary['baseline']}. Acquisition alone: against random selection with the same head. "
        "'>' before a number of labels: the target was not reached within them."
    )
    return grid(header, rows, note)


def score_cell(mean: float, ci95: list[float] | None) -> Element:
    """A mean over its interval."""
    spread = "no interval" if ci95 is None else f"{ci95[0]:.3f} to {ci95[1]:.3f}"
    return two_lines(f"{mean:.3f}", spread)


def matching_table(summary: Summary) -> Element:
    """Labels that the baseline needs for what each arm scores at round label counts."""
    arms = {key: arm for key, arm in summary["arms"].items() if arm["role"] != "baseline"}
    columns = matched_columns(summary)
    rows: list[Row] = []
    styles = looks(summary)
    for key, arm in arms.items():
        by_labels = {found["at"]: found for found in arm["matching"]}
        alone = arm["role"] == "prioritised"
        cells = (_match(by_labels.get(at), shown, alone) for at, shown in columns.items())
        rows.append([arm_name(styles, key), *cells])
    header: Row = ["arm", *(f"at {labels:,.0f} labels" for labels in columns.values())]
    note = (
        f"How many times as many labels {reference(summary)} needs to score what the arm scores "
        f"there, with 95 % intervals: first the system ratio, against {summary['baseline']}; under "
        "it acquisition alone, against random selection with the same head. '>': it never scores "
        "as much within its budget. '<': it scores more from its first evaluation on. An end of an "
        "interval is open ('from', 'up to') where too many resamples do so."
    )
    return grid(header, rows, note, class_="heat")


def matched_columns(summary: Summary) -> dict[float, float]:
    """Round label counts, and what to head their columns with: the evaluated count, if it is the
    same for all arms.
    """
    found: dict[float, set[float]] = {}
    for arm in summary["arms"].values():
        for one in arm["matching"] if arm["role"] != "baseline" else []:
            found.setdefault(one["at"], set()).add(one["labels"])
    return {at: min(found[at]) if len(found[at]) == 1 else at for at in sorted(found)}


def _match(found: MatchJson | None, shown: float, alone: bool) -> Element:
    if found is None:
        return element("td", DASH)
    system, kind = found["system_ratio"], match_outcome(found["system_ratio"])
    parts = [
        element("span", ratio_text(system), class_="ratio"),
        element("span", f" {interval_text(system['ci95'])}", class_="muted"),
    ]
    other = found["acquisition_ratio"]
    if alone and other is not None:
        figure = element("span", ratio_text(other), class_=f"tone {match_outcome(other)}")
        parts.append(element("span", figure, f" {interval_text(other['ci95'])}", class_="small"))
    if found["labels"] != shown:
        parts.append(element("span", f"[at {found['labels']:,.0f}]", class_="small"))
    return element("td", *parts, class_=f"nowrap {kind}", style=heat(system, kind))


def heat(ratio: RatioJson, kind: Outcome) -> str:
    """The strength of a cell's colour: none where unsettled, else by how far from 1."""
    value = ratio["value"] or ratio["more_than"] or ratio["less_than"] or 1.0
    far = min(max(value, 1 / value), 4.0) - 1
    return f"--heat:{0 if kind == 'unsettled' else 12 + 7 * far:.0f}%"

"""The parts of the page that a summary fills: verdict, curves, and the tables of figures."""

import base64
from xml.etree.ElementTree import Element

from enn_finetune.report.curves import MissingMatplotlibError, panel_png, panels, styles
from enn_finetune.report.elements import Row, element, grid
from enn_finetune.report.words import (
    DASH,
    headline,
    interval_text,
    labels_text,
    metric_name,
    outcome,
    ratio_text,
    verdicts,
)
from enn_finetune.savings import MatchJson, RatioJson, Summary


def verdict(summary: Summary) -> Element:
    """The finding in one sentence, then one for every arm, a loss as large as a win."""
    cards = [
        element(
            "li",
            element(
                "div",
                element("span", found.figure, class_="figure"),
                element("span", found.badge, class_="badge"),
            ),
            element(
                "div",
                element("p", element("strong", found.arm), " ", found.sentence),
                element("p", found.detail, class_="small"),
            ),
            class_=found.outcome,
        )
        for found in verdicts(summary)
    ]
    parts = [element("p", headline(summary), class_="headline")]
    parts.append(element("ul", *cards, class_="verdicts"))
    if summary["notes"]:
        notes = (element("li", note) for note in summary["notes"])
        parts.append(element("ul", *notes, class_="notes"))
    return element("div", *parts)


def curves(summary: Summary) -> Element:
    """Learning curves, in light or dark colours as the reader's screen is."""
    try:
        images = [_picture(summary, metric) for metric in panels(summary)]
    except MissingMatplotlibError as error:
        return element("p", f"The curves are not drawn: {error}.", class_="notes")
    bands = "bands are 95 % intervals of the mean over seeds"
    if len(summary["seeds"]) == 1:
        bands = "there are no bands, because there is one seed"
    note = (
        f"Means over seeds; {bands}. The dotted line is the target, the mean score of "
        f"{summary['baseline']} at {summary['budget']:,.0f} labels; a ring marks where an arm "
        "reached it."
    )
    return element("figure", element("div", *images, class_="curves"), element("figcaption", note))


def _picture(summary: Summary, metric: str) -> Element:
    ends = ", ".join(
        f"{name} {arm['curves'][metric]['mean'][-1]:.3f}" for name, arm in summary["arms"].items()
    )
    words = f"Learning curves of {metric_name(metric)} against labels bought; at the end: {ends}."
    light, dark = (_data(panel_png(summary, metric, dark=dark)) for dark in (False, True))
    return element(
        "picture",
        element("source", srcset=dark, media="screen and (prefers-color-scheme: dark)"),
        element("img", src=light, alt=words, width="990", height="660"),
    )


def _data(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def arm_name(summary: Summary, arm: str) -> Element:
    """An arm's name with the colour of its curve."""
    light, dark = styles(summary)[arm].colour, styles(summary, dark=True)[arm].colour
    swatch = element("span", class_="swatch", style=f"--light:{light};--dark:{dark}")
    return element("span", swatch, arm, class_="nowrap")


def _two_lines(first: str, second: str, class_: str = "") -> Element:
    return element(
        "td", element("span", first, class_=class_), element("span", second, class_="small")
    )


def ratio_cell(ratio: RatioJson | None) -> Element:
    """A ratio over its interval, in the colour of its outcome."""
    if ratio is None:
        return element("td", DASH)
    spread = interval_text(ratio["ci95"])
    return _two_lines(ratio_text(ratio), spread, f"tone {outcome(ratio)}")


def savings_table(summary: Summary) -> Element:
    """Labels to reach the target under each arm, both ratios, and the seeds lost."""
    name = metric_name(summary["metric"])
    rows: list[Row] = []
    for arm_key, arm in summary["arms"].items():
        random = arm["role"] == "baseline"
        alone = arm["acquisition_ratio"] if arm["role"] == "prioritised" else None
        gain = arm["auc_gain"]
        spread = "no interval" if gain["ci95"] is None else _points(gain["ci95"])
        rows.append(
            [
                arm_name(summary, arm_key),
                labels_text(arm["labels_to_target"], arm["labels_last"]),
                element("td", "1 (baseline)") if random else ratio_cell(arm["system_ratio"]),
                ratio_cell(alone),
                _score(arm["score_mean"], arm["score_ci95"]),
                element("td", DASH) if random else _two_lines(f"{100 * gain['mean']:+.1f}", spread),
                DASH if random else f"{arm['losses_to_random']} / {arm['losses_final']}",
                str(arm["seeds"]),
            ]
        )
    header = [
        "arm",
        f"labels to {summary['target']:.3f}",
        "system ratio",
        "acquisition alone",
        f"{name} at the end",
        "area gained, points",
        "seeds lost by area / at the end",
        "seeds",
    ]
    note = (
        "Ratios above 1 are labels saved; small figures are 95 % intervals. System: against "
        f"{summary['baseline']}. Acquisition alone: against random selection with the same head. "
        f"'> {summary['budget']:,.0f}' means the target was not reached."
    )
    return grid(header, rows, note)


def _score(mean: float, ci95: list[float] | None) -> Element:
    spread = "no interval" if ci95 is None else f"{ci95[0]:.3f} to {ci95[1]:.3f}"
    return _two_lines(f"{mean:.3f}", spread)


def _points(ends: list[float]) -> str:
    return f"{100 * ends[0]:+.1f} to {100 * ends[1]:+.1f}"


def matching_table(summary: Summary) -> Element:
    """Labels that random selection needs for what each arm scores at parts of the budget."""
    arms = {key: arm for key, arm in summary["arms"].items() if arm["role"] != "baseline"}
    columns = sorted({found["labels"] for arm in arms.values() for found in arm["matching"]})
    rows: list[Row] = []
    for key, arm in arms.items():
        by_labels = {found["labels"]: found for found in arm["matching"]}
        cells = (_match(by_labels.get(labels), summary["budget"]) for labels in columns)
        rows.append([arm_name(summary, key), *cells])
    header: Row = ["arm", *(f"at {labels:,.0f} labels" for labels in columns)]
    note = (
        f"Labels with which {summary['baseline']} scores what the arm scores at the head of the "
        "column, their ratio, and its 95 % interval. "
        f"'> {summary['budget']:,.0f}': it never scores as much within its budget, so the ratio "
        "is a lower bound; the upper end of an interval is open ('from') where too many resamples "
        "did not get there."
    )
    return grid(header, rows, note)


def _match(found: MatchJson | None, budget: float) -> Element:
    if found is None:
        return element("td", DASH)
    needed = labels_text(found["baseline_labels"], budget)
    return _two_lines(
        f"{needed} ({ratio_text(found['ratio'])})",
        interval_text(found["ratio"]["ci95"]),
        f"tone {outcome(found['ratio'])} nowrap",
    )


def seeds_table(summary: Summary) -> Element:
    """Gain over random selection on every seed, by area and at the full budget."""
    arms = {key: arm for key, arm in summary["arms"].items() if arm["role"] != "baseline"}
    rows: list[Row] = []
    for seed in summary["seeds"]:
        row: Row = [str(seed)]
        for arm in arms.values():
            found = [entry for entry in arm["per_seed"] if entry["seed"] == seed]
            row.append(_gain(found[0]["auc_gain"], found[0]["final_gain"]) if found else DASH)
        rows.append(row)
    won: Row = ["seeds lost"]
    won += [
        f"{arm['losses_to_random']} (end {arm['losses_final']}) of {arm['seeds']}"
        for arm in arms.values()
    ]
    note = (
        f"Points of {metric_name(summary['metric'])} above (+) or below (-) {summary['baseline']} "
        "on the same seed: by area under the curve, and in brackets at the full budget."
    )
    header: Row = ["seed", *(arm_name(summary, key) for key in arms)]
    return grid(header, [*rows, won], note)


def _gain(area: float, final: float) -> Element:
    kind = "fewer" if area > 0 else "more" if area < 0 else ""
    return element(
        "td",
        element("span", f"{100 * area:+.1f}", class_=f"tone {kind}" if kind else ""),
        element("span", f" (end {100 * final:+.1f})", class_="muted"),
        class_="nowrap",
    )


def calibration_table(summary: Summary) -> Element | None:
    """Every other metric at the full budget; None where the records hold none."""
    metrics = list(next(iter(summary["arms"].values()))["final"])
    if not metrics:
        return None
    rows: list[Row] = [
        [
            arm_name(summary, key),
            *(_score(arm["final"][name]["mean"], arm["final"][name]["ci95"]) for name in metrics),
        ]
        for key, arm in summary["arms"].items()
    ]
    note = f"At {summary['budget']:,.0f} labels, mean and 95 % interval over seeds."
    return grid(["arm", *(metric_name(name) for name in metrics)], rows, note)


def criterion_table(summary: Summary) -> Element:
    """Labels to target under each way of reading a noisy curve."""
    rows: list[Row] = [
        [
            arm_name(summary, key),
            *(
                labels_text(arm["labels_to_target_by"][name], arm["labels_last"])
                for name in ("first", "sustained", "kept")
            ),
        ]
        for key, arm in summary["arms"].items()
    ]
    note = "Labels to the target under three readings of the mean curve; the page uses the second."
    return grid(["arm", "first touched", "reached and sustained", "never below again"], rows, note)

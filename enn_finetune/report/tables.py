"""The parts of the page that back it up: seeds, calibration, cost, what was bought."""

from collections.abc import Mapping, Sequence
from xml.etree.ElementTree import Element

from enn_finetune.report.blocks import arm_name, score_cell
from enn_finetune.report.elements import Row, element, grid
from enn_finetune.report.looks import looks
from enn_finetune.report.words import DASH, amount, direction, labels_text, metric_name
from enn_finetune.savings import Summary


def seeds_table(summary: Summary) -> Element:
    """Gain over the baseline on every seed, by area and at the full budget."""
    styles, rows = looks(summary), []
    for key, arm in summary["arms"].items():
        if arm["role"] == "baseline":
            continue
        gains = {found["seed"]: found for found in arm["per_seed"]}
        row: Row = [arm_name(styles, key)]
        for seed in summary["seeds"]:
            found = gains.get(seed)
            row.append(_gain(found["auc_gain"], found["final_gain"]) if found else DASH)
        row.append(f"{arm['losses_to_random']} ({arm['losses_final']}) of {arm['seeds']}")
        rows.append(row)
    note = (
        f"Points of {metric_name(summary['metric'])} above (+) or below (-) {summary['baseline']} "
        "on the same seed: by area under the curve, and in brackets at the full budget."
    )
    header = ["arm", *(f"seed {seed}" for seed in summary["seeds"]), "seeds lost (at the end)"]
    return grid(header, rows, note)


def _gain(area: float, final: float) -> Element:
    kind = "fewer" if area > 0 else "more" if area < 0 else ""
    return element(
        "td",
        element("span", f"{100 * area:+.1f}", class_=f"tone {kind}" if kind else ""),
        element("span", f"({100 * final:+.1f})", class_="small"),
        class_="nowrap",
    )


def calibration_table(summary: Summary) -> Element | None:
    """Every other metric at the full budget; None where the records hold none."""
    arms = summary["arms"]
    metrics = list(dict.fromkeys(name for arm in arms.values() for name in arm["final"]))
    if not metrics:
        return None
    styles = looks(summary)
    rows: list[Row] = []
    for key, arm in arms.items():
        row: Row = [arm_name(styles, key)]
        for name in metrics:
            found = arm["final"].get(name)
            row.append(score_cell(found["mean"], found["ci95"]) if found else DASH)
        rows.append(row)
    note = f"At {summary['budget']:,.0f} labels, mean and 95 % interval over seeds."
    lower = [metric_name(name) for name in metrics if direction(name).startswith("lower")]
    note += f" Lower is better: {', '.join(lower)}." if lower else ""
    return grid(["arm", *(metric_name(name) for name in metrics)], rows, note)


def criterion_table(summary: Summary) -> Element:
    """Labels to target under each way of reading a noisy curve."""
    styles = looks(summary)
    rows: list[Row] = [
        [
            arm_name(styles, key),
            *(
                labels_text(arm["labels_to_target_by"][name], arm["labels_last"])
                for name in ("first", "sustained", "kept")
            ),
        ]
        for key, arm in summary["arms"].items()
    ]
    note = "Labels to the target under three readings of the mean curve; the page uses the second."
    return grid(["arm", "first touched", "reached and sustained", "never below again"], rows, note)


COSTS = {
    "encoding_seconds": "encoding, s",
    "training_seconds": "training, s",
    "scoring_seconds": "scoring, s",
    "encoding_flops": "encoding, FLOPs",
    "training_flops": "training, FLOPs",
    "scoring_flops": "scoring, FLOPs",
    "seconds": "wall time, s",
}


def costs_table(summary: Summary) -> Element | None:
    """Seconds and FLOPs up to the full budget; None where nothing was recorded."""
    arms = summary["arms"]
    kinds = [kind for kind in COSTS if any(kind in arm["costs"] for arm in arms.values())]
    if not kinds:
        return None
    styles = looks(summary)
    rows: list[Row] = [
        [
            arm_name(styles, key),
            *(amount(arm["costs"][kind]) if kind in arm["costs"] else DASH for kind in kinds),
        ]
        for key, arm in arms.items()
    ]
    note = "Of one seed, over all rounds, mean over seeds. Scoring is what choosing rows takes."
    return grid(["arm", *(COSTS[kind] for kind in kinds)], rows, note)


def balance_table(balance: Mapping[str, Mapping[str, float]]) -> Element:
    """Share of each class among the labels each arm bought, the commonest class first."""
    totals = {arm: sum(counts.values()) or 1.0 for arm, counts in balance.items()}
    first = next(iter(balance.values()))
    classes = list(dict.fromkeys(name for counts in balance.values() for name in counts))
    classes.sort(key=lambda name: -first.get(name, 0))
    share = {
        arm: {name: counts.get(name, 0.0) / totals[arm] for name in classes}
        for arm, counts in balance.items()
    }
    most = max((value for found in share.values() for value in found.values()), default=0) or 1.0
    if len(balance) > len(classes):
        rows: list[Row] = [[a, *(_share(share[a][c], most) for c in classes)] for a in balance]
        return grid(["arm", *classes], rows, SHARES)
    rows = [[c, *(_share(share[a][c], most) for a in balance)] for c in classes]
    return grid(["class", *balance], rows, SHARES)


SHARES = "Share of each class among the labels bought, all seeds together."


def _share(share: float, most: float) -> Element:
    return element(
        "td", f"{100 * share:.1f} %", class_="share", style=f"--share:{100 * share / most:.0f}%"
    )


def examples_lists(examples: Mapping[str, Sequence[tuple[str, str]]]) -> Element:
    """Texts and labels as bought, one list an arm; arms that bought the same share a list."""
    shared: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for arm, found in examples.items():
        shared.setdefault(tuple(found), []).append(arm)
    lists = [
        element(
            "div",
            element("h4", ", ".join(arms)),
            element(
                "ol",
                *(
                    element("li", text, " ", element("span", label, class_="label"))
                    for text, label in found
                ),
            ),
        )
        for found, arms in shared.items()
    ]
    return element("div", *lists, class_="examples")

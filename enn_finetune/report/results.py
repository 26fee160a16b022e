"""RESULTS.md: the same figures as the page's, as a Markdown document to be committed."""

from collections.abc import Iterable, Sequence

from enn_finetune.report.blocks import matched_columns
from enn_finetune.report.figures import Figures, against
from enn_finetune.report.tables import COSTS
from enn_finetune.report.words import (
    DASH,
    amount,
    badge,
    direction,
    interval_text,
    labels_text,
    metric_name,
    outcome,
    points_text,
    ratio_text,
    reference,
)
from enn_finetune.savings import MeanJson, RatioJson, Row, Summary

Lines = list[str]


def results_document(figures: Sequence[Figures], title: str = "Results") -> str:
    """Every table of every study, losses in the same tables as wins, and how to make them again."""
    parts: Lines = [
        f"# {title}",
        "",
        "Written by `enn-finetune report`; nothing in it was typed in by hand. Ratios above 1 are "
        "labels saved, in brackets 95 % intervals (paired bootstrap over seeds). *System*: against "
        "the baseline of each table (random selection; on frozen features with a cross-validated "
        "regression). *Alone*: acquisition alone, against random selection with the same head. `>` "
        "before a number of labels: the target was not reached within them; the ratio is then a "
        "bound. Won and lost: the whole interval is on one side of 1.",
        "",
    ]
    if len(figures) > 1:
        parts += ["## All tasks", "", *_overview(figures)]
    for other, rows in against(list(figures)).items():
        parts += [f"### Area gained over {other}", "", *_gains(rows, figures)]
    for found in figures:
        parts += _study(found)
    return "\n".join(parts).rstrip() + "\n"


def _overview(figures: Sequence[Figures]) -> Lines:
    """System ratio / acquisition alone of every arm on every task."""
    arms = list(dict.fromkeys(arm for found in figures for arm in found.main["arms"]))
    rows = []
    for arm in arms:
        entries = [found.main["arms"].get(arm) for found in figures]
        if any(entry and entry["role"] == "baseline" for entry in entries):
            continue
        cells = [
            DASH
            if entry is None
            else f"{ratio_text(entry['system_ratio'])} / {ratio_text(entry['acquisition_ratio'])}"
            for entry in entries
        ]
        kinds = [outcome(entry["system_ratio"]) for entry in entries if entry]
        count = " / ".join(str(kinds.count(kind)) for kind in ("fewer", "unsettled", "more"))
        rows.append([arm, *cells, count])
    header = ["arm", *(found.name for found in figures), "won / not settled / lost"]
    return [*markdown_table(header, rows), "System ratio / acquisition alone.", ""]


def _gains(rows: dict[str, Row], figures: Sequence[Figures]) -> Lines:
    tasks = [found.name for found in figures]
    body = [
        [
            arm,
            *(_mean(found.tasks[task]) if task in found.tasks else DASH for task in tasks),
            *([_mean(found.mean), _count(found)] if len(tasks) > 1 else []),
        ]
        for arm, found in rows.items()
    ]
    means = ["mean over tasks", "ahead / behind"] if len(tasks) > 1 else []
    return [*markdown_table(["arm", *tasks, *means], body), POINTS, ""]


def _count(found: Row) -> str:
    return f"{found.wins} / {found.losses} of {len(found.tasks)}"


POINTS = "Points of area under the learning curve, paired by seed."


def _study(found: Figures) -> Lines:
    main = found.main
    seeds = ", ".join(map(str, main["seeds"]))
    parts = [
        f"## {found.name}",
        "",
        f"{metric_name(main['metric'])} ({direction(main['metric'])}), budget "
        f"{main['budget']:,.0f} labels, seeds {seeds}.",
        "",
        *_facts(found),
    ]
    for note in main["notes"]:
        parts += [f"> {note}", ""]
    for summary in found.summaries:
        parts += [f"### {found.name}, {summary['split']} split", "", *_savings(summary)]
        parts += [*_matching(summary), *_calibration(summary)]
    return parts + _costs(main)


def _facts(found: Figures) -> Lines:
    facts = {
        "encoder": [found.study.key.backbone],
        "regime": [" ".join(filter(None, (found.study.key.tune, found.study.key.regime)))],
        "rows": [", ".join(f"{name} {rows:,}" for name, rows in found.rows.items())],
        "command": found.facts("command"),
        "config": found.facts("config_hash"),
        "commit": found.facts("commit"),
        "data": found.facts("data_fingerprint"),
        "machine": found.facts("machine"),
        "wall time": [f"{found.seconds:,.0f} s"] if found.seconds else [],
    }
    lines = [
        f"- {name}: " + "; ".join(f"`{one}`" for one in values)
        for name, values in facts.items()
        if any(values)
    ]
    return [*lines, ""]


def _savings(summary: Summary) -> Lines:
    rows = []
    for key, arm in summary["arms"].items():
        base, alone = arm["role"] == "baseline", arm["acquisition_ratio"]
        rows.append(
            [
                key,
                labels_text(arm["labels_to_target"], arm["labels_last"]),
                "1 (baseline)" if base else _ratio(arm["system_ratio"]),
                _ratio(alone) if arm["role"] == "prioritised" else DASH,
                DASH if base else badge(arm["system_ratio"]),
                _score(arm["score_mean"], arm["score_ci95"]),
                f"{arm['auc']:.3f}",
                DASH if base else _mean(arm["auc_gain"]),
                DASH if base else f"{arm['losses_to_random']} / {arm['losses_final']}",
                str(arm["seeds"]),
            ]
        )
    header = [
        "arm",
        f"labels to {summary['target']:.3f}",
        "system",
        "alone",
        "outcome",
        f"{metric_name(summary['metric'])} at the end",
        "area",
        "area gained, points",
        "seeds lost by area / at the end",
        "seeds",
    ]
    return markdown_table(header, rows)


def _matching(summary: Summary) -> Lines:
    arms = {key: arm for key, arm in summary["arms"].items() if arm["role"] != "baseline"}
    columns = matched_columns(summary)
    rows = []
    for key, arm in arms.items():
        by_labels = {found["at"]: found for found in arm["matching"]}
        row = [key]
        for at in columns:
            found = by_labels.get(at)
            alone = found["acquisition_ratio"] if found and arm["role"] == "prioritised" else None
            text = DASH if found is None else _ratio(found["system_ratio"])
            row.append(text if alone is None else f"{text}; alone {_ratio(alone)}")
        rows.append(row)
    if not rows:
        return []
    header = ["arm", *(f"at {labels:,.0f}" for labels in columns.values())]
    baseline = reference(summary)
    what = f"How many times as many labels {baseline} needs to match the arm at a label count:"
    return [what, "", *markdown_table(header, rows)]


def _calibration(summary: Summary) -> Lines:
    arms = summary["arms"]
    names = list(dict.fromkeys(name for arm in arms.values() for name in arm["final"]))
    if not names:
        return []
    rows = []
    for key, arm in arms.items():
        found = [arm["final"].get(name) for name in names]
        rows.append([key, *(_score(f["mean"], f["ci95"]) if f else DASH for f in found)])
    what = "Calibration and joint calibration at the full budget:"
    return [what, "", *markdown_table(["arm", *map(metric_name, names)], rows)]


def _costs(summary: Summary) -> Lines:
    arms = summary["arms"]
    kinds = [kind for kind in COSTS if any(kind in arm["costs"] for arm in arms.values())]
    if not kinds:
        return []
    rows = [
        [key, *(amount(arm["costs"][kind]) if kind in arm["costs"] else DASH for kind in kinds)]
        for key, arm in arms.items()
    ]
    return [
        "Cost of one seed:",
        "",
        *markdown_table(["arm", *(COSTS[kind] for kind in kinds)], rows),
    ]


def _ratio(ratio: RatioJson | None) -> str:
    if ratio is None:
        return DASH
    return f"{ratio_text(ratio)} ({interval_text(ratio['ci95'])})"


def _mean(found: MeanJson) -> str:
    spread = f" ({points_text(found['ci95'])})" if found["ci95"] else ""
    return f"{100 * found['mean']:+.2f}{spread}"


def _score(mean: float, ci95: list[float] | None) -> str:
    return f"{mean:.3f}" if ci95 is None else f"{mean:.3f} ({ci95[0]:.3f} to {ci95[1]:.3f})"


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Lines:
    """A Markdown table, its first column to the left; a bar in a cell is escaped."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return [
        "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |"
        for line in lines
    ] + [""]

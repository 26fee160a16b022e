"""The figures of a summary as a table for the terminal."""

from rich.table import Table
from rich.text import Text

from enn_finetune.report.words import (
    DASH,
    interval_text,
    labels_text,
    metric_name,
    outcome,
    ratio_text,
)
from enn_finetune.savings import RatioJson, Summary

COLOURS = {"fewer": "green", "more": "red", "unsettled": "yellow"}


def table(summary: Summary, title: str | None = None) -> Table:
    """Labels to reach the target under each arm, both ratios with intervals, and the seeds lost."""
    name = metric_name(summary["metric"])
    result = Table(
        title=title,
        title_justify="left",
        caption=(
            f"target: {name} {summary['target']:.3f}, {summary['baseline']} with "
            f"{summary['budget']:,.0f} labels, mean of {len(summary['seeds'])} seeds\n"
            "ratio: labels random needs / labels the arm needs, with 95 % interval; "
            "lost: seeds below random by area / at the end"
        ),
        caption_justify="left",
    )
    for column in ("arm", name, "labels to target", "system ratio", "acquisition alone", "lost"):
        result.add_column(column, justify="left" if column == "arm" else "right")
    for arm_name, arm in summary["arms"].items():
        baseline = arm["role"] == "baseline"
        of = f"of {arm['seeds']}"
        result.add_row(
            Text(arm_name, style="dim" if baseline else ""),
            f"{arm['score_mean']:.3f}",
            labels_text(arm["labels_to_target"], arm["labels_last"]),
            Text("1 (baseline)", style="dim") if baseline else _ratio(arm["system_ratio"]),
            Text(DASH) if arm["role"] != "prioritised" else _ratio(arm["acquisition_ratio"]),
            DASH if baseline else f"{arm['losses_to_random']} / {arm['losses_final']} {of}",
        )
    return result


def _ratio(ratio: RatioJson | None) -> Text:
    if ratio is None:
        return Text(ratio_text(None))
    return Text(
        f"{ratio_text(ratio)} ({interval_text(ratio['ci95'])})", style=COLOURS[outcome(ratio)]
    )

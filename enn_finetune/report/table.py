"""The figures of a summary as a table for the terminal."""

from collections.abc import Mapping
from typing import cast

from rich.console import Group
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
from enn_finetune.savings import ArmJson, RatioJson, Summary

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
        first = column == "arm"
        result.add_column(column, justify="left" if first else "right", no_wrap=first)
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


COLUMNS = 4  # tasks in one table: what 100 characters hold


def summary_table(summary: Mapping[str, object]) -> Group:
    """Every arm on every task, from what `command.run` returns: system ratio / acquisition alone.

    Tables of a few tasks each, one under the other, in the colours of the outcomes.
    """
    tasks = cast(Mapping[str, Mapping[str, ArmJson]], summary["tasks"])
    studies = cast(Mapping[str, Mapping[str, object]], summary["studies"])
    names = list(tasks)
    parts = [names[start : start + COLUMNS] for start in range(0, len(names), COLUMNS)]
    made = [_tasks({name: tasks[name] for name in part}, studies) for part in parts]
    made[-1].caption = (
        "labels the baseline needs for its score at the full budget / labels the arm needs: "
        "system / acquisition alone (against random selection with the same head)\n"
        "green: fewer labels, red: lost, yellow: not settled; <: target not reached"
    )
    return Group(*made)


def _tasks(
    tasks: Mapping[str, Mapping[str, ArmJson]], studies: Mapping[str, Mapping[str, object]]
) -> Table:
    result = Table(caption_justify="left")
    result.add_column("arm", no_wrap=True)
    for task in tasks:
        found = studies[task]
        target, budget = cast(float, found["target"]), cast(float, found["budget"])
        name = metric_name(str(found["metric"]))
        result.add_column(f"{task}\n{name} {target:.3f} of {budget:,.0f} labels", justify="right")
    for arm in dict.fromkeys(arm for arms in tasks.values() for arm in arms):
        cells = [_both(arms.get(arm)) for arms in tasks.values()]
        result.add_row(Text(arm), *cells)
    return result


def _both(arm: ArmJson | None) -> Text:
    if arm is None:
        return Text(DASH)
    if arm["role"] == "baseline":
        return Text("1 (baseline)", style="dim")
    system, alone = arm["system_ratio"], arm["acquisition_ratio"]
    text = Text(ratio_text(system), style=COLOURS[outcome(system)])
    if arm["role"] == "prioritised" and alone is not None:
        text.append(" / ", style="default")
        text.append(ratio_text(alone), style=COLOURS[outcome(alone)])
    return text


def _ratio(ratio: RatioJson | None) -> Text:
    if ratio is None:
        return Text(ratio_text(None))
    return Text(
        f"{ratio_text(ratio)} ({interval_text(ratio['ci95'])})", style=COLOURS[outcome(ratio)]
    )

"""The report of a testbed study: a page, with its summary and a folder of figures beside it."""

import json
from pathlib import Path
from typing import cast

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from enn_finetune import files
from enn_finetune.report.reading import PAGE, SUMMARY, summary_of
from enn_finetune.report.table import COLOURS
from enn_finetune.report.testbed_active import Active, figures
from enn_finetune.report.testbed_joint import figures as joint_figures
from enn_finetune.report.testbed_page import page
from enn_finetune.report.testbed_summary import (
    PAPER,
    Json,
    active_json,
    read,
    savings_of,
    supervised_json,
)
from enn_finetune.report.testbed_words import WAYS, labels_to, settled
from enn_finetune.report.words import DASH, outcome, ratio_text
from enn_finetune.savings import RESAMPLES
from enn_finetune.testbed.records import STUDY

REPORT, FIGURES = "report.html", "figures"


def holds(folder: Path) -> bool:
    """Whether a folder is a testbed study's."""
    return (folder / STUDY).is_file()


def run(folder: Path, out: Path | None = None, *, resamples: int = RESAMPLES) -> Json:
    """Write the page of a study's folder and, beside it, its summary and a folder of figures.

    They are summary.json and figures; of a page beside another, b.summary.json and b.figures.

    Args:
      folder: of `enn-finetune testbed`.
      out: the page; report.html in the folder if left out.
      resamples: of the bootstrap.

    Returns:
      What the summary holds.

    Raises:
      InputError: no study there, damaged files, or other results beside the page.
    """
    path = folder / REPORT if out is None else Path(out)
    to = summary_of(path, "supervised")
    found = read(folder)
    baseline, reference = _roles(found.study)
    active = {}
    for way in WAYS:
        lines = found.active.get(way, [])
        arms = [f"{line['agent']}/{line['rule']}" for line in lines]
        if lines:
            summary = savings_of(lines, baseline if baseline in arms else arms[0], resamples)
            active[way] = Active(way, summary, active_json(summary, lines))
    agents = [line["agent"] for line in found.supervised]
    reference = reference if reference in agents or not agents else agents[0]
    summary_json: Json = {
        PAGE: path.name,
        "active": {way: one.json for way, one in active.items()},
        "supervised": supervised_json(found.supervised, reference),
        "reference": reference,
        "paper": PAPER,
        "study": found.study,
    }
    # Beside another page the figures are called after this one, as its summary is.
    drawn = path.parent / (FIGURES if to.name == SUMMARY else f"{path.stem}.{FIGURES}")
    drawn.mkdir(parents=True, exist_ok=True)
    files.atomic_write(to, json.dumps(summary_json, indent=1) + "\n")
    supervised = cast(dict[str, dict], summary_json["supervised"])
    for name, picture in (figures(active) | joint_figures(supervised, reference)).items():
        files.atomic_write(drawn / f"{name}.svg", picture)
    files.atomic_write(path, page(active, summary_json))
    return summary_json


def show(folder: Path, out: Path | None = None) -> None:
    """Write the report, and its figures on the terminal."""
    console = Console()
    console.print(terminal(run(folder, out)))
    console.print(f"report: {folder / REPORT if out is None else out}", highlight=False)


def _roles(study: Json) -> tuple[str, str]:
    """The baseline of active learning, and the agent that supervised scores are compared with."""
    config = cast(dict[str, dict[str, object]], study.get("config", {}))
    baseline = str(config.get("active", {}).get("baseline", "mlp/random"))
    return baseline, baseline.partition("/")[0]


def terminal(summary: Json) -> Group:
    """The figures as tables for the terminal."""
    parts: list[Table] = []
    for way, found in cast(dict[str, Json], summary["active"]).items():
        parts.append(_active(way, found))
    if summary["supervised"]:
        parts.append(_supervised(summary))
    return Group(*parts)


def _active(way: str, found: Json) -> Table:
    target = cast(float, found["target"])
    title = f"active learning, {WAYS[way]}: labels to a KL of {target:.3f} ({found['baseline']})"
    result = Table(title=title, title_justify="left", caption_justify="left")
    result.caption = "ratio: labels of the baseline / labels of the arm; <: target not reached"
    for column in ("arm", "labels", "ratio", "KL at the end", "regret", "lost"):
        first = column == "arm"
        result.add_column(column, justify="left" if first else "right", no_wrap=first)
    for name, arm in cast(dict[str, dict], found["arms"]).items():
        ratio = arm["system_ratio"]
        base = name == found["baseline"]
        result.add_row(
            name,
            labels_to(arm),
            Text("1 (baseline)", style="dim")
            if base
            else Text(ratio_text(ratio), style=COLOURS[outcome(ratio)]),
            f"{arm['kl']:.3f}",
            f"{arm['regret']['mean']:.3f}",
            DASH if base else f"{arm['losses']} of {arm['problems']}",
        )
    return result


def _supervised(summary: Json) -> Table:
    """How often each agent is settled below the reference, above it, or neither, by score."""
    reference = str(summary["reference"])
    counts = settled(summary)
    scores = [name for name in next(iter(counts.values()), {}) if name != "joint_kl_1"]
    result = Table(
        title=f"labels at random: settings settled below / above {reference} (of all)",
        title_justify="left",
    )
    result.add_column("agent", no_wrap=True)
    for score in scores:
        result.add_column(score.replace("_", " "), justify="right")
    for agent, by_score in counts.items():
        found = [by_score[score] for score in scores]
        cells = [f"{of.below} / {of.above} ({of.all})" for of in found]
        result.add_row(agent, *cells)
    return result

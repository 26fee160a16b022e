"""One self-contained HTML page: what was run, what came of it, how it was measured."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from xml.etree.ElementTree import Element

from enn_finetune.files import atomic_write
from enn_finetune.report import blocks, tables
from enn_finetune.report.bill import Bill
from enn_finetune.report.bill_block import money_parts
from enn_finetune.report.elements import Child, document, element
from enn_finetune.report.looks import FEW
from enn_finetune.report.overview import Overseen, overview
from enn_finetune.report.style import CSS
from enn_finetune.report.words import metric_name, reference
from enn_finetune.savings import Summary


@dataclass(frozen=True)
class Provenance:
    """Where the figures come from, so that someone else can make them again."""

    command: str
    config_hash: str
    commit: str
    data: str  # fingerprint of the data set
    wall_seconds: float
    more: Mapping[str, str] = field(default_factory=dict)  # such as backbone, versions, machine


class Bought(NamedTuple):
    """A training row as it was bought: its text, and the label that was read."""

    text: str
    label: str


@dataclass(frozen=True)
class Section:
    """One task's experiment."""

    task: str
    summary: Summary
    provenance: Provenance
    description: str = ""
    # arm -> class -> labels bought of it, over all seeds; other keys, such as "pool", may join
    balance: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    examples: Mapping[str, Sequence[Bought]] = field(default_factory=dict)  # arm -> first rows
    others: Sequence[Summary] = ()  # on further splits, shown beside the first
    money: Bill | None = None  # where the records account for their costs


def write_page(path: str | os.PathLike[str], title: str, sections: Sequence[Section]) -> None:
    """Write one HTML file of any number of tasks, atomically; it needs no other file or host.

    Raises:
      ValueError: there is no section.
    """
    if not sections:
        raise ValueError("a report needs at least one task's summary, found none")
    parts: list[Child] = [element("h1", title)]
    anchors = [f"task-{number}" for number in range(1, len(sections) + 1)]
    if len(sections) > 1 or len(sections[0].summary["arms"]) > FEW:
        parts += overview(
            [
                Overseen(section.task, anchor, (section.summary, *section.others))
                for section, anchor in zip(sections, anchors, strict=True)
            ]
        )
    for section, anchor in zip(sections, anchors, strict=True):
        parts += _section(section, anchor)
    parts += _method(sections[0].summary)
    body = element("body", element("main", *parts))
    atomic_write(Path(path), document(title, CSS, body))


def _section(section: Section, anchor: str) -> list[Child]:
    summary = section.summary
    parts: list[Child] = [element("h2", section.task, id=anchor), _subtitle(section)]
    if section.description:
        parts.append(element("p", section.description))
    parts += [blocks.verdict(summary), blocks.curves(summary, *blocks.drawn(summary)[0])]
    for found in (summary, *section.others):
        on = f", {found['split']} split" if section.others else ""
        parts += [element("h3", f"Labels to reach the target{on}"), blocks.savings_table(found)]
    for found in (summary, *section.others):
        on = f", {found['split']} split" if section.others else ""
        title = f"Labels {reference(found)} needs to match each arm{on}"
        table = blocks.matching_table(found)
        if found is summary:
            parts += [element("h3", title), table]
        else:
            parts.append(blocks.details(title, table))
    if section.money is not None:
        parts += money_parts(section.money, summary)
    parts += _backing(summary)
    for other in section.others:
        inner = [blocks.curves(other, *blocks.drawn(other)[0]), *_backing(other)]
        parts.append(blocks.details(f"Curves and all else on the {other['split']} split", *inner))
    if section.balance:
        table = tables.balance_table(section.balance)
        parts.append(blocks.details("What was bought: class balance", table))
    if section.examples:
        lists = tables.examples_lists(section.examples)
        parts.append(blocks.details("The first rows bought by each rule", lists))
    costs = tables.costs_table(summary)
    if costs is not None:
        parts.append(blocks.details("Seconds and FLOPs of scoring and training", costs))
    parts.append(
        blocks.details("How the reading of a noisy curve matters", tables.criterion_table(summary))
    )
    parts += [element("h3", "What was run"), _provenance(section)]
    return parts


def _backing(summary: Summary) -> list[Child]:
    """Wins and losses by seed, calibration, and the curves of the other metrics."""
    parts: list[Child] = [
        blocks.details("Wins and losses, seed by seed", tables.seeds_table(summary))
    ]
    calibration = tables.calibration_table(summary)
    if calibration is not None:
        title = "Calibration, joint calibration and other metrics at the full budget"
        parts.append(blocks.details(title, calibration))
    for metric in blocks.drawn(summary)[1]:
        title = f"Curves of the {metric_name(metric)}"
        parts.append(blocks.details(title, blocks.curves(summary, metric)))
    return parts


def _subtitle(section: Section) -> Element:
    summary = section.summary
    seeds, arms = len(summary["seeds"]), len(summary["arms"])
    return element(
        "p",
        f"{metric_name(summary['metric'])} on the {summary['split']} split, {arms} arms, "
        f"{seeds} paired seed{'s' if seeds > 1 else ''}, up to {summary['budget']:,.0f} labels",
        class_="muted",
    )


def _provenance(section: Section) -> Element:
    summary, source = section.summary, section.provenance
    arms = summary["arms"].values()
    facts = {
        "task": section.task,
        "heads": ", ".join(dict.fromkeys(arm["head"] for arm in arms)),
        "rules": ", ".join(dict.fromkeys(arm["rule"] for arm in arms)),
        "seeds": ", ".join(map(str, summary["seeds"])),
        **source.more,
        "command": source.command,
        "config": source.config_hash,
        "commit": source.commit,
        "data": source.data,
        "wall time": f"{source.wall_seconds:,.0f} s",
    }
    facts = {name: value for name, value in facts.items() if value}
    code = {"command", "config", "commit", "data"}
    parts: list[Child] = []
    for name, value in facts.items():
        parts.append(element("dt", name))
        parts.append(element("dd", element("code", value) if name in code else value))
    return element("dl", *parts)


def _method(summary: Summary) -> list[Child]:
    resamples = f"{summary['resamples']:,}"
    points = {
        "Label": "a distinct training row whose label was read, those for tuning and validation "
        "included.",
        "Target": "the mean score over seeds that the baseline (random selection with the plain "
        "head; on frozen features a cross-validated regression) has at its full budget. It is one "
        "evaluation a seed, not the best of the curve and not smoothed.",
        "Labels to reach the target": "on the mean curve over seeds, the first evaluation at or "
        "above the target such that the mean of it and all later ones is at or above it too, "
        "linear between this evaluation and the one before. Best-so-far curves are not used, and "
        "nothing is extrapolated: an arm that does not get there is 'not reached', and its ratio "
        "is an upper bound.",
        "System ratio": "labels the baseline needs for the target / labels the arm needs.",
        "Acquisition alone": "the same against random selection with the arm's own head, at the "
        "score which that reaches at its full budget.",
        "Matching": "at a label count of the arm: the labels with which the baseline has the arm's "
        "score there, over that count.",
        "Area gained": "the mean of the curve over the labels that both arms cover, less that of "
        "the other arm on the same seed. The mean over tasks weighs them alike; its interval "
        "(Welch and Satterthwaite's) is of the seeds' noise on these tasks.",
        "95 % interval of a ratio": f"paired bootstrap over seeds, {resamples} resamples. Each "
        "draws seeds with replacement, the same for both arms, and computes the target and both "
        "label counts anew. A resample that does not reach the target counts as 0 at the lower "
        "end and as its bound at the upper end; where too many do not, the lower end is open "
        "('up to'). The percentiles are widened for the number of seeds (expanded percentile "
        "interval, Hesterberg 2015). One seed has no interval.",
        "Seeds lost": "seeds of the arm whose area under the curve (or score at the full budget) "
        "is below that of the baseline on the same seed, which shares its first labels.",
        "Money": "labels and hours of computing at the prices given. Operations are counted from "
        "compiled programs, and hours from operations at the config's speed; labels to the target "
        "as above, costs linear between evaluations.",
        "Bands": "mean over seeds and its 95 % t-interval.",
        "NLL, Brier, ECE": "negative log-likelihood in nats a row, squared error summed over the "
        "classes, expected calibration error in 15 equal bins; of the mean prediction.",
        "Joint NLL": "of several rows at once, an average over the head's indices of the product "
        "of their probabilities: dyadic (two rows, ten draws with repetition), ten near "
        "neighbours, ten rows drawn at random.",
    }
    parts: list[Child] = [element("h2", "How it was measured")]
    entries: list[Child] = []
    for name, words in points.items():
        entries += [element("dt", name), element("dd", words)]
    return [*parts, element("dl", *entries)]

"""One self-contained HTML page: what was run, what came of it, how it was measured."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree.ElementTree import Element

from enn_finetune.files import atomic_write
from enn_finetune.report import blocks
from enn_finetune.report.elements import Child, Row, document, element, grid
from enn_finetune.report.style import CSS
from enn_finetune.report.words import BADGES, metric_name, outcome
from enn_finetune.savings import Summary

SHORT_HASH = 16


@dataclass(frozen=True)
class Provenance:
    """Where the figures come from, so that someone else can make them again."""

    command: str
    config_hash: str
    commit: str
    data: str  # fingerprint of the data set
    wall_seconds: float
    more: Mapping[str, str] = field(default_factory=dict)  # such as backbone, versions, machine


@dataclass(frozen=True)
class Bought:
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


def write_page(path: str | os.PathLike[str], title: str, sections: Sequence[Section]) -> None:
    """Write one HTML file of any number of tasks, atomically; it needs no other file or host.

    Where matplotlib is missing the page says so in the place of the curves.

    Raises:
      ValueError: there is no section.
    """
    if not sections:
        raise ValueError("a report needs at least one task's summary, found none")
    parts: list[Child] = [element("h1", title)]
    if len(sections) > 1:
        parts.append(_overview(sections))
    for index, section in enumerate(sections):
        parts += _section(section, f"task-{index + 1}")
    parts += _method(sections[0].summary)
    body = element("body", element("main", *parts))
    atomic_write(Path(path), document(title, CSS, body))


def _overview(sections: Sequence[Section]) -> Element:
    """Every arm of every task in one table, losses included."""
    rows: list[Row] = []
    for index, section in enumerate(sections):
        for name, arm in section.summary["arms"].items():
            if arm["role"] == "baseline":
                continue
            tone = outcome(arm["system_ratio"])
            alone = arm["acquisition_ratio"] if arm["role"] == "prioritised" else None
            rows.append(
                [
                    element("a", section.task, href=f"#task-{index + 1}"),
                    element("td", name, class_="text nowrap"),
                    blocks.ratio_cell(arm["system_ratio"]),
                    blocks.ratio_cell(alone),
                    element("td", BADGES[tone], class_=f"tone {tone} nowrap"),
                    f"{arm['losses_to_random']} of {arm['seeds']}",
                ]
            )
    header: Row = ["task", element("th", "arm", class_="text")]
    header += ["system ratio", "acquisition alone", "outcome", "seeds lost"]
    return grid(
        header, rows, "Labels random selection needs / labels the arm needs, with 95 % intervals."
    )


def _section(section: Section, anchor: str) -> list[Child]:
    summary = section.summary
    parts: list[Child] = [element("h2", section.task, id=anchor), _subtitle(section)]
    if section.description:
        parts.append(element("p", section.description))
    parts += [blocks.verdict(summary), blocks.curves(summary)]
    parts += [element("h3", "Labels to reach the target"), blocks.savings_table(summary)]
    parts += [
        element("h3", "Labels random selection needs to match each arm"),
        blocks.matching_table(summary),
    ]
    parts += [element("h3", "Seed by seed"), blocks.seeds_table(summary)]
    calibration = blocks.calibration_table(summary)
    if calibration is not None:
        parts += [element("h3", "Calibration at the full budget"), calibration]
    if section.balance:
        parts += [element("h3", "What was bought"), _balance(section.balance)]
    if section.examples:
        parts += [element("h3", "The first rows bought"), _examples(section.examples)]
    parts += [element("h3", "How the reading of a noisy curve matters")]
    parts += [blocks.criterion_table(summary)]
    parts += [element("h3", "What was run"), _provenance(section)]
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


def _balance(balance: Mapping[str, Mapping[str, float]]) -> Element:
    """Share of each class among the labels each arm bought, the commonest class first."""
    totals = {arm: sum(counts.values()) or 1.0 for arm, counts in balance.items()}
    classes = list(dict.fromkeys(name for counts in balance.values() for name in counts))
    first = next(iter(balance.values()))
    classes.sort(key=lambda name: -first.get(name, 0))
    shares = {
        arm: {k: n / totals[arm] for k, n in counts.items()} for arm, counts in balance.items()
    }
    most = max(share for found in shares.values() for share in found.values()) or 1.0
    rows: list[Row] = [
        [name, *(_share(shares[arm].get(name, 0.0), most) for arm in balance)] for name in classes
    ]
    return grid(["class", *balance], rows, "Share of each class among the labels bought.")


def _share(share: float, most: float) -> Element:
    return element(
        "td", f"{100 * share:.1f} %", class_="share", style=f"--share:{100 * share / most:.0f}%"
    )


def _examples(examples: Mapping[str, Sequence[Bought]]) -> Element:
    lists = [
        element(
            "div",
            element("h4", arm),
            element(
                "ol",
                *(
                    element("li", row.text, " ", element("span", row.label, class_="label"))
                    for row in rows
                ),
            ),
        )
        for arm, rows in examples.items()
    ]
    return element("div", *lists, class_="examples")


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
        "Target": "the mean score over seeds that random selection with the best plain head (the "
        "baseline) has at its full budget. It is one evaluation a seed, not the best of the curve "
        "and not smoothed.",
        "Labels to reach the target": "on the mean curve over seeds, the first evaluation at or "
        "above the target such that the mean of it and all later ones is at or above it too, "
        "linear between this evaluation and the one before. Best-so-far curves are not used, and "
        "nothing is extrapolated: an arm that does not get there is 'not reached', and its ratio "
        "is an upper bound.",
        "System ratio": "labels the baseline needs for the target / labels the arm needs.",
        "Acquisition alone": "the same against random selection with the arm's own head, at the "
        "score which that reaches at its full budget.",
        "95 % interval of a ratio": f"paired bootstrap over seeds, {resamples} resamples. Each "
        "draws seeds with replacement, the same for both arms, and computes the target and both "
        "label counts anew. A resample that does not reach the target counts as 0 at the lower "
        "end and as its bound at the upper end; where too many do not, the lower end is open "
        "('up to'). The percentiles are widened for the number of seeds (expanded percentile "
        "interval, Hesterberg 2015). One seed has no interval.",
        "Seeds lost": "seeds of the arm whose area under the curve (or score at the full budget) "
        "is below that of the baseline on the same seed, which shares its first labels.",
        "Bands": "mean over seeds and its 95 % t-interval.",
        "NLL, Brier, ECE": "negative log-likelihood in nats a row, squared error summed over the "
        "classes, expected calibration error in 15 equal bins; of the mean prediction.",
    }
    parts: list[Child] = [element("h2", "How it was measured")]
    entries: list[Child] = []
    for name, words in points.items():
        entries += [element("dt", name), element("dd", words)]
    return [*parts, element("dl", *entries)]

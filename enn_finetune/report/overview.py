"""All tasks at a glance: every arm on every task, coloured by outcome, and their means."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple
from xml.etree.ElementTree import Element

from enn_finetune.report.blocks import heat
from enn_finetune.report.elements import Child, Row, element, grid
from enn_finetune.report.words import DASH, interval_text, outcome, points_text, ratio_text
from enn_finetune.savings import ArmJson, MeanJson, Summary, over_tasks
from enn_finetune.savings import Row as Gains


class Overseen(NamedTuple):
    """One task in the overview."""

    task: str
    anchor: str
    summaries: Sequence[Summary]  # one a split, the task's own first


def overview(tasks: Sequence[Overseen]) -> list[Child]:
    """A sentence that counts wins and losses, the map of ratios, the gains in area."""
    studies = {task.task: task.summaries[0]["arms"] for task in tasks}
    bases = list(dict.fromkeys(task.summaries[0]["baseline"] for task in tasks))
    margins = list(dict.fromkeys(f"{base.split('/')[0].strip()}/margin" for base in bases))
    parts: list[Child] = [element("p", _counted(studies), class_="headline"), _map(tasks)]
    for reference in [*bases, *margins]:
        rows = over_tasks(studies, reference)
        if rows:
            parts.append(element("h3", f"Area gained over {reference}"))
            parts.append(gains_table(rows, list(studies), reference))
    return parts


def _counted(studies: Mapping[str, Mapping[str, ArmJson]]) -> str:
    kinds = [
        outcome(arm["system_ratio"])
        for arms in studies.values()
        for arm in arms.values()
        if arm["role"] == "prioritised"
    ]
    open_ = kinds.count("unsettled")
    tasks = f"{len(studies)} task{'s' if len(studies) != 1 else ''}"
    return (
        f"Of {len(kinds)} comparisons of a prioritised arm with the baseline, on {tasks}, "
        f"{kinds.count('fewer')} needed fewer labels, {kinds.count('more')} lost, "
        f"{open_} {'is' if open_ == 1 else 'are'} not settled."
    )


def _map(tasks: Sequence[Overseen]) -> Element:
    """Arms by tasks: the system ratio, under it acquisition alone and the other split."""
    mains = [task.summaries[0]["arms"] for task in tasks]
    arms = [
        name
        for name in dict.fromkeys(name for found in mains for name in found)
        if not any(found[name]["role"] == "baseline" for found in mains if name in found)
    ]
    rows: list[Row] = []
    for name in arms:
        kinds = [outcome(found[name]["system_ratio"]) for found in mains if name in found]
        count = " / ".join(str(kinds.count(kind)) for kind in ("fewer", "unsettled", "more"))
        row: Row = [element("span", name, class_="nowrap"), _unbroken(count)]
        rows.append([*row, *(_cell(task, name) for task in tasks)])
    # What sums up the tasks comes first: many of them do not fit a window.
    header: Row = ["arm", "won / not settled / lost"]
    header += [element("a", task.task, href=f"#{task.anchor}") for task in tasks]
    others = list(dict.fromkeys(s["split"] for task in tasks for s in task.summaries[1:]))
    note = (
        "Labels the baseline needs for the target / labels the arm needs: the system ratio "
        "with its 95 % interval; under it acquisition alone (against random selection with the "
        f"same head){' and the system ratio on the split ' + ', '.join(others) if others else ''}. "
        "'<': the target was not reached. Coloured where the whole interval lies on one side of 1: "
        "green-blue for fewer labels, orange for a loss."
    )
    return grid(header, rows, note, class_="heat")


def _cell(task: Overseen, name: str) -> Element:
    arm = task.summaries[0]["arms"].get(name)
    if arm is None:
        return element("td", DASH)
    ratio, kind = arm["system_ratio"], outcome(arm["system_ratio"])
    first = element("span", ratio_text(ratio), class_="ratio")
    spread = element("span", f" {interval_text(ratio['ci95'])}", class_="muted")
    small: list[Child] = []
    alone = arm["acquisition_ratio"]
    if alone is not None and arm["role"] == "prioritised":
        words = f"alone {ratio_text(alone)}"
        small.append(element("span", words, class_=f"tone {outcome(alone)}"))
    for other in task.summaries[1:]:
        if name in other["arms"]:
            found = other["arms"][name]["system_ratio"]
            words = f"{other['split']} {ratio_text(found)}"
            small += [" · "] * bool(small)
            small.append(element("span", words, class_=f"tone {outcome(found)}"))
    under = element("span", *small, class_="small")
    return element("td", first, spread, under, class_=f"nowrap {kind}", style=heat(ratio, kind))


def gains_table(rows: Mapping[str, Gains], tasks: Sequence[str], reference: str) -> Element:
    """Each arm's paired gain in area over another arm, on each task and on their mean."""
    body: list[Row] = []
    for arm, found in rows.items():
        cells = [
            _gain(found.tasks[task]) if task in found.tasks else element("td", DASH)
            for task in tasks
        ]
        count = f"{found.wins} / {found.losses} of {len(found.tasks)}"
        name = element("span", arm, class_="nowrap")
        row: Row = [name, _gain(found.mean), _unbroken(count)] if len(tasks) > 1 else [name]
        body.append([*row, *cells])
    note = (
        f"Points of area under the learning curve above {reference} on the same seeds, with 95 % "
        "intervals; the mean weighs all its tasks alike, and its interval is of the seeds' noise."
    )
    means = ["mean over tasks", "tasks ahead / behind"] if len(tasks) > 1 else []
    return grid(["arm", *means, *tasks], body, note)


def _unbroken(text: str) -> Element:
    return element("td", text, class_="nowrap")


def _gain(found: MeanJson) -> Element:
    ends = found["ci95"]
    kind = "unsettled"
    if ends is not None and ends[0] * ends[1] > 0:
        kind = "fewer" if ends[0] > 0 else "more"
    spread = "no interval" if ends is None else points_text(ends)
    figure = element("span", f"{100 * found['mean']:+.2f} ", class_=f"tone {kind}")
    return element("td", figure, element("span", spread, class_="muted"), class_="nowrap")

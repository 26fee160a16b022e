"""The page of a testbed study: findings first, then curves, tables, and how it was measured."""

from collections.abc import Mapping
from typing import cast
from xml.etree.ElementTree import Element

from enn_finetune.report.blocks import details, two_lines
from enn_finetune.report.elements import Child, Row, document, element, grid
from enn_finetune.report.style import CSS
from enn_finetune.report.testbed_active import Active, section, spread
from enn_finetune.report.testbed_joint import drawn
from enn_finetune.report.testbed_summary import Json
from enn_finetune.report.testbed_words import METHOD, WAYS, answer, paper, settled, supervised_words
from enn_finetune.report.words import DASH
from enn_finetune.testbed.records import FLOOR

Settings = dict[str, dict]


def page(active: Mapping[str, Active], summary: Json) -> str:
    """One HTML file that needs no other."""
    parts: list[Child] = [
        element("h1", "The neural testbed"),
        element("p", "Agents examined on problems whose generator is known.", class_="muted"),
    ]
    findings = [
        element("li", element("strong", f"{WAYS[way].capitalize()}. "), answer(one.json))
        for way, one in active.items()
    ]
    findings += [element("li", words) for words in supervised_words(summary)]
    if active:
        parts.append(element("p", paper()))
    parts.append(element("ul", *findings))
    for one in active.values():
        parts += section(one)
    parts += _supervised(summary)
    parts += [element("h2", "How it was measured"), _list(METHOD)]
    parts += [element("h2", "What was run"), _list(_study(summary), code=True)]
    return document("The neural testbed", CSS, element("body", element("main", *parts)))


def _supervised(summary: Json) -> list[Child]:
    settings = cast(Settings, summary["supervised"])
    if not settings:
        return []
    reference = str(summary["reference"])
    agents = list(dict.fromkeys(name for one in settings.values() for name in one["agents"]))
    agents.sort(key=lambda name: (name == FLOOR, name != reference))
    scores = list(
        dict.fromkeys(
            name
            for one in settings.values()
            for found in one["agents"].values()
            for name, value in found.items()
            if isinstance(value, dict)
        )
    )
    tables = {name: _scores(settings, agents, name, reference) for name in scores}
    shown = [name for name in ("kl", "joint_kl_10") if name in tables] or scores[:1]
    parts: list[Child] = [
        element("h2", "Labels drawn at random: marginal and joint predictions"),
        _tally(summary),
        *drawn(settings, reference),
    ]
    for name in shown:
        parts += [element("h3", _title(name)), tables[name]]
    parts += [details(_title(name), table) for name, table in tables.items() if name not in shown]
    return parts


def _title(score: str) -> str:
    if score.startswith("joint_kl_"):
        return f"Joint KL, tau = {score.removeprefix('joint_kl_')}, nats a group"
    return {"kl": "Marginal KL, nats a row", "accuracy": "Accuracy", "ece": "ECE"}[score]


def _scores(settings: Settings, agents: list[str], score: str, reference: str) -> Element:
    """One score: agents by settings, in colour where the difference is settled."""
    rows: list[Row] = []
    better_below = score != "accuracy"
    for name, setting in settings.items():
        cells: Row = [name]
        for agent in agents:
            found = setting["agents"].get(agent)
            if found is None:
                cells.append(DASH)
                continue
            value = found[score]
            low, high = value.get("against", {}).get("ci95") or (0.0, 0.0)
            kind = ""
            if agent not in (reference, FLOOR):
                below, above = ("fewer", "more") if better_below else ("more", "fewer")
                kind = below if high < 0 else above if low > 0 else "unsettled"
            small = spread(value["ci95"])
            if value.get("bias", 0) >= 0.0005:
                small += f", excess {value['bias']:.3f}"
            if "ess" in value and score != "joint_kl_1":
                small += f", effective size {value['ess']:,.0f}"
            cells.append(two_lines(f"{value['mean']:.3f}", small, f"tone {kind}" if kind else ""))
        rows.append(cells)
    caption = (
        f"Means over problems; small figures are 95 % intervals. Green: better than {reference}, "
        "red: worse, by the paired interval; else not settled. A dash at the floor: its particles "
        "are too few to be trusted there. Effective size: what a group's labels leave of them, the "
        "least over problems."
    )
    return grid(["setting", *agents], rows, caption)


def _tally(summary: Json) -> Element:
    counts = settled(summary)
    scores = [name for name in next(iter(counts.values()), {}) if name != "joint_kl_1"]
    rows: list[Row] = [
        [
            agent,
            *(f"{by_score[s].below} / {by_score[s].above} of {by_score[s].all}" for s in scores),
        ]
        for agent, by_score in counts.items()
    ]
    header = [
        "agent",
        *(score.replace("_", " ").replace("kl", "KL").replace("ece", "ECE") for score in scores),
    ]
    caption = (
        f"Settings in which the agent's score is settled to be below / above {summary['reference']}"
        "'s. Below is better, but for accuracy."
    )
    return grid(header, rows, caption)


def _study(summary: Json) -> dict[str, str]:
    study = cast(Json, summary["study"])
    commands = study.get("commands", [])
    facts = {
        "command": "; ".join(commands) if isinstance(commands, list) else str(commands),
        "config": str(study.get("config_hash", "")),
        "commit": str(study.get("commit", "")),
        "machine": str(study.get("machine", "")),
        "wall time": f"{cast(float, study.get('seconds', 0.0)):,.0f} s",
    }
    return {name: value for name, value in facts.items() if value}


def _list(entries: Mapping[str, str], *, code: bool = False) -> Element:
    parts: list[Child] = []
    for name, words in entries.items():
        parts += [element("dt", name), element("dd", element("code", words) if code else words)]
    return element("dl", *parts)

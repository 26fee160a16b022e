"""From a config to programs and runs: pure, and every name checked before any work starts."""

import difflib
import inspect
from collections.abc import Sequence
from typing import NamedTuple

from enn_finetune.acquisition.choose import EPISTEMIC, RULES
from enn_finetune.config import ConfigError, TestbedConfig
from enn_finetune.testbed import active
from enn_finetune.testbed.agents import AGENTS
from enn_finetune.testbed.records import FLOOR, ActiveRun, Run, SupervisedRun, Way
from enn_finetune.testbed.types import Agent, Spec

ONE_FUNCTION = frozenset({"mlp"})
"""Agents whose predictions do not depend on an index."""


class Group(NamedTuple):
    """Runs that share a program, some of them at a time."""

    name: str
    runs: tuple[Run, ...]
    size: int  # runs that go through it at once

    @property
    def weight(self) -> float:
        """Work of a run, to guess the time left."""
        first = self.runs[0]
        dear = 4.0 if first.agent.startswith("ensemble") else 1.0
        return dear * (12.0 if isinstance(first, ActiveRun) and first.way == "again" else 1.0)


def plan(config: TestbedConfig) -> tuple[Group, ...]:
    """All groups of a study, in the order in which they run.

    Raises:
      ConfigError: unknown agents, rules or options, each with the nearest known one; rules that an
        agent cannot answer. All at once.
    """
    faults: list[str] = []
    _check_options(config, faults)
    groups: list[Group] = []
    if "active" in config.parts:
        for way, key in (("once", "arms"), ("again", "again")):
            groups += _active(config, way, key, faults)  # type: ignore[arg-type]
    if "supervised" in config.parts:
        groups += _supervised(config, faults)
    if not groups and not faults:
        faults.append("active.arms, active.again, supervised.agents: nothing to run")
    if faults:
        raise ConfigError("the study cannot be run:\n  " + "\n  ".join(dict.fromkeys(faults)))
    return tuple(groups)


def agent_of(config: TestbedConfig, name: str, spec: Spec) -> Agent:
    """An agent with the study's options."""
    options = config.agents.get(name, {})
    whole = {key: int(value) if _whole(name, key) else value for key, value in options.items()}
    return AGENTS[name](spec, **whole)


def active_spec(config: TestbedConfig) -> Spec:
    """The problems of active learning."""
    given = config.active
    ratio = given.candidates / given.input_dim
    return Spec(given.input_dim, given.classes, given.temperature, ratio)


def steps_of(config: TestbedConfig, way: Way, agent: str) -> active.Steps:
    """How an agent's steps are taken."""
    given = config.active
    arms = given.arms if way == "once" else given.again
    return active.Steps(
        rules=tuple(arm.partition("/")[2] for arm in arms if arm.partition("/")[0] == agent),
        candidates=given.candidates,
        updates=given.updates if way == "once" else given.again_updates,
        batch=given.batch,
        functions=given.functions,
        exam_functions=given.exam_functions,
        exam_groups=given.exam_groups,
        every=given.every,
        evaluations=given.candidates // given.every,
        segments=1 if way == "once" else given.rounds,
    )


def _active(config: TestbedConfig, way: Way, key: str, faults: list[str]) -> list[Group]:
    given = config.active
    rules: dict[str, list[str]] = {}
    for arm in dict.fromkeys(given.arms if way == "once" else given.again):
        agent, slash, rule = arm.partition("/")
        if not slash or not rule:
            faults.append(f"active.{key}: {arm!r}: write an arm as AGENT/RULE, as epinet/variance")
            continue
        known = _known(agent, AGENTS, f"active.{key}: {arm}: no agent", faults)
        known &= _known(rule, RULES, f"active.{key}: {arm}: no rule", faults)
        if known and agent in ONE_FUNCTION and rule in EPISTEMIC:
            faults.append(
                f"active.{key}: {arm}: {rule} reads the spread over indices, and {agent} has none; "
                "use entropy or margin, or another agent"
            )
        rules.setdefault(agent, []).append(rule)
    problems = range(given.first_problem, given.first_problem + given.problems)
    return [
        _group(config, f"{agent}, each candidate {way}",
               [ActiveRun(way, agent, rule, problem) for problem in problems for rule in of])
        for agent, of in rules.items()
    ]  # fmt: skip


def _supervised(config: TestbedConfig, faults: list[str]) -> list[Group]:
    given = config.supervised
    agents = list(dict.fromkeys(given.agents))
    for agent in agents:
        _known(agent, AGENTS, "supervised.agents: no agent", faults)
    problems = range(given.first_problem, given.first_problem + given.problems)
    groups = []
    for agent in [*agents, *([FLOOR] if given.particles else [])]:
        for inputs in dict.fromkeys(given.input_dims):
            runs = [
                SupervisedRun(agent, inputs, temperature, ratio, problem)
                for ratio in dict.fromkeys(given.ratios)
                for temperature in dict.fromkeys(given.temperatures)
                for problem in problems
            ]
            if agent == FLOOR:
                runs = [run for run in runs if run.rows <= given.floor_rows]
            if runs:
                groups.append(_group(config, f"{agent}, {inputs} inputs", runs))
    return groups


def _group(config: TestbedConfig, name: str, runs: Sequence[Run]) -> Group:
    """Chunks of equal size: all go through one program, and few places in it are left empty."""
    chunks = -(-len(runs) // config.chunk)
    chunks += chunks > 1 and chunks % 2  # an even number, for two cores or more
    return Group(name, tuple(runs), -(-len(runs) // chunks))


def _known(name: str, among: object, what: str, faults: list[str]) -> bool:
    names = list(among)  # type: ignore[call-overload]
    if name in names:
        return True
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.0)[0]
    faults.append(f"{what} {name!r}; the nearest is {near}")
    return False


def _check_options(config: TestbedConfig, faults: list[str]) -> None:
    for agent, options in config.agents.items():
        if not _known(agent, AGENTS, f"agents.{agent}: no agent", faults):
            continue
        known = [name for name in inspect.signature(AGENTS[agent]).parameters if name != "spec"]
        for name in options:
            _known(name, known, f"agents.{agent}.{name}: no option", faults)


def _whole(agent: str, option: str) -> bool:
    return isinstance(inspect.signature(AGENTS[agent]).parameters[option].default, int)

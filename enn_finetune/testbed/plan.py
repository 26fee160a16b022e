"""From a config to programs and runs: pure, and every name checked before any work starts."""

from collections.abc import Sequence
from typing import NamedTuple

from enn_finetune.config import ConfigError, TestbedConfig
from enn_finetune.config.testbed import name_faults
from enn_finetune.config.testbed_agents import arguments
from enn_finetune.testbed import active
from enn_finetune.testbed.agents import AGENTS
from enn_finetune.testbed.records import FLOOR, ActiveRun, Run, SupervisedRun, Way
from enn_finetune.testbed.types import Agent, Spec


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
      ConfigError: unknown agents, rules or options, each with the nearest known one; options out
        of range; rules that an agent cannot answer. All at once (`load_testbed` has told of them
        already, beside the faults of values; a config made in Python comes here first).
    """
    faults = name_faults(config)
    if faults:
        raise ConfigError("the study cannot be run:\n  " + "\n  ".join(dict.fromkeys(faults)))
    groups: list[Group] = []
    if "active" in config.parts:
        groups += _active(config, "once", config.active.arms)
        groups += _active(config, "again", config.active.again)
    if "supervised" in config.parts:
        groups += _supervised(config)
    if not groups:
        raise ConfigError(
            "the study cannot be run:\n"
            "  active.arms, active.again, supervised.agents: nothing to run"
        )
    return tuple(groups)


def agent_of(config: TestbedConfig, name: str, spec: Spec) -> Agent:
    """An agent with the study's options."""
    return AGENTS[name](spec, **arguments(name, config.agents.get(name, {})))


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


def _active(config: TestbedConfig, way: Way, arms: Sequence[str]) -> list[Group]:
    given = config.active
    rules: dict[str, list[str]] = {}
    for arm in dict.fromkeys(arms):
        agent, _, rule = arm.partition("/")
        rules.setdefault(agent, []).append(rule)
    problems = range(given.first_problem, given.first_problem + given.problems)
    return [
        _group(config, f"{agent}, each candidate {way}",
               [ActiveRun(way, agent, rule, problem) for problem in problems for rule in of])
        for agent, of in rules.items()
    ]  # fmt: skip


def _supervised(config: TestbedConfig) -> list[Group]:
    given = config.supervised
    agents = list(dict.fromkeys(given.agents))
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

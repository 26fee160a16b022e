"""From runs to their lines: what goes into a group's programs, what is read off their results."""

from collections.abc import Callable, Sequence
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from enn_finetune.config import TestbedConfig
from enn_finetune.testbed import active, scores, supervised
from enn_finetune.testbed.active import Course, Evaluation, Learner, World
from enn_finetune.testbed.plan import Group, active_spec, agent_of, steps_of
from enn_finetune.testbed.records import (
    FLOOR,
    ActiveLine,
    ActiveRun,
    Line,
    Run,
    SupervisedLine,
    SupervisedRun,
)

Programs = Callable[[Sequence[Run], Callable[[float], None]], list[Line]]
"""From runs, at most as many as the group's size, to their lines; tells of per cents done."""


def programs_of(config: TestbedConfig, group: Group) -> Programs:
    """The programs of a group, compiled once for all its chunks."""
    first = group.runs[0]
    if isinstance(first, ActiveRun):
        return _active(config, group, first)
    return _supervised(config, group, first)


def _padded(runs: Sequence[Run], size: int) -> list[Run]:
    """So many that the compiled program fits; the results of those added are left aside."""
    return [*runs, *[runs[0]] * (size - len(runs))]


def _keys(seed: int, *path: Sequence[int]) -> Array:
    """One key a run, from numbers of all runs (R,) at each level."""
    columns = [jnp.asarray(np.asarray(column, np.uint32)) for column in path]

    def one(*numbers: Array) -> Array:
        key = jax.random.key(seed)
        for number in numbers:
            key = jax.random.fold_in(key, number)
        return key

    return jax.vmap(one)(*columns)


def _active(config: TestbedConfig, group: Group, first: ActiveRun) -> Programs:
    spec, steps = active_spec(config), steps_of(config, first.way, first.agent)
    agent = agent_of(config, first.agent, spec)
    start, further = active.starter(agent, spec, steps), active.segment(agent, steps)

    def run(wanted: Sequence[Run], advance: Callable[[float], None]) -> list[Line]:
        runs = [cast(ActiveRun, one) for one in _padded(wanted, group.size)]
        numbers, none = [one.problem for one in runs], [0] * len(runs)
        problem_keys = _keys(config.seed, none, numbers)
        agent_keys = _keys(config.seed, [1] * len(runs), numbers)
        worlds, learners = start(problem_keys, agent_keys)
        course = Course(
            rule=jnp.asarray([steps.rules.index(one.rule) for one in runs], jnp.int32),
            again=jnp.asarray([one.way == "again" for one in runs]),
            learning_rate=jnp.full(len(runs), config.active.learning_rate),
        )
        found = _segments(further, steps.segments, (worlds, course, learners), advance)
        return [
            cast(Line, active_line(runs[place], jax.tree.map(lambda a: a[place], found), steps))  # noqa: B023
            for place in range(len(wanted))
        ]

    return run


def _segments(
    further: active.Segment,
    count: int,
    begin: tuple[World, Course, Learner],
    advance: Callable[[float], None],
) -> Evaluation:
    """The evaluations of all segments, (R, segments * evaluations, ...), on the host."""
    worlds, course, learners = begin
    found = []
    for number in range(count):
        learners, evaluations = further(worlds, course, learners)
        found.append(jax.tree.map(np.asarray, evaluations))
        advance(100 * (number + 1) / count)
    return cast(Evaluation, jax.tree.map(lambda *parts: np.concatenate(parts, axis=1), *found))


def active_line(run: ActiveRun, found: Evaluation, steps: active.Steps) -> ActiveLine:
    """One run's evaluations (E, ...) by number of labels: the last with at most so many."""
    labels = np.arange(steps.every, steps.candidates + 1, steps.every)
    last = np.searchsorted(np.asarray(found.labels), labels, side="right") - 1
    kl = np.asarray(found.kl)[last]
    rows, first = np.unique(np.asarray(found.rows).reshape(-1), return_index=True)
    return ActiveLine(
        part="active",
        agent=run.agent,
        problem=run.problem,
        way=run.way,
        rule=run.rule,
        labels=labels.tolist(),
        kl=_floats(kl),
        kl_excess=_floats(np.asarray(found.excess)[last]),
        selection_regret=_floats(steps.every * np.asarray(scores.selection_regret(kl))),
        accuracy=_floats(np.asarray(found.accuracy)[last]),
        ece=_floats(np.asarray(found.ece)[last]),
        bought=rows[np.argsort(first)].tolist(),
        steps=int(np.asarray(found.rows).size),
    )


def _floats(values: np.ndarray) -> list[float]:
    return [float(f"{value:.7g}") for value in values]


def _supervised(config: TestbedConfig, group: Group, first: SupervisedRun) -> Programs:
    given = config.supervised
    exam = supervised.Examination(
        input_dim=first.input_dim,
        classes=given.classes,
        rows=max(cast(SupervisedRun, run).rows for run in group.runs),
        taus=given.taus,
        groups=given.groups,
        anchors=given.anchors,
        functions=given.functions,
        steps=given.steps,
        batch=given.batch,
    )
    if first.agent == FLOOR:
        program = supervised.floor_program(exam, given.particles)
    else:
        program = supervised.agent_program(
            lambda spec: agent_of(config, first.agent, spec), exam, given.learning_rate
        )

    def run(wanted: Sequence[Run], advance: Callable[[float], None]) -> list[Line]:
        runs = [cast(SupervisedRun, one) for one in _padded(wanted, group.size)]
        inputs, numbers = [one.input_dim for one in runs], [one.problem for one in runs]
        settings = supervised.Setting(
            temperature=jnp.asarray([one.temperature for one in runs], jnp.float32),
            rows=jnp.asarray([one.rows for one in runs], jnp.int32),
            problem_key=_keys(config.seed, [2] * len(runs), inputs, numbers),
            agent_key=_keys(config.seed, [3] * len(runs), inputs, numbers),
        )
        found = {name: np.asarray(of) for name, of in program(settings).items()}
        advance(100)
        return [
            cast(Line, supervised_line(one, {name: of[place] for name, of in found.items()}))
            for place, one in enumerate(runs[: len(wanted)])
        ]

    return run


def supervised_line(run: SupervisedRun, found: dict[str, np.ndarray]) -> SupervisedLine:
    """One run's scores."""
    order = [
        "kl",
        "kl_bias",
        *(name for name in found if name.startswith("joint")),
        "accuracy",
        "ece",
        "ess",
    ]
    # `ess` of the floor is a field of its own; those of joint predictions are among the scores.
    named = {name: float(f"{float(found[name]):.7g}") for name in order if name in found}
    line = SupervisedLine(
        part="supervised",
        agent=run.agent,
        problem=run.problem,
        input_dim=run.input_dim,
        temperature=run.temperature,
        ratio=run.ratio,
        rows=run.rows,
        scores={name: value for name, value in named.items() if name != "ess"},
    )
    if "ess" in named:
        line["ess"] = named["ess"]
    return line

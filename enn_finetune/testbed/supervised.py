"""Agents on labels drawn at random, and the floor: programs for many problems at once.

A program is of one agent and one input dimension. Temperatures are traced, and where there are
fewer rows than in the largest problem the others are hidden, so that it serves every setting.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from enn_finetune.testbed import fitting, floor, problems, scores
from enn_finetune.testbed.types import Agent, Data, Spec

KEPT = 1000  # particles of a floor
AT_ONCE = 4  # fits that are scored at the same time


@dataclass(frozen=True)
class Examination:
    """What all runs of a program share; static."""

    input_dim: int
    classes: int
    rows: int  # of the largest problem
    taus: tuple[int, ...]
    groups: int
    anchors: int  # rows of a group
    functions: int
    steps: int
    batch: int


class Setting(NamedTuple):
    """One run, traced."""

    temperature: Array  # ()
    rows: Array  # () int32: training rows
    problem_key: Array
    agent_key: Array


Scores = dict[str, Array]
Program = Callable[[Setting], Scores]


def _sample(given: Examination, setting: Setting) -> tuple[Spec, Data, Array, problems.Exam]:
    """A run's problem: its numbers, rows, which of them count, and its exam."""
    spec = Spec(given.input_dim, given.classes, setting.temperature)  # type: ignore[arg-type]
    keys = jax.random.split(setting.problem_key, 3)
    problem = problems.sample_problem(keys[0], spec)
    data = problems.sample_data(keys[1], problem, given.rows)
    weight = (jnp.arange(given.rows) < setting.rows).astype(jnp.float32)
    return (
        spec,
        data,
        weight,
        problems.sample_exam(
            keys[2], problem, given.taus, groups=given.groups, kappa=given.anchors
        ),
    )


def _named(given: Examination, numbers: Scores, joint: tuple[scores.KL, ...]) -> Scores:
    found = dict(numbers)
    for tau, kl in zip(given.taus, joint, strict=True):
        found |= {f"joint_kl_{tau}": kl.value, f"joint_kl_{tau}_bias": kl.bias}
    return found


def agent_program(
    make: Callable[[Spec], Agent], given: Examination, learning_rate: float
) -> Program:
    """Settings (R,) to scores (R,) of one agent: trained side by side, scored a few at a time."""

    def train(setting: Setting) -> tuple[Array, problems.Exam]:
        spec, data, weight, exam = _sample(given, setting)
        agent = make(spec)
        fit_key, index_key = jax.random.split(setting.agent_key)
        fit = fitting.fit(
            agent,
            spec,
            fit_key,
            data,
            weight,
            steps=given.steps,
            learning_rate=learning_rate,
            batch=given.batch,
        )
        return agent.log_probs(fit, index_key, exam.x, given.functions), exam

    finite = 0 < make(Spec(given.input_dim, given.classes)).functions <= given.functions

    def grade(trained: tuple[Array, problems.Exam]) -> Scores:
        return _named(given, *scores.grade(*trained, finite=finite))

    def program(settings: Setting) -> Scores:
        trained = jax.vmap(train)(settings)
        return lax.map(grade, trained, batch_size=AT_ONCE)

    return jax.jit(program)


def floor_program(given: Examination, particles: int) -> Program:
    """The same of the generator's posterior; `ess` is its effective sample size.

    `joint_kl_TAU_ess` is what is left of it once the labels of a group of tau rows are known.
    """

    def one(setting: Setting) -> Scores:
        spec, data, weight, exam = _sample(given, setting)
        found = floor.posterior(
            setting.agent_key,
            spec,
            data,
            weight,
            particles=particles,
            keep=min(KEPT, particles),
        )
        log_probs = floor.log_probs(found, exam.x)
        graded = scores.grade(log_probs, exam, log_weights=found.log_weights)
        sizes = {
            f"joint_kl_{tau}_ess": kl.size for tau, kl in zip(given.taus, graded[1], strict=True)
        }
        return _named(given, *graded) | sizes | {"ess": found.size}

    return jax.jit(lambda settings: lax.map(one, settings))

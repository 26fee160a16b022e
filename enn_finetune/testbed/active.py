"""Active learning on problems whose generator is known: one label at a time from N candidates.

A step scores all candidates with the agent as it stands, reads the label of the one of highest
priority, and trains on all labels known for a few gradient steps. The agent stays warm: it is
started once. This is the loop of the Neural Testbed's `active_learning` (synthetic data of arXiv
2211.01568), with two ways to treat a candidate whose label is known:

*again*: any candidate may be chosen at every step, and each choice is a new draw of its label, as
in the paper's code. Scores stand against *distinct* candidates, so that what is chosen again is
counted as nothing: neither its label, which is not the one drawn before, nor the training that
every step brings. A row weighs in training as often as it was chosen.

*once*: every step buys the one label of another candidate, and after n labels every rule has n of
them and has trained for equally long. This is what labels cost anywhere else in this package.

Runs are vmapped: each has its own problem, candidates, agent, rule and way. One compiled program an
agent (`segment`) takes them all some steps further; it is called again until they are done.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from enn_finetune.acquisition.choose import RULES
from enn_finetune.testbed import fitting, problems, scores
from enn_finetune.testbed.problems import Exam
from enn_finetune.testbed.types import Agent, Data, Spec


@dataclass(frozen=True)
class Steps:
    """How a step is taken. Static: each is its own program."""

    rules: tuple[str, ...]  # that runs may have; all of them are computed at every step
    candidates: int = 200
    updates: int = 10  # gradient steps after each choice
    batch: int = 32  # rows of one
    functions: int = 16  # K, of the priorities
    exam_functions: int = 64  # K, of the evaluations
    exam_groups: int = 250  # pairs of rows that are examined
    every: int = 10  # steps between evaluations
    evaluations: int = 20  # of a segment
    segments: int = 1  # of a run

    @property
    def length(self) -> int:
        """Steps of a segment."""
        return self.every * self.evaluations


class World(NamedTuple):
    """What a run lives in; it never changes."""

    data: Data  # the candidates (N, d), and the label that each has where it is asked for once
    table: Data  # each candidate with every label: N * C rows, a candidate's side by side
    log_true: Array  # (N, C): of the generator
    exam: Exam


class Course(NamedTuple):
    """What a run does; traced, so that one program serves all."""

    rule: Array  # () int32, a place in `Steps.rules`
    again: Array  # () bool: not each candidate once
    learning_rate: Array  # ()


class Learner(NamedTuple):
    """An agent at work."""

    state: fitting.State
    seen: Array  # (N, C) float32: how often each candidate had each label
    history: Array  # (S,) int32: rows of the table in the order in which they came
    taken: Array  # () int32: how many of them there are
    key: Array  # of all its steps


class Draw(NamedTuple):
    """The randomness of one step; drawn for many of them at a time, which costs a fraction."""

    indices: Array  # key of the functions that priorities are taken over
    rule: Array  # key
    label: Array  # (C,) standard Gumbel
    places: Array  # (updates, batch) uniform on [0, 1): which of the known rows are in a batch
    loss: Array  # (updates,) keys


class Evaluation(NamedTuple):
    """The agent after some steps. In nats a row where it is a KL."""

    labels: Array  # () int32: distinct candidates whose label is known
    kl: Array  # ()
    excess: Array  # (): what of it is due to drawing finitely many functions, estimated by halves
    accuracy: Array  # ()
    ece: Array  # ()
    rows: Array  # (every,) int32: the candidates chosen since the evaluation before


Segment = Callable[[World, Course, Learner], tuple[Learner, Evaluation]]


def make_world(key: Array, spec: Spec, steps: Steps) -> World:
    """Draw a problem, its candidates and its exam."""
    problem_key, data_key, exam_key = jax.random.split(key, 3)
    problem = problems.sample_problem(problem_key, spec)
    data = problems.sample_data(data_key, problem, steps.candidates)
    exam = problems.sample_exam(exam_key, problem, (), groups=steps.exam_groups)
    labels = jnp.tile(jnp.arange(spec.classes, dtype=jnp.int32), steps.candidates)
    table = Data(jnp.repeat(data.x, spec.classes, axis=0), labels)
    return World(data, table, problems.true_log_probs(problem, data.x), exam)


def begin(agent: Agent, spec: Spec, key: Array, steps: Steps) -> Learner:
    """An agent that knows no label yet."""
    start_key, key = jax.random.split(key)
    return Learner(
        fitting.start(agent, spec, start_key),
        jnp.zeros((steps.candidates, spec.classes)),
        jnp.zeros(steps.length * steps.segments, jnp.int32),
        jnp.zeros((), jnp.int32),
        key,
    )


def draw(steps: Steps, classes: int, key: Array, taken: Array) -> Draw:
    """The randomness of the steps numbered `taken` (T,) of a learner: each field (T, ...).

    A step's depends on its number and not on the steps that it is drawn with.
    """

    def one(number: Array) -> Draw:
        indices, rule, label, places, loss = jax.random.split(jax.random.fold_in(key, number), 5)
        return Draw(
            indices,
            rule,
            jax.random.gumbel(label, (classes,)),
            jax.random.uniform(places, (steps.updates, steps.batch)),
            jax.random.split(loss, steps.updates),
        )

    return jax.vmap(one)(taken)


def step(
    agent: Agent, steps: Steps, world: World, course: Course, learner: Learner, drawn: Draw
) -> tuple[Learner, Array]:
    """Choose a candidate, read its label, train; returns the candidate too."""
    fit = fitting.finish(agent, learner.state, world.table, learner.seen.reshape(-1))
    log_probs = agent.log_probs(fit, drawn.indices, world.data.x, steps.functions)
    free = course.again | (jnp.sum(learner.seen, axis=1) == 0)
    row = _first_best(jnp.where(free, _priorities(steps, course, log_probs, drawn.rule), -jnp.inf))
    fresh = jnp.argmax(world.log_true[row] + drawn.label).astype(jnp.int32)
    label = jnp.where(course.again, fresh, world.data.y[row])
    cell = row * world.log_true.shape[1] + label
    # Comparing with all places is quicker on a CPU than a scatter of one value a run.
    seen = learner.seen.reshape(-1) + (jnp.arange(learner.seen.size) == cell)
    learner = learner._replace(
        seen=seen.reshape(learner.seen.shape),
        history=learner.history.at[learner.taken].set(cell),
        taken=learner.taken + 1,
    )
    return learner._replace(state=_train(agent, steps, world, course, learner, drawn)), row


def _priorities(steps: Steps, course: Course, log_probs: Array, key: Array) -> Array:
    """Of the candidates (N,), by the run's rule."""
    first, *others = (RULES[name](log_probs, key) for name in steps.rules)
    for place, priorities in enumerate(others, 1):
        first = jnp.where(course.rule == place, priorities, first)
    return first


def _first_best(priorities: Array) -> Array:
    """The first place () int32 of the largest value: argmax in two reductions of one value each."""
    places = jnp.arange(priorities.shape[0], dtype=jnp.int32)
    return jnp.min(jnp.where(priorities == jnp.max(priorities), places, places[-1]))


def _train(
    agent: Agent, steps: Steps, world: World, course: Course, learner: Learner, drawn: Draw
) -> fitting.State:
    """Gradient steps on minibatches drawn from all that was read, with replacement."""
    # The weights sum to the labels read, so that the prior fades as they grow.
    share = jnp.full(steps.batch, learner.taken / steps.batch)

    def update(state: fitting.State, given: tuple[Array, Array]) -> tuple[fitting.State, None]:
        uniform, key = given
        rows = learner.history[place_of(uniform, learner.taken)]
        batch = Data(world.table.x[rows], world.table.y[rows])
        return fitting.update(agent, state, key, batch, share, course.learning_rate), None

    return lax.scan(update, learner.state, (drawn.places, drawn.loss))[0]


def place_of(uniform: Array, taken: Array) -> Array:
    """Uniform on [0, 1) to uniform on 0, 1, ..., taken - 1, up to taken / 2^24."""
    places = jnp.floor(uniform * taken).astype(jnp.int32)
    return jnp.minimum(places, taken - 1)  # rounding may reach `taken`


def evaluate(agent: Agent, steps: Steps, world: World, learner: Learner, rows: Array) -> Evaluation:
    """Examine the agent; the randomness of its functions is the same at every evaluation."""
    fit = fitting.finish(agent, learner.state, world.table, learner.seen.reshape(-1))
    log_probs = agent.log_probs(fit, jax.random.key(0), world.exam.x, steps.exam_functions)
    finite = 0 < agent.functions <= steps.exam_functions
    return Evaluation(
        labels=jnp.sum(jnp.any(learner.seen > 0, axis=1)).astype(jnp.int32),
        kl=jnp.mean(scores.marginal_kl(log_probs, world.exam.log_true)),
        excess=scores.marginal_excess(log_probs, world.exam.log_true, finite=finite),
        accuracy=scores.accuracy(log_probs, world.exam.log_true),
        ece=scores.calibration_error(log_probs, world.exam.log_true),
        rows=rows,
    )


def segment(agent: Agent, steps: Steps) -> Segment:
    """The program that takes R runs `steps.length` steps further.

    Arguments and results have a leading axis R; those of evaluations (R, steps.evaluations, ...).
    A run does not depend on the runs beside it.
    """

    def one(world: World, course: Course, learner: Learner) -> tuple[Learner, Evaluation]:
        def take(learner: Learner, drawn: Draw) -> tuple[Learner, Array]:
            return step(agent, steps, world, course, learner, drawn)

        def block(learner: Learner, _: None) -> tuple[Learner, Evaluation]:
            numbers = learner.taken + jnp.arange(steps.every)
            drawn = draw(steps, world.log_true.shape[1], learner.key, numbers)
            learner, rows = lax.scan(take, learner, drawn)
            return learner, evaluate(agent, steps, world, learner, rows)

        return lax.scan(block, learner, length=steps.evaluations)

    return jax.jit(jax.vmap(one), donate_argnums=2)


def starter(agent: Agent, spec: Spec, steps: Steps) -> Callable[[Array, Array], tuple]:
    """The program that makes R worlds and learners from keys (R,) of problems and of agents."""

    def one(problem_key: Array, agent_key: Array) -> tuple[World, Learner]:
        world = make_world(problem_key, spec, steps)
        return world, begin(agent, spec, agent_key, steps)

    return jax.jit(jax.vmap(one))

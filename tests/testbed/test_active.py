"""Active learning on the testbed: one scan is a loop, step by step; what is bought and counted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from enn_finetune.testbed import active
from enn_finetune.testbed.active import Course, Steps
from enn_finetune.testbed.chunks import active_line
from enn_finetune.testbed.records import ActiveRun
from enn_finetune.testbed.types import Agent, Spec

SPEC = Spec(input_dim=2, classes=2, temperature=0.2)
STEPS = Steps(
    rules=("random", "entropy", "variance"),
    candidates=12,
    updates=2,
    batch=3,
    functions=4,
    exam_functions=4,
    exam_groups=5,
    every=4,
    evaluations=3,
)
RULES = (0, 1, 2, 2)
AGAIN = (False, False, False, True)


def noisy_lines(spread: float) -> Agent:
    """Logistic regression, each index with its own slopes: cheap to compile."""

    def init(key, spec):
        return jnp.zeros((spec.input_dim, spec.classes)), jax.random.normal(key, (1,))

    def loss(params, fixed, key, x, y, weight):
        del fixed, key
        losses = -jnp.take_along_axis(jax.nn.log_softmax(x @ params), y[:, None], axis=1)[:, 0]
        return jnp.sum(weight * losses) / jnp.sum(weight) + 0.1 * jnp.sum(params**2)

    def finish(params, fixed, x, y, weight):
        del fixed, x, y, weight
        return params

    def log_probs(fit, key, x, count):
        slopes = fit[None] + spread * jax.random.normal(key, (count, *fit.shape))
        return jax.nn.log_softmax(jnp.einsum("nd,kdc->knc", x, slopes), axis=-1)

    return Agent(init, loss, finish, log_probs)


def begin(agent, rules=RULES, again=AGAIN, rate=0.1):
    runs = len(rules)
    keys = jax.random.split(jax.random.key(3), 2 * runs)
    worlds, learners = active.starter(agent, SPEC, STEPS)(keys[:runs], keys[runs:])
    course = Course(jnp.array(rules, jnp.int32), jnp.array(again), jnp.full(runs, rate))
    return worlds, course, learners


def copy(tree):
    """The program takes its learners' memory."""
    return jax.tree.map(jnp.copy, tree)


@pytest.fixture(scope="module")
def whole():
    """All runs in one scan, with the program that did it."""
    agent = noisy_lines(1.0)
    program = active.segment(agent, STEPS)
    worlds, course, learners = begin(agent)
    return agent, program, program(worlds, course, copy(learners))


def test_the_scan_is_a_loop_over_steps(whole):
    agent, _, (_, found) = whole
    worlds, course, learners = begin(agent)

    @jax.jit
    def step(world, one, learner):
        drawn = jax.tree.map(
            lambda a: a[0], active.draw(STEPS, 2, learner.key, learner.taken[None])
        )
        return active.step(agent, STEPS, world, one, learner, drawn)

    exam = jax.jit(lambda *run: active.evaluate(agent, STEPS, *run))
    for run in range(len(RULES)):
        world, one, learner = jax.tree.map(lambda a: a[run], (worlds, course, learners))  # noqa: B023
        for block in range(STEPS.evaluations):
            rows = []
            for _ in range(STEPS.every):
                learner, row = step(world, one, learner)
                rows.append(int(row))
            assert found.rows[run, block].tolist() == rows
            expected = exam(world, learner, jnp.array(rows, jnp.int32))
            for name in ("labels", "kl", "excess", "accuracy", "ece"):
                np.testing.assert_allclose(
                    getattr(found, name)[run, block], getattr(expected, name), rtol=2e-4, atol=1e-6
                )


def test_a_place_is_one_of_the_known_rows_each_as_likely():
    edges = jnp.array([0.0, 1 - 2**-24])
    for taken in (1, 2, 3, 7999, 8000):
        assert active.place_of(edges, jnp.int32(taken)).tolist() == [0, taken - 1]
    uniform = (jnp.arange(7000) + 0.5) / 7000
    assert np.bincount(active.place_of(uniform, jnp.int32(7))).tolist() == [1000] * 7


def test_once_buys_every_candidate_with_its_own_label(whole):
    agent, _, (learners, found) = whole
    worlds, _, _ = begin(agent)
    for run in range(3):
        assert sorted(found.rows[run].reshape(-1).tolist()) == list(range(12))
        assert found.labels[run].tolist() == [4, 8, 12]
        assert np.array_equal(learners.seen[run], jax.nn.one_hot(worlds.data.y[run], 2))
    first = [found.rows[run, 0].tolist() for run in range(3)]
    assert first[0] != first[1] != first[2]


def test_again_draws_the_label_anew_and_counts_the_candidate_once():
    agent = noisy_lines(0.0)  # no spread: the variance is 0 everywhere, the first row is chosen
    runs = 300
    keys = jax.random.split(jax.random.key(5), runs)
    start = active.starter(agent, SPEC, STEPS)
    worlds, learners = start(jnp.broadcast_to(keys[:1], (runs,)), keys)
    again = jnp.arange(runs) > 0  # the first run has each candidate once
    course = Course(jnp.full(runs, 2, jnp.int32), again, jnp.zeros(runs))
    done, found = active.segment(agent, STEPS)(worlds, course, learners)
    assert found.rows[0].reshape(-1).tolist() == list(range(12))
    assert not found.rows[1:].any()
    assert (found.labels[1:] == 1).all()
    assert np.array_equal(done.seen[1:, 0].sum(1), np.full(runs - 1, 12))
    assert np.array_equal(np.bincount(done.history[1] % 2, minlength=2), done.seen[1, 0])
    # The labels of one candidate are as often each as the generator says.
    draws = (runs - 1) * STEPS.length
    share = np.asarray(done.seen[1:, 0].sum(0)) / draws
    np.testing.assert_allclose(share, np.exp(worlds.log_true[0, 0]), atol=4 * (0.25 / draws) ** 0.5)


def test_one_trace_for_all_rules_ways_and_rates(whole):
    agent, program, (_, first) = whole
    before = program._cache_size()
    worlds, course, learners = begin(agent, (1, 0, 2, 0), (True, True, False, False), 0.5)
    _, other = program(worlds, course, copy(learners))
    assert program._cache_size() == before == 1
    assert not np.array_equal(first.rows, other.rows)


def test_a_run_does_not_depend_on_the_runs_beside_it(whole):
    agent, program, (_, found) = whole
    worlds, course, learners = begin(agent)
    turned = jax.tree.map(lambda a: jnp.roll(a, 1, axis=0), (worlds, course, learners))
    _, other = program(*copy(turned))
    assert np.array_equal(jnp.roll(other.rows, -1, axis=0), found.rows)
    assert np.array_equal(jnp.roll(other.kl, -1, axis=0), found.kl)


def test_lines_hold_the_last_score_with_at_most_so_many_labels():
    found = active.Evaluation(
        labels=np.array([3, 4, 5, 5]),
        kl=np.array([0.4, 0.3, 0.2, 0.1]),
        excess=np.array([0.04, 0.03, 0.02, 0.01]),
        accuracy=np.array([0.5, 0.6, 0.7, 0.8]),
        ece=np.zeros(4),
        rows=np.array([[1, 2, 3, 1], [4, 4, 4, 4], [0, 0, 0, 1], [2, 2, 2, 2]]),
    )
    line = active_line(ActiveRun("again", "mlp", "random", 7), found, STEPS)
    assert line["labels"] == [4, 8, 12]
    assert line["kl"] == [0.3, 0.1, 0.1]
    assert line["kl_excess"] == [0.03, 0.01, 0.01]
    assert line["selection_regret"] == pytest.approx([4 * 0.3, 4 * 0.4, 4 * 0.5])
    assert line["bought"] == [1, 2, 3, 4, 0]
    assert line["steps"] == 16

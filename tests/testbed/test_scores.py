"""Scores against enumeration of every label, and their stated biases."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enn_finetune import metrics
from enn_finetune.testbed import problems, scores
from enn_finetune.testbed.problems import Problem

KEY = jax.random.key(1)

# One program each: operation by operation, most of the time would be compiling.
sample_exam = jax.jit(problems.sample_exam, static_argnames=("taus", "groups", "kappa", "draws"))
joint_kl = jax.jit(scores.joint_kl, static_argnames="finite")
grade = jax.jit(scores.grade, static_argnames="finite")
marginal_kl = jax.jit(lambda *args: jnp.mean(scores.marginal_kl(*args)))


def linear_problem(classes: int, scale: float = 1.0) -> Problem:
    """A generator of one layer: two inputs, C classes."""
    weights = scale * jax.random.normal(jax.random.key(5), (2, classes))
    return Problem(((weights, jnp.zeros(classes)),), jnp.float32(1))


def random_functions(seed: int, count: int, rows: int, classes: int, scale: float = 1.0):
    logits = scale * jax.random.normal(jax.random.key(seed), (count, rows, classes))
    return jax.nn.log_softmax(logits, axis=-1)


def brute_force(log_probs, log_true, tau: int, log_weights=None) -> float:
    """KL over all sequences of (anchor, label), of one group of anchors (A, C), in float64."""
    ours, truth = np.asarray(log_probs, np.float64), np.asarray(log_true, np.float64)
    count, anchors, classes = ours.shape
    weights = np.full(count, 1 / count) if log_weights is None else np.exp(log_weights)
    total = 0.0
    for rows in itertools.product(range(anchors), repeat=tau):
        for labels in itertools.product(range(classes), repeat=tau):
            picks = list(rows), list(labels)
            true = truth[picks].sum()
            mixed = np.log(np.sum(weights * np.exp(ours[:, picks[0], picks[1]].sum(axis=1))))
            total += np.exp(true) * anchors**-tau * (true - mixed)
    return total


@pytest.mark.parametrize(("tau", "classes", "kappa"), [(1, 3, 2), (3, 2, 2), (2, 3, 2), (3, 2, 1)])
def test_joint_kl_is_what_enumeration_gives(tau, classes, kappa):
    problem = linear_problem(classes)
    exam = sample_exam(KEY, problem, taus=(tau,), groups=2, kappa=kappa)
    ours = random_functions(0, 4, 2 * kappa, classes)
    got = joint_kl(ours, exam.log_true, exam.tables[0])
    each = [
        brute_force(ours[:, rows], exam.log_true[rows], tau)
        for rows in (slice(0, kappa), slice(kappa, 2 * kappa))
    ]
    np.testing.assert_allclose(got.value, np.mean(each), atol=1e-5)
    np.testing.assert_allclose(got.error, abs(each[0] - each[1]) / 2, atol=1e-5)


def test_weighted_functions_are_a_weighted_mixture():
    exam = sample_exam(KEY, linear_problem(2), taus=(2,), groups=1)
    ours = random_functions(0, 3, 2, 2)
    log_weights = jnp.log(jnp.array([0.5, 0.3, 0.2]))
    got = joint_kl(ours, exam.log_true, exam.tables[0], log_weights=log_weights)
    expected = brute_force(ours, exam.log_true, 2, log_weights)
    np.testing.assert_allclose(got.value, expected, atol=1e-5)
    whole = joint_kl(ours, exam.log_true, exam.tables[0], log_weights=log_weights, finite=True)
    assert whole.bias == 0 < got.bias  # all the functions there are, or some drawn of many
    doubled = ours[jnp.array([0, 0, 0, 0, 0, 1, 1, 1, 2, 2])]
    numbers, _ = grade(ours, exam, log_weights=log_weights)
    same, _ = grade(doubled, exam)
    np.testing.assert_allclose(numbers["kl"], same["kl"], atol=1e-6)
    np.testing.assert_allclose(numbers["ece"], same["ece"], atol=1e-6)


def test_drawn_tables_agree_with_listed_ones(monkeypatch):
    problem, ours = linear_problem(2), random_functions(2, 8, 40, 2)
    listed = sample_exam(KEY, problem, taus=(6,), groups=20)
    monkeypatch.setattr(problems, "TABLES", 0)
    drawn = problems.sample_exam(KEY, problem, taus=(6,), groups=20, draws=2000)
    assert drawn.tables[0].counts.shape == (20, 2000, 2, 2)
    exact = joint_kl(ours, listed.log_true, listed.tables[0])
    sampled = joint_kl(ours, drawn.log_true, drawn.tables[0])
    np.testing.assert_allclose(sampled.value, exact.value, atol=0.03)


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 1000), scale=st.sampled_from([0.1, 1.0, 5.0]))
def test_one_row_together_is_the_marginal(seed, scale):
    exam = sample_exam(jax.random.key(seed), linear_problem(3), taus=(1,), groups=4)
    ours = random_functions(seed, 3, 8, 3, scale)
    joint = joint_kl(ours, exam.log_true, exam.tables[0])
    marginal = marginal_kl(ours, exam.log_true)
    np.testing.assert_allclose(joint.value, marginal, atol=1e-5, rtol=1e-5)


@pytest.fixture(scope="module")
def exam():
    return sample_exam(KEY, linear_problem(2), taus=(1, 10, 100), groups=30, draws=16)


def test_the_generator_itself_has_no_kl_and_no_calibration_error(exam):
    numbers, joint = grade(exam.log_true[None], exam)
    np.testing.assert_allclose([numbers["kl"], numbers["ece"]], 0, atol=1e-6)
    np.testing.assert_allclose([kl.value for kl in joint], 0, atol=1e-4)
    best = np.mean(np.max(np.exp(exam.log_true), axis=1))
    np.testing.assert_allclose(numbers["accuracy"], best, rtol=1e-6)


def test_one_function_pays_for_every_row(exam):
    """Certain of itself: KL of tau rows is tau times that of one."""
    ours = random_functions(3, 1, 60, 2)
    numbers, joint = grade(ours, exam, finite=True)
    np.testing.assert_allclose(joint[0].value, numbers["kl"], rtol=1e-5)
    np.testing.assert_allclose(joint[1].value, 10 * numbers["kl"], rtol=1e-4)


def test_a_mixture_with_the_truth_pays_for_finding_it_once(exam):
    """Half the weight on the generator: at most log 2 nats, however many rows."""
    ours = jnp.concatenate([exam.log_true[None], random_functions(4, 1, 60, 2)])
    _, joint = grade(ours, exam, finite=True)
    assert 0 < joint[1].value < joint[2].value <= math.log(2) + 1e-4
    assert joint[2].value > 0.9 * math.log(2)


def test_halves_tell_the_excess_of_finitely_many_functions(exam):
    """Against the same agent with thousands of functions, averaged over draws."""
    tables = exam.tables[1]

    def kl(seed, count):
        noise = 0.3 * jax.random.normal(jax.random.key(seed), (count, 60, 2))
        log_probs = jax.nn.log_softmax(exam.log_true[None] + noise, axis=-1)
        return joint_kl(log_probs, exam.log_true, tables)

    exact = kl(0, 8000).value
    few = jax.lax.map(lambda seed: jnp.stack(kl(seed, 16)), jnp.arange(1, 60))
    mean, spread = jnp.mean(few, axis=0), jnp.std(few[:, 0] - few[:, 2]) / math.sqrt(59)
    assert mean[0] > exact + 5 * spread  # too high uncorrected
    np.testing.assert_allclose(mean[0] - mean[2], exact, atol=max(4 * float(spread), 0.01))


def test_saturated_predictions_give_finite_scores(exam):
    certain = jnp.stack([jnp.zeros(60), jnp.full(60, -jnp.inf)], axis=-1)[None]
    numbers, joint = grade(jnp.concatenate([certain, certain]), exam)
    values = [*numbers.values(), *(leaf for kl in joint for leaf in kl)]
    assert all(np.isfinite(np.asarray(value)).all() for value in values)
    assert numbers["kl"] > 1e6


def test_calibration_error_is_the_packages_own_without_label_noise():
    """With certain labels both definitions are one."""
    log_true = jnp.log(jax.nn.one_hot(jnp.arange(200) % 3, 3))
    ours = random_functions(7, 2, 200, 3)
    expected = metrics.proper_scores(
        metrics.tally(np.asarray(jax.nn.logsumexp(ours, axis=0) - jnp.log(2)), np.exp(log_true))
    )
    got = scores.calibration_error(ours, log_true)
    np.testing.assert_allclose(got, expected["ece"], atol=1e-5)


def test_selection_regret():
    kl = jnp.array([[0.5, 0.3, 0.1], [0.2, 0.2, 0.1]])
    np.testing.assert_allclose(
        scores.selection_regret(kl, jnp.array([0.1, 0.1])),
        [[0.4, 0.6, 0.6], [0.1, 0.2, 0.2]],
        rtol=1e-5,
    )
    np.testing.assert_allclose(scores.selection_regret(kl[0]), [0.5, 0.8, 0.9], rtol=1e-5)

"""The stated biases of scores, against expectations over every draw there could have been."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from enn_finetune.testbed import floor, problems, scores
from enn_finetune.testbed.problems import Problem, Tables
from enn_finetune.testbed.types import Data, Spec

TRUTH = np.log([[0.3, 0.7]])
TWO = np.log([[0.2, 0.8], [0.7, 0.3]])  # functions that an agent draws, each half of the time

excess = jax.jit(jax.vmap(scores.marginal_excess, (0, None)))
marginal = jax.jit(
    jax.vmap(lambda drawn, truth: jnp.mean(scores.marginal_kl(drawn, truth)), (0, None))
)


def kl_of(mean):
    """KL of a Bernoulli truth from mean probabilities (..., 2), in float64."""
    return np.sum(np.exp(TRUTH[0]) * (TRUTH[0] - np.log(mean)), axis=-1)


def expected_kl(count):
    """Of the mean of so many draws, over how often the second function is among them."""
    seconds = np.arange(count + 1)
    chances = np.array([math.comb(count, n) for n in seconds]) / 2.0**count
    share = (seconds / count)[:, None]
    return np.sum(chances * kl_of(np.exp(TWO[0]) * (1 - share) + np.exp(TWO[1]) * share))


@pytest.mark.parametrize("count", [4, 32])
def test_halves_find_the_excess_of_the_marginal_kl(count):
    """Unbiased for KL(K / 2) - KL(K), which is the excess but for terms of 1 / K^2."""
    keys = jax.random.split(jax.random.key(0), 4000)
    which = jax.vmap(lambda key: jax.random.bernoulli(key, 0.5, (count,)))(keys).astype(int)
    drawn = jnp.asarray(TWO, jnp.float32)[which][:, :, None]  # (draws, K, 1, C)
    found, kl = excess(drawn, TRUTH), marginal(drawn, TRUTH)
    error = float(jnp.std(found)) / 4000**0.5
    by_halves = expected_kl(count // 2) - expected_kl(count)
    np.testing.assert_allclose(jnp.mean(found), by_halves, atol=4 * error + 1e-6)
    true_excess = expected_kl(count) - kl_of(np.exp(TWO).mean(0))
    np.testing.assert_allclose(by_halves, true_excess, rtol=1.5 / count)
    noise = float(jnp.std(kl - found)) / 4000**0.5
    corrected = jnp.mean(kl - found)
    np.testing.assert_allclose(corrected, kl_of(np.exp(TWO).mean(0)), atol=4 * noise + 1 / count**2)
    assert true_excess > 10 * error  # or the test could not tell


def test_all_functions_or_a_single_one_have_no_excess():
    drawn = jnp.asarray(TWO, jnp.float32)[:, None]
    assert scores.marginal_excess(drawn, TRUTH, finite=True) == 0
    assert scores.marginal_excess(drawn[:1], TRUTH) == 0
    np.testing.assert_allclose(
        scores.marginal_excess(drawn, TRUTH),
        np.mean(kl_of(np.exp(TWO))) - kl_of(np.exp(TWO).mean(0)),
        rtol=1e-4,
    )


@pytest.mark.parametrize("how", ["drawn", "weighted", "finite"])
def test_the_excess_of_a_row_is_that_of_a_group_of_one(how):
    keys = jax.random.split(jax.random.key(3), 2)
    drawn = jax.nn.log_softmax(2 * jax.random.normal(keys[0], (6, 4, 3)))
    weights = jax.nn.log_softmax(jax.random.normal(keys[1], (6,))) if how == "weighted" else None
    problem = Problem(((jnp.ones((2, 3)), jnp.arange(3.0)),), jnp.float32(1))
    exam = problems.sample_exam(keys[0], problem, (1,), groups=2)
    numbers, joint = scores.grade(drawn, exam, log_weights=weights, finite=how == "finite")
    assert (numbers["kl_bias"] > 1e-3) == (how != "finite")
    np.testing.assert_allclose(numbers["kl_bias"], joint[0].bias, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("rows", [200, 300])
def test_the_calibration_error_of_finitely_many_rows_is_as_stated(rows):
    """A calibrated agent whose guesses are right or wrong for certain: it should be 0."""

    def error(key):
        confidence_key, key = jax.random.split(key)
        confidence = jax.random.uniform(confidence_key, (rows,), minval=0.5, maxval=1.0)
        right = jax.random.uniform(key, (rows,)) < confidence
        ours = jnp.log(jnp.stack([confidence, 1 - confidence], axis=-1))
        truth = jnp.where(right[:, None], jnp.array([[0.0, -50.0]]), jnp.array([[-50.0, 0.0]]))
        return scores.calibration_error(ours[None], truth)

    found = jax.vmap(error)(jax.random.split(jax.random.key(0), 400))
    assert jnp.mean(found) == pytest.approx({200: 0.062, 300: 0.052}[rows], abs=0.003)
    assert jnp.mean(found) < math.sqrt(8 * 0.25 / rows)


@pytest.mark.parametrize("tau", [1, 3])
def test_the_floors_excess_is_that_of_a_ratio_of_means(tau):
    """P particles of two kinds, by importance weights: expectations over how many of each."""
    particles, weights = 200, np.array([1.0, 0.2])
    counts = jnp.asarray([[[[tau, 0]], [[0, tau]]]], jnp.float32)  # (1, R, kappa = 1, C)
    tables = Tables(counts, jnp.asarray([[0.25, 0.75]]))
    exact_mix = weights / weights.sum()
    firsts = np.arange(1, particles)
    chances = np.array([math.comb(particles, int(n)) for n in firsts], float) / 2.0**particles

    @jax.jit
    @jax.vmap
    def graded(first):
        second = jnp.arange(particles) >= first
        log_weights = jnp.log(jnp.where(second, weights[1], weights[0]))
        drawn = jnp.where(second[:, None, None], TWO[1][None, None], TWO[0][None, None])
        log_weights = log_weights - jax.nn.logsumexp(log_weights)
        return scores.joint_kl(drawn, jnp.asarray(TRUTH), tables, log_weights=log_weights)

    found = graded(jnp.asarray(firsts))
    mixed = np.log(exact_mix @ np.exp(tau * TWO))  # (R,) of rows that all have the same label
    exact = np.sum(np.array([0.25, 0.75]) * (tau * TRUTH[0] - mixed))
    true_excess = np.sum(chances * np.asarray(found.value, float)) - exact
    estimate = np.sum(chances * np.asarray(found.bias, float))
    assert true_excess > 1e-4
    np.testing.assert_allclose(estimate, true_excess, rtol=0.1)


def test_effective_size_is_of_particles_that_the_group_leaves():
    """One of four equal particles explains the labels: of four, one is left."""
    drawn = jnp.asarray(np.log([[[0.5, 0.5]], [[1e-6, 1]], [[1e-6, 1]], [[1e-6, 1]]]), jnp.float32)
    tables = Tables(jnp.asarray([[[[5.0, 0.0]]]]), jnp.ones((1, 1)))
    log_weights = jnp.full(4, -math.log(4))
    found = scores.joint_kl(drawn, jnp.asarray(TRUTH), tables, log_weights=log_weights)
    assert found.size == pytest.approx(1, rel=1e-3)
    assert found.bias == pytest.approx((1 - 1 / 4) / 2, rel=1e-3)
    unequal = joint = jnp.log(jnp.array([0.7, 0.1, 0.1, 0.1]))
    same = jnp.broadcast_to(drawn[:1], drawn.shape)
    found = scores.joint_kl(same, jnp.asarray(TRUTH), tables, log_weights=unequal)
    assert found.size == pytest.approx(1 / float(jnp.sum(jnp.exp(2 * joint))), rel=1e-3)
    assert found.bias == pytest.approx(0, abs=1e-6)


@pytest.mark.slow
def test_fewer_particles_are_worse_by_the_stated_excess():
    """A real posterior of few particles against one of many, over many draws of the few."""
    spec = Spec(input_dim=1, temperature=0.2, hidden=4)
    keys = jax.random.split(jax.random.key(4), 4)
    problem: Problem = problems.sample_problem(keys[0], spec)
    data: Data = problems.sample_data(keys[1], problem, 6)
    exam = problems.sample_exam(keys[2], problem, (10,), groups=20)

    def kl(key, particles):
        found = floor.posterior(
            key, spec, data, jnp.ones(6), particles=particles, keep=particles, chunk=60
        )
        drawn = floor.log_probs(found, exam.x)
        one = scores.joint_kl(
            drawn, exam.log_true, exam.tables[0], log_weights=found.log_weights
        )  # fmt: skip
        return one.value, one.bias

    exact, _ = jax.jit(lambda key: kl(key, 30_000))(keys[3])
    few, bias = jax.jit(lambda given: jax.lax.map(lambda key: kl(key, 60), given))(
        jax.random.split(keys[3], 150)
    )
    noise = float(jnp.std(few)) / 150**0.5
    assert jnp.mean(few) > exact + 3 * noise
    np.testing.assert_allclose(jnp.mean(few) - exact, jnp.mean(bias), rtol=0.2, atol=4 * noise)

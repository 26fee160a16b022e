"""The generator is the testbed's, data are its own, and label tables are what they say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from enn_finetune.testbed import problems
from enn_finetune.testbed.types import Spec

KEY = jax.random.key(0)

# One program each: operation by operation, most of the time would be compiling.
sample_problem = jax.jit(problems.sample_problem)
sample_data = jax.jit(problems.sample_data, static_argnames="rows")
sample_exam = jax.jit(problems.sample_exam, static_argnames=("taus", "groups", "kappa", "draws"))
true_log_probs = jax.jit(problems.true_log_probs)


@pytest.fixture(scope="module")
def problem():
    return sample_problem(KEY, Spec(input_dim=2, classes=2, temperature=0.3))


def test_rows_are_ratio_times_dimension():
    assert Spec(input_dim=10, ratio=10).rows == 100
    assert Spec(input_dim=2, ratio=0.1).rows == 1


def test_generator_has_the_testbeds_initialisation():
    spec = Spec(input_dim=4, classes=3)
    many = jax.vmap(lambda k: sample_problem(k, spec))(jax.random.split(KEY, 200))
    shapes = [weights.shape[1:] for weights, _ in many.layers]
    assert shapes == [(4, 50), (50, 50), (50, 3)]
    for weights, _ in many.layers:
        scale = weights.shape[1] ** -0.5
        assert np.abs(weights).max() <= 2 * scale
        assert np.std(weights) == pytest.approx(0.8796 * scale, rel=0.03)  # cut off at two scales
    first, *others = (biases for _, biases in many.layers)
    assert np.std(first) == pytest.approx(0.5, rel=0.03)  # 1 / sqrt(d)
    assert all(np.all(np.asarray(biases) == 0) for biases in others)


def test_temperature_divides_the_logits_and_may_be_traced():
    def gap(temperature):
        spec = Spec(temperature=temperature)
        log_probs = true_log_probs(sample_problem(KEY, spec), jnp.ones((1, 2)))
        return log_probs[0, 1] - log_probs[0, 0]

    gaps = jax.vmap(gap)(jnp.array([0.1, 0.5]))
    np.testing.assert_allclose(gaps[0] * 0.1, gaps[1] * 0.5, rtol=1e-5)


def test_more_rows_start_with_the_same_rows(problem):
    few, many = sample_data(KEY, problem, rows=5), sample_data(KEY, problem, rows=9)
    np.testing.assert_array_equal(few.x, many.x[:5])
    np.testing.assert_array_equal(few.y, many.y[:5])


def test_labels_follow_the_generator(problem):
    data = sample_data(KEY, problem, rows=4000)
    np.testing.assert_allclose(np.std(data.x, axis=0), 1, atol=0.05)
    expected = np.exp(true_log_probs(problem, data.x)[:, 1])
    noise = np.sqrt(np.sum(expected * (1 - expected)))
    assert abs(np.sum(data.y) - expected.sum()) < 4 * noise
    high = expected > np.median(expected)  # and row by row, not only in number
    assert np.mean(np.asarray(data.y)[high]) > np.mean(np.asarray(data.y)[~high]) + 0.1


@pytest.fixture(scope="module")
def exam(problem):
    return sample_exam(KEY, problem, taus=(1, 3, 40), groups=6, draws=500)


def test_tables_sum_to_tau_and_weights_to_one(exam):
    for tau, tables in zip((1, 3, 40), exam.tables, strict=True):
        np.testing.assert_allclose(np.sum(tables.counts, axis=(2, 3)), tau)
        np.testing.assert_allclose(np.sum(tables.weights, axis=1), 1, rtol=1e-5)
        assert tables.weights.shape[0] == 6


def test_listed_tables_are_all_different_and_drawn_ones_are_drawn(exam):
    one, three, many = exam.tables
    assert one.counts.shape[:2] == (1, 4)
    assert three.counts.shape[:2] == (1, 20)  # C(3 + 3, 3)
    assert len(np.unique(three.counts[0].reshape(20, -1), axis=0)) == 20
    assert many.counts.shape[:2] == (6, 500)


def test_tables_have_the_generators_means(exam):
    """Each cell of a group's table holds tau / kappa * P(label | anchor) on average."""
    probs = np.exp(exam.log_true).reshape(6, 2, 2)
    for tau, tables in zip((1, 3, 40), exam.tables, strict=True):
        means = np.einsum(
            "gr,grac->gac",
            tables.weights,
            jnp.broadcast_to(tables.counts, (6, *tables.counts.shape[1:])),
        )
        tolerance = 1e-4 if tau < 40 else 5 * np.sqrt(tau * 0.25 / 500)
        np.testing.assert_allclose(means, tau / 2 * probs, atol=tolerance)


def test_polyadic_groups_have_kappa_anchors(problem):
    exam = sample_exam(KEY, problem, taus=(2,), groups=3, kappa=5)
    assert exam.x.shape == (15, 2)
    assert exam.tables[0].counts.shape[2:] == (5, 2)

"""The regression against scikit-learn, and on the inputs that break Newton's method."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enn_finetune.models.softmax_regression import (
    conjugate_gradients,
    fit_rotated,
    fit_softmax_regression,
    hessian,
    rotate,
    with_bias,
)

fit = jax.jit(fit_softmax_regression)


def problem(n: int, features: int, classes: int, *, sharpness: float = 1.0, seed: int = 0):
    """Rows, integer labels (every class at least once) and their one-hot targets."""
    rng = np.random.default_rng(seed)
    x = (rng.normal(size=(n, features)) / np.sqrt(features)).astype(np.float32)
    logits = sharpness * 3 * x @ rng.normal(size=(features, classes))
    labels = np.argmax(logits + rng.gumbel(size=(n, classes)), axis=1)
    labels[:classes] = np.arange(classes)
    return x, labels, np.eye(classes, dtype=np.float32)[labels]


def sklearn_coefficients(x, labels, classes, l2, weights=None):
    linear_model = pytest.importorskip("sklearn.linear_model")
    model = linear_model.LogisticRegression(
        C=(2 if classes == 2 else 1) / l2, fit_intercept=False, tol=1e-10, max_iter=20_000
    ).fit(x.astype(np.float64), labels, weights)
    coefficients = model.coef_.T
    if classes == 2:
        coefficients = np.concatenate([-coefficients, coefficients], axis=1) / 2
    return coefficients, model.predict_proba(x)


@pytest.mark.parametrize(
    ("n", "features", "classes", "l2", "sharpness"),
    [
        (60, 12, 2, 1.0, 1),
        (60, 12, 2, 1e-2, 20),  # near separable
        (6, 4, 2, 1e-2, 1),
        (20, 60, 2, 0.1, 3),
        (80, 12, 5, 0.3, 3),
        (80, 12, 5, 1e-2, 20),
        (25, 60, 4, 0.1, 1),
        (7, 30, 5, 1e-2, 1),
    ],
)
def test_coefficients_and_probabilities_are_scikit_learns(n, features, classes, l2, sharpness):
    x, labels, targets = problem(n, features, classes, sharpness=sharpness)
    expected, probs = sklearn_coefficients(x, labels, classes, l2)
    got = fit(x, targets, np.ones(n, np.float32), l2)
    scale = max(1, np.abs(expected).max())
    np.testing.assert_allclose(got.coefficients, expected, atol=1e-4 * scale)
    np.testing.assert_allclose(jax.nn.softmax(x @ got.coefficients), probs, atol=1e-4)


def test_weights_are_scikit_learns_and_a_weight_of_two_is_a_duplicate():
    x, labels, targets = problem(40, 6, 3)
    weights = np.random.default_rng(1).integers(1, 4, size=40).astype(np.float32)
    got = fit(x, targets, weights, 0.2)
    expected, _ = sklearn_coefficients(x, labels, 3, 0.2, weights)
    np.testing.assert_allclose(got.coefficients, expected, atol=1e-4 * np.abs(expected).max())
    repeated = np.repeat(np.arange(40), weights.astype(int))
    again = fit(x[repeated], targets[repeated], np.ones(len(repeated), np.float32), 0.2)
    np.testing.assert_allclose(got.coefficients, again.coefficients, atol=2e-4)
    np.testing.assert_allclose(got.objective, again.objective, rtol=1e-5)


@pytest.mark.parametrize("features", [6, 60])  # fewer and more columns than rows
def test_padding_does_not_matter_whatever_it_holds(features):
    x, _, targets = problem(20, features, 3)
    padded_x = np.concatenate([x, np.full((12, features), np.nan, np.float32)])
    padded_targets = np.concatenate([targets, np.full((12, 3), np.nan, np.float32)])
    weights = np.concatenate([np.ones(20, np.float32), np.zeros(12, np.float32)])
    got, expected = fit(padded_x, padded_targets, weights, 0.1), fit(x, targets, weights[:20], 0.1)
    np.testing.assert_allclose(got.coefficients, expected.coefficients, atol=2e-4)


@settings(deadline=None, max_examples=10)
@given(
    seed=st.integers(0, 2**16),
    l2=st.floats(1e-2, 100),
    sharpness=st.floats(0, 30),
    scale=st.sampled_from([1e-3, 1.0, 30.0]),
)
def test_the_gradient_vanishes_and_rows_of_coefficients_sum_to_zero(seed, l2, sharpness, scale):
    x, _, _ = problem(30, 8, 4, sharpness=sharpness, seed=seed)
    x = x * scale
    targets = np.random.default_rng(seed).dirichlet(np.ones(4), size=30).astype(np.float32)
    weights = np.random.default_rng(seed).uniform(0, 2, size=30).astype(np.float32)
    got = fit(x, targets, weights, l2)
    w = np.asarray(got.coefficients, np.float64)
    probs = np.asarray(jax.nn.softmax(x @ got.coefficients), np.float64)
    gradient = x.T.astype(np.float64) @ (weights[:, None] * (probs - targets)) + l2 * w
    # The excess of a strongly convex function is at most |gradient|^2 / (2 lambda).
    assert np.sum(gradient**2) / (2 * l2) < 1e-5 * (1 + float(got.objective))
    np.testing.assert_allclose(w.sum(axis=1), 0, atol=1e-5 * (1 + np.abs(w).max()))


def degenerate():
    x, _, targets = problem(12, 5, 3)
    one_class = np.tile(np.float32([0, 1, 0]), (12, 1))
    return {
        "one class": (x, one_class, 1e-3),
        "one class, huge rows": (1e4 * x, one_class, 1e-3),
        "huge rows": (1e4 * x, targets, 1e-3),
        "tiny rows": (1e-6 * x, targets, 1.0),
        "no content": (np.zeros_like(x), targets, 1e-3),
        "all rows equal": (np.tile(x[:1], (12, 1)), targets, 1e-3),
        "one row": (x[:1], targets[:1], 1e-3),
        "equal columns": (np.tile(x[:, :1], (1, 5)), targets, 1e-2),
    }


@pytest.mark.parametrize("case", degenerate())
def test_degenerate_inputs_give_finite_fits_that_improve_on_nothing(case):
    x, targets, l2 = degenerate()[case]
    x = with_bias(x)
    got = fit(x, targets, np.ones(len(x), np.float32), l2)
    assert np.isfinite(got.coefficients).all()
    assert float(got.objective) <= len(x) * np.log(3) * (1 + 1e-5)
    assert int(got.steps) < 40 or float(got.decrement) < 1e-5  # rounding, not a search that fails
    if case.startswith("one class"):
        probs = jax.nn.softmax(x @ got.coefficients)
        assert float(probs[:, 1].min()) > 0.9


def test_no_rows_at_all_give_zero():
    got = fit(
        np.ones((4, 3), np.float32), np.eye(2, dtype=np.float32)[[0, 1, 0, 1]], np.zeros(4), 1
    )
    np.testing.assert_array_equal(got.coefficients, 0)


def test_a_warm_start_ends_at_the_same_place_sooner():
    x, _, targets = problem(50, 8, 3)
    weights = jnp.ones(50)
    rotated = rotate(jnp.asarray(x), weights)
    cold = fit_rotated(rotated, targets, weights, 0.1, jnp.zeros((8, 3)))
    warm = fit_rotated(rotated, targets, weights, 0.1, cold.coefficients)
    np.testing.assert_allclose(warm.coefficients, cold.coefficients, atol=1e-4)
    assert int(warm.steps) <= 1 < int(cold.steps)
    np.testing.assert_allclose(
        rotated.basis @ cold.coefficients, fit(x, targets, weights, 0.1).coefficients, atol=1e-4
    )


def test_vmap_over_seeds_and_over_a_lambda_grid():
    problems = [problem(30, 6, 3, seed=seed) for seed in range(3)]
    x, targets = (jnp.stack([p[i] for p in problems]) for i in (0, 2))
    grid = jnp.array([3.0, 0.3, 0.03])
    over_grid = jax.vmap(fit_softmax_regression, (None, None, None, 0))
    both = jax.jit(jax.vmap(over_grid, (0, 0, None, None)))(x, targets, jnp.ones(30), grid)
    assert both.coefficients.shape == (3, 3, 6, 3)
    for seed in range(3):
        for level in range(3):
            alone = fit(x[seed], targets[seed], jnp.ones(30), grid[level])
            np.testing.assert_allclose(
                both.coefficients[seed, level], alone.coefficients, atol=1e-4, rtol=1e-3
            )


def test_the_hessian_is_the_objectives():
    x, _, targets = problem(10, 4, 3)
    w = jax.random.normal(jax.random.key(0), (4, 3))
    weights = jnp.linspace(0.5, 2, 10)

    def objective(w):
        log_probs = jax.nn.log_softmax(x @ w)
        return -jnp.sum(weights[:, None] * targets * log_probs) + 0.15 * jnp.sum(w**2)

    v = jax.random.normal(jax.random.key(1), (4, 2, 3))
    product = hessian(jnp.asarray(x), jax.nn.softmax(x @ w), weights, 0.3)
    for i in range(2):
        expected = jax.jvp(jax.grad(objective), (w,), (v[:, i],))[1]
        np.testing.assert_allclose(product(v)[:, i], expected, rtol=1e-4, atol=1e-5)
    solved = conjugate_gradients(product, v, jnp.ones(4), tolerance=1e-6)
    np.testing.assert_allclose(product(solved), v, atol=1e-4)


def test_no_recompilation():
    traces = []

    @jax.jit
    def counted(*arguments):
        traces.append(1)
        return fit_softmax_regression(*arguments)

    for seed in range(3):
        x, _, targets = problem(16, 4, 3, seed=seed)
        counted(x, targets, np.ones(16, np.float32), 0.1 + seed)
    assert len(traces) == 1

"""Factors against the covariances they stand for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from strategies import FEW, log_probs, seeded_log_probs

from enn_finetune.acquisition import kernels
from enn_finetune.acquisition.kernels import (
    Factors,
    Gradients,
    gradients,
    indices,
    last_layer,
    sum_blocks,
)

K, N, D = 5, 7, 3
ALL = jnp.ones(N, bool)
read = jax.jit(lambda kernel, lp, x: kernel.read(lp, x), static_argnums=0)
factors_of = jax.jit(
    lambda kernel, kept, free: kernel.factors_of(kept, free, None)(kept), static_argnums=0
)
reading_of = jax.jit(kernels._reading)
summed = jax.jit(lambda x: sum_blocks(lambda some: some.T @ some, x, None))


def features(seed: int, rows: int = N, width: int = D) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=(rows, width)), jnp.float32)


def test_of_two_classes_the_covariance_is_that_of_the_probabilities_over_both():
    lp = seeded_log_probs(0, K, N, 2)
    found = read(indices, jnp.asarray(lp), features(0))
    probs = np.exp(lp.astype(np.float64))
    deviations = probs - probs.mean(0)
    expected = np.einsum("knc,kmc->nm", deviations, deviations) / K
    np.testing.assert_allclose(found.factors @ found.factors.T, expected, atol=1e-6)
    np.testing.assert_allclose(found.noise, (probs * (1 - probs)).mean(0).sum(-1), rtol=1e-5)


def shares(lp: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Epistemic and total covariance (N, C, C) of the one-hot label."""
    probs = np.exp(lp.astype(np.float64))
    mean, deviations = probs.mean(0), probs - probs.mean(0)
    epistemic = np.einsum("knc,knd->ncd", deviations, deviations) / len(probs)
    eye = np.eye(mean.shape[1])[None]
    return epistemic, mean[:, :, None] * (eye - mean[:, None, :])


@pytest.mark.parametrize("classes", [3, 4, 9])
def test_the_reading_of_a_label_is_the_one_that_the_index_explains_best(classes):
    lp = seeded_log_probs(1, 40, N, classes)
    found = read(indices, jnp.asarray(lp), features(0))
    signal = (np.asarray(found.factors, np.float64) ** 2).sum(-1)
    share = signal / (signal + np.asarray(found.noise))
    for row, (epistemic, total) in enumerate(zip(*shares(lp), strict=True)):
        best = np.linalg.eigvals(np.linalg.pinv(total) @ epistemic).real.max()
        assert 0.9 * best < share[row] <= 1.0001 * best


def test_the_reading_has_norm_1_and_its_two_variances_add_up_to_the_total():
    lp = seeded_log_probs(2, K, N, 4)
    probs = jnp.exp(jnp.asarray(lp))
    mean = probs.mean(0)
    reading = np.asarray(reading_of(mean, probs - mean[None]), np.float64)
    np.testing.assert_allclose((reading**2).sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(reading.sum(1), 0, atol=1e-5)
    found = read(indices, jnp.asarray(lp), features(0))
    total = np.einsum("nc,ncd,nd->n", reading, shares(lp)[1], reading)
    np.testing.assert_allclose((found.factors**2).sum(1) + found.noise, total, rtol=1e-5)


@jax.jit
def every_factors(lp: jax.Array, x: jax.Array) -> list[Factors]:
    kept = [(kernel, kernel.read(lp, x)) for kernel in (indices, last_layer, gradients)]
    return [kernel.factors_of(some, ALL, None)(some) for kernel, some in kept]


@FEW
@given(lp=log_probs(K, N, 3))
def test_factors_of_any_predictions_are_finite_and_no_noise_is_0(lp):
    for found in every_factors(lp, features(0)):
        assert np.isfinite(found.factors).all()
        assert (np.asarray(found.noise) >= kernels.NOISE_FLOOR).all()
        assert np.isfinite(found.noise).all()


def test_where_no_index_disagrees_the_factors_are_0():
    for classes in (1, 2, 4):
        lp = np.repeat(seeded_log_probs(3, 1, N, classes), K, axis=0)
        found = read(indices, jnp.asarray(lp), features(0))
        np.testing.assert_allclose(found.factors, 0, atol=1e-7)


def test_last_layer_noise_is_fishers_and_the_prior_has_its_variance_on_free_rows():
    lp, x = seeded_log_probs(4, K, N, 3), features(1)
    kept = read(last_layer, jnp.asarray(lp), x)
    free = jnp.arange(N) < 4
    found = factors_of(last_layer, kept, free)
    probs = np.exp(lp)
    q = probs[:, np.arange(N), probs.mean(0).argmax(1)]
    np.testing.assert_allclose(found.noise, 1 / (q * (1 - q)).mean(0), rtol=1e-5)
    variances = (np.asarray(found.factors) ** 2).sum(1)
    np.testing.assert_allclose(variances[:4].mean(), kernels.LOGIT_VARIANCE, rtol=1e-5)
    direction = np.asarray(found.factors) / np.asarray(x)
    np.testing.assert_allclose(direction, direction[0, 0], rtol=1e-5)


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_gradients_in_the_basis_have_the_inner_products_of_those_written_out(classes):
    lp, x = seeded_log_probs(5, K, N, classes), features(2)
    kept = read(gradients, jnp.asarray(lp), x)
    found = factors_of(gradients, kept, ALL)
    probs = np.exp(lp.astype(np.float64)).mean(0)
    residuals = probs - np.eye(classes)[probs.argmax(1)]
    written = np.einsum("nc,nd->ncd", residuals, np.asarray(x, np.float64)).reshape(N, -1)
    scale = kernels.LOGIT_VARIANCE / np.mean((np.asarray(x) ** 2).sum(1))
    expected = scale * written @ written.T
    np.testing.assert_allclose(found.factors @ found.factors.T, expected, atol=1e-5)
    assert found.factors.shape == (N, (classes - 1) * D)
    expected = (residuals**2).sum() / (1 - (probs**2).sum(1)).sum()
    np.testing.assert_allclose(found.noise, expected, rtol=1e-4)


def test_gradients_of_many_classes_keep_the_leading_directions_of_the_residuals():
    width, classes = kernels.RANK // 2, 6
    rng = np.random.default_rng(6)
    residuals = rng.normal(size=(N, 2)) @ rng.normal(size=(2, classes))  # of rank 2
    residuals += 1e-4 * rng.normal(size=residuals.shape)
    kept = Gradients(jnp.asarray(residuals, jnp.float32), features(3, N, width))
    found = factors_of(gradients, kept, ALL).factors
    assert found.shape == (N, kernels.RANK)
    x = np.asarray(kept.features, np.float64)
    expected = (residuals @ residuals.T) * (x @ x.T)
    expected *= kernels.LOGIT_VARIANCE / np.mean((x**2).sum(1))
    np.testing.assert_allclose(found @ found.T, expected, atol=2e-3 * np.abs(expected).max())


def test_rows_read_in_blocks_get_the_same_factors():
    lp, x = jnp.asarray(seeded_log_probs(7, 3, 5000, 3)), features(4, 5000)
    for kernel in (indices, last_layer, gradients):
        whole, part = read(kernel, lp, x), read(kernel, lp[:, 4990:], x[4990:])
        for one, other in zip(whole, part, strict=True):
            np.testing.assert_allclose(one[4990:], other, atol=1e-5)


@pytest.mark.parametrize("rows", [10, 4096, 9000])
def test_sums_of_blocks_are_sums(rows):
    x = features(5, rows)
    found = summed(x)
    full = np.asarray(x, np.float64)
    np.testing.assert_allclose(found, full.T @ full, rtol=1e-4, atol=1e-2)


def test_padding_of_zeros_has_finite_factors():
    blank = {
        indices: Factors(jnp.zeros((2, K)), jnp.zeros(2)),
        last_layer: kernels.LastLayer(jnp.zeros((2, D)), jnp.zeros(2)),
        gradients: Gradients(jnp.zeros((2, 3)), jnp.zeros((2, D))),
    }
    for kernel, kept in blank.items():
        found = factors_of(kernel, kept, jnp.zeros(2, bool))
        assert not np.any(found.factors)
        assert np.isfinite(1 / np.asarray(found.noise)).all()

"""Conditioning in R dimensions against float64, over long batches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gaussian import Joint
from hypothesis import given, settings
from hypothesis import strategies as st

from enn_finetune.acquisition import conditioning, kernels
from enn_finetune.acquisition.conditioning import (
    alike,
    condition,
    condition_on,
    greedy,
    prepare,
    variances,
)
from enn_finetune.acquisition.kernels import Factors
from enn_finetune.acquisition.transductive import ctl_criterion, itl_criterion, vtl_criterion

R = 6


def rows(seed: int, n: int, width: int = R, noise: float = 0.1) -> Factors:
    rng = np.random.default_rng(seed)
    factors = rng.normal(size=(n, width)) / np.sqrt(width)
    return Factors(
        jnp.asarray(factors, jnp.float32), jnp.asarray(noise * (0.5 + rng.random(n)), jnp.float32)
    )


def posterior(some: Factors) -> np.ndarray:
    phi, noise = np.asarray(some.factors, np.float64), np.asarray(some.noise, np.float64)
    return np.linalg.inv(np.eye(phi.shape[1]) + (phi.T / noise) @ phi)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 999), noise=st.sampled_from([1e-3, 0.1, 10.0]))
def test_conditioning_on_rows_is_the_posterior_of_linear_regression(seed, noise):
    some = rows(seed, 9, noise=noise)
    found = jax.jit(condition_on)(jnp.eye(R), some)
    np.testing.assert_allclose(found, posterior(some), atol=2e-4)
    np.testing.assert_array_equal(found, found.T)


def test_a_label_of_infinite_noise_changes_nothing():
    cov = jnp.asarray(posterior(rows(0, 3)), jnp.float32)
    found, _, _ = condition(cov, rows(1, 1).factors[0], jnp.float32(jnp.inf))
    np.testing.assert_array_equal(found, cov)


def test_a_thousand_conditionings_stay_near_float64_and_symmetric():
    some = rows(2, 1000, 20, noise=2e-3)
    found = jax.jit(condition_on)(jnp.eye(20), some)
    expected = posterior(some)
    np.testing.assert_array_equal(found, found.T)
    np.testing.assert_allclose(found, expected, atol=2e-6)
    kept = np.asarray(variances(found, some.factors)) + np.asarray(some.noise)
    exact = np.einsum("nr,rs,ns->n", some.factors, expected, some.factors) + some.noise
    np.testing.assert_allclose(kept, exact, rtol=5e-3)


@pytest.mark.parametrize(
    "criterion", [itl_criterion(), vtl_criterion, ctl_criterion], ids=["itl", "vtl", "ctl"]
)
def test_tallies_updated_row_by_row_are_those_computed_at_the_end(criterion):
    """The long batch of a small pool: the scores that choose its last rows are still right."""
    some, far = rows(3, 600, 12), rows(4, 8, 12)
    pool, factors_of = prepare(kernels.indices, some, jnp.ones(600, bool), None)
    total = far.factors.T @ far.factors
    state = criterion.start(pool.cov, total, far)
    picked = jax.jit(lambda: greedy(criterion, pool, factors_of, state, 400, None))()
    phi, noise = np.asarray(some.factors, np.float64), np.asarray(some.noise, np.float64)
    joint = Joint(some, far)
    free = np.ones(600, bool)
    for place, row in enumerate(np.asarray(picked)):
        if place in {1, 10, 100, 250, 399}:
            before = np.asarray(picked[:place])
            precision = np.eye(12) + (phi[before].T / noise[before]) @ phi[before]
            exact = fresh_scores(criterion, np.linalg.inv(precision), joint, far)
            best = exact[free].max()
            assert exact[row] >= best - 5e-3 * abs(best), place
        free[row] = False


def fresh_scores(criterion, cov: np.ndarray, joint: Joint, far: Factors) -> np.ndarray:
    """Scores (N,) in float64, from the covariance alone."""
    full = np.asarray(far.factors, np.float64)
    phi = joint.factors
    variance = np.einsum("nr,rs,ns->n", phi, cov, phi)
    cross = phi @ cov @ full.T
    if criterion is vtl_criterion:
        return (cross**2).sum(1) / (variance + joint.noise)
    if criterion is ctl_criterion:
        sd = np.sqrt(np.einsum("nr,rs,ns->n", full, cov, full))
        return (cross / (np.sqrt(variance)[:, None] * sd[None])).sum(1)
    inner = full @ cov @ full.T + np.diag(np.asarray(far.noise, np.float64))
    told = variance - np.einsum("nm,mo,no->n", cross, np.linalg.inv(inner), cross)
    return np.log((variance + joint.noise) / (told + joint.noise)) / 2


def test_pools_are_filled_up_to_whole_blocks_with_rows_that_are_not_free():
    some = rows(5, 5000)
    pool, _ = prepare(kernels.indices, some, jnp.ones(5000, bool), None)
    assert pool.free.shape[0] % 4096 == 0
    np.testing.assert_array_equal(pool.free, np.arange(pool.free.shape[0]) < 5000)


def test_rows_are_alike_up_to_rounding_and_not_beyond():
    x = np.random.default_rng(6).normal(size=(5, 30)).astype(np.float32)
    near = x[0][None] * np.float32([[1], [1 + 1e-6], [1 + 1e-4], [1.05], [-1]])
    norms = jnp.asarray((near**2).sum(1))
    found = alike(norms, jnp.sum(x[0] ** 2), jnp.asarray(near @ x[0]))
    assert found.tolist() == [True, True, True, False, False]
    assert conditioning.LAST < -1e38

"""The sparse approximation of the pool's loss against its objective in numpy."""

import jax.numpy as jnp
import numpy as np
import pytest
from geometric import COUNT, SOME, TIE, C, D, K, assert_greedy, chosen, distances, shown
from hypothesis import given
from hypothesis import strategies as st
from strategies import seeded_log_probs

from enn_finetune.acquisition.pool_loss import ALPHA, BETA, SMALLEST, loss_vectors, pool_loss
from enn_finetune.types import Shown, Targets


def written_out(log_probs) -> tuple[np.ndarray, ...]:
    """In float64: expected losses (n, K), variances (n,), losses of the label held for true."""
    lp = np.asarray(log_probs, np.float64)
    probs = np.exp(lp).mean(0)
    losses = -np.maximum(lp, SMALLEST)
    losses = (losses - losses.mean(0)) / np.sqrt(len(lp))
    expected = np.einsum("nc,knc->nk", probs, losses)
    apart = ((losses - expected.T[:, :, None]) ** 2).sum(0)
    held = np.stack([losses[:, n, c] for n, c in enumerate(probs.argmax(1))])
    return expected, (probs * apart).sum(1), held


def problem(seen: Shown):
    """The matrices of f, with v, alpha and beta."""
    phi, variance, held = written_out(seen.log_probs)
    free = np.asarray(seen.free)
    scale = (phi[free] ** 2).sum(1).mean()
    alpha = ALPHA * scale / (variance[free].mean() or 1)
    mean = phi[free].mean(0)
    if seen.targets is not None:
        mean = written_out(seen.targets.log_probs)[0].mean(0)
    return phi, variance, held, mean, alpha, BETA * scale


def falls(seen: Shown, count: int):
    """How much f falls by each row at its best weight, as `assert_greedy` asks for it."""
    phi, variance, held, mean, alpha, beta = problem(seen)

    def at_best(rest):
        weights = np.maximum(phi @ rest + beta, 0) / np.maximum((phi**2).sum(1) + beta, 1e-300)
        return weights, weights**2 * ((phi**2).sum(1) + beta) + alpha * variance

    def scores(bought, before):
        rest = count * mean
        for row in before:
            rest = rest - at_best(rest)[0][row] * phi[row]
        norms = (held**2).sum(1)
        near = np.minimum(norms, distances(held)[:, bought + before].min(1, initial=np.inf))
        return np.where(norms > 0, near / np.where(norms > 0, norms, 1), 0) * at_best(rest)[1]

    return scores


def test_loss_vectors_are_those_written_out():
    seen = shown(0)
    found = loss_vectors(seen.log_probs, seen.features)
    expected, variance, held = written_out(seen.log_probs)
    np.testing.assert_allclose(found.expected.factors[0], expected, atol=1e-6)
    np.testing.assert_allclose(found.held.factors[0], held, atol=1e-6)
    np.testing.assert_allclose(found.variance, variance, rtol=1e-5)


def test_expectation_and_variance_split_the_mean_squared_norm_of_a_loss():
    """Proposition behind the paper's bound: E q(g)^2 = q(E g)^2 + variance."""
    lp = seeded_log_probs(1, 6, 5, 3)
    phi, variance, _ = written_out(lp)
    wide = np.float64(lp)
    squares = np.einsum("nc,nc->n", np.exp(wide).mean(0), wide.var(0))
    np.testing.assert_allclose((phi**2).sum(1) + variance, squares, rtol=1e-6)


@pytest.mark.parametrize("bought", [0, 3])
@pytest.mark.parametrize("seed", range(5))
def test_each_row_lowers_the_objective_most(bought, seed):
    seen = shown(seed, np.arange(12) >= bought)
    assert_greedy(pool_loss, seen, COUNT, falls(seen, COUNT))


@SOME
@given(
    seed=st.integers(0, 999),
    scale=st.floats(0.5, 4),
    copies=st.lists(st.integers(0, 11), min_size=12, max_size=12),
    free=st.lists(st.booleans(), min_size=12, max_size=12),
)
def test_each_row_lowers_the_objective_most_in_pools_with_duplicates(seed, scale, copies, free):
    mask = np.array(free)
    mask[np.flatnonzero(~mask)[: max(0, COUNT - mask.sum())]] = True
    lp = seeded_log_probs(seed, K, 12, C, scale=scale)[:, copies]
    seen = shown(seed, mask)._replace(log_probs=jnp.asarray(lp))
    assert_greedy(pool_loss, seen, COUNT, falls(seen, COUNT))


def test_the_best_weight_and_the_fall_are_those_of_the_objective():
    """The closed form against f itself on a grid of weights."""
    seen = shown(2)
    phi, variance, _, mean, alpha, beta = problem(seen)
    row = int(chosen(pool_loss, seen, 1)[0])
    weights = np.linspace(0, 5, 50001)
    rest = mean - weights[:, None] * phi[row]
    values = (rest**2).sum(1) + beta * (weights - 1) ** 2 - alpha * variance[row] * (weights > 0)
    at_zero = (mean**2).sum() + beta
    np.testing.assert_allclose(at_zero - values.min(), falls(seen, 1)([], [])[row], rtol=1e-4)


def test_rows_come_to_stand_for_the_targets():
    """Rows whose losses are the targets' come before others that are as uncertain."""
    seen = shown(3, rows=40)
    wanted = [5, 17, 31]
    targets = Targets(jnp.tile(seen.log_probs[:, jnp.array(wanted)], (1, 4, 1)), jnp.zeros((12, D)))
    aimed = seen._replace(targets=targets)
    assert_greedy(pool_loss, aimed, COUNT, falls(aimed, COUNT))

    def left(rows):
        phi = written_out(seen.log_probs)[0]
        mean, some = phi[wanted].mean(0), phi[np.asarray(rows)]
        return ((mean - some.T @ np.linalg.lstsq(some.T, mean, rcond=None)[0]) ** 2).sum()

    assert left(chosen(pool_loss, aimed, 2)) <= left(chosen(pool_loss, seen, 2)) + TIE


def test_a_head_without_spread_gets_rows_in_order():
    lp = np.repeat(seeded_log_probs(4, 1, 12, 3), K, axis=0)
    seen = shown(4)._replace(log_probs=jnp.asarray(lp))
    assert sorted(chosen(pool_loss, seen, 12).tolist()) == list(range(12))

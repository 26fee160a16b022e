"""Log-determinants and traces against brute force; lazy search against looking at every row."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gaussian import Joint, check_batch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import log_probs, seeded_log_probs

from enn_finetune.acquisition import closed_form
from enn_finetune.acquisition.closed_form import condvar, logdet
from enn_finetune.acquisition.kernels import NOISE_FLOOR, Factors
from enn_finetune.types import BatchRule

K, N, C, COUNT = 5, 14, 3, 8
KEY = jax.random.key(0)
pick = jax.jit(
    lambda rule, kept, free, count, far=None: rule.pick(kept, free, count, KEY, targets=far),
    static_argnums=(0, 3),
)


@jax.jit
def kept_of(lp: jax.Array) -> Factors:
    found = logdet.read(lp, jnp.zeros((lp.shape[1], 2)))
    return found._replace(noise=jnp.maximum(found.noise, NOISE_FLOOR))


def check(rule: BatchRule, kept: Factors, far: Factors | None, free: np.ndarray, slack: float):
    rows = np.asarray(pick(rule, kept, jnp.asarray(free), COUNT, far))
    joint = Joint(kept, kept if far is None else far)
    check_batch(joint, "logdet" if rule is logdet else "vtl", rows, free, slack)


def mostly_free(seed: int, rows: int = N) -> np.ndarray:
    free = np.random.default_rng(seed).random(rows) < 0.8
    free[:COUNT] = True
    return free


@pytest.mark.parametrize("rule", [logdet, condvar], ids=["logdet", "condvar"])
@settings(max_examples=25, deadline=None)
@given(lp=log_probs(K, N, C), seed=st.integers(0, 99))
def test_batches_of_any_predictions_are_those_of_brute_force(rule, lp, seed):
    check(rule, kept_of(jnp.asarray(lp)), None, mostly_free(seed), 1e-2)


@pytest.mark.parametrize("rule", [logdet, condvar], ids=["logdet", "condvar"])
@pytest.mark.parametrize("seed", range(5))
def test_batches_are_those_of_brute_force(rule, seed):
    kept = kept_of(jnp.asarray(seeded_log_probs(seed, K, N, C)))
    check(rule, kept, None, mostly_free(seed), 1e-3)


def test_condvar_serves_targets_where_there_are_some():
    kept = kept_of(jnp.asarray(seeded_log_probs(7, K, N, C)))
    far = jax.tree.map(lambda leaf: leaf[:3], kept_of(jnp.asarray(seeded_log_probs(8, K, N, C))))
    check(condvar, kept, far, np.ones(N, bool), 1e-3)


def test_the_gain_of_a_batch_is_its_log_determinant():
    kept = kept_of(jnp.asarray(seeded_log_probs(9, K, N, C)))
    rows = np.asarray(pick(logdet, kept, jnp.ones(N, bool), COUNT))
    joint, gain = Joint(kept, kept), 0.0
    for row in rows:
        gain += joint.logdet()[row]
        joint.buy(row)
    phi, noise = np.asarray(kept.factors, np.float64)[rows], np.asarray(kept.noise)[rows]
    expected = np.linalg.slogdet(np.eye(COUNT) + phi @ phi.T / noise[:, None])[1] / 2
    np.testing.assert_allclose(gain, expected, rtol=1e-6)


def plain_greedy(kept: Factors, free: np.ndarray, count: int) -> list[int]:
    """Every row looked at for every choice, float64, rows alike last; equals in row order."""
    phi, noise = np.asarray(kept.factors, np.float64), np.asarray(kept.noise, np.float64)
    cov, known, free, rows = np.eye(phi.shape[1]), np.zeros(len(phi), bool), free.copy(), []
    for _ in range(count):
        variance = np.einsum("nr,rs,ns->n", phi, cov, phi)
        scores = np.where(known, -1, variance / noise)
        scores[~free] = -np.inf
        row = int(np.flatnonzero(scores >= scores.max() - 1e-9 * abs(scores.max()))[0])
        if not known[row]:
            s = cov @ phi[row]
            cov -= np.outer(s, s) / (variance[row] + noise[row])
        distances = ((phi - phi[row]) ** 2).sum(1)
        known |= distances <= 1e-5 * ((phi**2).sum(1) + (phi[row] ** 2).sum())
        free[row] = False
        rows.append(row)
    return rows


@pytest.mark.parametrize("working", [4, 64, 1000])
@pytest.mark.parametrize("copies", [1, 5])
def test_lazy_search_finds_what_looking_at_every_row_finds(working, copies, monkeypatch):
    monkeypatch.setattr(closed_form, "WORKING", working)
    lp = seeded_log_probs(10, 12, 400 // copies, 2)
    kept = jax.tree.map(
        lambda leaf: jnp.tile(leaf, (copies,) + (1,) * (leaf.ndim - 1)), kept_of(jnp.asarray(lp))
    )
    free = np.random.default_rng(1).random(400) < 0.9
    found = jax.jit(lambda: logdet.pick(kept, jnp.asarray(free), 90, KEY))()
    assert found.tolist() == plain_greedy(kept, free, 90)


def test_lazy_search_seldom_looks_at_all_rows(monkeypatch):
    """The number of looks, counted on the host."""
    monkeypatch.setattr(closed_form, "WORKING", 200)
    looks = []
    real = closed_form.variances

    def counted(*args):
        jax.debug.callback(lambda: looks.append(1))
        return real(*args)

    monkeypatch.setattr(closed_form, "variances", counted)
    kept = kept_of(jnp.asarray(seeded_log_probs(11, 20, 4000, 2)))
    rows = jax.jit(lambda: logdet.pick(kept, jnp.ones(4000, bool), 40, KEY))()
    jax.block_until_ready(rows)
    jax.effects_barrier()
    assert 2 <= len(looks) <= 15


@pytest.mark.parametrize("working", [2, 100])
def test_of_copies_alone_all_can_be_chosen_in_row_order(working, monkeypatch):
    monkeypatch.setattr(closed_form, "WORKING", working)
    kept = Factors(jnp.ones((9, K)), jnp.full(9, 0.1))
    found = jax.jit(lambda: logdet.pick(kept, jnp.arange(9) != 4, 8, KEY))()
    assert found.tolist() == [0, 1, 2, 3, 5, 6, 7, 8]


@pytest.mark.parametrize("rule", [logdet, condvar], ids=["logdet", "condvar"])
def test_seeds_chosen_for_together_get_what_each_gets_alone(rule):
    each = [kept_of(jnp.asarray(seeded_log_probs(seed, K, N, C))) for seed in range(3)]
    free = jnp.ones(N, bool)
    together = jax.jit(jax.vmap(lambda kept: rule.pick(kept, free, COUNT, KEY)))
    found = together(jax.tree.map(lambda *leaves: jnp.stack(leaves), *each))
    expected = [pick(rule, kept, free, COUNT) for kept in each]
    np.testing.assert_array_equal(found, expected)


def test_of_rows_all_certain_each_can_be_chosen():
    kept = Factors(jnp.zeros((6, K)), jnp.zeros(6))
    for rule in (logdet, condvar):
        assert sorted(pick(rule, kept, jnp.ones(6, bool), 6).tolist()) == list(range(6))

"""ITL, VTL and CTL against brute force and against the authors' program."""

import importlib
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gaussian import Joint, check_batch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import log_probs, seeded_log_probs

from enn_finetune import sharding
from enn_finetune.acquisition import kernels, transductive
from enn_finetune.acquisition.closed_form import condvar, logdet
from enn_finetune.acquisition.conditioning import prepare
from enn_finetune.acquisition.kernels import Factors
from enn_finetune.acquisition.rows import sample, take
from enn_finetune.acquisition.transductive import (
    BLUR,
    ctl_criterion,
    itl_criterion,
    rule,
    vtl_criterion,
)
from enn_finetune.types import BatchRule, Shown, Targets

KEY = jax.random.key(0)
K, N, M, C, D, COUNT = 5, 14, 4, 3, 6, 8
"""One shape for most tests: each rule is compiled once for them."""
KERNELS = {"features": kernels.last_layer, "gradients": kernels.gradients}
RULES = {
    name: (one, KERNELS.get(name.split("_")[-1], kernels.indices))
    for name, one in transductive.RULES.items()
}
itl = transductive.RULES["itl"]
every_rule = pytest.mark.parametrize("name", RULES)
chosen = jax.jit(lambda rule, *args: rule(*args), static_argnums=(0, 2))
picked = jax.jit(
    lambda rule, kept, free, count, far: rule.pick(kept, free, count, KEY, targets=far),
    static_argnums=(0, 3),
)


def features(seed: int, rows: int, width: int = D) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=(rows, width)), jnp.float32)


def shown(seed: int, rows: int = N, classes: int = C, targets: int | None = M) -> Shown:
    free = np.random.default_rng(seed + 1).random(rows) < 0.8
    free[np.flatnonzero(~free)[: max(0, COUNT - int(free.sum()))]] = True
    far = None
    if targets is not None:
        lp = seeded_log_probs(seed + 50, K, targets, classes)
        far = Targets(jnp.asarray(lp), features(seed + 50, targets))
    lp = jnp.asarray(seeded_log_probs(seed, K, rows, classes))
    return Shown(lp, features(seed, rows), jnp.asarray(free), far)


@partial(jax.jit, static_argnums=0)
def model(name: str, seen: Shown) -> tuple[Factors, Factors]:
    """The Gaussian model of a rule's rows and targets, before any row is bought."""
    kernel = RULES[name][1]
    kept = kernel.read(seen.log_probs, seen.features)
    factors_of = kernel.factors_of(kept, seen.free, None)
    return factors_of(kept), factors_of(kernel.read(*seen.targets))


def joint(name: str, seen: Shown, blur: float = BLUR) -> Joint:
    rows, targets = model(name, seen)
    found = Joint(rows, targets, blur)
    if not RULES[name][1].knows_bought:
        for row in np.flatnonzero(~np.asarray(seen.free)):
            found.buy(row)
        found.known[:] = False  # a row like one bought is not recognized
    return found


@every_rule
@pytest.mark.parametrize("seed", range(4))
def test_batches_are_those_of_brute_force(name, seed):
    seen = shown(seed, classes=2 if name in {"itl", "ctl"} and seed == 0 else C)
    rows = np.asarray(chosen(RULES[name][0], seen, COUNT, KEY))
    check_batch(joint(name, seen), name.split("_")[0], rows, np.asarray(seen.free))


@every_rule
@settings(max_examples=25, deadline=None)
@given(lp=log_probs(K, N, C), far=log_probs(K, M, C), seed=st.integers(0, 99))
def test_batches_of_any_predictions_are_those_of_brute_force(name, lp, far, seed):
    far = Targets(jnp.asarray(far), features(seed + 9, M))
    seen = shown(seed)._replace(log_probs=jnp.asarray(lp), targets=far)
    rows = np.asarray(chosen(RULES[name][0], seen, COUNT, KEY))
    check_batch(joint(name, seen), name.split("_")[0], rows, np.asarray(seen.free), slack=1e-2)


def test_targets_nearly_without_noise_are_the_papers():
    blur = 1e-4
    exact = rule(kernels.last_layer, itl_criterion(blur))
    for seed in range(3):
        seen = shown(seed)
        rows = np.asarray(chosen(exact, seen, COUNT, KEY))
        check_batch(joint("itl_features", seen, blur), "itl", rows, np.asarray(seen.free))


@pytest.mark.parametrize("blur", [1e-8, 1e-3, 1.0])
def test_more_targets_than_index_samples_leave_scores_finite(blur):
    seen = shown(3, rows=30, targets=40)
    rows = np.asarray(chosen(rule(kernels.indices, itl_criterion(blur)), seen, 20, KEY))
    assert len(set(rows)) == 20
    free = np.flatnonzero(np.asarray(seen.free))
    assert rows.tolist() != free[:20].tolist(), "as scores that are no numbers would choose"


def test_itl_forgets_its_targets_where_they_have_no_noise_and_outnumber_the_samples():
    seen = shown(4, rows=40, targets=30)
    blind = np.asarray(chosen(rule(kernels.indices, itl_criterion(1e-7)), seen, 5, KEY))
    np.testing.assert_array_equal(blind, chosen(logdet, seen, 5, KEY))
    assert np.any(blind != np.asarray(chosen(itl, seen, 5, KEY)))


TOWARDS = ["itl", "ctl", "vtl_features", "ctl_features", "itl_gradients", "ctl_gradients"]


@pytest.mark.parametrize("name", TOWARDS)
def test_targeted_rules_buy_what_the_targets_share_features_with(name):
    """Rows 0-19 live in one half of the feature space, 20-39 in the other, with the targets."""
    rng = np.random.default_rng(0)
    x = np.zeros((40, 8), np.float32)
    x[:20, :4], x[20:, 4:] = 2 * rng.normal(size=(20, 4)), rng.normal(size=(20, 4))
    weights = rng.normal(size=(8, 60))

    def predictions(x: np.ndarray) -> jax.Array:
        logits = (x @ weights).T
        return jax.nn.log_softmax(jnp.asarray(np.stack([0 * logits, logits], -1), jnp.float32))

    near = np.zeros((10, 8), np.float32)
    near[:, 4:] = rng.normal(size=(10, 4))
    targets = Targets(predictions(near), jnp.asarray(near))
    seen = Shown(predictions(x), jnp.asarray(x), jnp.ones(40, bool), targets)
    rows = np.asarray(chosen(RULES[name][0], seen, 5, KEY))
    assert (rows >= 20).all()
    assert (np.asarray(chosen(logdet, seen, 5, KEY)) < 20).any()


def test_ctl_on_features_ranks_first_by_their_cosine_with_the_targets():
    """With nothing bought: the largest sum of cosines, as activeft's note on CTL has it too."""
    seen = shown(8, rows=30)._replace(free=jnp.ones(30, bool))
    x, far = np.asarray(seen.features), np.asarray(seen.targets.features)
    cosines = (x @ far.T) / np.linalg.norm(x, axis=1)[:, None] / np.linalg.norm(far, axis=1)
    row = chosen(RULES["ctl_features"][0], seen, 1, KEY)[0]
    assert row == np.argmax(cosines.sum(1))


@every_rule
def test_a_row_like_one_chosen_comes_after_all_others(name):
    seen = shown(5)
    twice = np.arange(N) % (N // 2)
    seen = Shown(seen.log_probs[:, twice], seen.features[twice], jnp.ones(N, bool), seen.targets)
    rows = np.asarray(chosen(RULES[name][0], seen, COUNT, KEY))
    assert set(rows[:7]) == set(range(7))  # of equals, the first
    assert rows[7] == 7


@pytest.mark.parametrize("name", ["itl_features", "vtl_gradients", "ctl_features"])
def test_rows_bought_are_conditioned_on(name):
    """A row much like one bought is worth less than it was; buying costs no trace."""
    seen = shown(6, rows=130)
    traces = []

    @jax.jit
    def first(seen: Shown) -> jax.Array:
        traces.append(name)
        return RULES[name][0](seen, 1, KEY)

    free = np.ones(130, bool)
    for _ in range(5):
        row = int(first(seen._replace(free=jnp.asarray(free)))[0])
        assert free[row]
        free[row] = False
    assert traces == [name]
    rows = np.flatnonzero(np.random.default_rng(0).random(130) < 0.6)  # more than one fold
    free = np.ones(130, bool)
    free[rows] = False
    kernel = RULES[name][1]
    kept = kernel.read(seen.log_probs, seen.features)
    pool, factors_of = prepare(kernel, kept, jnp.asarray(free), None)
    phi = np.asarray(factors_of(kept).factors, np.float64)
    noise = np.asarray(factors_of(kept).noise, np.float64)
    precision = np.eye(phi.shape[1]) + (phi[rows].T / noise[rows]) @ phi[rows]
    np.testing.assert_allclose(pool.cov, np.linalg.inv(precision), atol=1e-4)


@pytest.mark.parametrize("name", ["vtl_features", "ctl"])
def test_without_targets_free_rows_of_the_pool_are_drawn(name):
    one, kernel = RULES[name]
    seen = shown(7, rows=300, targets=None)
    kept = kernel.read(seen.log_probs, seen.features)
    drawn = sample(seen.free, transductive.TARGETS, KEY, None)
    expected = picked(one, kept, seen.free, 4, take(kept, drawn, None))
    np.testing.assert_array_equal(chosen(one, seen, 4, KEY), expected)


SPREAD = {"condvar": condvar, "logdet": logdet} | {
    name: RULES[name][0] for name in ("itl", "ctl", "vtl_gradients")
}


@pytest.mark.parametrize("name", SPREAD)
@pytest.mark.slow
def test_rows_spread_over_devices_are_chosen_alike(name):
    one: BatchRule = SPREAD[name]
    rows = 9000
    lp = jnp.asarray(seeded_log_probs(8, 20, rows, 2))
    kept = jax.jit(one.read)(lp, features(8, rows, 3))
    free = np.random.default_rng(8).random(rows) < 0.99
    far = jax.tree.map(lambda leaf: leaf[:6], kept) if name in {"itl", "ctl"} else None
    expected = picked(one, kept, jnp.asarray(free), 5, far)
    mesh = sharding.rows_mesh(jax.devices()[:4])
    placed = sharding.place(jax.tree.map(np.asarray, kept), mesh)
    found = sharding.pick(one.pick, placed, free, 5, KEY, mesh=mesh, targets=far)
    np.testing.assert_array_equal(found, expected)


# ---- the authors' program

PEERS = {"itl": "ITL", "vtl": "VTL", "ctl": "CTL"}
CRITERIA = {"itl": itl_criterion(1e-2), "vtl": vtl_criterion, "ctl": ctl_criterion}


@pytest.mark.parametrize("name", PEERS)
def test_activeft_picks_the_same_rows_from_the_same_kernel(name):
    """It is given the covariance of what is observed: of y for rows, of the targets as blurred.

    So the noise is ours, row by row, and what it adds itself can be next to nothing. (CTL
    correlates f itself, so there the rows have no noise, and only conditioning has.)
    """
    pytest.importorskip("activeft", reason="needs the package activeft (see the peers' README)")
    import torch

    class PeerModel(torch.nn.Linear):
        def __init__(self, covariance):
            super().__init__(1, 1)
            self.covariance = covariance

        def kernel(self, x1, x2):
            return self.covariance[x1.long().flatten()][:, x2.long().flatten()]

    module = importlib.import_module(f"activeft.acquisition_functions.{name}")
    kernel = kernels.last_layer if name != "vtl" else kernels.indices
    one = rule(kernel, CRITERIA[name])
    for seed in range(3):
        seen = shown(seed, rows=40)
        seen = seen._replace(free=jnp.ones(40, bool))
        kept = kernel.read(seen.log_probs, seen.features)
        factors_of = kernel.factors_of(kept, seen.free, None)
        rows, far = factors_of(kept), factors_of(kernel.read(*seen.targets))
        common = 0.3
        if name == "ctl":  # one noise for all rows, which it adds when it conditions
            kept = kept._replace(information=jnp.full(40, 1 / common))
        phi = np.concatenate([rows.factors, far.factors]).astype(np.float64)
        full = phi @ phi.T
        if name != "ctl":
            noise = np.concatenate([rows.noise, CRITERIA_BLUR[name] * np.asarray(far.noise)])
            full += np.diag(noise.astype(np.float64))
        covariance = torch.tensor(full)

        numbers = torch.arange(44, dtype=torch.float64)[:, None]
        peer = getattr(module, PEERS[name])(
            target=numbers[40:],
            noise_std=common**0.5 if name == "ctl" else 1e-5,
            mini_batch_size=100,
        )
        ours = picked(one, kept, seen.free, 6, kernel.read(*seen.targets))
        state, left = peer.initialize(PeerModel(covariance), numbers[:40], None), np.ones(40, bool)
        for row in ours.tolist():  # one by one, for it may choose a row twice
            values = np.where(left, peer.compute(state).numpy(), -np.inf)
            assert row == values.argmax()
            state, left[row] = peer.step(state, row), False


CRITERIA_BLUR = {"itl": 1e-2, "vtl": 0.0}

"""Pool-wide rules against the posterior written out, label by label and target by target."""

import baal_heuristics
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from strategies import FEW, C, K, N, log_probs, log_softmax, seeded_log_probs

from enn_finetune.acquisition import pool_wide
from enn_finetune.acquisition.pointwise import bald
from enn_finetune.acquisition.predictions import Predictions, read_predictions
from enn_finetune.acquisition.rows import BLOCK, take
from enn_finetune.types import Axis, Shown, Targets

KEY = jax.random.key(0)
SCORES = {name: jax.jit(rule) for name, rule in pool_wide.RULES.items()}


def entropy(p: np.ndarray) -> np.ndarray:
    return -np.sum(p * np.log(np.where(p > 0, p, 1)), axis=-1)


LOSSES = {  # what a prediction (M, C) costs in expectation, if it is right
    "epig": entropy,
    "eer": lambda p: 1 - p.max(-1),
    "eer_brier": lambda p: 1 - (p**2).sum(-1),
}


def by_reweighting(lp: np.ndarray, loss) -> np.ndarray:
    """Loss now minus expected loss after each row's label, mean over all rows as targets."""
    probs = np.exp(lp.astype(np.float64))
    probs /= probs.sum(-1, keepdims=True)
    now, scores = loss(probs.mean(0)).mean(), []
    for row in range(probs.shape[1]):
        after = 0.0
        for label in range(probs.shape[2]):
            weights = probs[:, row, label]
            if weights.sum() > 0:
                posterior = np.tensordot(weights / weights.sum(), probs, axes=1)
                after += weights.mean() * loss(posterior).mean()
        scores.append(now - after)
    return np.array(scores)


@pytest.mark.parametrize("name", sorted(SCORES))
@FEW
@given(lp=log_probs(K, N, C))
def test_a_score_is_the_expected_fall_of_its_loss_under_the_reweighted_indices(name, lp):
    found = np.asarray(SCORES[name](lp, KEY))
    np.testing.assert_allclose(found, by_reweighting(lp, LOSSES[name]), atol=2e-5)
    assert (found >= 0).all()


@FEW
@given(lp=log_probs(K, N, C))
def test_a_label_tells_no_more_about_the_targets_than_about_the_index(lp):
    """Data processing: a target's label depends on the row's label through the index alone."""
    assert (np.asarray(SCORES["epig"](lp, KEY)) <= np.asarray(bald(lp, KEY)) + 1e-5).all()


def test_a_row_that_disagrees_about_itself_alone_is_worth_less_than_to_bald():
    """Forty rows move together with the index; one outlier moves alone, and more."""
    rng = np.random.default_rng(0)
    crowd = 1.5 * np.where(np.arange(16) % 2, 1, -1)[:, None] * np.ones((16, 40))
    outlier = 4 * np.where(rng.permutation(16) % 2, 1, -1)[:, None]
    logits = np.concatenate([crowd, outlier], axis=1)
    lp = log_softmax(np.stack([logits, -logits], axis=-1))
    assert np.argmax(bald(lp, KEY)) == 40
    for name, score in SCORES.items():
        assert np.argmin(score(lp, KEY)) == 40, name


@pytest.mark.parametrize("name", ["epig", "eer"])
def test_a_large_pool_is_stood_for_by_some_of_its_rows(name):
    lp = seeded_log_probs(1, 8, 400, 2)
    exact = by_reweighting(lp, LOSSES[name])
    found = [np.asarray(SCORES[name](lp, jax.random.key(seed))) for seed in range(12)]
    assert (found[0] != found[1]).any()
    np.testing.assert_allclose(np.mean(found, axis=0), exact, atol=0.2 * exact.max())
    assert np.corrcoef(np.mean(found, axis=0), exact)[0, 1] > 0.97


def read(lp: np.ndarray) -> Predictions:
    return read_predictions(jnp.asarray(lp), jnp.zeros((lp.shape[1], 0)))


def test_the_rows_that_stand_for_a_pool_are_distinct_or_all_of_them():
    lp = seeded_log_probs(2, 2, 250, 3)
    some = pool_wide.target_rows(read(lp), KEY, None, None)
    assert some.probs.shape == (pool_wide.TARGETS, 2, 3)
    assert len(np.unique(some.probs[:, 0], axis=0)) == pool_wide.TARGETS
    np.testing.assert_allclose(some.weights, 1 / pool_wide.TARGETS)
    every = pool_wide.target_rows(read(lp[:, :40]), KEY, None, None)
    assert np.sum(np.asarray(every.weights) > 0) == 40
    found = np.unique(every.probs[:40], axis=0)
    np.testing.assert_array_equal(found, np.unique(read(lp[:, :40]).probs, axis=0))


@pytest.mark.parametrize("name", sorted(SCORES))
@pytest.mark.parametrize("classes", [2, 3])
def test_scores_towards_targets_are_the_fall_of_the_targets_loss(name, classes):
    lp = seeded_log_probs(classes, 6, 20, classes)
    targets = seeded_log_probs(9, 6, 7, classes)
    found = jax.jit(lambda: pool_wide.SCORES[name](read(lp), KEY, targets=read(targets)))()
    together = np.concatenate([lp, targets], axis=1)
    expected = by_reweighting(together, lambda p: LOSSES[name](p[20:]))[:20]
    np.testing.assert_allclose(found, expected, atol=2e-6)


@pytest.mark.parametrize("name", sorted(SCORES))
def test_rows_picked_are_the_free_ones_of_the_highest_scores_towards_the_targets(name):
    lp, targets = seeded_log_probs(4, 6, 50, 3), seeded_log_probs(5, 6, 7, 3)
    free = np.random.default_rng(0).random(50) < 0.6
    rule = jax.jit(pool_wide.BATCH_RULES[name], static_argnums=1)
    shown = Shown(jnp.asarray(lp), jnp.zeros((50, 2)), jnp.asarray(free))
    for about, others in ((None, None), (Targets(targets, jnp.zeros((7, 2))), read(targets))):
        scores = np.array(pool_wide.SCORES[name](read(lp), KEY, targets=others))
        scores[~free] = -1
        expected = np.argsort(-scores)[:8]
        np.testing.assert_array_equal(rule(shown._replace(targets=about), 8, KEY), expected)


@pytest.mark.parametrize("name", sorted(SCORES))
@pytest.mark.slow
def test_rows_spread_over_devices_are_the_same_to_the_last_bit(name):
    devices = len(jax.devices())
    axis = Axis("rows", devices * BLOCK - 1000)
    lp = seeded_log_probs(6, 4, devices * BLOCK, 2)
    lp[:, axis.rows :] = 0
    kept, free = read(lp), np.arange(devices * BLOCK) < axis.rows

    def on(number):
        mesh = Mesh(np.array(jax.devices()[:number]), ("rows",))

        def picked(probs, bald, free):
            some = Predictions(probs, bald)
            rows = pool_wide.BATCH_RULES[name].pick(some, free, 500, KEY, axis=axis)
            return rows, take(pool_wide.SCORES[name](some, KEY, axis=axis), rows, axis)

        spread = jax.shard_map(
            picked, mesh=mesh, in_specs=(P("rows"),) * 3, out_specs=P(), check_vma=False
        )
        return jax.tree.map(np.asarray, jax.jit(spread)(*kept, free))

    alone, together = on(1), on(devices)
    np.testing.assert_array_equal(alone[0], together[0])
    np.testing.assert_array_equal(alone[1], together[1])
    assert free[alone[0]].all()


def test_chunks_do_not_change_the_scores(monkeypatch):
    lp = seeded_log_probs(3, 4, 30, 3)
    whole = np.asarray(SCORES["epig"](lp, KEY))
    monkeypatch.setattr(pool_wide, "CHUNK", 8 * 3 * 100 * 3)  # 30 = 3 * 8 + 6
    parts = jax.jit(lambda lp: pool_wide.epig(lp, KEY))(lp)
    np.testing.assert_allclose(parts, whole, atol=1e-6)


def test_epig_is_baal_s():
    """The same definition; baal's is a difference of entropies in float32, exact to some 1e-6."""
    heuristics = baal_heuristics.load()
    lp, targets = seeded_log_probs(7, 10, 40, 3), seeded_log_probs(8, 10, 9, 3)
    shaped = [np.exp(some).transpose(1, 2, 0) for some in (lp, targets)]
    shaped = [some / some.sum(1, keepdims=True) for some in shaped]
    theirs = np.asarray(heuristics.EPIG().compute_score(*shaped))
    ours = pool_wide.SCORES["epig"](read(lp), KEY, targets=read(targets))
    np.testing.assert_allclose(ours, theirs, atol=5e-6)


def test_memory_does_not_grow_with_rows_times_targets():
    def used(rows: int) -> int:
        lp = jax.ShapeDtypeStruct((2, rows, 15), np.float32)
        key = jax.eval_shape(lambda: jax.random.key(0))
        return jax.jit(pool_wide.epig).lower(lp, key).compile().memory_analysis().temp_size_in_bytes

    small, large = used(1000), used(3000)
    assert large - small < 2000 * 15 * 4 * 20  # a few arrays (K, N, C), no (N, C, M, C)

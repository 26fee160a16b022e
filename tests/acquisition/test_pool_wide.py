"""Pool-wide rules against the posterior written out, label by label and target by target."""

import jax
import numpy as np
import pytest
from hypothesis import given
from strategies import FEW, C, K, N, log_probs, log_softmax, seeded_log_probs

from enn_finetune.acquisition import pool_wide
from enn_finetune.acquisition.pointwise import bald

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


def test_the_targets_are_distinct_rows_or_all_of_them():
    lp = seeded_log_probs(2, 2, 250, 3)
    targets = np.asarray(pool_wide.target_rows(lp, KEY))
    assert targets.shape == (2, pool_wide.TARGETS, 3)
    assert len(np.unique(targets[0], axis=0)) == pool_wide.TARGETS
    np.testing.assert_array_equal(pool_wide.target_rows(lp[:, :100], KEY), lp[:, :100])


def test_chunks_do_not_change_the_scores(monkeypatch):
    lp = seeded_log_probs(3, 4, 30, 3)
    whole = np.asarray(SCORES["epig"](lp, KEY))
    monkeypatch.setattr(pool_wide, "CHUNK", 7 * 3 * 30 * 3)  # 30 = 4 * 7 + 2
    parts = jax.jit(lambda lp: pool_wide.epig(lp, KEY))(lp)
    np.testing.assert_allclose(parts, whole, atol=1e-6)


def test_memory_does_not_grow_with_rows_times_targets():
    def used(rows: int) -> int:
        lp = jax.ShapeDtypeStruct((2, rows, 15), np.float32)
        key = jax.eval_shape(lambda: jax.random.key(0))
        return jax.jit(pool_wide.epig).lower(lp, key).compile().memory_analysis().temp_size_in_bytes

    small, large = used(1000), used(3000)
    assert large - small < 2000 * 15 * 4 * 20  # a few arrays (K, N, C), no (N, C, M, C)

"""Laws that every implementation keeps. A new one is covered the day it enters its table.

Acquisition rules: every entry of RULES. (Heads: to be added below, parametrised over all heads.)
"""

import inspect

import chex
import jax
import numpy as np
import pytest
from hypothesis import given
from strategies import FEW, C, K, N, log_probs, log_softmax, seeded_log_probs

from enn_finetune.acquisition.pointwise import EPISTEMIC, RULES

# ---- acquisition rules

KEY = jax.random.key(7)
SCORES = {name: jax.jit(rule) for name, rule in RULES.items()}
SEEDED = {"random"}
"""Rules that read the key, and not the predictions."""

every_rule = pytest.mark.parametrize("rule", sorted(RULES))
every_seeing_rule = pytest.mark.parametrize("rule", sorted(RULES.keys() - SEEDED))

DEGENERATE = {
    "saturated": log_softmax(np.where(seeded_log_probs(0, 4, 6, 3) > -1, 1e4, -1e4)),
    "one-hot": np.where(np.eye(3)[np.arange(24).reshape(4, 6) % 3] > 0, 0, -np.inf),
    "all equal": np.full((4, 6, 3), -np.log(3), np.float32),
    "one class predicted": np.tile(np.float32([0, -np.inf, -np.inf]), (4, 6, 1)),
    "one class": np.zeros((4, 6, 1), np.float32),
    "one index": seeded_log_probs(1, 1, 6, 3),
    "one row": seeded_log_probs(2, 4, 1, 3),
    "tiny differences": log_softmax(1e-7 * seeded_log_probs(3, 4, 6, 3)),
}


@every_rule
@pytest.mark.parametrize("case", DEGENERATE)
def test_degenerate_predictions_get_one_finite_priority_a_row(rule, case):
    lp = DEGENERATE[case]
    scores = SCORES[rule](lp, KEY)
    assert scores.shape == (lp.shape[1],)
    assert np.isfinite(scores).all()


@every_rule
@FEW
@given(lp=log_probs())
def test_any_predictions_get_finite_priorities(rule, lp):
    assert np.isfinite(SCORES[rule](lp, KEY)).all()


def certain_then_mild_then_disputed(certain: float) -> np.ndarray:
    """Rows in rising order of every uncertainty, over two indices; row 0 at logits +-certain."""
    logits = [[[certain, -certain], [2.0, 0.0], [3.0, -3.0]]]
    logits += [[[certain, -certain], [2.2, 0.0], [-3.0, 3.0]]]
    return log_softmax(np.array(logits))


@every_seeing_rule
@pytest.mark.parametrize("certain", [20, 100, 1e4, np.inf])
@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 0, 2]])
def test_the_most_certain_row_comes_last(rule, certain, order):
    lp = certain_then_mild_then_disputed(min(certain, 1e4))[:, order]
    if certain == np.inf:
        lp[lp < -1e3] = -np.inf
    ranked = np.argsort(-np.asarray(SCORES[rule](lp, KEY)))
    assert [order[row] for row in ranked] == [2, 1, 0]


@every_seeing_rule
@FEW
@given(lp=log_probs())
def test_rows_keep_their_priorities_in_any_order_of_rows_indices_and_classes(rule, lp):
    before = np.asarray(SCORES[rule](lp, KEY))
    np.testing.assert_allclose(SCORES[rule](lp[:, ::-1], KEY), before[::-1], atol=2e-6)
    np.testing.assert_allclose(SCORES[rule](lp[::-1], KEY), before, atol=2e-6)
    np.testing.assert_allclose(SCORES[rule](lp[:, :, ::-1], KEY), before, atol=2e-6)


@every_seeing_rule
def test_a_batch_scored_in_parts_gets_the_same_priorities(rule):
    lp = seeded_log_probs(4, K, 2 * N, C)
    parts = [SCORES[rule](part, KEY) for part in (lp[:, :N], lp[:, N:])]
    np.testing.assert_allclose(np.concatenate(parts), SCORES[rule](lp, KEY), atol=1e-6)


@every_rule
def test_a_priority_depends_on_the_key_only_where_the_rule_is_random(rule):
    lp = seeded_log_probs(5, K, N, C)
    first, again = (np.asarray(SCORES[rule](lp, KEY)) for _ in range(2))
    other = np.asarray(SCORES[rule](lp, jax.random.key(8)))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any() == (rule in SEEDED)


@pytest.mark.parametrize("rule", sorted(EPISTEMIC))
def test_an_epistemic_rule_is_0_where_all_indices_agree(rule):
    lp = np.repeat(seeded_log_probs(6, 1, N, C), K, axis=0)
    np.testing.assert_allclose(SCORES[rule](lp, KEY), 0, atol=1e-6)


@every_rule
def test_a_rule_is_traced_once_and_equals_itself_uncompiled(rule):
    compiled = jax.jit(chex.assert_max_traces(RULES[rule], n=1))
    for seed in range(3):
        lp = seeded_log_probs(seed, K, N, C)
        np.testing.assert_allclose(compiled(lp, KEY), RULES[rule](lp, KEY), atol=1e-6)


@every_rule
def test_a_rule_is_shown_predictions_and_a_key_and_no_labels(rule):
    assert list(inspect.signature(RULES[rule]).parameters) == ["log_probs", "key"]

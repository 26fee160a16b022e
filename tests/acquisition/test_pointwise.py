"""What each pointwise rule computes; what all rules have in common is in test_laws.py."""

import jax
import numpy as np
import pytest
from hypothesis import given
from strategies import FEW, C, K, N, log_probs, seeded_log_probs

from enn_finetune.acquisition.pointwise import EPISTEMIC, RULES

KEY = jax.random.key(0)
SCORES = {name: jax.jit(rule) for name, rule in RULES.items()}


@FEW
@given(log_probs())
def test_rules_of_the_mean_prediction_are_their_definitions(lp):
    mean = np.exp(lp.astype(np.float64)).mean(0)
    ordered = np.sort(mean, axis=-1)
    logs = np.log(mean, where=mean > 0, out=np.zeros_like(mean))
    expected = {
        "entropy": -(mean * logs).sum(-1),
        "margin": ordered[:, -2] - ordered[:, -1],
        "least_confidence": 1 - ordered[:, -1],
    }
    for name, scores in expected.items():
        np.testing.assert_allclose(SCORES[name](lp, KEY), scores, atol=1e-5, err_msg=name)


@FEW
@given(log_probs())
def test_epistemic_rules_are_their_definitions(lp):
    probs = np.exp(lp.astype(np.float64))
    mean = probs.mean(0)
    ratio = np.divide(probs, mean, where=probs > 0, out=np.ones_like(probs))
    information = (probs * np.log(ratio)).sum(-1).mean(0)  # mean KL of an index from the mixture
    np.testing.assert_allclose(SCORES["bald"](lp, KEY), information, atol=1e-5)
    np.testing.assert_allclose(SCORES["variance"](lp, KEY), probs.var(0).sum(-1), atol=1e-5)


def test_the_rules_of_the_mean_prediction_agree_on_two_classes():
    lp = seeded_log_probs(0, 5, 50, 2)
    rules = ("entropy", "margin", "least_confidence")
    orders = [np.argsort(SCORES[name](lp, KEY)) for name in rules]
    np.testing.assert_array_equal(orders[0], orders[1])
    np.testing.assert_array_equal(orders[0], orders[2])


def test_bald_of_a_row_alone_is_its_bald_among_others():
    lp = seeded_log_probs(1, K, N, C)
    together = SCORES["bald"](lp, KEY)
    for row in range(N):
        np.testing.assert_allclose(
            SCORES["bald"](lp[:, row : row + 1], KEY), together[row : row + 1], atol=1e-6
        )


def test_bald_prefers_disagreement_to_noise_and_entropy_does_not():
    noisy = np.log(np.full((2, 1, 2), 0.5))
    disputed = np.log(np.array([[[0.9, 0.1]], [[0.2, 0.8]]]))
    lp = np.concatenate([noisy, disputed], axis=1)
    assert np.argmax(SCORES["bald"](lp, KEY)) == 1
    assert np.argmax(SCORES["variance"](lp, KEY)) == 1
    assert np.argmax(SCORES["entropy"](lp, KEY)) == 0


def test_random_is_uniform_and_blind_to_the_predictions():
    scores = np.asarray(SCORES["random"](seeded_log_probs(2, 2, 4000, 2), KEY))
    same = np.asarray(SCORES["random"](seeded_log_probs(3, 2, 4000, 2), KEY))
    np.testing.assert_array_equal(scores, same)
    assert (scores >= 0).all()
    assert (scores < 1).all()
    quarters = np.histogram(scores, bins=4, range=(0, 1))[0]
    assert np.abs(quarters - 1000).max() < 150  # five standard deviations


@pytest.mark.parametrize("name", sorted(RULES))
def test_exactly_the_epistemic_rules_see_nothing_in_a_plain_head(name):
    scores = np.asarray(SCORES[name](seeded_log_probs(4, 1, 20, 3), KEY))
    assert (np.ptp(scores) < 1e-5) == (name in EPISTEMIC)

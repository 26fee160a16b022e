"""Stochastic rules: the draws have the weights that the paper gives them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from strategies import log_softmax, seeded_log_probs

from enn_finetune.acquisition import pointwise, stochastic

KEYS = jax.random.split(jax.random.key(0), 8000)
SCORES = np.array([0.05, 0.5, 1.0, 0.2, 0.0], np.float32)


def score(log_probs, key):
    del log_probs, key
    return jnp.asarray(SCORES)


def orders(weighing, beta: float) -> np.ndarray:
    """Rows by falling priority (draws, N)."""

    def one(key):
        lp = jnp.zeros((1, 5, 2))
        return stochastic.Drawn(weighing, score, beta)(lp, key)

    return np.argsort(-np.asarray(jax.jit(jax.vmap(one))(KEYS)), axis=1)


RANKS = np.array([4, 2, 1, 3, 5])
WEIGHTS = [
    (stochastic.power, lambda beta: SCORES**beta),
    (stochastic.softmax, lambda beta: np.exp(beta * SCORES)),
    (stochastic.softrank, lambda beta: RANKS**-beta),
]


@pytest.mark.parametrize("beta", [1.0, 4.0])
@pytest.mark.parametrize(("weighing", "weights"), WEIGHTS)
def test_rows_are_drawn_without_replacement_by_their_weights(weighing, weights, beta):
    weights = weights(beta)
    found = orders(weighing, beta)
    second = found[found[:, 0] == 2, 1]
    for rows, left in ((found[:, 0], np.ones(5)), (second, np.arange(5) != 2)):
        expected = weights * left / (weights * left).sum() * len(rows)
        counts = np.bincount(rows, minlength=5)
        assert (np.abs(counts - expected) < 5 * np.sqrt(expected + 1)).all()


def test_a_row_of_score_0_comes_last_under_power():
    assert (orders(stochastic.power, 1.0)[:, -1] == 4).all()


def test_equal_scores_are_drawn_alike_by_power():
    lp = log_softmax(np.tile([[[1.0, 0.0]]], (1, 40, 1)))
    rule = stochastic.RULES["power_margin"]
    best = jax.jit(jax.vmap(lambda key: jnp.argmax(rule(jnp.asarray(lp), key))))
    first = np.asarray(best(KEYS[:4000]))
    counts = np.bincount(first, minlength=40)
    assert np.abs(counts - 100).max() < 50


def test_closeness_is_the_margin_rule_from_0_to_1():
    lp = seeded_log_probs(0, 3, 50, 4)
    key = jax.random.key(0)
    close = np.asarray(stochastic.closeness(lp, key))
    np.testing.assert_allclose(close, 1 + np.asarray(pointwise.margin(lp, key)))
    assert (close > 0).all()
    assert (close <= 1).all()


def test_a_sharper_draw_is_nearer_to_the_ranking():
    lp = seeded_log_probs(1, 4, 200, 2)
    key = jax.random.key(0)
    best = set(np.argsort(-np.asarray(pointwise.margin(lp, key)))[:20])
    shared = {}
    for name in ("power_margin", "power4_margin"):
        draw = jax.jit(jax.vmap(stochastic.RULES[name], (None, 0)))
        orders = np.argsort(-np.asarray(draw(lp, KEYS[:30])), axis=1)
        shared[name] = np.mean([len(best & set(order[:20])) for order in orders])
    assert 2 < shared["power_margin"] < shared["power4_margin"] < 20

"""Stochastic rules: the draws have the weights that the paper gives them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from strategies import log_softmax, seeded_log_probs

from enn_finetune.acquisition import pointwise, pool_wide, stochastic
from enn_finetune.acquisition.choose import choose
from enn_finetune.acquisition.predictions import read_predictions
from enn_finetune.types import Shown, Targets

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


# ---- every form with every score


def test_every_form_goes_with_every_score():
    scores = {*pointwise.RULES, *pool_wide.RULES} - {"random"}
    names = {*stochastic.RULES, *stochastic.BATCH_RULES}
    assert names == {f"{form}_{score}" for form in stochastic.FORMS for score in scores}


def test_a_rules_name_says_its_form_and_its_score():
    """Both come from tables by name; what tells them apart is the order of rows."""
    lp, key = jnp.asarray(seeded_log_probs(5, 4, 60, 3)), jax.random.key(1)
    noise = jax.random.gumbel(key, (60,))
    for name, rule in stochastic.RULES.items():
        form, _, score = name.partition("_")
        values = pointwise.RULES[score](lp, key) + (score == "margin")
        beta = {"power4": 4.0}.get(form, 1.0)
        ranks = jnp.argsort(jnp.argsort(-values)) + 1
        weights = {"softmax": values, "softrank": -jnp.log(ranks)}.get(form, jnp.log(values))
        np.testing.assert_allclose(rule(lp, key), beta * weights + noise, rtol=1e-5, err_msg=name)


KINDS = {"power": "eer", "power4": "eer_brier", "softmax": "epig", "softrank": "epig"}
TOWARDS = [
    pytest.param(
        form, score, marks=() if KINDS[form] == score and form != "power4" else pytest.mark.slow
    )
    for form in stochastic.FORMS
    for score in pool_wide.SCORES
]


@pytest.mark.parametrize(("form", "score"), TOWARDS)
def test_rows_are_drawn_by_what_their_labels_tell_about_targets(form, score):
    """Of free rows alone, the first and, given that, the second: with the weights of the paper."""
    lp, far = seeded_log_probs(6, 6, 7, 3), seeded_log_probs(7, 6, 4, 3)
    free = np.array([True, True, False, True, True, False, True])
    seen = Shown(jnp.asarray(lp), jnp.zeros((7, 2)), jnp.asarray(free))
    seen = seen._replace(targets=Targets(jnp.asarray(far), jnp.zeros((4, 2))))
    read = [read_predictions(jnp.asarray(some), jnp.zeros((1, 0))) for some in (lp, far)]
    scores = np.asarray(pool_wide.SCORES[score](read[0], KEYS[0], targets=read[1]), np.float64)
    ranks = np.empty(7)
    ranks[np.argsort(-np.where(free, scores, -1), kind="stable")] = np.arange(1, 8)
    weights = {
        "power": scores,
        "power4": scores**4,
        "softmax": np.exp(scores),
        "softrank": 1 / ranks,
    }[form] * free
    draw = jax.jit(jax.vmap(lambda key: choose(f"{form}_{score}", seen, 2, key)))
    rows = np.asarray(draw(KEYS))
    best = int(np.argmax(weights))
    second = rows[rows[:, 0] == best, 1]
    for drawn, left in ((rows[:, 0], np.ones(7)), (second, np.arange(7) != best)):
        expected = weights * left / (weights * left).sum() * len(drawn)
        counts = np.bincount(drawn, minlength=7)
        assert (np.abs(counts - expected) < 5 * np.sqrt(expected + 1)).all()


@pytest.mark.parametrize("rule", ["softrank_margin", "softrank_epig"])
def test_ranks_are_those_among_free_rows(rule):
    """Rows that are bought do not take the first places."""
    lp = seeded_log_probs(8, 6, 12, 2)
    score = pool_wide.epig if rule.endswith("epig") else pointwise.margin
    order = np.argsort(-np.asarray(score(jnp.asarray(lp), KEYS[0])))
    free = np.zeros(12, bool)
    free[order[6:]] = True
    seen = Shown(jnp.asarray(lp), jnp.zeros((12, 2)), jnp.asarray(free))
    first = jax.jit(jax.vmap(lambda key: choose(rule, seen, 1, key)[0]))(KEYS[:4000])
    counts = np.bincount(np.asarray(first), minlength=12)
    expected = 4000 / np.arange(1, 7) / np.sum(1 / np.arange(1, 7))
    assert (np.abs(counts[order[6:]] - expected) < 5 * np.sqrt(expected)).all()

"""Laws that every implementation keeps. A new one is covered the day it enters its table.

Acquisition rules: every name that `choose` knows. What each one computes is in tests/acquisition.
"""

import inspect
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import FEW, C, K, N, log_probs, log_softmax, seeded_log_probs

from enn_finetune.acquisition import pool_wide, stochastic
from enn_finetune.acquisition.choose import BATCH_RULES, EPISTEMIC, NAMES, RULES, choose
from enn_finetune.types import Shown

# ---- rules that give every row a priority

KEY = jax.random.key(7)
SCORES = {name: jax.jit(rule) for name, rule in RULES.items()}
SEEDED = {"random"} | stochastic.RULES.keys()
"""Rules whose priorities are draws."""
POOL_WIDE = pool_wide.RULES.keys()
"""Rules that score a row by what it tells about the others."""
DRAWN = {
    *("power_bald", "power4_entropy", "softmax_variance", "softrank_margin"),
    *("power_least_confidence", "softmax_epig", "softrank_eer"),
}
"""One or two of each form of draw, which all scores share; the slow run goes over all."""


def forms(names: Iterable[str], heavy: Iterable[str] = ()) -> list[object]:
    """Names as parameters: those that differ from one of DRAWN in their score alone are slow."""
    drawn = {*stochastic.RULES, *stochastic.BATCH_RULES} - DRAWN
    slow = {*drawn, *heavy}
    return [pytest.param(n, marks=pytest.mark.slow) if n in slow else n for n in names]


every_rule = pytest.mark.parametrize("rule", forms(sorted(RULES)))
every_seeing_rule = pytest.mark.parametrize("rule", sorted(RULES.keys() - SEEDED))
every_lone_rule = pytest.mark.parametrize("rule", sorted(RULES.keys() - SEEDED - POOL_WIDE))

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


@every_lone_rule
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


@pytest.mark.parametrize("rule", sorted((EPISTEMIC & RULES.keys()) - SEEDED))
def test_an_epistemic_rule_is_0_where_all_indices_agree(rule):
    lp = np.repeat(seeded_log_probs(6, 1, N, C), K, axis=0)
    np.testing.assert_allclose(SCORES[rule](lp, KEY), 0, atol=1e-6)


@every_rule
def test_a_rule_is_traced_once_and_equals_itself_uncompiled(rule):
    traces = []

    def traced(lp, key):
        traces.append(rule)
        return RULES[rule](lp, key)

    compiled = jax.jit(traced)
    for seed in range(3):
        lp = seeded_log_probs(seed, K, N, C)
        np.testing.assert_allclose(compiled(lp, KEY), RULES[rule](lp, KEY), atol=2e-6)
    assert traces == [rule]


@every_rule
def test_a_rule_is_shown_predictions_and_a_key_and_no_labels(rule):
    assert list(inspect.signature(RULES[rule]).parameters) == ["log_probs", "key"]


# ---- every rule, asked for rows

every_name = pytest.mark.parametrize("name", forms(sorted(NAMES)))
CHEAP = ("margin", "power_bald", "epig", "logdet", "itl_features", "badge", "kcenter", "lcmd")
"""One or two of each way from predictions to rows; laws that compile much keep to these, and the
slow run goes over all."""


def kinds(names: Iterable[str]) -> pytest.MarkDecorator:
    """Parametrize by name: the cheap ones always, the others in the slow run."""
    names = list(names)
    return pytest.mark.parametrize("name", forms(names, {*names} - {*CHEAP}))


LOOKING = ("margin", "power_bald", *BATCH_RULES)
"""Batch rules, and one of each kind that shares its way from priorities to rows."""
every_kind = pytest.mark.parametrize("name", forms(sorted(LOOKING)))
ALONE = {*pool_wide.BATCH_RULES, *stochastic.BATCH_RULES, "neuronal"}
"""Batch rules that score or draw rows one by one: copies are as good as what they copy."""
every_joint_rule = kinds(sorted(BATCH_RULES.keys() - ALONE))
chosen = jax.jit(choose, static_argnums=(0, 2))
ROWS, COUNT, WIDTH = 9, 4, 5


def shown(lp: np.ndarray, free: np.ndarray | None = None, seed: int = 0) -> Shown:
    """What a rule is shown: the predictions, features that have nothing to do with them."""
    features = np.random.default_rng(seed).normal(size=(lp.shape[1], WIDTH)).astype(np.float32)
    mask = np.ones(lp.shape[1], bool) if free is None else free
    return Shown(jnp.asarray(lp), jnp.asarray(features), jnp.asarray(mask))


some_free = st.lists(st.booleans(), min_size=ROWS, max_size=ROWS).map(np.array)


@every_name
@FEW
@given(lp=log_probs(K, ROWS, C), free=some_free, seed=st.integers(0, 99))
def test_rows_chosen_are_distinct_and_free(name, lp, free, seed):
    free[np.flatnonzero(~free)[: max(0, COUNT - free.sum())]] = True
    rows = np.asarray(chosen(name, shown(lp, free), COUNT, jax.random.key(seed)))
    assert rows.dtype == np.int32
    assert len(set(rows)) == COUNT
    assert free[rows].all()


@kinds(sorted(LOOKING))
@pytest.mark.parametrize("case", sorted(DEGENERATE))
def test_all_rows_can_be_bought_whatever_the_predictions(name, case):
    lp = DEGENERATE[case]
    rows = np.asarray(chosen(name, shown(lp), lp.shape[1], KEY))
    assert sorted(rows) == list(range(lp.shape[1]))


@every_kind
def test_a_choice_is_a_function_of_what_is_shown_and_the_key(name):
    seen = shown(seeded_log_probs(1, K, ROWS, C))
    first, again = (np.asarray(chosen(name, seen, COUNT, KEY)) for _ in range(2))
    np.testing.assert_array_equal(first, again)


@every_kind
def test_a_choice_is_traced_once(name):
    chosen(name, shown(seeded_log_probs(0, K, ROWS, C)), COUNT, KEY)
    programs = chosen._cache_size()
    for seed in range(3):
        free = np.random.default_rng(seed).random(ROWS) < 0.7
        chosen(name, shown(seeded_log_probs(seed, K, ROWS, C), free, seed), COUNT, KEY)
    assert chosen._cache_size() == programs


@kinds(sorted(LOOKING))
def test_seeds_chosen_for_together_get_what_each_gets_alone(name):
    alone = [shown(seeded_log_probs(seed, K, ROWS, C), seed=seed) for seed in range(3)]
    keys = jax.random.split(KEY, 3)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *alone)
    together = jax.jit(jax.vmap(lambda seen, key: choose(name, seen, COUNT, key)))(stacked, keys)
    expected = [chosen(name, seen, COUNT, key) for seen, key in zip(alone, keys, strict=True)]
    np.testing.assert_array_equal(together, expected)


@pytest.mark.parametrize("rule", ["epig", "margin", "power_bald", "random"])
def test_a_pointwise_choice_is_the_free_rows_of_highest_priority_ties_in_row_order(rule):
    lp = seeded_log_probs(8, K, 20, C)
    lp[:, 10:] = lp[:, :10]  # every row twice: ties, unless the rule adds noise
    free = np.random.default_rng(0).random(20) < 0.8
    scores = np.asarray(SCORES[rule](lp, KEY), np.float64)
    order = [row for row in np.argsort(-scores, kind="stable") if free[row]]
    assert chosen(rule, shown(lp, free), 6, KEY).tolist() == order[:6]


@every_joint_rule
@pytest.mark.parametrize("seed", range(5))
def test_a_joint_rule_buys_no_row_twice_while_others_would_tell_it_something(name, seed):
    lp = seeded_log_probs(seed, K, 6, C)
    seen = shown(np.tile(lp, (1, 5, 1)))
    seen = seen._replace(features=jnp.tile(seen.features[:6], (5, 1)))
    rows = np.asarray(chosen(name, seen, 9, jax.random.key(seed)))
    assert set(rows[:6] % 6) == set(range(6))
    assert len(set(rows)) == 9


@pytest.mark.parametrize(
    ("name", "count", "message"),
    [
        ("nothing", 2, "no such rule; there are random, .*badge"),
        ("margin", 0, "1 <= count <= rows shown, got count=0"),
        ("badge", 10, "got count=10 rows=9"),
    ],
)
def test_what_cannot_be_chosen_is_refused(name, count, message):
    with pytest.raises(ValueError, match=message):
        choose(name, shown(seeded_log_probs(0, K, ROWS, C)), count, KEY)

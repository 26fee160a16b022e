"""NeurONAL's rules against the paper's weights written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import Mesh, PartitionSpec
from strategies import FEW, log_probs, seeded_log_probs

from enn_finetune.acquisition.neuronal import (
    Gaps,
    ask,
    gaps,
    log_weights,
    neuronal,
    pick_by_inverse_gap,
    query_probabilities,
    thresholds,
)
from enn_finetune.types import Shown

K, N, C = 3, 12, 4
KEY = jax.random.key(0)
draws = jax.jit(neuronal, static_argnums=1)


def shown(lp: np.ndarray, free: np.ndarray | None = None) -> Shown:
    rows = lp.shape[1]
    mask = np.ones(rows, bool) if free is None else free
    return Shown(jnp.asarray(lp), jnp.zeros((rows, 2)), jnp.asarray(mask))


def written_out(gap: np.ndarray, free: np.ndarray) -> np.ndarray:
    """Algorithm 2's p over the free rows, in float64; mu = gamma = their number."""
    count = free.sum()
    best = np.flatnonzero(free)[np.argmin(gap[free])]
    least = gap[best]
    p = np.where(free, least / (count * least + count * (gap - least)), 0)
    p[best] = 0
    p[best] = 1 - p.sum()
    return p


@FEW
@given(lp=log_probs(K, N, C), seed=st.integers(0, 50))
def test_the_weights_are_the_papers_and_a_distribution(lp, seed):
    free = np.random.default_rng(seed).random(N) < 0.7
    free[seed % N] = True
    gap = np.asarray(gaps(lp).gap)
    found = np.exp(log_weights(jnp.asarray(gap), jnp.asarray(free)))
    assert (found[~free] == 0).all()
    assert found.sum() == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(
        found, written_out(np.maximum(gap, 1e-6).astype(np.float64), free), atol=1e-5
    )


def test_a_gap_is_that_of_the_two_likeliest_classes_of_the_mean():
    lp = seeded_log_probs(1, K, N, C)
    top = np.sort(np.exp(lp.astype(np.float64)).mean(0), axis=1)
    np.testing.assert_allclose(gaps(lp).gap, top[:, -1] - top[:, -2], atol=1e-6)


def test_batches_are_drawn_by_the_weights_without_replacement():
    gap = jnp.asarray(np.random.default_rng(2).uniform(0.2, 1, N), jnp.float32)
    free = np.ones(N, bool)
    free[[2, 7]] = False
    p = written_out(np.asarray(gap, np.float64), free)

    def draw(key):
        return pick_by_inverse_gap(Gaps(gap), jnp.asarray(free), 3, key)

    found = np.asarray(jax.jit(jax.vmap(draw))(jax.random.split(KEY, 8000)))
    assert (np.diff(np.sort(found, axis=1), axis=1) > 0).all()
    first = np.bincount(found[:, 0], minlength=N)
    assert (np.abs(first - 8000 * p) < 5 * np.sqrt(8000 * p + 1)).all()
    given_first = found[found[:, 0] == np.argmax(p), 1]
    rest = np.where(np.arange(N) == np.argmax(p), 0, p)
    expected = len(given_first) * rest / rest.sum()
    second = np.bincount(given_first, minlength=N)
    assert (np.abs(second - expected) < 5 * np.sqrt(expected + 1)).all()


def test_among_many_rows_draws_follow_one_over_the_gap():
    gap = jnp.concatenate([jnp.zeros(1), jnp.full(500, 0.1), jnp.full(500, 0.4)])
    p = np.exp(log_weights(gap, jnp.ones(1001, bool)))
    assert p[0] > 0.99
    assert p[1:501].sum() == pytest.approx(4 * p[501:].sum(), rel=1e-3)


DEGENERATE = {
    "saturated": np.log(np.float32(np.eye(3)[np.arange(6) % 3] + 1e-38))[None],
    "one-hot": np.where(np.eye(3)[np.arange(24).reshape(4, 6) % 3] > 0, 0, -np.inf),
    "all equal": np.full((4, 6, 3), -np.log(3), np.float32),
    "one class": np.zeros((4, 6, 1), np.float32),
    "one row": seeded_log_probs(2, 4, 1, 3),
}


@pytest.mark.parametrize("case", DEGENERATE)
def test_all_rows_can_be_bought_whatever_the_predictions(case):
    lp = np.asarray(DEGENERATE[case], np.float32)
    rows = draws(shown(lp), lp.shape[1], KEY)
    assert sorted(rows.tolist()) == list(range(lp.shape[1]))


@pytest.mark.slow
def test_spread_over_devices_the_draw_is_the_same():
    devices = np.asarray(jax.devices())
    rows = 24 * len(devices)
    gap = jnp.asarray(np.random.default_rng(0).random(rows), jnp.float32)
    free = jnp.asarray(np.random.default_rng(1).random(rows) < 0.8)

    def spread(gap, free, key):
        return pick_by_inverse_gap(Gaps(gap), free, 9, key, axis="rows")

    mapped = jax.jit(
        jax.shard_map(
            spread,
            mesh=Mesh(devices, ("rows",)),
            in_specs=(PartitionSpec("rows"), PartitionSpec("rows"), PartitionSpec()),
            out_specs=PartitionSpec(),
            check_vma=False,
        )
    )
    np.testing.assert_array_equal(
        mapped(gap, free, KEY), pick_by_inverse_gap(Gaps(gap), free, 9, KEY)
    )


# ---- streams


def test_thresholds_fall_with_the_root_of_the_rows_seen():
    np.testing.assert_allclose(thresholds(4, 0.8), 0.8 / np.sqrt([1, 2, 3, 4]), rtol=1e-6)
    np.testing.assert_allclose(thresholds(2, 0.8, seen=2), thresholds(4, 0.8)[2:], rtol=1e-6)


@FEW
@given(
    st.lists(st.floats(0, 1, width=32), min_size=8, max_size=8),
    st.floats(0.0625, 1, width=32),
    st.integers(0, 9),
)
def test_a_stream_asks_below_the_threshold_until_the_budget_is_spent(gap, threshold, budget):
    asked, left = [], budget
    for one in gap:
        asked.append(one < np.float32(threshold) and left > 0)
        left -= asked[-1]
    found = jax.jit(ask)(jnp.asarray(gap, jnp.float32), jnp.float32(threshold), budget)
    assert found.tolist() == asked


def test_a_stream_in_two_parts_asks_what_it_asks_in_one():
    gap = jnp.asarray(np.random.default_rng(3).random(40), jnp.float32)
    whole = ask(gap, thresholds(40, 1.5), 9)
    first = ask(gap[:25], thresholds(25, 1.5), 9)
    then = ask(gap[25:], thresholds(15, 1.5, seen=25), 9 - jnp.sum(first))
    np.testing.assert_array_equal(jnp.concatenate([first, then]), whole)
    assert 0 < int(whole.sum()) <= 9


def test_by_chance_a_row_is_asked_about_with_the_inverse_of_its_gap():
    gap = jnp.asarray([0.0, 0.05, 0.1, 0.2, 0.5, 1.0])
    p = query_probabilities(gap, jnp.float32(0.1))
    np.testing.assert_allclose(p, [1, 1, 1, 0.5, 0.2, 0.1], rtol=1e-6)
    found = jax.vmap(lambda key: ask(gap, jnp.float32(0.1), 6, key))(jax.random.split(KEY, 4000))
    np.testing.assert_allclose(np.mean(np.asarray(found), axis=0), p, atol=0.03)
    few = jax.vmap(lambda key: ask(gap, jnp.float32(0.1), 2, key))(jax.random.split(KEY, 50))
    assert np.asarray(few).sum(1).tolist() == [2] * 50

"""Candidates by past scores: who is offered, and when."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import Mesh, PartitionSpec
from strategies import FEW

from enn_finetune.acquisition import pointwise
from enn_finetune.acquisition.candidates import candidate_count, history_score
from enn_finetune.acquisition.history import (
    History,
    begin,
    explored,
    longest_wait,
    predictions,
    reduce,
    update,
)

N = 40
KEY = jax.random.key(3)
ALL = jnp.arange(N)
offered = jax.jit(reduce, static_argnums=2, static_argnames="known")


def scored(seed: int = 0) -> History:
    """A history in which every row was scored in round 0, all scores different."""
    return update(begin(N), ALL, np.random.default_rng(seed).normal(size=N), 0)


def some_free(seed: int, count: int) -> np.ndarray:
    free = np.zeros(N, bool)
    free[np.random.default_rng(seed).permutation(N)[:count]] = True
    return free


@FEW
@given(st.sampled_from([1, 12, N]), st.integers(0, N), st.booleans(), st.integers(0, 99))
def test_candidates_are_distinct_in_row_order_and_as_many_as_asked_for(count, left, known, seed):
    free = some_free(seed, left)
    rows = np.asarray(offered(scored(seed), free, count, KEY, known=known))
    assert rows.shape == (count,)
    assert (np.diff(rows) > 0).all()
    assert free[rows].sum() >= min(explored(count), left)
    if not known:
        assert free[rows].sum() == min(count, left)
    elif N - left <= count - explored(count):
        assert (~free[rows]).sum() == N - left


def test_most_candidates_have_the_highest_past_score_and_the_others_the_oldest():
    history = scored()
    late = np.setdiff1d(np.arange(N), [3, 7, 11, 13, 17])
    history = update(history, late, np.asarray(history.scores)[late], 1)
    free = np.ones(N, bool)
    free[5] = False
    rows = np.asarray(offered(history, free, 20, KEY))
    old = [3, 7, 11, 13, 17]
    others = [row for row in np.argsort(-np.asarray(history.scores)) if free[row]]
    best = [row for row in others if row not in old][:15]
    assert sorted([*old, *best]) == rows.tolist()


def test_a_row_never_scored_is_older_than_any():
    history = update(begin(N), ALL[:-3], jnp.ones(N - 3), 0)
    rows = np.asarray(offered(history, np.ones(N, bool), 12, KEY))
    assert {N - 3, N - 2, N - 1} <= set(rows)


def test_equally_old_rows_are_drawn_by_the_key():
    history, free = scored(), jnp.ones(N, bool)
    draw = jax.jit(jax.vmap(lambda key: reduce(history, free, 8, key)))
    rows = np.asarray(draw(jax.random.split(KEY, 2000)))
    counts = np.bincount(rows.ravel(), minlength=N)
    best = set(np.argsort(-np.asarray(history.scores))[:6])
    low = [row for row in range(N) if row not in best and counts[row] < 2000]
    assert np.ptp(counts[low][: N - 10]) < 120  # two of forty a draw: 100 times each
    np.testing.assert_array_equal(
        rows[0], offered(history, free, 8, jax.random.split(KEY, 2000)[0])
    )


@pytest.mark.parametrize("count", [4, 10, 33])
def test_every_free_row_is_offered_within_the_longest_wait(count):
    history, free = scored(), jnp.ones(N, bool)
    waited = np.zeros(N, int)
    for number in range(1, 30):
        rows = offered(history, free, count, jax.random.fold_in(KEY, number))
        history = update(history, rows, history.scores[rows], number)  # the best stay the best
        waited += 1
        waited[np.asarray(rows)] = 0
        assert waited.max() < longest_wait(N, count)


def test_scores_that_are_not_finite_put_a_row_last():
    history = update(begin(N), ALL, jnp.asarray([jnp.nan, -jnp.inf, jnp.inf] + [-1e30] * 37), 0)
    history = update(history, ALL, history.scores, 0)
    assert np.isfinite(history.scores).all()
    assert set(np.argsort(np.asarray(history.scores), kind="stable")[:3]) == {0, 1, 2}


def test_what_a_rule_is_remembered_by_has_no_noise():
    assert history_score("power_bald") is pointwise.bald
    assert history_score("entropy") is pointwise.entropy
    assert history_score("badge") is pointwise.margin


# ---- what is saved


def test_predictions_are_counted_as_they_are_made():
    free = [1000 - 20 * number for number in range(10)]
    found = predictions(free, 200)
    assert found.full == sum(free)
    assert found.made == 1000 + 9 * 200
    assert found.saved == pytest.approx(1 - 2800 / 9100)
    assert predictions(free, 1000).saved == 0
    assert predictions([], 10).saved == 0


@pytest.mark.parametrize(
    ("share", "batch", "first", "count"),
    [(0.2, 10, True, 1000), (0.2, 10, False, 200), (0.2, 300, False, 600), (1.0, 10, False, 1000),
     (0.0011, 1, False, 2), (0.2, 900, False, 1000)],
)  # fmt: skip
def test_candidates_are_a_share_with_room_to_choose(share, batch, first, count):
    assert candidate_count(1000, share, batch, first=first) == count


def test_spread_over_devices_the_candidates_are_the_same():
    devices = np.asarray(jax.devices())
    rows = len(devices) * math.ceil(N / len(devices))
    history = update(begin(rows), jnp.arange(rows), np.random.default_rng(0).normal(size=rows), 0)
    free = jnp.asarray(np.random.default_rng(1).random(rows) < 0.8)
    specs = (PartitionSpec("rows"), PartitionSpec("rows"), PartitionSpec())

    def spread(history, free, key):
        return reduce(history, free, 15, key, axis="rows")

    mapped = jax.jit(
        jax.shard_map(
            spread,
            mesh=Mesh(devices, ("rows",)),
            in_specs=specs,
            out_specs=PartitionSpec(),
            check_vma=False,
        )
    )
    np.testing.assert_array_equal(mapped(history, free, KEY), offered(history, free, 15, KEY))

"""EPIG for batches against every outcome of the labels written out."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from by_enumeration import about_targets, is_greedy
from hypothesis import given, settings
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from strategies import FEW, log_probs, log_softmax, seeded_log_probs

from enn_finetune.acquisition import predictions
from enn_finetune.acquisition.epig_batch import epig_batch, epig_batch_gains
from enn_finetune.acquisition.pool_wide import epig
from enn_finetune.acquisition.rows import BLOCK
from enn_finetune.types import Axis, Shown, Targets

KEY = jax.random.key(0)


def read(lp):
    return epig_batch.read(jnp.asarray(lp), jnp.zeros((lp.shape[1], 0)))


@functools.partial(jax.jit, static_argnums=1)
def chosen(lp, count, targets=None):
    free = jnp.ones(lp.shape[1], bool)
    about = None if targets is None else read(targets)
    return epig_batch_gains(read(lp), free, count, KEY, targets=about)


@pytest.mark.parametrize("classes", [2, 3])
@settings(FEW, max_examples=40)
@given(data=log_probs(4, 8, 6))
def test_rows_are_the_greedy_ones_of_all_outcomes_and_gains_what_they_add(classes, data):
    lp, targets = np.split(log_softmax(data[:, :, :classes]), [5], axis=1)
    rows, gains = chosen(lp, 3, targets)
    assert np.isfinite(gains).all()
    assert len(set(rows.tolist())) == 3
    score = functools.partial(about_targets, targets=targets)
    is_greedy(score, lp, rows.tolist(), np.asarray(gains))


@pytest.mark.parametrize(("classes", "count"), [(2, 8), (3, 5)])
def test_without_targets_they_are_the_pool(classes, count):
    lp = seeded_log_probs(classes, 7, 30, classes)
    rows, gains = chosen(lp, count)
    score = functools.partial(about_targets, targets=lp)
    is_greedy(score, lp, rows.tolist(), np.asarray(gains))
    scores = np.asarray(epig(jnp.asarray(lp), KEY))
    assert rows[0] == scores.argmax()
    np.testing.assert_allclose(gains[0], scores.max(), atol=1e-6)


def test_a_pool_of_many_blocks_gets_a_batch_about_as_good_as_the_greedy_one():
    lp, targets = seeded_log_probs(1, 8, 300, 2), seeded_log_probs(2, 8, 5, 2)
    rows, gains = chosen(lp, 4, targets)
    score, greedy = functools.partial(about_targets, targets=targets), []
    for _ in range(4):
        rest = [row for row in range(300) if row not in greedy]
        greedy.append(max(rest, key=lambda row: score(lp, [*greedy, row])))
    np.testing.assert_allclose(np.sum(gains), score(lp, rows.tolist()), atol=1e-5)
    assert np.sum(gains) > 0.95 * score(lp, greedy)


def test_a_row_that_tells_nothing_by_itself_is_bought_for_what_it_tells_with_another():
    """Row 2 says whether rows 0 and 1 agree, and says it clearly: with row 0's label, it is 1's."""
    sides = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])  # (K, kinds)
    logits = np.stack([2.0 * sides[:, 0], 1.9 * sides[:, 1], 4.0 * sides[:, 2]], 1)
    lp = log_softmax(np.stack([logits, -logits], -1))
    alone = np.asarray(chosen(lp[:, 2:], 1, lp[:, :2])[1])
    np.testing.assert_allclose(alone, 0, atol=1e-6)
    rows, _ = chosen(lp, 2, lp[:, :2])
    assert rows.tolist() == [0, 2]


def test_copies_come_after_all_other_rows():
    lp = np.tile(seeded_log_probs(3, 4, 6, 3), (1, 4, 1))
    rows = np.asarray(chosen(lp, 24)[0])
    assert set((rows[:6] % 6).tolist()) == set(range(6))
    assert sorted(rows.tolist()) == list(range(24))


@pytest.mark.slow
def test_a_batch_longer_than_its_table_has_finite_gains_and_distinct_rows():
    lp = seeded_log_probs(4, 10, 90, 2, scale=1.0)
    rows, gains = chosen(lp, 40)
    assert np.isfinite(gains).all()
    assert (np.asarray(gains) >= 0).all()
    assert len(set(rows.tolist())) == 40


@pytest.mark.slow
def test_targets_of_what_is_shown_are_those_of_the_rule():
    lp, targets = seeded_log_probs(5, 6, 40, 2), seeded_log_probs(6, 6, 4, 2)
    about = Targets(jnp.asarray(targets), jnp.zeros((4, 3)))
    shown = Shown(jnp.asarray(lp), jnp.zeros((40, 3)), jnp.arange(40) > 9, about)
    rows = np.asarray(epig_batch(shown, 4, KEY))
    assert (rows > 9).all()
    expected, _ = chosen(lp[:, 10:], 4, targets)
    np.testing.assert_array_equal(rows, expected + 10)


@pytest.mark.slow
def test_rows_spread_over_devices_are_the_same_to_the_last_bit():
    devices = len(jax.devices())
    axis = Axis("rows", devices * BLOCK - 1000)
    lp = np.tile(seeded_log_probs(9, 6, devices * BLOCK // 4, 2), (1, 4, 1))
    lp[:, axis.rows :] = 0
    free = np.arange(lp.shape[1]) < axis.rows
    kept = predictions.read_predictions(jnp.asarray(lp), jnp.zeros((lp.shape[1], 0)))

    def on(number):
        mesh = Mesh(np.array(jax.devices()[:number]), ("rows",))

        def picked(probs, information, free):
            kept = predictions.Predictions(probs, information)
            return epig_batch_gains(kept, free, 4, KEY, axis=axis)

        spread = jax.shard_map(
            picked, mesh=mesh, in_specs=(P("rows"),) * 3, out_specs=P(), check_vma=False
        )
        return jax.tree.map(np.asarray, jax.jit(spread)(*kept, free))

    alone, together = on(1), on(devices)
    np.testing.assert_array_equal(alone[0], together[0])
    np.testing.assert_array_equal(alone[1], together[1])
    assert free[alone[0]].all()

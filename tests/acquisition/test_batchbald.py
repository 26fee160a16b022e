"""BatchBALD against every outcome of the labels written out, and what is drawn against that."""

import functools

import baal_heuristics
import by_enumeration
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from by_enumeration import about_index, is_greedy
from hypothesis import given
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from strategies import FEW, log_probs, log_softmax, seeded_log_probs

from enn_finetune.acquisition import label_table, lazy_greedy, predictions
from enn_finetune.acquisition.batchbald import (
    CONFIGURATIONS,
    batchbald,
    batchbald_gains,
    conditional_information,
)
from enn_finetune.acquisition.pointwise import bald
from enn_finetune.acquisition.rows import BLOCK
from enn_finetune.types import Axis, Shown

KEY = jax.random.key(0)


@functools.partial(jax.jit, static_argnums=1)
def chosen(lp, count, key=KEY, free=None):
    kept = batchbald.read(lp, jnp.zeros((lp.shape[1], 0)))
    free = jnp.ones(lp.shape[1], bool) if free is None else free
    return batchbald_gains(kept, free, count, key)


@pytest.mark.parametrize("classes", [2, 3])
@FEW
@given(data=log_probs(4, 5, 6))
def test_rows_are_the_greedy_ones_of_all_outcomes_and_gains_what_they_add(classes, data):
    lp = log_softmax(data[:, :, :classes])
    rows, gains = chosen(lp, 4)
    assert np.isfinite(gains).all()
    assert len(set(rows.tolist())) == 4
    is_greedy(about_index, lp, rows.tolist(), np.asarray(gains))


@pytest.mark.parametrize(("classes", "count"), [(2, 9), (3, 6), (5, 4)])
def test_a_pool_of_several_blocks_gets_the_greedy_rows_though_few_are_looked_at(
    classes, count, monkeypatch
):
    monkeypatch.setattr("enn_finetune.acquisition.batchbald.LOOK", 1)  # 16 rows a look
    lp = seeded_log_probs(classes, 7, 60, classes)
    rows, gains = jax.jit(lambda lp: chosen.__wrapped__(lp, count))(lp)
    is_greedy(about_index, lp, rows.tolist(), np.asarray(gains))
    assert (np.diff(gains) < 1e-6).all()


@pytest.mark.parametrize("seed", range(5))
def test_a_batch_of_one_is_the_best_row_of_bald(seed):
    lp = seeded_log_probs(seed, 6, 50, 3)
    free = np.random.default_rng(seed).random(50) < 0.5
    scores = np.where(free, bald(jnp.asarray(lp), KEY), -1)
    rows, gains = chosen(lp, 1, KEY, free)
    assert rows.tolist() == [scores.argmax()]
    np.testing.assert_allclose(gains[0], scores.max(), atol=1e-6)


def test_two_rows_that_disagree_most_but_alike_are_worse_than_one_and_another():
    """The example of the paper's figure 1: top-k BALD buys the copy in all but name."""
    sides = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]])
    logits = np.stack([3.0 * sides[:, 0], 3.01 * sides[:, 0], 2.0 * sides[:, 1]], 1)
    lp = log_softmax(np.stack([logits, -logits], -1))
    assert set(np.argsort(-np.asarray(bald(lp, KEY)))[:2].tolist()) == {0, 1}
    assert chosen(lp, 2)[0].tolist() == [1, 2]


def test_copies_come_after_all_other_rows():
    lp = np.tile(seeded_log_probs(3, 4, 6, 3), (1, 4, 1))
    rows = np.asarray(chosen(lp, 24)[0])
    assert set((rows[:6] % 6).tolist()) == set(range(6))
    assert sorted(rows.tolist()) == list(range(24))


def test_drawn_outcomes_estimate_what_all_of_them_would_give():
    """Six labels have 64 outcomes: a table of 16 draws; the mean over many tables is exact."""
    lp = seeded_log_probs(5, 6, 10, 2, scale=1.0)
    probs = jnp.moveaxis(jnp.exp(lp), 0, 1)

    def estimate(key, size):
        table = label_table.nothing_known(size, 6)
        for row in range(6):
            table = label_table.extended(table, probs[row], jax.random.fold_in(key, row))
        return conditional_information(table, probs[..., 1:])

    exact = np.asarray(estimate(KEY, 64))
    before = about_index(lp, list(range(6)))
    expected = [about_index(lp, [*range(6), row]) - before for row in range(10)]
    np.testing.assert_allclose(exact, expected, atol=2e-6)
    found = np.asarray(jax.jit(jax.vmap(lambda key: estimate(key, 16)))(jax.random.split(KEY, 500)))
    error = found.std(0) / np.sqrt(500)
    assert (np.abs(found.mean(0) - exact) < 4 * error).all()
    assert (found >= -1e-6).all()
    assert (found.std(0) < exact).all()


def test_a_long_batch_of_drawn_outcomes_is_about_as_good_as_of_all(monkeypatch):
    rng = np.random.default_rng(6)  # ten sorts of rows, some disputed more than others
    logits = np.repeat(np.linspace(0.7, 1.5, 10) * rng.normal(size=(30, 10)), 8, axis=1)
    logits += 0.1 * rng.normal(size=logits.shape)
    lp = log_softmax(np.stack([logits, -logits], -1))
    exact, _ = chosen(lp, 10)
    monkeypatch.setattr("enn_finetune.acquisition.batchbald.CONFIGURATIONS", 64)
    drawn, _ = jax.jit(lambda lp: chosen.__wrapped__(lp, 10))(lp)
    best = about_index(lp, exact.tolist())
    found = about_index(lp, drawn.tolist())
    assert found > 0.95 * best
    assert found > about_index(lp, np.argsort(-np.asarray(bald(lp, KEY)))[:10].tolist())


@pytest.mark.parametrize(("labels", "classes", "size"), [(0, 2, 1), (3, 3, 27), (99, 1, 1)])
def test_a_table_is_as_large_as_its_outcomes(labels, classes, size):
    assert label_table.size_for(labels, classes, CONFIGURATIONS) == size
    assert label_table.size_for(99, 2, CONFIGURATIONS) == CONFIGURATIONS
    assert label_table.exact_labels(4096, 2) == 12
    assert label_table.exact_labels(729, 3) == 6
    assert label_table.size_for(6, 3, 4096) == 1024  # whole steps of 512


def test_a_table_of_all_outcomes_has_their_probabilities_and_posteriors():
    lp = seeded_log_probs(8, 5, 3, 3)
    probs = jnp.moveaxis(jnp.exp(lp), 0, 1)
    table = label_table.nothing_known(label_table.size_for(3, 3, 4096), 5)
    for row in range(3):
        table = label_table.extended(table, probs[row], KEY)
    outcomes = by_enumeration.joint(by_enumeration.probabilities(lp), [0, 1, 2])  # (K, 27)
    np.testing.assert_allclose(table.shares, outcomes.mean(0), atol=1e-6)
    np.testing.assert_allclose(table.weights, (outcomes / outcomes.sum(0)).T, atol=1e-5)
    assert int(table.used) == 27


def test_exhausted_indices_still_tell_informative_rows_from_certain_ones():
    """Three functions told apart by two labels; thirty rows are disputed, thirty are not."""
    rng = np.random.default_rng(0)
    logits = np.where(rng.random((3, 60)) < 0.5, -1, 1) * rng.uniform(2, 6, (3, 60))
    logits[:, 30:] = logits[:1, 30:]
    logits[0, :30], logits[1, :30] = np.abs(logits[0, :30]), -np.abs(logits[1, :30])
    order = rng.permutation(60)
    lp = log_softmax(np.stack([logits, -logits], -1))[:, order]
    rows, gains = chosen(lp, 30)
    assert np.isfinite(gains).all()
    assert (gains[:2] > 0.2).all()
    assert set(order[rows].tolist()) == set(range(30))


@pytest.mark.slow
def test_rows_spread_over_devices_are_the_same_to_the_last_bit():
    count = 25
    devices = len(jax.devices())
    axis = Axis("rows", devices * BLOCK - 1000)
    lp = np.tile(seeded_log_probs(9, 12, devices * BLOCK // 4, 2), (1, 4, 1))
    lp[:, axis.rows :] = 0
    free = np.arange(lp.shape[1]) < axis.rows
    free[::7] = False

    def on(number):
        mesh = Mesh(np.array(jax.devices()[:number]), ("rows",))

        def picked(probs, information, free):
            kept = predictions.Predictions(probs, information)
            return batchbald_gains(kept, free, count, KEY, axis=axis)

        spread = jax.shard_map(
            picked, mesh=mesh, in_specs=(P("rows"),) * 3, out_specs=P(), check_vma=False
        )
        return jax.tree.map(np.asarray, jax.jit(spread)(*kept, free))

    kept = predictions.read_predictions(jnp.asarray(lp), jnp.zeros((lp.shape[1], 0)))
    rows, gains = on(1)
    assert len(set(rows.tolist())) == count
    assert free[rows].all()
    together = on(devices)
    np.testing.assert_array_equal(together[0], rows)
    np.testing.assert_array_equal(together[1], gains)


def test_seeds_together_get_the_rows_that_each_gets_alone_and_it_is_traced_once():
    stacked = np.stack([seeded_log_probs(seed, 5, 30, 2) for seed in range(3)])
    keys = jax.random.split(KEY, 3)
    traces = []

    def traced(lp, key):
        traces.append(1)
        shown = Shown(lp, jnp.zeros((30, 1)), jnp.ones(30, bool))
        return batchbald(shown, 12, key)

    alone = jax.jit(traced)
    expected = [np.asarray(alone(lp, key)) for lp, key in zip(stacked, keys, strict=True)]
    assert len(traces) == 1
    np.testing.assert_array_equal(jax.jit(jax.vmap(traced))(stacked, keys), expected)


def test_only_rows_that_could_be_the_best_are_looked_at(monkeypatch):
    looks = []

    def counted(table, probs):
        jax.debug.callback(lambda used: looks.append(int(used)), table.used)
        return conditional_information(table, probs)

    monkeypatch.setattr("enn_finetune.acquisition.batchbald.conditional_information", counted)
    monkeypatch.setattr("enn_finetune.acquisition.batchbald.LOOK", 1)  # 16 rows a look
    scales = np.geomspace(0.01, 3, 640)[:, None]
    lp = log_softmax(scales * np.random.default_rng(0).normal(size=(8, 640, 2)))
    rows, gains = jax.jit(lambda lp: chosen.__wrapped__(lp, 6))(lp)
    jax.effects_barrier()
    assert len(looks) < 5 * 40 / 3  # of five passes over forty blocks
    is_greedy(about_index, lp[:, 320:], (rows - 320).tolist(), np.asarray(gains))


def test_scores_are_those_of_batchbald_redux():
    """Its exact joint entropy; where a probability is 0 it gives NaN, which is left out here."""
    torch = pytest.importorskip("torch")
    peer = pytest.importorskip("batchbald_redux.batchbald")
    for classes, count in ((2, 8), (3, 5)):
        lp = seeded_log_probs(classes, 10, 40, classes)
        theirs = peer.get_batchbald_batch(
            torch.tensor(lp).permute(1, 0, 2).double(), count, 10_000, dtype=torch.double
        )
        rows, gains = chosen(lp, count)
        assert rows.tolist() == theirs.indices
        # A later score leaves out nothing: it is that of the batch with the row.
        np.testing.assert_allclose(np.cumsum(gains), theirs.scores, atol=1e-5)


def test_bald_is_baal_s():
    """Baal's predictions are (N, C, K); its BatchBALD adds scores of one draw, and is not ours."""
    heuristics = baal_heuristics.load()
    lp = seeded_log_probs(4, 10, 40, 3)
    probs = by_enumeration.probabilities(lp).transpose(1, 2, 0)
    np.testing.assert_allclose(heuristics.BALD().compute_score(probs), bald(lp, KEY), atol=1e-5)


def test_fingerprints_tell_rows_from_copies():
    probs = np.exp(seeded_log_probs(1, 20, 50, 3)).transpose(1, 0, 2)
    probs[25:] = probs[:25]
    probs[30, 0] += [1e-3, -1e-3, 0]
    marks = np.asarray(lazy_greedy.fingerprints(jnp.asarray(probs)))
    same = (np.abs(marks[:, None] - marks[None]) <= lazy_greedy.SAME).all(-1)
    expected = np.arange(50)[:, None] % 25 == np.arange(50)[None] % 25
    expected[5, 30] = expected[30, 5] = False
    np.testing.assert_array_equal(same, expected)

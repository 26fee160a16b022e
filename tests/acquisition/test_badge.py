"""BADGE against gradient embeddings written out, and the distribution of its draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from strategies import seeded_log_probs

from enn_finetune.acquisition import distances
from enn_finetune.acquisition.badge import badge, gradient_embeddings
from enn_finetune.acquisition.rows import take
from enn_finetune.types import Shown

K, N, C, D = 3, 12, 4, 6
KEY = jax.random.key(0)
chosen = jax.jit(badge, static_argnums=1)
embedded = jax.jit(gradient_embeddings)
distances_from = jax.jit(lambda rows, row: distances.distances_from(rows)(take(rows, row, None)))


def shown(seed: int, free: np.ndarray | None = None, rows: int = N) -> Shown:
    features = np.random.default_rng(seed).normal(size=(rows, D)).astype(np.float32)
    mask = np.ones(rows, bool) if free is None else free
    return Shown(jnp.asarray(seeded_log_probs(seed, K, rows, C)), jnp.asarray(features), mask)


def written_out(seen: Shown) -> np.ndarray:
    """The embeddings (N, C * D) themselves, in float64."""
    probs = np.exp(np.asarray(seen.log_probs, np.float64)).mean(0)
    residuals = probs - np.eye(C)[probs.argmax(1)]
    outer = residuals[:, :, None] * np.asarray(seen.features, np.float64)[:, None, :]
    return outer.reshape(len(probs), -1)


def test_distances_from_the_factors_are_those_of_the_embeddings():
    seen = shown(0)
    full = written_out(seen)
    embeddings = embedded(seen.log_probs, seen.features)
    np.testing.assert_allclose(embeddings.norms, (full**2).sum(1), rtol=1e-5)
    for row in range(N):
        expected = ((full - full[row]) ** 2).sum(1)
        found = distances_from(embeddings, jnp.int32(row))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_the_embedding_is_the_gradient_at_the_label_held_for_true():
    seen = shown(1)._replace(log_probs=jnp.asarray(seeded_log_probs(1, 1, N, C)))
    logits, x = seen.log_probs[0], seen.features

    def loss(w, row):
        return -jax.nn.log_softmax(logits[row] + w @ x[row])[jnp.argmax(logits[row])]

    gradients = jax.jit(jax.vmap(jax.grad(loss), (None, 0)))(jnp.zeros((C, D)), jnp.arange(N))
    np.testing.assert_allclose(gradients.reshape(N, -1), written_out(seen), atol=1e-5)


def test_duplicates_are_at_distance_0_however_long():
    seen = shown(2, rows=40)
    seen = seen._replace(
        features=1e3 * jnp.tile(seen.features[:20], (2, 1)),
        log_probs=jnp.tile(seen.log_probs[:, :20], (1, 2, 1)),
    )
    embeddings = embedded(seen.log_probs, seen.features)
    for row in range(20):
        distances = np.asarray(distances_from(embeddings, jnp.int32(row)))
        assert distances[row] == distances[row + 20] == 0
        assert (np.delete(distances, [row, row + 20]) > 0).all()


def test_the_first_is_the_free_row_of_largest_norm_whatever_the_key():
    seen = shown(3)
    norms = (written_out(seen) ** 2).sum(1)
    free = np.ones(N, bool)
    for expected in np.argsort(-norms)[:3]:
        for seed in range(3):
            rows = chosen(seen._replace(free=jnp.asarray(free)), 1, jax.random.key(seed))
            assert rows.tolist() == [expected]
        free[expected] = False


@pytest.mark.parametrize("place", [1, 2])
def test_each_next_row_is_drawn_by_its_squared_distance_from_the_nearest_before_it(place):
    free = np.ones(N, bool)
    free[[1, 5]] = False
    seen = shown(4, jnp.asarray(free))
    full = written_out(seen)
    draw = jax.jit(jax.vmap(lambda key: badge(seen, 3, key)))
    found = np.asarray(draw(jax.random.split(KEY, 6000)))
    before = found[:, :place]
    common = np.unique(before, axis=0, return_counts=True)
    given = common[0][common[1].argmax()]
    rows = found[(before == given).all(1), place]
    distances = ((full[:, None] - full[given][None]) ** 2).sum(-1).min(1) * free
    expected = distances / distances.sum() * len(rows)
    counts = np.bincount(rows, minlength=N)
    assert (np.abs(counts - expected) < 5 * np.sqrt(expected + 1)).all()
    assert len(rows) > 500


def test_a_head_that_is_certain_of_every_row_gets_a_uniform_draw():
    lp = np.where(np.eye(C)[np.zeros(N, int)] > 0, 0, -np.inf)[None].astype(np.float32)
    seen = shown(5)._replace(log_probs=jnp.asarray(lp))
    draw = jax.jit(jax.vmap(lambda key: badge(seen, 2, key)[1]))
    counts = np.bincount(np.asarray(draw(jax.random.split(KEY, 2200))), minlength=N)
    assert counts[0] == 0  # the first centre
    assert np.abs(counts[1:] - 200).max() < 75


def test_the_embeddings_are_never_written_out():
    """No array of the compiled program is as large as (N, C * D)."""
    rows, classes, width = 512, 15, 32
    seen = Shown(
        jax.ShapeDtypeStruct((2, rows, classes), jnp.float32),
        jax.ShapeDtypeStruct((rows, width), jnp.float32),
        jax.ShapeDtypeStruct((rows,), jnp.bool_),
    )
    key = jax.eval_shape(lambda: jax.random.key(0))
    compiled = jax.jit(badge, static_argnums=1).lower(seen, 4, key).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 4 * rows * classes * width / 2

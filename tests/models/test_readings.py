"""Which encoder layers a shaped regression reads: the readings, and their choice by evidence."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from enn_finetune.models.laplace import L2_GRID, fit_linear_epinet
from enn_finetune.models.linear_epinet import LinearEpinet, ShapedLinear, blank_fit
from enn_finetune.models.shaped_features import pool_shapes, read, shape_matrix, shaped_rows

N, D, V = 64, 6, 3
KEY = jax.random.key(0)
fit_jit = jax.jit(fit_linear_epinet)


def layers(telling: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """V layers side by side (4 N, V * D), of which one tells the class; and targets."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(4 * N, V, D)).astype(np.float32) * [[[5.0]], [[1.0]], [[0.2]]][0]
    labels = (features[:, telling, 0] > 0).astype(int)
    return features.reshape(4 * N, V * D).astype(np.float32), np.eye(2, dtype=np.float32)[labels]


def test_a_reading_is_a_sum_of_layers_of_equal_size():
    features, _ = layers(0)
    pool = pool_shapes(features, views=V)
    each = features.reshape(-1, V, D)
    scaled = each / np.sqrt((each**2).sum(2).mean(0))[None, :, None]
    scaled = scaled - scaled.mean(0)
    for reading, wanted in enumerate([scaled[:, -1], scaled.mean(1), scaled[:, 0]]):
        found = read(jnp.asarray(features), pool.mean, pool.readings[reading])
        size = np.sqrt((wanted**2).sum(1).mean())
        np.testing.assert_allclose(found, wanted / size, atol=1e-5)


@pytest.mark.parametrize("exponent", [0.0, 0.5])
@pytest.mark.parametrize("reading", range(3))
def test_shaped_rows_of_layers_are_those_of_the_reading_alone(reading, exponent):
    features, _ = layers(1)
    pool = pool_shapes(features, views=V)
    alone = np.asarray(read(jnp.asarray(features), pool.mean, pool.readings[reading]))
    single = pool_shapes(alone)
    rows = shaped_rows(features, pool.mean, shape_matrix(pool, exponent, reading))
    same = shaped_rows(alone, single.mean, shape_matrix(single, exponent))
    np.testing.assert_allclose(rows @ rows.T, same @ same.T, atol=1e-4)


@pytest.mark.parametrize(("telling", "reading"), [(0, 2), (2, 0)])
def test_evidence_finds_the_layer_that_tells(telling, reading):
    features, targets = layers(telling)
    pool = pool_shapes(features, views=V)
    fit = fit_jit(features[:N], targets[:N], np.ones(N, np.float32), pool, key=KEY)
    assert int(fit.reading) == reading
    assert fit.evidence.shape == (2 * len(pool.exponents) + 1, len(L2_GRID))
    right = LinearEpinet(fit).many(features, jnp.zeros((1, 32)))[0].argmax(1) == targets.argmax(1)
    assert right.mean() > 0.85


def test_two_layers_have_two_readings_and_one_has_one():
    features, _ = layers(0)
    assert pool_shapes(features[:, : 2 * D], views=2).readings.shape == (2, 2)
    assert pool_shapes(features).readings.shape == (1, 1)


def test_widths_that_no_number_of_layers_fits():
    with pytest.raises(ValueError, match="views=4"):
        pool_shapes(np.ones((3, 6), np.float32), views=4)


def test_a_blank_fit_has_the_shapes_of_one_with_layers():
    features, targets = layers(0)
    pool = pool_shapes(features, views=V)
    fit = fit_jit(features[:N], targets[:N], np.ones(N, np.float32), pool, key=KEY)
    blank = blank_fit(V * D, 2, views=V)
    for name in ("mean", "matrix", "coefficients", "factor", "reading"):
        assert getattr(blank, name).shape == getattr(fit, name).shape, name
    assert ShapedLinear(fit).config["views"] == V


def test_the_known_mean_is_what_many_indices_average_to():
    features, targets = layers(2)
    pool = pool_shapes(features, views=V)
    fit = fit_jit(features[:N], targets[:N], np.ones(N, np.float32), pool, key=KEY)
    head = LinearEpinet(fit)
    z = head.sample_index(jax.random.key(1), 4096)
    mean = jax.nn.softmax(head.many(features[:50], z), axis=-1).mean(0)
    known = jnp.exp(head.mean_from_rows(head.rows(features[:50])))
    np.testing.assert_allclose(known, mean, atol=0.02)

"""The NeurONAL pair: its embedding and derivative against autodiff, its folds, its indices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from enn_finetune import train
from enn_finetune.models import neuronal
from enn_finetune.models.backbone import Identity
from enn_finetune.models.classifier import Classifier
from enn_finetune.models.neuronal import (
    HIDDEN,
    Neuronal,
    TwoLayers,
    blank_layers,
    corrections,
    embedding,
    fit_neuronal,
    outputs,
)
from enn_finetune.models.shaped_features import pool_shapes

D, C, N = 6, 3, 48
KEY = jax.random.key(0)


def nets(seed: int, width: int) -> TwoLayers:
    net = blank_layers(jax.random.key(seed), width, C)
    return net._replace(last=jax.random.normal(jax.random.key(seed + 1), (HIDDEN, C)))


def made(seed: int = 0, n: int = 5) -> tuple[TwoLayers, jax.Array, jax.Array]:
    x = jax.random.normal(jax.random.key(seed + 2), (n, D))
    net = nets(seed, D)
    return net, x, jax.nn.softmax(outputs(net, x))


def test_the_embedding_holds_the_derivatives_by_the_last_layer():
    net, x, probs = made()
    phi = np.asarray(embedding(net, x, probs))
    np.testing.assert_allclose(np.sum(phi**2, axis=1), 1, rtol=1e-5)
    for row in range(len(x)):

        def prob(last, row=row):
            return jax.nn.softmax(outputs(TwoLayers(net.first, last), x[row][None])[0])

        slopes = np.asarray(jax.jacobian(prob)(net.last))  # (C, H, C)
        own = np.stack([slopes[c, :, c] for c in range(C)], axis=-1)  # (H, C)
        found = phi[row, HIDDEN + 1 :].reshape(HIDDEN + 1, C)[:HIDDEN]
        assert np.corrcoef(found.ravel(), own.ravel())[0, 1] > 1 - 1e-5  # but for the norm


def test_what_f2_adds_is_a_shift_of_logits_to_first_order_and_adds_up_to_0():
    net, x, probs = made()
    phi = embedding(net, x, probs)
    second = nets(7, phi.shape[1])
    added = np.asarray(corrections(second, phi, probs))
    np.testing.assert_allclose(added.sum(1), 0, atol=1e-6)
    shift = neuronal.SIGNAL * outputs(second, phi)
    small = 1e-2
    moved = jax.nn.softmax(jnp.log(probs) + small * shift) - probs
    np.testing.assert_allclose(small * added, moved, atol=1e-3)


@functools.cache
def problem(wrong: float = 0.0):
    """Rows of two kinds of labels: by a direction, and beyond a point the other way round."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(N, D)).astype(np.float32)
    labels = (x[:, 0] > 0).astype(int)
    labels = np.where(rng.random(N) < wrong, 1 - labels, labels)
    return jnp.asarray(x), jnp.asarray(np.eye(2, dtype=np.float32)[labels])


fit = jax.jit(fit_neuronal)


@functools.cache
def fitted(wrong: float = 0.0):
    x, targets = problem(wrong)
    return fit(x, targets, jnp.ones(N), pool_shapes(x), key=KEY)


@pytest.mark.slow
def test_both_networks_are_trained_to_a_flat_place():
    found = fitted(0.3)
    assert (np.asarray(found.gradients) < 0.3).all()
    assert np.abs(found.exploitation.last).max() > 0
    assert np.abs(found.exploration.last).max() > 0


@pytest.mark.slow
def test_the_mean_over_indices_is_f1_plus_f2():
    x, _ = problem(0.3)
    head = Neuronal(fitted(0.3))
    rows = head.rows(x)
    z = head.sample_index(KEY, 8)
    np.testing.assert_allclose(z[::2] + z[1::2], 2, rtol=1e-6)
    assert sorted(np.floor(4 * np.asarray(z)[::2, 0])) == [0, 1, 2, 3]
    assert head.sample_index(KEY, 3).shape == (3, 1)
    probs, added = head.networks(rows)
    mean = np.exp(head.mean_from_rows(rows))
    np.testing.assert_allclose(mean, probs + added, atol=1e-5)
    sampled = jnp.mean(jax.nn.softmax(head.from_rows(rows, z)), axis=0)
    np.testing.assert_allclose(sampled, mean, atol=5e-3)
    parts = train.split(Classifier(Identity(x.shape[1]), head), "frozen")
    predicted, each = train.predictions(parts, x, KEY, indices=3)
    np.testing.assert_allclose(np.exp(predicted), mean, atol=1e-5)  # drawn indices have no part
    assert each.shape == (3, *predicted.shape)
    alone = jax.nn.softmax(head.from_rows(rows, jnp.zeros((1, 1)))[0])
    np.testing.assert_allclose(alone, probs, atol=1e-6)


@pytest.mark.slow
def test_f2_expects_errors_where_labels_contradict_f1_and_none_where_it_is_right():
    sizes = []
    for wrong in (0.0, 0.3):
        x, _ = problem(wrong)
        head = Neuronal(fitted(wrong))
        _, added = head.networks(head.rows(x))
        sizes.append(float(jnp.sqrt(jnp.mean(added**2))))
    assert sizes[1] > sizes[0] > 0

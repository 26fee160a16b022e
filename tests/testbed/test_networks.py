"""Layers with the rows last, and the softmax class by class, against the plain formulas."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from enn_finetune.testbed.agents.epinet import contracted
from enn_finetune.testbed.networks import apply_mlp, class_log_probs, init_mlp, last_hidden

KEY = jax.random.key(0)


def plain_hidden(layers, x):
    """Rows first: (N, d) -> (N, H), in float64."""
    for weights, biases in layers[:-1]:
        x = np.maximum(x @ np.asarray(weights, float) + np.asarray(biases, float), 0)
    return x


def plain(layers, x):
    return plain_hidden(layers, x) @ np.asarray(layers[-1][0], float) + np.asarray(layers[-1][1])


def made(sizes):
    layers = init_mlp(KEY, sizes, first_bias=0.5)
    keys = jax.random.split(jax.random.key(1), len(layers))
    return tuple(
        (weights, biases + jax.random.normal(key, biases.shape))
        for (weights, biases), key in zip(layers, keys, strict=True)
    )


@pytest.mark.parametrize("sizes", [(3, 2), (1, 5, 3), (2, 16, 16, 2), (10, 50, 50, 4)])
def test_the_layout_changes_nothing(sizes):
    layers, x = made(sizes), jax.random.normal(jax.random.key(2), (7, sizes[0]))
    rows = np.asarray(x, float)
    np.testing.assert_allclose(last_hidden(layers, x), plain_hidden(layers, rows), atol=1e-5)
    logits = plain(layers, rows)
    np.testing.assert_allclose(apply_mlp(layers, x), logits, atol=1e-5)
    expected = logits - np.log(np.sum(np.exp(logits), axis=1, keepdims=True))
    np.testing.assert_allclose(class_log_probs(layers, x), expected, atol=1e-5)
    assert [weights.shape for weights, _ in layers] == list(itertools.pairwise(sizes))


def test_gradients_are_those_of_the_plain_layout():
    layers, x = made((2, 4, 3)), jax.random.normal(KEY, (5, 2))

    def rows_first(layers):
        (first, one), (last, two) = layers
        logits = jax.nn.relu(x @ first + one[None]) @ last + two[None]
        return jax.nn.log_softmax(logits, axis=-1)

    for ours, theirs in (
        (lambda of: class_log_probs(of, x), rows_first),
        (lambda of: jax.nn.log_softmax(apply_mlp(of, x), axis=-1), rows_first),
    ):
        found, wanted = (jax.grad(lambda of: jnp.sum(f(of)[:, 1]))(layers) for f in (ours, theirs))  # noqa: B023
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, wanted)


def test_saturated_outputs_are_finite_and_certain():
    layers = ((jnp.array([[1e4, -1e4, 0.0]]), jnp.zeros(3)),)
    found = class_log_probs(layers, jnp.array([[1.0], [-1.0], [0.0]]))
    expected = [[0, -2e4, -1e4], [-2e4, 0, -1e4], [-np.log(3)] * 3]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("hidden", [(5,), (5, 4)])
def test_the_epinets_network_is_one_network_an_index(hidden):
    """reshape(mlp([u, z]), (C, dim z)) . z, index by index."""
    rows, z = jax.random.normal(KEY, (6, 3)), jax.random.normal(jax.random.key(1), (4, 2))
    sigma = made((3 + 2, *hidden, 3 * 2))
    found = contracted(sigma, rows, z, 3)
    for index, of in zip(z, found, strict=True):
        beside = np.concatenate([rows, np.broadcast_to(index, (6, 2))], axis=1)
        expected = plain(sigma, beside).reshape(6, 3, 2) @ np.asarray(index, float)
        np.testing.assert_allclose(of, expected.T, atol=1e-5)

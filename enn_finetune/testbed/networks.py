"""Small multilayer perceptrons as pytrees, and what every agent's loss is made of."""

import functools
import itertools

import jax
import jax.numpy as jnp
from jax import Array

from enn_finetune.testbed.types import Tree

Layers = tuple[tuple[Array, Array], ...]
"""Weights (in, out) and biases (out,) of each layer, the first first."""

EDGE = 2.0  # where the normal weights are cut off, in units of their scale


def init_mlp(key: Array, sizes: tuple[int, ...], *, first_bias: float = 0.0) -> Layers:
    """Draw a perceptron of layers sizes[0] -> sizes[1] -> ... as the testbed does.

    Weights are normal of scale 1 / sqrt(inputs) cut off at twice that (standard deviation .88 of
    the scale); biases are 0, those of the first layer normal of deviation `first_bias`.
    """
    keys = jax.random.split(key, len(sizes))
    layers = []
    for layer, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        weights = jax.random.truncated_normal(keys[layer], -EDGE, EDGE, (inputs, outputs))
        layers.append((weights * inputs**-0.5, jnp.zeros(outputs)))
    if first_bias:
        weights, biases = layers[0]
        layers[0] = (weights, first_bias * jax.random.normal(keys[-1], biases.shape))
    return tuple(layers)


def last_hidden(layers: Layers, x: Array) -> Array:
    """Rows (N, d) -> what the last layer reads (N, H): relu after each layer but the last."""
    return _hidden(layers, x.T).T


def apply_mlp(layers: Layers, x: Array) -> Array:
    """Rows (N, d) -> outputs (N, sizes[-1])."""
    weights, biases = layers[-1]
    return (weights.T @ _hidden(layers, x.T) + biases[:, None]).T


def _hidden(layers: Layers, columns: Array) -> Array:
    """Rows as columns (d, N) -> (H, N).

    With the rows last a CPU works on many of them at a time, however narrow the layers.
    """
    for weights, biases in layers[:-1]:
        columns = jax.nn.relu(weights.T @ columns + biases[:, None])
    return columns


def class_log_probs(layers: Layers, x: Array) -> Array:
    """Rows (N, d) -> log-softmax of the outputs (N, C)."""
    weights, biases = layers[-1]
    return log_softmax(weights.T @ _hidden(layers, x.T) + biases[:, None])


def log_softmax(logits: Array) -> Array:
    """Logits (..., C, N) -> log-probabilities (..., N, C).

    Class by class: reductions over so few values would take longer than the layers before them.
    """
    by_class = [logits[..., label, :] for label in range(logits.shape[-2])]
    top = functools.reduce(jnp.maximum, by_class)
    total = functools.reduce(jnp.add, [jnp.exp(logit - top) for logit in by_class])
    return jnp.swapaxes(logits - (top + jnp.log(total))[..., None, :], -1, -2)


def hide(x: Array, y: Array, weight: Array) -> tuple[Array, Array]:
    """Rows (N, d) and labels (N,), zeros where the weight is 0: what is hidden cannot matter."""
    known = weight > 0
    return jnp.where(known[:, None], x, 0), jnp.where(known, y, 0)


def mean_loss(logits: Array, y: Array, weight: Array) -> Array:
    """Weighted mean over rows of the cross-entropy in nats: (..., N, C) -> (...); 0 of no rows."""
    log_probs = jax.nn.log_softmax(logits, axis=-1)
    picked = jnp.einsum("...nc,nc,n->...", log_probs, jax.nn.one_hot(y, logits.shape[-1]), weight)
    return -picked / rows_known(weight)


def penalty(params: Tree, strength: float | Array, weight: Array) -> Array:
    """Strength times the sum of all squares, divided by the number of rows known: nats a row."""
    squares = sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params))
    return strength * squares / rows_known(weight)


def rows_known(weight: Array) -> Array:
    """The sum of the weights (N,), at least 1."""
    return jnp.maximum(jnp.sum(weight), 1.0)

"""Dropout kept on in prediction (Gal & Ghahramani 2016, arXiv 1506.02142): an index is a mask.

The mask of an index is shared by all rows: one function of x. Masks drawn row by row would make
the rows of a joint prediction independent, and no better than the marginals.
"""

import jax
import jax.numpy as jnp
from jax import Array

from enn_finetune.testbed.agents.penalties import decay
from enn_finetune.testbed.networks import Layers, hide, init_mlp, mean_loss, penalty
from enn_finetune.testbed.types import Agent, Spec, Tree

Masks = tuple[Array, ...]  # (K, H) for each hidden layer: 0 or 1 / (1 - rate)


def dropout(
    spec: Spec,
    *,
    hidden: tuple[int, ...] = (50, 50),
    rate: float = 0.1,
    masks: int = 4,
    l2: float = 0.7,
) -> Agent:
    """A perceptron whose hidden units are dropped.

    Args:
      spec: the problem's numbers.
      hidden: widths of its hidden layers.
      rate: probability that a unit is dropped.
      masks: drawn a training step, each shared by all rows.
      l2: of `penalties.decay`.
    """
    strength = decay(spec, l2)

    def init(key: Array, spec: Spec) -> tuple[Layers, tuple[()]]:
        sizes = (spec.input_dim, *hidden, spec.classes)
        return init_mlp(key, sizes, first_bias=spec.input_dim**-0.5), ()

    def draw_masks(key: Array, count: int) -> Masks:
        keys = jax.random.split(key, len(hidden))
        return tuple(
            jax.random.bernoulli(k, 1 - rate, (count, width)) / (1 - rate)
            for k, width in zip(keys, hidden, strict=True)
        )

    def logits(layers: Layers, x: Array, drawn: Masks) -> Array:
        """(K, N, C) for rows (N, d)."""

        def one(mask: Masks) -> Array:
            units = x
            for (weights, biases), kept in zip(layers[:-1], mask, strict=True):
                units = jax.nn.relu(units @ weights + biases[None]) * kept[None]
            return units @ layers[-1][0] + layers[-1][1][None]

        return jax.vmap(one)(drawn)

    def loss(params: Layers, fixed: Tree, key: Array, x: Array, y: Array, weight: Array) -> Array:
        del fixed
        x, y = hide(x, y, weight)
        losses = mean_loss(logits(params, x, draw_masks(key, masks)), y, weight)
        return jnp.mean(losses) + penalty(params, strength, weight)

    def finish(params: Layers, fixed: Tree, x: Array, y: Array, weight: Array) -> Layers:
        del fixed, x, y, weight
        return params

    def log_probs(fit: Layers, key: Array, x: Array, count: int) -> Array:
        return jax.nn.log_softmax(logits(fit, x, draw_masks(key, count)), axis=-1)

    return Agent(init, loss, finish, log_probs)

"""Laplace's approximation around a trained MLP, for its last layer only (arXiv 2106.14806)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from enn_finetune.testbed.agents.last_layer import LastLayer, draw_logits, last_layer, with_one
from enn_finetune.testbed.agents.mlp import HIDDEN, mlp
from enn_finetune.testbed.agents.penalties import decay
from enn_finetune.testbed.networks import Layers, hide, last_hidden
from enn_finetune.testbed.types import Agent, Spec, Tree


class Fit(NamedTuple):
    """The network, whose own last layer is not used, and the posterior of that layer."""

    layers: Layers
    posterior: LastLayer


def laplace(
    spec: Spec, *, hidden: tuple[int, ...] = HIDDEN, l2: float = 1.0, widen: float = 2.0
) -> Agent:
    """The `mlp` agent with a Gaussian posterior of its last layer.

    The prior is the one that its weight decay stands for: precision 2 * `penalties.decay`.

    Args:
      spec: the problem's numbers.
      hidden: widths of the hidden layers.
      l2: of `penalties.decay`.
      widen: factor on the posterior's standard deviations; the rest of the network is taken for
        certain, which calls for more than 1.
    """
    plain = mlp(spec, hidden=hidden, l2=l2)

    def finish(params: Layers, fixed: Tree, x: Array, y: Array, weight: Array) -> Fit:
        del fixed
        x, y = hide(x, y, weight)
        weights, biases = params[-1]
        features = with_one(last_hidden(params, x))
        stacked = jnp.concatenate([weights, biases[None]])
        posterior = last_layer(features, stacked, weight, 2 * decay(spec, l2))
        return Fit(params, posterior._replace(root=posterior.root / widen))

    def log_probs(fit: Fit, key: Array, x: Array, count: int) -> Array:
        features = with_one(last_hidden(fit.layers, x))
        return jax.nn.log_softmax(draw_logits(fit.posterior, key, features, count), axis=-1)

    return Agent(plain.init, plain.loss, finish, log_probs)

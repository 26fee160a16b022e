"""The MLP epinet: a base network, a learnable and a fixed network of the index (2107.08924).

    f(x, z) = base(x) + sigma([sg phi(x), x], z) + prior_scale / temperature * sum_d z_d g_d(x)

z ~ N(0, I); phi(x) what the base's last layer reads, through which sigma sends no gradient (sg);
sigma(u, z) = reshape(mlp([u, z]), (C, dim z)) contracted with z; g_d small random networks that are
never trained. Sizes and the prior are those of the testbed's epinet (arXiv 2110.04629): 15-15 units
in sigma, 5-5 in each prior, dim z = 8. x is given to sigma as well (2107.08924, section 4), so that
it can take the prior back where labels are: in 10 dimensions, 100 labels and temperature .1 this
lowered the KL of one row from .156 to .145 nats and of ten from 1.01 to .91. Weight decay is 1 / n
as all the agents' is, not the testbed's (d / n)^.7.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from enn_finetune.testbed.agents.penalties import decay
from enn_finetune.testbed.networks import (
    Layers,
    apply_mlp,
    hide,
    init_mlp,
    last_hidden,
    log_softmax,
    mean_loss,
    penalty,
)
from enn_finetune.testbed.types import Agent, Spec


class Nets(NamedTuple):
    """What is trained."""

    base: Layers
    sigma: Layers


class Fit(NamedTuple):
    """A trained epinet."""

    nets: Nets
    priors: Layers  # stacked over dim z


def epinet(
    spec: Spec,
    *,
    hidden: tuple[int, ...] = (50, 50),
    sigma_hidden: tuple[int, ...] = (15, 15),
    prior_hidden: tuple[int, ...] = (5, 5),
    index_dim: int = 8,
    indices: int = 8,
    prior_scale: float = 0.3,
    l2: float = 1.2,
) -> Agent:
    """An epinet with a fixed prior.

    Args:
      spec: the problem's numbers; the prior is in units of 1 / temperature, as the logits are.
      hidden: widths of the base network.
      sigma_hidden: widths of sigma.
      prior_hidden: widths of each prior network.
      index_dim: dim z.
      indices: z drawn a training step, shared by its rows.
      prior_scale: of the prior.
      l2: of `penalties.decay`, for all that is trained.
    """
    strength = decay(spec, l2)
    scale = prior_scale / jnp.asarray(spec.temperature, jnp.float32)
    classes = spec.classes

    def init(key: Array, spec: Spec) -> tuple[Nets, Layers]:
        base_key, sigma_key, prior_key = jax.random.split(key, 3)
        inputs = spec.input_dim
        base = init_mlp(base_key, (inputs, *hidden, classes))
        sizes = (hidden[-1] + inputs + index_dim, *sigma_hidden, classes * index_dim)
        priors = jax.vmap(lambda k: init_mlp(k, (inputs, *prior_hidden, classes)))(
            jax.random.split(prior_key, index_dim)
        )
        return Nets(base, init_mlp(sigma_key, sizes)), priors

    def logits(nets: Nets, priors: Layers, x: Array, z: Array) -> Array:
        """(K, C, N) for rows (N, d) and indices (K, dim z)."""
        features = last_hidden(nets.base, x)
        weights, biases = nets.base[-1]
        base = weights.T @ features.T + biases[:, None]
        features = jnp.concatenate([jax.lax.stop_gradient(features), x], axis=1)
        prior = jnp.einsum("dnc,kd->kcn", jax.vmap(apply_mlp, (0, None))(priors, x), z)
        return base[None] + contracted(nets.sigma, features, z, classes) + scale * prior

    def loss(params: Nets, fixed: Layers, key: Array, x: Array, y: Array, weight: Array) -> Array:
        x, y = hide(x, y, weight)
        z = jax.random.normal(key, (indices, index_dim))
        losses = mean_loss(logits(params, fixed, x, z).swapaxes(1, 2), y, weight)
        return jnp.mean(losses) + penalty(params, strength, weight)

    def finish(params: Nets, fixed: Layers, x: Array, y: Array, weight: Array) -> Fit:
        del x, y, weight
        return Fit(params, fixed)

    def log_probs(fit: Fit, key: Array, x: Array, count: int) -> Array:
        z = jax.random.normal(key, (count, index_dim))
        return log_softmax(logits(fit.nets, fit.priors, x, z))

    return Agent(init, loss, finish, log_probs)


def contracted(sigma: Layers, features: Array, z: Array, classes: int) -> Array:
    """reshape(mlp([u, z]), (C, dim z)) . z for rows u (N, F) and indices z (K, dim z): (K, C, N).

    What the first layer makes of u is the same for all indices, and the last layer is contracted
    with z before it meets the rows: a fraction of the arithmetic of K networks side by side.
    """
    (weights, biases), *middle = sigma[:-1]
    split = features.shape[1]
    shared = weights[:split].T @ features.T + biases[:, None]
    by_index = (z @ weights[split:]).T
    hidden = jax.nn.relu(shared[:, None] + by_index[:, :, None])  # (H, K, N)
    hidden = hidden.reshape(hidden.shape[0], -1)
    for weights, biases in middle:
        hidden = jax.nn.relu(weights.T @ hidden + biases[:, None])
    hidden = hidden.reshape(hidden.shape[0], z.shape[0], -1)
    weights, biases = sigma[-1]
    last = jnp.einsum("hcd,kd->kch", weights.reshape(weights.shape[0], classes, -1), z)
    offset = z @ biases.reshape(classes, -1).T
    return jnp.einsum("kch,hkn->kcn", last, hidden) + offset[:, :, None]

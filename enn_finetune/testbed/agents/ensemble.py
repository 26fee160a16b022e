"""Networks trained apart, with or without a fixed random prior function added to each.

Without: Lakshminarayanan et al. 2017, arXiv 1612.01474. With: Osband et al. 2018, arXiv 1806.03335,
`ensemble+` of the testbed:

    f_m(x) = mlp_m(x) + prior_scale / temperature * g_m(x)

g_m a random network of the same form that is never trained. The generator's logits are a network's
divided by the temperature, and so is the prior (the testbed's default, 3 / sqrt(temperature), is
much the same at .1 and twice too wide at .5). Labels are not resampled.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from enn_finetune.testbed.agents.penalties import decay
from enn_finetune.testbed.networks import Layers, apply_mlp, hide, init_mlp, mean_loss, penalty
from enn_finetune.testbed.types import Agent, Spec

MEMBERS = 16


class Fit(NamedTuple):
    """Trained members, and the priors added to them, if any; stacked over members."""

    members: Layers
    priors: Layers | None


def ensemble(
    spec: Spec, *, members: int = MEMBERS, hidden: tuple[int, ...] = (50, 50), l2: float = 0.7
) -> Agent:
    """Perceptrons that differ in how they start.

    Args:
      spec: the problem's numbers.
      members: M.
      hidden: widths of their hidden layers.
      l2: of `penalties.decay`, for each.
    """
    return _members(spec, members, hidden, l2, prior_scale=None)


def ensemble_prior(
    spec: Spec,
    *,
    members: int = MEMBERS,
    hidden: tuple[int, ...] = (50, 50),
    prior_scale: float = 1.0,
    l2: float = 1.0,
) -> Agent:
    """Perceptrons that learn what is left of the labels after a random function of their own.

    Args:
      spec: the problem's numbers.
      members: M.
      hidden: widths of the hidden layers of members and priors.
      prior_scale: of the priors, before it is divided by the temperature.
      l2: of `penalties.decay`, for each.
    """
    return _members(spec, members, hidden, l2, prior_scale=prior_scale)


def _members(
    spec: Spec, members: int, hidden: tuple[int, ...], l2: float, *, prior_scale: float | None
) -> Agent:
    strength = decay(spec, l2)
    apply_all = jax.vmap(apply_mlp, (0, None))

    def draw(key: Array, spec: Spec) -> Layers:
        sizes = (spec.input_dim, *hidden, spec.classes)
        return jax.vmap(lambda k: init_mlp(k, sizes))(jax.random.split(key, members))

    def init(key: Array, spec: Spec) -> tuple[Layers, Layers | None]:
        key, prior_key = jax.random.split(key)
        return draw(key, spec), None if prior_scale is None else draw(prior_key, spec)

    def logits(layers: Layers, priors: Layers | None, x: Array) -> Array:
        """(M, N, C)."""
        learnt = apply_all(layers, x)
        if priors is None or prior_scale is None:
            return learnt
        scale = prior_scale / jnp.asarray(spec.temperature, jnp.float32)
        return learnt + scale * apply_all(priors, x)

    def loss(
        params: Layers, fixed: Layers | None, key: Array, x: Array, y: Array, weight: Array
    ) -> Array:
        del key
        x, y = hide(x, y, weight)
        losses = mean_loss(logits(params, fixed, x), y, weight)
        return jnp.mean(losses) + penalty(params, strength / members, weight)

    def finish(params: Layers, fixed: Layers | None, x: Array, y: Array, weight: Array) -> Fit:
        del x, y, weight
        return Fit(params, fixed)

    def log_probs(fit: Fit, key: Array, x: Array, count: int) -> Array:
        if count < members:  # some of them, none twice
            chosen = jax.random.permutation(key, members)[:count]
            fit = jax.tree.map(lambda leaf: leaf[chosen], fit)
        return jax.nn.log_softmax(logits(fit.members, fit.priors, x), axis=-1)

    return Agent(init, loss, finish, log_probs, functions=members)

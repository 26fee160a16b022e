"""The epinet's training loss: cross-entropy averaged over indices, bootstrap by index, L2 as 1/n.

With log-probabilities (K, N, C) under K fresh indices a step, the loss of a step is

    cross_entropy(log_probs, targets, weights, bootstrap_weights(...)) + l2(params, scale, n)

(Osband et al. 2021, arXiv 2107.08924, sec. 4 and appendix on the bootstrap).
"""

from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from enn_finetune import predictive

Bootstrap = Literal["none", "bernoulli", "exponential"]


def cross_entropy(
    log_probs: Array, targets: Array, weights: Array, index_weights: Array | None = None
) -> Array:
    """Mean over indices and weighted rows of -sum_c target_c log p_c, a scalar in nats.

    Args:
      log_probs: (K, N, C).
      targets: (N, C) class distributions: one-hot rows, or soft labels.
      weights: (N,) at least 0; a padded row has 0. All zero gives a loss of 0.
      index_weights: (K, N) from `bootstrap_weights`, mean 1; None leaves the bootstrap out.
    """
    losses = predictive.cross_entropy(log_probs, targets[None])  # (K, N)
    if index_weights is not None:
        losses = losses * index_weights
    # A row's weight of 0 must silence it even where its logits are not finite.
    per_row = jnp.where(weights > 0, weights * jnp.mean(losses, axis=0), 0)
    return jnp.sum(per_row) / jnp.maximum(jnp.sum(weights), jnp.finfo(weights.dtype).tiny)


def row_signatures(key: Array, ids: Array, index_dim: int) -> Array:
    """Each training row's seeded direction c_i on the unit sphere: ids (N,) -> (N, dim z).

    The direction depends on the key and the row's id only, so a row keeps it in every batch.
    """
    normal = jax.vmap(lambda i: jax.random.normal(jax.random.fold_in(key, i), (index_dim,)))(ids)
    return normal / jnp.linalg.norm(normal, axis=-1, keepdims=True)


def bootstrap_weights(signatures: Array, z: Array, kind: Bootstrap = "bernoulli") -> Array:
    """How often index z sees row i, at random but for good: (N, dim z), (K, dim z) -> (K, N).

    The weight is a function of c_i . z, which is N(0, 1) over z, so over indices it is distributed
    as the kind says, with mean 1: "bernoulli" is 0 or 2 (double or nothing), "exponential" is
    Exponential(1), "none" is 1.

    Raises:
      ValueError: for another kind.
    """
    projection = z @ signatures.T
    if kind == "none":
        return jnp.ones_like(projection)
    if kind == "bernoulli":
        return 2.0 * (projection > 0)
    if kind == "exponential":
        return -jax.scipy.stats.norm.logcdf(projection)
    raise ValueError(f"unknown bootstrap {kind!r}: use 'none', 'bernoulli' or 'exponential'")


def l2(params: object, scale: float | Array, n: int | Array) -> Array:
    """Scale / (2 n) * |w|^2 over the `nnx.Param`s: the penalty to add to a *mean* loss of n rows.

    It is 1/2 scale |w|^2 on the summed loss, so its share falls as 1/n. The fixed prior and other
    kinds of variable are left out by their type.

    Args:
      params: an nnx module, or a state of it.
      scale: lambda, at least 0.
      n: the training rows (labels bought), not the rows of a batch.
    """
    state = nnx.state(params, nnx.Param) if isinstance(params, nnx.Module) else params
    leaves = jax.tree.leaves(state, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable))
    squares = [
        jnp.sum(jnp.square(leaf[...] if isinstance(leaf, nnx.Variable) else leaf))
        for leaf in leaves
        if isinstance(leaf, nnx.Param) or not isinstance(leaf, nnx.Variable)
    ]
    return 0.5 * scale / n * sum(squares, start=jnp.zeros(()))

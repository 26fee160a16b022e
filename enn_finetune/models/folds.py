"""Cross-validation in fixed shapes: folds from a key, and the loss of held-out rows."""

import jax
import jax.numpy as jnp
from jax import Array

FOLDS = 5


def stratified_folds(targets: Array, weights: Array, key: Array, folds: int = FOLDS) -> Array:
    """A fold 0..folds-1 for each row (N,), classes dealt out evenly in a random order.

    Rows of weight 0 have the fold -1. A row's random number depends on its place only, so that
    padding changes nothing.

    Args:
      targets: (N, C) class distributions; rows are stratified by the likeliest class.
      weights: (N,).
      key: of the order.
      folds: how many.
    """
    numbers = jax.vmap(lambda i: jax.random.uniform(jax.random.fold_in(key, i)))(
        jnp.arange(len(weights))
    )
    used = weights > 0
    labels = jnp.where(used, jnp.argmax(jnp.where(used[:, None], targets, 0), axis=-1), -1)
    labels = jnp.where(used, labels, targets.shape[1])  # padding last
    order = jnp.lexsort((numbers, labels))  # by class, at random within one
    rank = jnp.zeros(len(weights), jnp.int32).at[order].set(jnp.arange(len(weights)))
    return jnp.where(used, rank % folds, -1)


def training_weights(fold: Array, weights: Array, folds: int = FOLDS) -> Array:
    """Row weights (N, folds): column f leaves fold f out."""
    return jnp.where(fold[:, None] == jnp.arange(folds)[None], 0, weights[:, None])


def held_out_loss(log_probs: Array, targets: Array, weights: Array, fold: Array) -> Array:
    """Weighted sum over rows of -sum_c t_c log p_c, each row by the fold that left it out.

    Args:
      log_probs: (N, folds, C).
      targets: (N, C).
      weights: (N,).
      fold: (N,) from `stratified_folds`.
    """
    own = jnp.take_along_axis(log_probs, jnp.maximum(fold, 0)[:, None, None], axis=1)[:, 0]
    losses = -jnp.sum(jnp.where(weights[:, None] > 0, targets, 0) * own, axis=-1)
    return jnp.sum(jnp.where(weights > 0, weights * losses, 0))

"""What rules that reason about labels keep of a row: its class probabilities under each index."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from enn_finetune import predictive


class Predictions(NamedTuple):
    """Probabilities of n rows, rows first; 4 n K bytes of them where there are two classes."""

    probs: Array  # (n, K, C) or, of two classes, the second's alone: (n, K, 1)
    information: Array  # (n,) mutual information of label and index (BALD), in nats


def read_predictions(log_probs: Array, features: Array) -> Predictions:
    """Keep probabilities of log-probabilities (K, n, C); the features (n, D) are not used."""
    del features
    probs = jnp.exp(jnp.moveaxis(log_probs, 0, 1))
    kept = probs[..., 1:] if probs.shape[-1] == 2 else probs
    return Predictions(kept, predictive.uncertainty(log_probs).epistemic)


def residuals(log_probs: Array) -> Array:
    """Residuals (n, C) of log-probabilities (K, n, C): p - onehot(argmax p), p the mean over K.

    The gradient of the loss in the logits at the label held for true (arXiv 1906.03671).
    """
    probs = jnp.exp(predictive.mixture(log_probs))
    return probs - jax.nn.one_hot(jnp.argmax(probs, axis=-1), probs.shape[-1])


def all_classes(probs: Array) -> Array:
    """Kept probabilities (..., 1) or (..., C) -> those of every class (..., max(2, C)).

    A head of one class gets a second one that is impossible, which tells nothing either.
    """
    if probs.shape[-1] > 1:
        return probs
    return jnp.concatenate([1 - probs, probs], axis=-1)


def entropy(probs: Array) -> Array:
    """Entropy in nats of kept probabilities: (..., 1) or (..., C) -> (...). 0 log 0 is 0."""
    tiny = jnp.finfo(probs.dtype).tiny

    def terms(p: Array) -> Array:
        return p * jnp.log(jnp.maximum(p, tiny))

    if probs.shape[-1] == 1:
        one = probs[..., 0]
        return -(terms(one) + terms(jnp.maximum(1 - one, 0)))
    return -jnp.sum(terms(probs), axis=-1)

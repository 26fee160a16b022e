"""All the maths on log-probabilities (K, N, C): written once, safe at 0 and 1.

Everything here is a pure function of `log_probs`, one categorical distribution for each epistemic
index (K), row (N) and class (C). Units are nats. A probability of exactly 0 may be given as -inf:
`p log p` is then 0, never NaN (NaN ranks first in top_k, so the most certain row would be bought).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array


class Uncertainty(NamedTuple):
    """How uncertain each row is (N,), in nats: total = aleatoric + epistemic."""

    total: Array
    aleatoric: Array
    epistemic: Array


def mixture(log_probs: Array) -> Array:
    """Log of the mean over indices of the probabilities: (K, N, C) -> (N, C)."""
    return jax.nn.logsumexp(log_probs, axis=0) - jnp.log(log_probs.shape[0])


def entropy(log_probs: Array) -> Array:
    """Shannon entropy over the last axis, in nats: (..., C) -> (...)."""
    probs = jnp.exp(log_probs)
    return -jnp.sum(jnp.where(probs > 0, probs * jnp.where(probs > 0, log_probs, 0), 0), axis=-1)


def uncertainty(log_probs: Array) -> Uncertainty:
    """Split the predictive entropy into what more labels could remove and what they could not.

    Epistemic is the mutual information of label and index (BALD; Houlsby et al. 2011,
    arXiv 1112.5745, eq. 2), clipped at 0 from below where rounding would take it under.
    """
    total = entropy(mixture(log_probs))
    aleatoric = jnp.minimum(jnp.mean(entropy(log_probs), axis=0), total)
    return Uncertainty(total, aleatoric, total - aleatoric)


def probability_variance(log_probs: Array) -> Array:
    """Sum over classes of the variance over indices of the probability: (K, N, C) -> (N,).

    The `variance` priority of arXiv 2211.01568, section 4.2.
    """
    return jnp.sum(jnp.var(jnp.exp(log_probs), axis=0), axis=-1)


def joint_log_likelihood(log_probs: Array, labels: Array) -> Array:
    """Log-probability of M labels *together*: log-mean-exp over z of the sum over rows.

    Args:
      log_probs: (K, ..., M, C), the indices first.
      labels: (..., M) integer classes.

    Returns:
      (...) in nats. Averaging over z before the sum instead would give M marginals
      (arXiv 2107.08924, section 2).
    """
    picked = jnp.take_along_axis(log_probs, labels[None, ..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(jnp.sum(picked, axis=-1), axis=0) - jnp.log(log_probs.shape[0])


def cross_entropy(log_probs: Array, targets: Array) -> Array:
    """-sum_c target_c log p_c over the last axis; 0 * -inf is 0: (..., C) -> (...)."""
    return -jnp.sum(jnp.where(targets > 0, targets * log_probs, 0), axis=-1)

"""Rules that score each row by itself. Larger means buy first; every score is finite."""

from collections.abc import Mapping
from types import MappingProxyType

import jax
import jax.numpy as jnp
from jax import Array

from enn_finetune import predictive
from enn_finetune.types import Rule


def random(log_probs: Array, key: Array) -> Array:
    """Uniform noise (N,): the baseline."""
    return jax.random.uniform(key, log_probs.shape[1:2])


def entropy(log_probs: Array, key: Array) -> Array:
    """Entropy of the mean prediction (N,), in nats (Shannon 1948; Lewis and Gale 1994)."""
    del key
    return predictive.entropy(predictive.mixture(log_probs))


def margin(log_probs: Array, key: Array) -> Array:
    """Minus the gap between the two most probable classes (N,) (Scheffer et al. 2001)."""
    del key
    probs = jnp.exp(predictive.mixture(log_probs))
    top, _ = jax.lax.top_k(probs, min(2, probs.shape[-1]))
    return top[:, -1] - top[:, 0]


def least_confidence(log_probs: Array, key: Array) -> Array:
    """One minus the largest probability of the mean prediction (N,) (Culotta, McCallum 2005)."""
    del key
    return 1 - jnp.exp(jnp.max(predictive.mixture(log_probs), axis=-1))


def bald(log_probs: Array, key: Array) -> Array:
    """Mutual information of label and index (N,), in nats (Houlsby et al. 2011, eq. 2)."""
    del key
    return predictive.uncertainty(log_probs).epistemic


def variance(log_probs: Array, key: Array) -> Array:
    """Variance over indices of the class probabilities, summed (N,) (arXiv 2211.01568)."""
    del key
    return predictive.probability_variance(log_probs)


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "random": random,
        "entropy": entropy,
        "margin": margin,
        "least_confidence": least_confidence,
        "bald": bald,
        "variance": variance,
    }
)
"""The rules by the name that `acquisition.rule` gives them."""

EPISTEMIC = frozenset({"bald", "variance"})
"""Rules that read the spread over indices: with a plain head every score would be 0."""

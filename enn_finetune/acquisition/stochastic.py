"""Stochastic batches from any pointwise score (Kirsch et al. 2021, arXiv 2106.12059, section 4).

The top rows of a score resemble one another: what makes one row uncertain makes its neighbours
uncertain, and a batch of them says the same thing many times. Drawing rows *in proportion* to a
function of their score costs as little as ranking them and keeps the batch mixed. Adding Gumbel
noise to log-weights and taking the largest draws without replacement, so that these are pointwise
rules like any other, which read the key.

==========  ==================================  ===============================================
name        weight of a row                     what it takes the score to be
==========  ==================================  ===============================================
power       s ** beta                           a quantity whose zero means "nothing to learn"
softmax     exp(beta s)                         an amount in nats, whatever its zero
softrank    rank ** -beta, from 1 for the best  an order and no more
==========  ==================================  ===============================================
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import jax
import jax.numpy as jnp
from jax import Array

from enn_finetune.acquisition import pointwise
from enn_finetune.types import Rule

PAPER = 1.0
"""beta of the paper's experiments, for all three forms."""

SHARP = 4.0
"""beta nearer to ranking. On frozen sentence features the score of most of the pool is small but
not zero, and with beta = 1 that mass of uninformative rows takes most of a batch."""

Weighing = Callable[[Array, float], Array]


def power(scores: Array, beta: float) -> Array:
    """Log-weights (N,) of scores (N,) >= 0: beta log s; a score of 0 comes after all others."""
    return beta * jnp.log(jnp.maximum(scores, jnp.finfo(scores.dtype).tiny))


def softmax(scores: Array, beta: float) -> Array:
    """Log-weights (N,) of scores (N,): beta s."""
    return beta * scores


def softrank(scores: Array, beta: float) -> Array:
    """Log-weights (N,) of scores (N,): -beta log rank; equal scores rank in row order."""
    ranks = jnp.argsort(jnp.argsort(-scores, stable=True)) + 1
    return -beta * jnp.log(ranks.astype(scores.dtype))


@dataclass(frozen=True)
class Drawn:
    """A rule whose order of rows is a draw without replacement by the weights of their scores."""

    weighing: Weighing
    score: Rule
    """Looks at each row alone, and not at the key."""
    beta: float

    def __call__(self, log_probs: Array, key: Array) -> Array:
        """Priorities (N,) for log-probabilities (K, N, C)."""
        return self.from_scores(self.score(log_probs, key), key)

    def from_scores(self, scores: Array, key: Array) -> Array:
        """Priorities (N,) from the scores (N,), for callers that score rows chunk by chunk."""
        log_weights = self.weighing(scores, self.beta)
        return log_weights + jax.random.gumbel(key, log_weights.shape, log_weights.dtype)


def closeness(log_probs: Array, key: Array) -> Array:
    """One minus the gap between the two most probable classes (N,), in [0, 1].

    The margin rule as an uncertainty that is 0 for a certain row, which power sampling needs.
    """
    return 1 + pointwise.margin(log_probs, key)


RULES: Mapping[str, Drawn] = MappingProxyType(
    {
        "power_margin": Drawn(power, closeness, PAPER),
        "power_entropy": Drawn(power, pointwise.entropy, PAPER),
        "power_bald": Drawn(power, pointwise.bald, PAPER),
        "power_variance": Drawn(power, pointwise.variance, PAPER),
        "power4_margin": Drawn(power, closeness, SHARP),
        "power4_entropy": Drawn(power, pointwise.entropy, SHARP),
        "power4_bald": Drawn(power, pointwise.bald, SHARP),
        "softmax_margin": Drawn(softmax, closeness, PAPER),
        "softmax_bald": Drawn(softmax, pointwise.bald, PAPER),
        "softrank_margin": Drawn(softrank, closeness, PAPER),
        "softrank_bald": Drawn(softrank, pointwise.bald, PAPER),
    }
)
"""Form and exponent, then score: power4 is power with beta = 4."""

EPISTEMIC = frozenset(
    {"power_bald", "power_variance", "power4_bald", "softmax_bald", "softrank_bald"}
)
"""With a plain head these draw uniformly: every score would be 0."""

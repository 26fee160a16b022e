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

A rule is called FORM_SCORE, such as softmax_entropy: every form goes with every score.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from enn_finetune.acquisition import pointwise, pool_wide
from enn_finetune.acquisition.predictions import Predictions, read_predictions
from enn_finetune.acquisition.rows import gather
from enn_finetune.types import BatchRule, Rule, Spread

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
        """Priorities (N,) from the scores (N,), for callers that score rows chunk by chunk.

        Rows that may not be drawn have a score of -inf, so that they have no rank before others.
        """
        log_weights = self.weighing(scores, self.beta)
        return log_weights + jax.random.gumbel(key, log_weights.shape, log_weights.dtype)


def closeness(log_probs: Array, key: Array) -> Array:
    """One minus the gap between the two most probable classes (N,), in [0, 1].

    The margin rule as an uncertainty that is 0 for a certain row, which power sampling needs.
    """
    return 1 + pointwise.margin(log_probs, key)


class Form(NamedTuple):
    """How a score becomes a weight."""

    weighing: Weighing
    beta: float


FORMS: Mapping[str, Form] = MappingProxyType(
    {
        "power": Form(power, PAPER),
        "power4": Form(power, SHARP),
        "softmax": Form(softmax, PAPER),
        "softrank": Form(softrank, PAPER),
    }
)
"""By the first half of a rule's name: power4 is power with beta = 4."""

SCORES: Mapping[str, Rule] = MappingProxyType(
    {
        "entropy": pointwise.entropy,
        "margin": closeness,
        "least_confidence": pointwise.least_confidence,
        "bald": pointwise.bald,
        "variance": pointwise.variance,
    }
)
"""By the second half: scores of each row alone, at least 0."""


def drawn_towards(form: Form, scores: pool_wide.Scores) -> BatchRule[Predictions]:
    """Rows drawn by what their labels tell about targets, or about the pool for want of them.

    The scores are those of `pool_wide.py`, which look at other rows: they come from what was kept
    of all rows, in no second pass over the pool.
    """

    def pick(
        kept: Predictions,
        free: Array,
        count: int,
        key: Array,
        *,
        targets: Predictions | None = None,
        axis: Spread = None,
    ) -> Array:
        """Rows (count,) in the order drawn, without replacement."""
        to_score, to_draw = jax.random.split(key)
        found = scores(kept, to_score, targets=targets, axis=axis)
        every, left = gather((found, free), axis)
        log_weights = form.weighing(jnp.where(left, every, -jnp.inf), form.beta)
        noise = jax.random.gumbel(to_draw, left.shape, log_weights.dtype)
        priorities = jnp.where(left, log_weights + noise, -jnp.inf)
        return jax.lax.top_k(priorities, count)[1].astype(jnp.int32)

    return BatchRule(read_predictions, pick)


RULES: Mapping[str, Drawn] = MappingProxyType(
    {
        f"{form}_{score}": Drawn(how.weighing, of, how.beta)
        for form, how in FORMS.items()
        for score, of in SCORES.items()
    }
)
"""All forms over all scores of single rows."""

BATCH_RULES: Mapping[str, BatchRule[Predictions]] = MappingProxyType(
    {
        f"{form}_{score}": drawn_towards(how, of)
        for form, how in FORMS.items()
        for score, of in pool_wide.SCORES.items()
    }
)
"""All forms over the scores of `pool_wide.py`; all of them are epistemic."""

EPISTEMIC = frozenset(f"{form}_{score}" for form in FORMS for score in pointwise.EPISTEMIC)
"""Those of RULES that draw uniformly with a plain head: every score would be 0."""

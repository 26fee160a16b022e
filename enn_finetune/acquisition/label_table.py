"""What the labels of a batch could be, and what each outcome would say of the index.

A batch's rows are tied together by the index alone: given index k their labels are independent.
So all that a batch rule needs to know of the rows chosen so far is, for each way s their labels
could come out (a configuration), how probable it is, and the posterior of the index after it,

  share_s = (1/K) sum_k prod_i p_k(s_i | x_i)     w_sk = (1/K) prod_i p_k(s_i | x_i) / share_s

Information about anything that the batch's next label would add is then a mean over configurations
of the information it has under the posterior w_s: H(y | batch) and all that is made of it.

There are C^b configurations of b labels. As long as they fit the table it holds all of them, and
means over it are *exact*. Beyond that it holds DRAWS of them, drawn from the mixture: each
configuration branches into its C children, and DRAWS children are kept by systematic resampling,
in proportion to their probability. A share is then an unbiased estimate, so a mean
over the table is one too, for rows named beforehand. (The importance-weighted estimate of
BatchBALD, equation 13 of arXiv 1906.08158, is this mean with configurations drawn anew each time.)
Rows chosen *by* the table are judged on the draws that they were chosen for, which flatters them;
the draws are kept from pick to pick, which makes this bias and the noise the same for all rows.

An index sample is one of K functions, so a batch tells at most log K nats. When most
configurations already say which function it is, every gain goes to 0: the K samples are exhausted,
not the pool. `faded` counts each label so far for half, so that the batch goes on telling rows
like those it has from others. That is a heuristic, and from there nothing is exact.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

DRAWS = 512
"""Configurations drawn once there are too many; also, how many are in a step of a mean."""

LEAST = 1e-30
"""Probabilities are not taken for less, so that their logarithms can be added up and halved."""


class LabelTable(NamedTuple):
    """S configurations of the labels of the rows chosen so far; unused ones have share 0."""

    log_weights: Array  # (S, K) log-posterior of the index after each; normalised
    weights: Array  # (S, K) the posterior itself
    shares: Array  # (S,) their probabilities, or estimates of them; they add up to 1
    labels: Array  # () int32: b, the rows chosen so far
    used: Array  # () int32: configurations in use; they come first


def size_for(labels: int, classes: int, most: int) -> int:
    """Configurations S that a table needs for some labels, at most `most`, in whole steps."""
    exact = 1
    for _ in range(labels):
        exact = min(exact * classes, most)
    return exact if exact <= DRAWS else -(-exact // DRAWS) * DRAWS


def exact_labels(size: int, classes: int) -> int:
    """How many labels' configurations all fit a table of some size."""
    labels, used = 0, classes
    while 1 < used <= size:
        labels, used = labels + 1, used * classes
    return labels


def nothing_known(size: int, indices: int) -> LabelTable:
    """The table before any label: one configuration, of no labels."""
    log_weights = jnp.full((size, indices), -jnp.log(indices), jnp.float32)
    shares = jnp.zeros(size, jnp.float32).at[0].set(1)
    return LabelTable(log_weights, jnp.exp(log_weights), shares, jnp.int32(0), jnp.int32(1))


def extended(table: LabelTable, probs: Array, key: Array) -> LabelTable:
    """The table with one more row's label; its class probabilities (K, C); the draws' key."""
    size, classes = table.shares.shape[0], probs.shape[1]
    draws = min(DRAWS, size)
    likely = jnp.matmul(table.weights, probs, precision=lax.Precision.HIGHEST)  # (S, C)
    children = (table.shares[:, None] * likely).reshape(-1)
    # All children of the configurations in use come first, in order: they fit, or some are drawn.
    exact = table.labels < exact_labels(size, classes)
    drawn = jnp.pad(_systematic(children, draws, key), (0, size - draws))
    place = jnp.where(exact, jnp.arange(size), drawn)
    equal = jnp.where(jnp.arange(size) < draws, 1 / draws, 0)
    shares = jnp.where(exact, children[place], equal)
    log_probs = jnp.log(jnp.maximum(probs, LEAST))
    log_weights = table.log_weights[place // classes] + log_probs.T[place % classes]
    return _normalised(
        log_weights,
        shares / jnp.sum(shares),
        table.labels + 1,
        jnp.where(exact, table.used * classes, draws),
    )


def faded(table: LabelTable, when: Array) -> LabelTable:
    """The table with each label so far counting for half, where `when` ()."""
    log_weights = jnp.where(when, table.log_weights / 2, table.log_weights)
    return _normalised(log_weights, table.shares, table.labels, table.used)


def mean_over(table: LabelTable, function: Callable[[Array, Array], Array]) -> Array:
    """Mean (...) over configurations of what they give, in steps of those in use.

    `function` takes posteriors (s, K) and shares (s,) of some configurations and gives the sum of
    share * value over them.
    """
    size = table.shares.shape[0]
    if size <= DRAWS:
        return function(table.weights, table.shares)

    def step(number: Array, sofar: Array) -> Array:
        some = (
            lax.dynamic_slice_in_dim(table.weights, number * DRAWS, DRAWS),
            lax.dynamic_slice_in_dim(table.shares, number * DRAWS, DRAWS),
        )
        return sofar + function(*some)

    like = jax.eval_shape(function, table.weights[:DRAWS], table.shares[:DRAWS])
    steps = (table.used + DRAWS - 1) // DRAWS
    return lax.fori_loop(0, steps, step, jnp.zeros(like.shape, like.dtype))


def _systematic(shares: Array, count: int, key: Array) -> Array:
    """Places (count,) drawn in proportion to shares (n,), each as evenly as can be, in order."""
    ends = jnp.cumsum(shares)
    ticks = (jnp.arange(count) + jax.random.uniform(key)) / count
    # Below the last end: past it there may be places of share 0.
    found = jnp.searchsorted(ends, jnp.minimum(ticks, 1 - 1e-6) * ends[-1], side="right")
    return jnp.minimum(found, shares.shape[0] - 1)


def _normalised(log_weights: Array, shares: Array, labels: Array, used: Array) -> LabelTable:
    log_weights -= jax.nn.logsumexp(log_weights, axis=-1, keepdims=True)
    return LabelTable(log_weights, jnp.exp(log_weights), shares, labels, used)

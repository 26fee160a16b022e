"""Train an agent by Adam in one `lax.scan`; start, go on and finish apart for warm training."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax

from enn_finetune.testbed.types import Agent, Data, Spec, Tree

STEPS = 1000
LEARNING_RATE = 1e-3


class State(NamedTuple):
    """An agent in training."""

    params: Tree
    fixed: Tree
    moments: Tree  # Adam's


def start(agent: Agent, spec: Spec, key: Array) -> State:
    """An untrained agent."""
    params, fixed = agent.init(key, spec)
    return State(params, fixed, optax.adam(LEARNING_RATE).init(params))


def train(
    agent: Agent,
    state: State,
    key: Array,
    data: Data,
    weight: Array,
    *,
    steps: int,
    learning_rate: float | Array = LEARNING_RATE,
    batch: int | None = None,
) -> State:
    """Take `steps` steps of Adam, from where `state` stands.

    Args:
      agent: what is trained; close over it under `jit`.
      state: from `start` or from here.
      key: of minibatches, indices and masks.
      data: N rows.
      weight: (N,) at least 0; rows of weight 0 change nothing, whatever they hold.
      steps: static.
      learning_rate: constant; a schedule is a loop of calls.
      batch: rows a step, drawn with replacement in proportion to their weights; static. Left out,
        every step sees all N rows.
    """

    def step(state: State, key: Array) -> tuple[State, None]:
        batch_key, loss_key = jax.random.split(key)
        if batch is None:
            return update(agent, state, loss_key, data, weight, learning_rate), None
        x, y, share = minibatch(batch_key, data, weight, batch)
        return update(agent, state, loss_key, Data(x, y), share, learning_rate), None

    return lax.scan(step, state, jax.random.split(key, steps))[0]


def update(
    agent: Agent,
    state: State,
    key: Array,
    data: Data,
    weight: Array,
    learning_rate: float | Array = LEARNING_RATE,
) -> State:
    """One step of Adam on N rows of weights (N,); the key is of the loss."""
    gradient = jax.grad(agent.loss)(state.params, state.fixed, key, *data, weight)
    updates, moments = optax.adam(learning_rate).update(gradient, state.moments, state.params)
    return State(optax.apply_updates(state.params, updates), state.fixed, moments)


def minibatch(key: Array, data: Data, weight: Array, size: int) -> tuple[Array, Array, Array]:
    """Draw rows in proportion to their weights: x (B, d), y (B,) and weights (B,).

    The weights are equal and sum to those of all rows, so that a penalty stays what it was.
    """
    ends = jnp.cumsum(weight)
    drawn = jnp.searchsorted(ends, ends[-1] * jax.random.uniform(key, (size,)), side="right")
    drawn = jnp.minimum(drawn, weight.shape[0] - 1)
    # Rounding may land on the last row where it is not known.
    share = jnp.where(weight[drawn] > 0, ends[-1] / size, 0)
    return data.x[drawn], data.y[drawn], share


def finish(agent: Agent, state: State, data: Data, weight: Array) -> Tree:
    """The fit that `agent.log_probs` reads."""
    return agent.finish(state.params, state.fixed, data.x, data.y, weight)


def fit(
    agent: Agent,
    spec: Spec,
    key: Array,
    data: Data,
    weight: Array,
    *,
    steps: int = STEPS,
    learning_rate: float | Array = LEARNING_RATE,
    batch: int | None = None,
) -> Tree:
    """Start, train and finish (arguments as `train`'s)."""
    start_key, train_key = jax.random.split(key)
    state = start(agent, spec, start_key)
    state = train(
        agent,
        state,
        train_key,
        data,
        weight,
        steps=steps,
        learning_rate=learning_rate,
        batch=batch,
    )
    return finish(agent, state, data, weight)

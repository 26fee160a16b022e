"""What the parts of the testbed hand one another: a problem's numbers, data, and an agent.

Everything is a pure function of arrays and keys with fixed shapes, so that seeds and problems are
a `vmap`, training steps a `lax.scan`, and a whole study a few compiled programs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
from jax import Array

Tree = Any
"""A pytree of arrays."""


@dataclass(frozen=True)
class Spec:
    """What an agent may know of a problem before it sees data (the testbed's prior knowledge).

    Hashable, hence static under `jit`; or an argument of it: the temperature is then traced, and
    problems that differ only in temperature share one program.

    Args:
      input_dim: d, of x ~ N(0, I_d).
      classes: C.
      temperature: the generator's logits are divided by it: small means labels without noise.
      ratio: training rows per input dimension.
      hidden: width of the generator's two hidden layers.
    """

    input_dim: int = 2
    classes: int = 2
    temperature: float = 0.1
    ratio: float = 10.0
    hidden: int = 50

    @property
    def rows(self) -> int:
        """Training rows: ratio * d, rounded, at least 1."""
        return max(1, round(self.ratio * self.input_dim))


jax.tree_util.register_dataclass(
    Spec,
    data_fields=["temperature"],
    meta_fields=["input_dim", "classes", "ratio", "hidden"],
)


class Data(NamedTuple):
    """Rows and their labels."""

    x: Array  # (N, d) float32
    y: Array  # (N,) int32


class Agent(NamedTuple):
    """A way to learn, as pure functions. Close over it under `jit`; vmap what it takes.

    A *fit* is what `finish` returns: all that `log_probs` needs.
    """

    init: Callable[[Array, Spec], tuple[Tree, Tree]]
    """(key, spec) -> what is trained, and what never is (priors, masks, frequencies)."""

    loss: Callable[[Tree, Tree, Array, Array, Array, Array], Array]
    """(params, fixed, key, x (N, d), y (N,), weight (N,)) -> scalar to minimise, nats a row.

    Weighted mean of the rows' losses plus a penalty divided by the sum of the weights, the number
    of rows known. A weight of 0 hides a row: nothing depends on what it holds.
    """

    finish: Callable[[Tree, Tree, Array, Array, Array], Tree]
    """(params, fixed, x (N, d), y (N,), weight (N,)) -> fit; where a posterior is computed."""

    log_probs: Callable[[Tree, Array, Array, int], Array]
    """(fit, key, x (N, d), count) -> (K, N, C): under one index, one function of x.

    K = count, static; an agent with no more than `count` functions gives each of them once.
    """

    functions: int = 0
    """How many functions the agent has: 1 for an MLP, the members of an ensemble; 0: infinitely
    many, of which `log_probs` draws."""

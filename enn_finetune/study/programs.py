"""Compiled programs that every seed of an arm goes through, and what they cost.

A program is compiled once for each set of shapes and called once a seed, on a few threads: XLA
gives back the interpreter's lock, so that seeds run side by side on a CPU's cores. A seed's numbers
therefore do not depend on which seeds run with it, to the last bit; a batched (vmapped) program's
would, for matrix products round by the size of the batch, and one rounded score can change what is
bought.

Operations are counted from the traced program: matrix products and factorisations exactly, loops of
known length by their length, elementwise work as one a number. Loops that run until something
converges count once, for the program does not know how often they will run: what is counted is a
lower bound, most of it the products outside such loops. (XLA's own count takes *every* loop once
and factorisations for nothing.)
"""

import math
import os
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import jax
from jax.extend import core

Tree = Any  # a pytree of arrays
T = TypeVar("T")
R = TypeVar("R")


class Cost(NamedTuple):
    """What something took, for one seed."""

    seconds: float = 0.0  # wall seconds of all seeds together, over their number
    flops: float = 0.0

    def plus(self, other: "Cost") -> "Cost":
        """Both together."""
        return Cost(self.seconds + other.seconds, self.flops + other.flops)


class Program:
    """A function of arrays, compiled once for each set of shapes."""

    def __init__(self, function: Callable[..., Tree]) -> None:
        self._jitted = jax.jit(function)
        self._compiled: dict[object, tuple[Callable[..., Tree], float]] = {}

    @property
    def traces(self) -> int:
        """How many sets of shapes have been compiled."""
        return len(self._compiled)

    def compiled(self, *arguments: Tree) -> tuple[Callable[..., Tree], float]:
        """The program for these arguments' shapes, and its floating-point operations."""
        leaves, structure = jax.tree.flatten(arguments)
        shapes = (structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves))
        if shapes not in self._compiled:
            traced = self._jitted.trace(*arguments)
            self._compiled[shapes] = (traced.lower().compile(), flops(traced.jaxpr.jaxpr))
        return self._compiled[shapes]


class Workers:
    """Threads on which the seeds of a round run side by side; close them, or use `with`."""

    def __init__(self, seeds: int) -> None:
        self._threads = ThreadPoolExecutor(max(1, min(seeds, os.cpu_count() or 1)))

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *error: object) -> None:
        self._threads.shutdown(cancel_futures=True)

    def each(self, program: Program, seeds: Sequence[tuple[Tree, ...]]) -> tuple[list[Tree], Cost]:
        """The program's result for each seed's arguments (all of the same shapes), and its cost.

        Compiling is not part of the cost.
        """
        compiled, operations = program.compiled(*seeds[0])
        began = time.perf_counter()
        found = self.map(lambda arguments: jax.block_until_ready(compiled(*arguments)), seeds)
        return found, Cost((time.perf_counter() - began) / len(seeds), operations)

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """`function` of each item, in order."""
        return list(self._threads.map(function, items))


_FACTORISATIONS: dict[str, float] = {  # operations over n^3, vectors included
    "cholesky": 1 / 3,
    "eigh": 9.0,
    "lu": 2 / 3,
    "householder_product": 4 / 3,
    "geqrf": 4 / 3,
}
_MOVES = """broadcast_in_dim reshape transpose slice dynamic_slice dynamic_update_slice concatenate
pad gather squeeze convert_element_type copy iota select_n rev split stop_gradient"""
_FREE = frozenset(_MOVES.split())


def flops(jaxpr: core.Jaxpr) -> float:
    """Floating-point operations of a traced program; see the module's text for what is counted."""
    return sum(_equation(equation) for equation in jaxpr.eqns)


def _equation(equation: core.JaxprEqn) -> float:
    name, parameters = equation.primitive.name, equation.params
    inner = [flops(part) for part in _programs_in(parameters.values())]
    if inner and name == "cond":
        return max(inner)
    if inner:
        return sum(inner) * (parameters["length"] if name == "scan" else 1)
    return 0.0 if name in _FREE else float(_operation(name, equation))


def _operation(name: str, equation: core.JaxprEqn) -> float:
    """Operations of what holds no program of its own."""
    shapes = [_shape(variable) for variable in equation.invars]
    size = max((math.prod(_shape(variable)) for variable in equation.outvars), default=0)
    if name == "dot_general":
        contracted = equation.params["dimension_numbers"][0][0]
        return 2 * size * math.prod(shapes[0][axis] for axis in contracted)
    if name in _FACTORISATIONS:
        *batch, rows, columns = shapes[0]
        return _FACTORISATIONS[name] * math.prod(batch) * rows * columns * min(rows, columns)
    if name == "triangular_solve":
        return math.prod(shapes[1]) * shapes[0][-1]
    if name.startswith(("reduce_", "arg", "cum")):
        return math.prod(shapes[0])
    return size


def _shape(variable: Any) -> tuple[int, ...]:
    shape: tuple[int, ...] = variable.aval.shape
    return shape


def _programs_in(values: Iterable[object]) -> Iterable[core.Jaxpr]:
    for value in values:
        if isinstance(value, core.ClosedJaxpr):
            yield value.jaxpr
        elif isinstance(value, core.Jaxpr):
            yield value
        elif isinstance(value, tuple | list):
            yield from _programs_in(value)

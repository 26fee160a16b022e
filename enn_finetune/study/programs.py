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

import os
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import jax

from enn_finetune.costs import Work, flops

Tree = Any  # a pytree of arrays
T = TypeVar("T")
R = TypeVar("R")


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

    def each(self, program: Program, seeds: Sequence[tuple[Tree, ...]]) -> tuple[list[Tree], Work]:
        """The program's result for each seed's arguments (all of the same shapes), and its work.

        The work is one seed's, in seconds that of all together over their number; compiling is not
        part of it.
        """
        compiled, operations = program.compiled(*seeds[0])
        began = time.perf_counter()
        found = self.map(lambda arguments: jax.block_until_ready(compiled(*arguments)), seeds)
        return found, Work(operations, (time.perf_counter() - began) / len(seeds))

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """`function` of each item, in order."""
        return list(self._threads.map(function, items))

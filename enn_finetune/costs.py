"""What a run costs: floating-point operations, seconds, labels, and the money for them.

Operations are XLA's own count of the program as compiled (`cost_analysis`), once for each call:
a fit of S steps is S calls of one compiled step. XLA counts the body of a loop once, however often
it runs, so a program that has loops is counted from its trace instead (`flops`), loops of known
length by their length. Only the closed-form heads have such programs here; loops that run until
something converges count `CONVERGENCE` times each there, an estimate: the fits of a proxy are less
than a hundredth of one pass of an encoder over a pool. Compiling is in the seconds (of the first
run of a process), never in the operations.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple, cast

import jax
from jax.extend import core

from enn_finetune.compiling import watched
from enn_finetune.config.policy import PriceConfig

Part = Literal["encoding", "scoring", "training", "evaluation"]
PARTS: tuple[Part, ...] = ("encoding", "scoring", "training", "evaluation")
CHARGED: tuple[Part, ...] = ("encoding", "scoring", "training")
"""What a policy takes; fits and predictions made to draw its curve are `evaluation`. Which rows are
scored together there is found once, by the pretrained encoder, and booked nowhere."""

CONVERGENCE = 10
HOUR = 3600.0


class Work(NamedTuple):
    """What something took."""

    flops: float = 0.0
    seconds: float = 0.0  # wall seconds; compiling included

    def plus(self, other: "Work") -> "Work":
        """Both together."""
        return Work(self.flops + other.flops, self.seconds + other.seconds)

    def times(self, share: float) -> "Work":
        """A share of it."""
        return Work(self.flops * share, self.seconds * share)

    def columns(self) -> dict[str, float]:
        """As a record has it."""
        return {"flops": float(round(self.flops)), "seconds": round(self.seconds, 4)}


def money(labels: float, hours: float, prices: PriceConfig) -> float:
    """What labels and hours of computing cost at these prices."""
    return labels * prices.label + hours * prices.hour


def hours(flops: float, prices: PriceConfig) -> float:
    """Hours that the machine of these prices takes for operations."""
    return flops / prices.speed / HOUR


def program_flops(program: "jax.stages.Wrapped", *args: Any, **kwargs: Any) -> float:
    """Floating-point operations of one call of a jitted function with these arguments.

    What is compiled here is what the call then runs: nothing is compiled twice.
    """
    traced = program.trace(*args, **kwargs)
    if has_loops(traced.jaxpr.jaxpr):
        return flops(traced.jaxpr.jaxpr, CONVERGENCE)
    analysis = cast(Mapping[str, float] | None, traced.lower().compile().cost_analysis())
    found = (analysis or {}).get("flops", -1.0)
    return found if found >= 0 else flops(traced.jaxpr.jaxpr)  # a backend that does not say


class Counter:
    """Adds up the operations of programs as they are called; each is analysed once."""

    def __init__(self) -> None:
        self.flops = 0.0
        self._known: dict[object, float] = {}

    def __call__(
        self, program: "jax.stages.Wrapped", args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        """One call of a program (see `compiling.watched`)."""
        leaves, structure = jax.tree.flatten((args, kwargs))
        key = (program, structure, tuple(map(_kind, leaves)))
        if key not in self._known:
            self._known[key] = program_flops(program, *args, **kwargs)
        self.flops += self._known[key]


def _kind(leaf: Any) -> object:
    return (leaf.shape, leaf.dtype) if hasattr(leaf, "shape") else leaf


class Ledger:
    """What each part of a run took so far."""

    def __init__(self, saved: Mapping[str, Iterable[float]] | None = None) -> None:
        """Begin at nothing, or where a saved `state` ended."""
        self._counter = Counter()
        given = saved or {}
        self.parts: dict[Part, Work] = {part: Work(*given.get(part, ())) for part in PARTS}

    def add(self, part: Part, work: Work) -> None:
        """Book what was measured."""
        self.parts[part] = self.parts[part].plus(work)

    @contextmanager
    def measured(self) -> Iterator[Callable[[], Work]]:
        """Within: work is counted; what the name stands for says how much it was, afterwards."""
        before, began = self._counter.flops, time.monotonic()
        ended: list[Work] = []
        with watched(self._counter):
            yield lambda: ended[0]
        ended.append(Work(self._counter.flops - before, time.monotonic() - began))

    @contextmanager
    def charging(self, part: Part) -> Iterator[Callable[[], Work]]:
        """Within: work is counted and booked; what the name stands for is as in `measured`."""
        with self.measured() as work:
            yield work
        self.add(part, work())

    @property
    def charged(self) -> Work:
        """All that the policy takes so far, evaluation left out."""
        total = Work()
        for part in CHARGED:
            total = total.plus(self.parts[part])
        return total

    def state(self) -> dict[str, list[float]]:
        """What a checkpoint keeps, as plain JSON."""
        return {part: list(work) for part, work in self.parts.items()}


_FACTORISATIONS: dict[str, float] = {  # operations over n^3, vectors included
    "cholesky": 1 / 3,
    "eigh": 9.0,
    "svd": 9.0,
    "lu": 2 / 3,
    "householder_product": 4 / 3,
    "geqrf": 4 / 3,
}
_MOVES = """broadcast_in_dim reshape transpose slice dynamic_slice dynamic_update_slice concatenate
pad gather squeeze convert_element_type copy iota select_n rev split stop_gradient"""
_FREE = frozenset(_MOVES.split())


def has_loops(jaxpr: core.Jaxpr) -> bool:
    """True where some of a traced program runs more than once."""
    return any(
        equation.primitive.name in ("while", "scan")
        or any(has_loops(part) for part in _programs_in(equation.params.values()))
        for equation in jaxpr.eqns
    )


def flops(jaxpr: core.Jaxpr, convergence: float = 1) -> float:
    """Floating-point operations of a traced program.

    Matrix products and factorisations exactly, loops of known length by their length, elementwise
    work as one a number. Loops that run until something converges are counted `convergence` times:
    once is a lower bound, most of it the products outside such loops.
    """
    return sum(_equation(equation, convergence) for equation in jaxpr.eqns)


def _equation(equation: core.JaxprEqn, convergence: float) -> float:
    name, parameters = equation.primitive.name, equation.params
    inner = [flops(part, convergence) for part in _programs_in(parameters.values())]
    if inner and name == "cond":
        return max(inner)
    if inner:
        times = parameters["length"] if name == "scan" else convergence if name == "while" else 1
        return sum(inner) * float(times)
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

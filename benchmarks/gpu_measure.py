"""What benchmarks/gpu.py measures: matrix products, tuning modes, input; and its time limits."""

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tuning import ALPHA, MIB, RANK

from enn_finetune import compiling, costs, train
from enn_finetune.config import Config
from enn_finetune.config.tuning import Tune
from enn_finetune.models.backbone import encode
from enn_finetune.problem import Problem, batch_of, new_classifier
from enn_finetune.progress import Display
from enn_finetune.types import TokenBatch

REPEATS = 3
COUNTS_WITHIN = 0.1
"""Compiled programs are believed where they count a matrix product this well."""

Run = Callable[[], object]


class TimeLimitError(Exception):
    """A part has taken the time it had."""


class Clock:
    """Gives each part its share of the time that is left; what one does not use goes to the next.

    Times are seconds. Nothing is interrupted: parts call `check` where they may end.
    """

    def __init__(
        self,
        limit: float,
        weights: Mapping[str, float],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin to count; `weights` are of all parts, in order."""
        self._limit, self._now, self._began = limit, now, now()
        self._waiting, self._end = dict(weights), math.inf

    @property
    def elapsed(self) -> float:
        return self._now() - self._began

    def allot(self, part: str) -> float:
        """What a part may take, 0 at the least; it is asked for once, as the part begins."""
        total = sum(self._waiting.values())
        weight = self._waiting.pop(part)
        seconds = max(0.0, self._limit - self.elapsed) * weight / total
        self._end = self.elapsed + seconds
        return seconds

    def check(self) -> None:
        """Raise TimeLimitError if the part has no time left."""
        if self.elapsed >= self._end:
            raise TimeLimitError


class Watchful(Display):
    """Shows nothing, and looks at the clock as often as a run reports (every round)."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(quiet=True)
        self._clock = clock

    def advance(self, done: int, rows: int = 0) -> None:
        super().advance(done, rows)
        self._clock.check()


def timed(run: Run, calls: int) -> float:
    """Seconds a call, of calls made without waiting for any but the last."""
    began, out = time.perf_counter(), None
    for _ in range(calls):
        out = run()
    jax.block_until_ready(out)
    return (time.perf_counter() - began) / calls


def quickest(run: Run, sample: float) -> float:
    """Seconds a call in the best of some samples, of about so many seconds each; warmed before."""
    jax.block_until_ready(run())
    calls = max(1, round(sample / max(timed(run, 1), 1e-6)))
    return min(timed(run, calls) for _ in range(REPEATS))


class Matmul(NamedTuple):
    """Square matrix products."""

    size: int
    flops_a_second: float
    counted: float  # operations that the compiled program reports, over 2 n^3


def matmul(dtype: str, sizes: Iterable[int], sample: float, clock: Clock) -> Matmul:
    """The quickest of some sizes; float32 with the precision that jax takes by default."""
    found = []
    program = jax.jit(jnp.matmul)
    for n in sizes:
        clock.check()
        left, right = (
            jax.random.normal(key, (n, n), jnp.dtype(dtype))
            for key in jax.random.split(jax.random.key(n))
        )
        seconds = quickest(lambda left=left, right=right: program(left, right), sample)
        counted = costs.program_flops(program, left, right) / (2 * n**3)
        found.append(Matmul(n, 2 * n**3 / seconds, counted))
    return max(found, key=lambda one: one.flops_a_second)


def utilisation(flops: float, seconds: float, rate: float) -> float:
    """Model FLOP utilisation: operations of a call over its seconds, over a rate (FLOP/s)."""
    return flops / seconds / rate


class Plan(NamedTuple):
    """One compiled program."""

    compiled: float  # operations, as `costs.program_flops` has them
    traced: float  # as `costs.flops` counts them in the trace
    mib: float | None  # arguments and temporaries

    def flops(self, *, believed: bool) -> float:
        """The compiled program's own count, if it is to be believed."""
        return self.compiled if believed else self.traced


def plan_of(run: Run) -> Plan:
    """The one program that a call runs."""
    found: list[Plan] = []

    def note(program: Any, args: Any, kwargs: Any) -> None:
        memory = program.lower(*args, **kwargs).compile().memory_analysis()
        mib = memory and (memory.temp_size_in_bytes + memory.argument_size_in_bytes) / MIB
        traced = costs.flops(program.trace(*args, **kwargs).jaxpr.jaxpr)
        found.append(Plan(costs.program_flops(program, *args, **kwargs), traced, mib))

    with compiling.watched(note):
        jax.block_until_ready(run())
    return found[0]


class Training:
    """A classifier that is being trained in one tuning mode."""

    def __init__(self, problem: Problem, config: Config, mode: Tune) -> None:
        how = replace(config.backbone, tune=mode, rank=RANK, lora_alpha=ALPHA)
        config = replace(config, backbone=how)
        self._recipe, self._key = config.training, jax.random.key(0)
        self._parts = train.split(new_classifier(problem, config), how.embeddings)
        self._state = train.begin(self._parts, self._recipe, how.embeddings)

    @property
    def trained(self) -> int:
        """Numbers of the encoder that are."""
        return sum(leaf.size for leaf in jax.tree.leaves(self._parts.params.get("backbone", {})))

    def step(self, batch: train.Batch) -> jax.Array:
        """Take a step; the loss ()."""
        self._state, loss = train.train_step(
            self._parts.graph,
            self._parts.fixed,
            self._state,
            batch,
            self._key,
            config=self._recipe,
            total=jnp.float32(1000),
        )
        return loss

    def score(self, inputs: Any) -> object:
        now = train.view(self._parts, self._state, averaged=False)
        return train.predictions(now, inputs, self._key, indices=1)


def device_mib(name: str) -> float | None:
    """A figure of the device's own memory statistics, where it has them."""
    found = (jax.devices()[0].memory_stats() or {}).get(name)
    return None if found is None else round(found / MIB, 1)


def measure_mode(
    problem: Problem,
    config: Config,
    mode: Tune,
    batch: tuple[TokenBatch, np.ndarray],
    peak: Matmul,
    sample: float,
    clock: Clock,
) -> dict[str, Any]:
    """Speed, memory and utilisation of one mode, training and scoring on one batch of N rows."""
    inputs: Any
    inputs, labels = batch
    N = len(labels)
    if mode == "frozen":
        inputs = jnp.asarray(encode(problem.encoder, [(np.arange(N), inputs)], N))
    hot = jax.nn.one_hot(labels, len(problem.task.classes))
    rows = train.Batch(inputs, hot, jnp.ones(N), jnp.arange(N), jnp.float32(1000))
    training = Training(problem, config, mode)
    found: dict[str, Any] = {"trained": training.trained}
    runs: dict[str, Run] = {
        "train": lambda: training.step(rows),
        "score": lambda: training.score(inputs),
    }
    believed = abs(peak.counted - 1) < COUNTS_WITHIN
    for work, run in runs.items():
        clock.check()
        plan, seconds = plan_of(run), quickest(run, sample)
        flops = plan.flops(believed=believed)
        found[work] = {
            "rows_per_second": N / seconds,
            "ms": seconds * 1e3,
            "flops": flops,
            "flops_compiled": plan.compiled,
            "flops_traced": plan.traced,
            "mfu": utilisation(flops, seconds, peak.flops_a_second),
            "mib": plan.mib,
        }
    return found | {"device_mib_in_use": device_mib("bytes_in_use")}


class Pipeline(NamedTuple):
    """Seconds a step of `rows` rows."""

    rows: int
    packing: float  # tokens of a pool -> packed arrays, on the host
    batching: float  # the same, with labels, and handed to the device
    prepared: float  # train steps on batches that are on the device already
    on_the_fly: float  # train steps on batches made between them, as a run does

    @property
    def waiting(self) -> float:
        """Share of the time that the device waits for batches."""
        return max(0.0, 1 - self.prepared / self.on_the_fly)

    @property
    def hidden(self) -> float:
        """Share of the shorter of batching and training that goes on beside the other."""
        beside = self.batching + self.prepared - self.on_the_fly
        return min(1.0, max(0.0, beside / min(self.batching, self.prepared)))

    def figures(self) -> dict[str, float]:
        """For the last line."""
        return {
            "packed_rows_per_second": self.rows / self.packing,
            "batched_rows_per_second": self.rows / self.batching,
            "train_rows_per_second": self.rows / self.prepared,
            "on_the_fly_rows_per_second": self.rows / self.on_the_fly,
            "device_waits": self.waiting,
            "hidden": self.hidden,
        }


def pipeline(
    problem: Problem, config: Config, size: int, steps: int, sample: float, clock: Clock
) -> Pipeline:
    """Full fine-tuning on a pool: batches made beforehand against batches made on the fly."""
    steps = min(steps, problem.oracle.budget // size)
    order = np.random.default_rng(0).permutation(len(problem.pool))[: steps * size]
    chosen = order.reshape(steps, size)
    ready = [jax.tree.map(jnp.asarray, batch_of(problem, rows, size)) for rows in chosen]
    training = Training(problem, config, "full")

    def steps_on(batches: Iterable[train.Batch]) -> object:
        return [training.step(batch) for batch in batches]

    def on_the_fly() -> object:
        return steps_on(batch_of(problem, rows, size) for rows in chosen)

    for batch in ready:  # each of another shape is another program
        clock.check()
        jax.block_until_ready(training.step(batch))

    runs: tuple[Run, ...] = (
        lambda: [problem.pool.take(rows, size) for rows in chosen],
        lambda: [batch_of(problem, rows, size) for rows in chosen],
        lambda: steps_on(ready),
        on_the_fly,
    )
    for run in runs:  # all shapes are compiled
        clock.check()
        jax.block_until_ready(run())
    calls = [max(1, round(sample / timed(run, 1))) for run in runs]
    # In turn, so that what disturbs the machine disturbs all.
    samples = [[timed(*one) for one in zip(runs, calls, strict=True)] for _ in range(REPEATS)]
    return Pipeline(size, *(min(taken) / steps for taken in zip(*samples, strict=True)))

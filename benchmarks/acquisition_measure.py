"""What one process of acquisition.py measures of itself: time, memory, rows. Needs numpy only.

Both sides use it: ours (acquisition_ours.py) and, in an environment of their own, the peers
(acquisition_peers.py).
"""

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

NOISE = 0.05
"""Variance of a label in rules on features, on both sides; norms are 0.8 to 1.2."""

BOUGHT = 20
"""Rows bought, the pool's first, for rules that look at the distance from those."""

LONG_S = 20.0
"""A peer that takes longer is called once: it compiles nothing, so a second call says no more."""

ENOUGH_S, CALLS = 2.0, 5
"""Further calls end with the first of these limits."""


class Inputs(NamedTuple):
    """One pool, as the driver wrote it, float32."""

    log_probs: np.ndarray  # (K, N, C)
    features: np.ndarray  # (N, D)
    target_log_probs: np.ndarray  # (K, M, C)
    target_features: np.ndarray  # (M, D)


class Asked(NamedTuple):
    """What a process is asked for."""

    folder: Path
    name: str
    count: int
    threads: int


Prepare = Callable[[Inputs, Asked], Callable[[], np.ndarray]]
"""Inputs -> the call that is timed, which begins with arrays of the library's kind and layout."""


def load(folder: Path, again: bool = False) -> Inputs:
    """The pool; or, to be another one of equal shape, its rows in reverse order."""
    arrays = {name: np.load(folder / f"{name}.npy") for name in Inputs._fields}
    found = Inputs(**arrays)
    if not again:
        return found
    return found._replace(
        log_probs=np.ascontiguousarray(found.log_probs[:, ::-1]),
        features=np.ascontiguousarray(found.features[::-1]),
    )


def asked(arguments: list[str] | None = None) -> Asked:
    """The command line of a process; limits it to the threads it is given."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("name")
    parser.add_argument("count", type=int)
    parser.add_argument("threads", type=int)
    found = Asked(**vars(parser.parse_args(arguments)))
    if hasattr(os, "sched_setaffinity"):  # XLA has a thread for each core that it may use
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: found.threads])
    return found


def peak_gib() -> float:
    """The largest resident memory of this process so far.

    ru_maxrss would do, but on Linux it begins at what the parent had when it started the child.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        kib = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        kib = peak / 1024 if sys.platform == "darwin" else peak
    return kib / 2**20


def measure(prepare: Prepare, what: Asked, *, compiles: bool) -> dict[str, object]:
    """First call, the best of further calls with another pool of equal shape, memory and rows.

    Call it when all that is needed is imported: memory is counted from there to the end of the
    first call, inputs included.
    """
    imported = peak_gib()
    call = prepare(load(what.folder), what)
    start, busy = time.perf_counter(), time.process_time()
    rows = [call().tolist()]
    first = (time.perf_counter() - start, time.process_time() - busy)
    peak = peak_gib()
    steady: list[tuple[float, float]] = []
    if compiles or first[0] < LONG_S:
        call = prepare(load(what.folder, again=True), what)
        began = time.perf_counter()
        while len(steady) < CALLS and time.perf_counter() - began < ENOUGH_S:
            start, busy = time.perf_counter(), time.process_time()
            found = call()
            steady.append((time.perf_counter() - start, time.process_time() - busy))
        rows.append(found.tolist())
    seconds, cpu = min(steady or [first])
    return {
        "first_s": first[0],
        "seconds": seconds,
        "cpu_s": cpu,
        "calls": len(steady),
        "gib": peak - imported,
        "imported_gib": imported,
        "rows": rows,
    }


def answer(found: dict[str, object]) -> None:
    """The last line of the process."""
    print(json.dumps(found))

"""Acquisition rules against activeft, batchbald_redux, baal, scikit-activeml and bmdal-reg.

    python benchmarks/acquisition.py --peers PYTHON [--rows 10000] [--quick | --full] [--only NAME]
    python benchmarks/acquisition.py --scale

PYTHON is the interpreter of an environment that has the peers; what it lacks is listed as missing.
Both sides read the same files: predictions of K = 20 index samples and C = 3 classes, features
N x 384, 100 targets. Each measurement is a process of its own on the CPU, ours and the peer's one
after the other, with the same number of threads. That is 1 unless --threads says otherwise: where
other work shares the cores, the barriers of OpenMP in the peers' small products wait for a thread
that is not running (batchbald_redux, 2,000 rows, on two busy cores: 26 s with 2 threads, 3 with 1),
which would flatter us. Times are of choosing rows, from arrays of the library's own kind and
layout. `first` is the first call, which compiles; `s` the best of some calls with another pool of
equal shape (a peer whose first call takes over 20 s is called once). GiB are the largest resident
memory less what imports take, compilation and inputs included. Rows are compared where definitions
agree. Ratios are the peer's figure over ours, of `s`.

--scale runs the limits of acquisition_scale.py instead, and ends with its JSON line. Otherwise the
last line is one JSON object: ratios by rule and peer; the least ratio of BatchBALD and of ITL and
VTL (exact, and also with the mini-batches that activeft has by default); agreement; growth of ours.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from acquisition_measure import NOISE, Inputs, load
from acquisition_values import VALUES

HERE = Path(__file__).parent
INDICES, CLASSES, WIDTH, TARGETS = 20, 3, 384, 100
QUICK_ROWS, ROWS = 2000, 10_000
LIMIT_S = 900
"""A peer gets no longer."""
BARS = {"batchbald": 20.0, "transductive": 5.0}


class Case(NamedTuple):
    """A rule of ours beside a peer's."""

    ours: str
    peer: str  # peer/method of acquisition_peers.py
    count: int
    same: bool = True  # the definition; False: another estimate, draw or search


CASES = (
    # 8 rows of 3 classes: both are exact, for all outcomes of 7 labels fit what each enumerates.
    Case("batchbald", "batchbald_redux/batchbald", 8),
    Case("batchbald", "baal/batchbald", 8, same=False),
    Case("itl_linear", "activeft/itl", 10),
    Case("vtl_linear", "activeft/vtl", 10),
    Case("itl_linear", "activeft/itl, mini-batches", 10, same=False),
    Case("vtl_linear", "activeft/vtl, mini-batches", 10, same=False),
    Case("bald", "baal/bald", 100),
    Case("epig", "baal/epig", 100),
    Case("entropy", "scikit-activeml/entropy", 100),
    Case("badge", "scikit-activeml/badge", 100, same=False),
    Case("kcenter", "scikit-activeml/kcenter", 100),
    Case("kcenter", "bmdal-reg/kcenter", 100),
    Case("lcmd", "bmdal-reg/lcmd", 100),
    Case("logdet_linear", "bmdal-reg/maxdet", 100),
    Case("condvar_linear", "bmdal-reg/bait", 100),
)
GROWTH = (("bald", 100), ("batchbald", 8), ("itl", 100), ("itl_features", 100), ("kcenter", 100))
NAMES = tuple(dict.fromkeys(case.ours for case in CASES))


def write_inputs(folder: Path, rows: int) -> None:
    """A pool and targets: features as encoders give them, and a linear head with random weights."""
    from acquisition_scale import features_of

    folder.mkdir()
    generator = np.random.default_rng(0)
    mean, spread = (
        scale * generator.standard_normal((count, WIDTH, CLASSES), np.float32)
        for scale, count in ((3.0, 1), (1.5, INDICES))
    )
    for prefix, count in (("", rows), ("target_", TARGETS)):
        features = features_of(count, 0, generator)
        # Of equal norms the first choice of some rules would be a tie, which rounding decides.
        features *= generator.uniform(0.8, 1.2, (count, 1)).astype(np.float32)
        logits = np.matmul(features[None], mean + spread)
        logits -= logits.max(-1, keepdims=True)
        logits -= np.log(np.exp(logits).sum(-1, keepdims=True))
        np.save(folder / f"{prefix}features.npy", features)
        np.save(folder / f"{prefix}log_probs.npy", logits)


def in_own_process(
    python: str, script: str, folder: Path, name: str, count: int, threads: int
) -> dict[str, Any]:
    """What a process found, or {"failed": why}."""
    command = [python, str(HERE / script), str(folder), name, str(count), str(threads)]
    pools = ("OMP", "MKL", "OPENBLAS", "NUMEXPR")
    settings = {f"{pool}_NUM_THREADS": str(threads) for pool in pools} | {"JAX_PLATFORMS": "cpu"}
    environment = {**os.environ, **settings}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)  # or nothing would be compiled
    try:
        done = subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            env=environment,
            timeout=LIMIT_S,
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"over {LIMIT_S} s"}
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def ratios(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, float]:
    return {
        figure: round(theirs[figure] / max(ours[figure], 1e-6), 2)
        for figure in ("seconds", "cpu_s", "first_s", "gib")
    }


def agreement(
    case: Case, ours: Sequence[Sequence[int]], theirs: Sequence[Sequence[int]], inputs: Inputs
) -> dict[str, Any]:
    """Rows in common, of the least alike pool, and what the first batch is worth to each."""
    pairs = list(zip(ours, theirs, strict=False))  # a slow peer has seen one pool
    found: dict[str, Any] = {
        "same_definition": case.same,
        "in_common": min(len(set(a) & set(b)) for a, b in pairs),
        "of": case.count,
        "same_order": all(a == b for a, b in pairs),
    }
    if case.ours in VALUES:
        value = VALUES[case.ours]
        found |= {
            side: round(value(inputs, rows[0]), 5)
            for side, rows in (("ours", ours), ("peer", theirs))
        }
    return found


def compare(
    cases: Sequence[Case], folder: Path, python: str, threads: int
) -> tuple[list[dict[str, Any]], list[str]]:
    """All cases, printed as they come, and what is missing or failed."""
    inputs, gone = load(folder), []
    found: list[dict[str, Any]] = []
    print(
        f"{'rule':15} {'peer':28} {'rows':>5} {'first':>8} {'s':>8} {'GiB':>6}"
        f" {'peer s':>9} {'GiB':>6} {'ratio s':>8} {'cpu':>7} {'GiB':>6}  rows in common"
    )
    for case in cases:
        ours = in_own_process(
            sys.executable, "acquisition_ours.py", folder, case.ours, case.count, threads
        )
        if "failed" in ours:
            raise SystemExit(f"{case.ours}: {ours['failed']}")
        theirs = in_own_process(
            python, "acquisition_peers.py", folder, case.peer, case.count, threads
        )
        one: dict[str, Any] = {"rule": case.ours, "peer": case.peer, "count": case.count}
        one |= {"ours": ours, "theirs": theirs}
        line = f"{case.ours:15} {case.peer:28} {case.count:5} {ours['first_s']:8.2f}"
        line += f" {ours['seconds']:8.4f} {ours['gib']:6.2f}"
        reason = theirs.get("missing") or theirs.get("failed")
        if reason:
            gone.append(f"{case.peer}: {reason}")
            print(f"{line}  {gone[-1][:90]}", flush=True)
        else:
            one["ratio"] = ratios(ours, theirs)
            one["agreement"] = agreement(case, ours["rows"], theirs["rows"], inputs)
            print(f"{line} {_theirs(one)}", flush=True)
        found.append(one)
    return found, gone


def _theirs(one: dict[str, Any]) -> str:
    theirs, ratio, agrees = one["theirs"], one["ratio"], one["agreement"]
    text = f"{theirs['seconds']:9.3f} {theirs['gib']:6.2f} {ratio['seconds']:7.1f}x"
    text += f" {ratio['cpu_s']:6.1f}x {ratio['gib']:5.1f}x  {agrees['in_common']}/{agrees['of']}"
    text += "" if agrees["same_definition"] else " (not the same by definition)"
    return text + (f", worth {agrees['ours']} | {agrees['peer']}" if "ours" in agrees else "")


def growth(sizes: Sequence[int], folder: Path, threads: int) -> dict[str, dict[str, Any]]:
    """Ours alone, by rows."""
    found: dict[str, dict[str, Any]] = {name: {} for name, _ in GROWTH}
    for size in sizes:
        here = folder / f"growth{size}"
        write_inputs(here, size)
        for name, count in GROWTH:
            one = in_own_process(sys.executable, "acquisition_ours.py", here, name, count, threads)
            if "failed" in one:
                raise SystemExit(f"{name}, {size} rows: {one['failed']}")
            found[name][str(size)] = {
                key: round(one[key], 4) for key in ("first_s", "seconds", "gib")
            }
            print(f"{name:15} {count:4} of {size:9,} rows: {one['seconds']:8.3f} s", end="")
            print(f" (first {one['first_s']:.2f} s), {one['gib']:.2f} GiB", flush=True)
        for file in here.iterdir():
            file.unlink()
    return found


def figures(found: Sequence[dict[str, Any]], gone: Sequence[str]) -> dict[str, Any]:
    """What the last line says of the comparison."""
    both = [one for one in found if "ratio" in one]

    def least(*peers: str) -> float | None:
        known = [
            one["ratio"]["seconds"] for one in found if one["peer"] in peers and "ratio" in one
        ]
        return min(known) if len(known) == len(peers) else None

    return {
        "batchbald_ratio": least("batchbald_redux/batchbald"),
        "transductive_ratio": least("activeft/itl", "activeft/vtl"),
        "transductive_ratio_mini_batches": least(
            "activeft/itl, mini-batches", "activeft/vtl, mini-batches"
        ),
        "bars": BARS,
        "ratios": {f"{one['rule']} | {one['peer']}": one["ratio"] for one in both},
        "agreement": {f"{one['rule']} | {one['peer']}": one["agreement"] for one in both},
        "missing": list(gone),
        "measurements": [
            {key: value for key, value in one.items() if key in {"rule", "peer", "count"}}
            | {side: _rounded(one[side]) for side in ("ours", "theirs")}
            for one in found
        ],
    }


def _rounded(one: dict[str, Any]) -> dict[str, Any]:
    return {
        key: round(value, 4) if isinstance(value, float) else value
        for key, value in one.items()
        if key != "rows"
    }


def options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", default=sys.executable, help="the peers' interpreter")
    parser.add_argument("--rows", type=int)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_ROWS} rows, no growth")
    parser.add_argument("--full", action="store_true", help="growth to 1,000,000 rows")
    parser.add_argument("--only", nargs="+", choices=(*NAMES, "growth"), help="rules of ours")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--scale", action="store_true", help="the limits for large pools instead")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    given, start = options(arguments), time.perf_counter()
    from acquisition_scale import main as scale
    from provenance import provenance

    if given.scale:
        scale([] if given.rows is None else ["--rows", str(given.rows)])
        return
    rows = given.rows or (QUICK_ROWS if given.quick else ROWS)
    cases = [case for case in CASES if given.only is None or case.ours in given.only]
    about = {"rows": rows, "indices": INDICES, "classes": CLASSES, "width": WIDTH}
    about |= {"targets": TARGETS, "noise": NOISE, "threads": given.threads}
    print(", ".join(f"{name} {value}" for name, value in about.items()), flush=True)
    grown: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_inputs(folder / "pool", rows)
        found, gone = compare(cases, folder / "pool", given.peers, given.threads)
        if not given.quick and (given.only is None or "growth" in given.only):
            sizes = [10**4, 10**5, *([10**6] if given.full else [])]
            grown = growth(sizes, folder, given.threads)
    last = about | figures(found, gone) | {"growth": grown}
    for name in ("batchbald_ratio", "transductive_ratio", "transductive_ratio_mini_batches"):
        bar = BARS[name.partition("_")[0]]
        print(f"{name}: {last[name] or 'not measured'} (bar {bar:g})")
    last["seconds"] = round(time.perf_counter() - start)
    print(json.dumps(last | provenance()))


if __name__ == "__main__":
    from starting import run_script

    run_script(main)

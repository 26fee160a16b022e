"""The policies' study and the tuning modes' throughput on one NVIDIA GPU, in under 10 minutes.

    python benchmarks/gpu.py --data ../shared [--parts matmul pipeline table study] [--limit 540]
    python benchmarks/gpu.py --toy --encoder FOLDER        # any machine: does it run at all?

The encoder computes in bfloat16 (parameters, moments and averages are float32). Parts, in order:

matmul: the card's own rate of large square matrix products, warmed, in bfloat16 and in float32 (the
precision jax takes by default, on NVIDIA TF32). Everything below is measured against the first.

pipeline: full fine-tuning on the tokenised SST-2 pool. Rows/s of packing alone on the host, of
making whole batches, and of train steps on batches made beforehand and on the fly, the last as a
run makes them: while the device works. `device_waits` is what making them on the fly adds, as a
share of the time; the input is no bottleneck while it is small.

table: every tuning mode as in benchmarks/tuning.py, on one batch without padding: rows/s of
training and scoring, memory as XLA has assigned it (and as the device reports it, if it does), and
model FLOP utilisation: operations of the compiled program over its time over the matmul rate. If
the compiled program's count of a matrix product is wrong (a library call that XLA does not see
into; `counted` of matmul is then not 1), operations are counted from the trace instead, an upper
bound. Frozen trains a head on features that are there: next to no operations.

study: benchmarks/policies.py --quick --auto (SST-2, 3-layer encoder unless --encoder is given),
seeds without all arms left out. It goes on with the same --out. Money is at the fixed speed of its
config.

Each part has a share of --limit and ends soon after it, between two programs or rounds of buying
labels (what is under way is not interrupted); `left_out` says what is missing. Times
are of the wall clock, the best of three samples. Last line: one JSON object, also in OUT/gpu.json.
On a CPU the figures show that the script works, and nothing else. A part that fails is said to, the
others are run, and the exit status is 1.
"""

import argparse
import json
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gpu_measure
import jax
from gpu_measure import Clock, TimeLimitError
from gpu_parts import DTYPE, ON_CPU, ON_GPU, TOY, Bench
from policies_cells import LARGE, SMALL
from provenance import provenance
from starting import run_script

from enn_finetune.files import atomic_write

WEIGHTS = {"matmul": 1.0, "pipeline": 2.0, "table": 6.0, "study": 8.0}
FAILED = "failed with"
NO_CLAIM = "a CPU or a toy: these figures show that the script works, and nothing else"


def run_parts(
    parts: Sequence[tuple[str, Callable[[], None]]], clock: Clock, left_out: list[str]
) -> dict[str, float]:
    """Run parts, each within its time; seconds each took. What is cut off is added to left_out."""
    took: dict[str, float] = {}
    for name, part in parts:
        began, seconds = clock.elapsed, clock.allot(name)
        try:
            clock.check()
            part()
        except TimeLimitError:
            left_out.append(f"{name}: cut off after {seconds:.0f} s")
        except (
            Exception,
            SystemExit,
        ) as error:  # what the other parts measured is not lost with it
            traceback.print_exc()
            left_out.append(f"{name}: {FAILED} {type(error).__name__}: {error}")
        took[name] = round(clock.elapsed - began, 1)
    return took


def rounded(value: Any) -> Any:
    """The same figures with five digits each."""
    if isinstance(value, dict):
        return {name: rounded(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(one) for one in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


def device() -> dict[str, Any]:
    one, mib = jax.devices()[0], gpu_measure.device_mib("bytes_limit")
    known = {"platform": one.platform, "kind": one.device_kind}
    return known | {"devices": jax.device_count(), "mib": mib}


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared"), help="has glue and models")
    parser.add_argument("--encoder", type=Path, help="a folder; default: 12 layers, on a CPU 3")
    parser.add_argument("--parts", nargs="+", choices=list(WEIGHTS), default=list(WEIGHTS))
    parser.add_argument("--limit", type=float, default=540.0, help="seconds, of all parts")
    parser.add_argument("--toy", action="store_true", help="all of it as small as can be")
    parser.add_argument("--out", type=Path, default=Path("runs") / "gpu")
    given = parser.parse_args(arguments)
    models, on_gpu = given.data / "models", jax.default_backend() == "gpu"
    given.selector = given.encoder or models / SMALL
    given.encoder = given.encoder or models / (LARGE if on_gpu else SMALL)
    return given


def main(arguments: Sequence[str] | None = None) -> None:
    began, given, on_gpu = time.monotonic(), options(arguments), jax.default_backend() == "gpu"
    asked = {name: weight for name, weight in WEIGHTS.items() if name in given.parts}
    # Kept back for what is under way as the last part's time ends.
    clock = Clock(given.limit - min(30.0, given.limit / 10), asked)
    bench = Bench(given, TOY if given.toy else ON_GPU if on_gpu else ON_CPU, clock)
    bench.left_out += [f"{name}: not asked for" for name in WEIGHTS if name not in asked]
    took = run_parts([(name, getattr(bench, name)) for name in asked], clock, bench.left_out)
    bench.conclude()
    line = rounded(bench.found) | {
        "left_out": bench.left_out,
        "dtype": DTYPE,
        "encoder": given.encoder.name,
        "toy": given.toy,
        "device": device(),
        "seconds": took | {"all": round(time.monotonic() - began, 1)},
    }
    if given.toy or not on_gpu:
        line["note"] = NO_CLAIM
    text = json.dumps(line | provenance())
    atomic_write(given.out / "gpu.json", text + "\n")
    for what in bench.left_out:
        print(f"left out: {what}")
    print(text)
    if any(FAILED in what for what in bench.left_out):
        raise SystemExit(1)


if __name__ == "__main__":
    run_script(main)

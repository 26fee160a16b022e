"""Large pools: what scoring and batches cost in time and memory, from features in a mapped file.

    python benchmarks/acquisition_scale.py [--rows 1000000] [--only NAME ...] [--folder FOLDER]

Writes N x 384 features to a temporary folder (1.5 GB for a million rows; never in memory), fits a
linear epinet to 300 of them, and takes each measurement in a process of its own: seconds of one
call of `scan` that includes compilation, the CPU's seconds, and the largest resident memory of the
process. K = 100, C = 2. The last line is one JSON object; a rule that does not exist is null.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from acquisition_measure import peak_gib
from provenance import provenance

from enn_finetune import files, scan
from enn_finetune.acquisition.choose import NAMES
from enn_finetune.models.laplace import LinearEpinetFit, fit_linear_epinet
from enn_finetune.models.linear_epinet import LinearEpinet
from enn_finetune.models.shaped_features import pool_shapes

ROWS, WIDTH, INDICES, LABELS = 1_000_000, 384, 100, 300
BLOCK, DIRECTIONS = 8192, 48
SHAPING = 16384
"""Rows that the prior is shaped by."""


class Measurement(NamedTuple):
    """One call: a batch of `count` rows, or, for 0, the score of every row."""

    name: str
    rule: str
    share: float  # of the rows
    count: int
    targets: int = 0


MEASUREMENTS = (
    Measurement("pointwise_1m", "bald", 1, 0),
    Measurement("variance_1m", "variance", 1, 0),
    Measurement("batchbald_100k", "batchbald", 0.1, 100),
    Measurement("logdet_1m", "logdet", 1, 1000),
    Measurement("itl_1m", "itl", 1, 1000, 200),
    Measurement("vtl_1m", "vtl", 1, 1000, 200),
)
LIMITS = {
    "pointwise_1m_s": 20,
    "pointwise_gib": 3,
    "batchbald_100k_s": 60,
    "transductive_1m_s": 180,
    "logdet_1m_s": 180,
}
"""For a million rows on two cores."""


def features_of(rows: int, seed: int, generator: np.random.Generator) -> np.ndarray:
    """Rows of unit norm with most of their variance in a few directions, as encoders give them."""
    axes = np.random.default_rng(seed).normal(size=(DIRECTIONS, WIDTH))
    axes = (axes * np.arange(1, DIRECTIONS + 1)[:, None] ** -0.5).astype(np.float32)
    found = generator.standard_normal((rows, DIRECTIONS), np.float32) @ axes
    found += 0.2 * generator.standard_normal((rows, WIDTH), np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def prepare(folder: Path, rows: int) -> None:
    """The pool's features, some of targets, and a fit, in files."""
    generator = np.random.default_rng(0)
    with (folder / "features.npy").open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (rows, WIDTH)}
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, rows, BLOCK):
            file.write(features_of(min(BLOCK, rows - start), 0, generator).tobytes())
    targets = features_of(4 * max(one.targets for one in MEASUREMENTS), 0, generator)
    np.save(folder / "targets.npy", targets[np.argsort(targets[:, 0])[-len(targets) // 4 :]])
    pool = np.array(np.load(folder / "features.npy", mmap_mode="r")[:SHAPING])
    labelled = pool[:LABELS]
    logits = 8 * labelled @ generator.normal(size=WIDTH) / np.sqrt(WIDTH) * 4
    labels = np.eye(2, dtype=np.float32)[(logits + generator.logistic(size=LABELS) > 0).astype(int)]
    fit = fit_linear_epinet(
        jnp.asarray(labelled),
        jnp.asarray(labels),
        jnp.ones(LABELS),
        pool_shapes(jnp.asarray(pool)),
        key=jax.random.key(0),
    )
    files.save_arrays(folder / "fit.safetensors", fit._asdict())


def measure(folder: Path, one: Measurement) -> dict[str, object]:
    """One measurement, in this process; to be its only one."""
    if one.rule not in NAMES:
        return {"missing": one.rule}
    arrays, _ = files.load_arrays(folder / "fit.safetensors")
    head = LinearEpinet(LinearEpinetFit(**{name: jnp.asarray(a) for name, a in arrays.items()}))
    features = np.load(folder / "features.npy", mmap_mode="r")
    rows = round(one.share * len(features))
    pool = [features] if rows == len(features) else [np.array(features[:rows])]
    targets = np.load(folder / "targets.npy")[: one.targets] if one.targets else None
    key, free = jax.random.key(1), np.arange(rows) >= LABELS
    jax.block_until_ready(jnp.ones(()) + 1)  # the backend is up
    start, busy = time.perf_counter(), time.process_time()
    if one.count:
        found = scan.choose_from(
            head, pool, one.rule, free, one.count, key, indices=INDICES, targets=targets
        )
        assert len(set(found.tolist())) == one.count
    else:
        found = scan.score_all(head, pool, one.rule, key, indices=INDICES)
        assert np.isfinite(found).all()
    return {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - busy,
        "gib": peak_gib(),
        "rows": rows,
        "devices": jax.device_count(),
    }


def in_own_process(folder: Path, one: Measurement) -> dict[str, object]:
    command = [sys.executable, __file__, "--folder", str(folder), "--measure", one.name]
    found = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(found.stdout.splitlines()[-1])


def run(folder: Path, rows: int = ROWS, only: tuple[str, ...] = ()) -> dict[str, object]:
    """All measurements, printed as they come; the figures of the last line."""
    start = time.perf_counter()
    prepare(folder, rows)
    print(f"{rows:,} x {WIDTH} features in {time.perf_counter() - start:.0f} s", flush=True)
    found: dict[str, dict] = {}
    for one in MEASUREMENTS:
        if only and one.name not in only:
            continue
        found[one.name] = in_own_process(folder, one)
        print(line(one, found[one.name]), flush=True)
    return {**figures(found), "rows": rows, "measurements": found}


def line(one: Measurement, found: dict) -> str:
    if "missing" in found:
        return f"{one.name}: no rule {one.rule!r} yet"
    what = f"{one.count:,} of {found['rows']:,} rows" if one.count else f"{found['rows']:,} scores"
    about = f", {one.targets} targets" if one.targets else ""
    return (
        f"{one.name}: {one.rule}, {what}{about}: {found['seconds']:.1f} s "
        f"({found['cpu_seconds']:.1f} s of CPU), {found['gib']:.2f} GiB"
    )


def figures(found: dict[str, dict]) -> dict[str, object]:
    """What the limits are about; None for what was not measured."""

    def of(names: list[str], figure: str) -> float | None:
        values = [found.get(name, {}).get(figure) for name in names]
        return None if None in values else round(max(values), 2)

    return {
        "pointwise_1m_s": of(["pointwise_1m", "variance_1m"], "seconds"),
        "pointwise_gib": of(["pointwise_1m", "variance_1m"], "gib"),
        "batchbald_100k_s": of(["batchbald_100k"], "seconds"),
        "transductive_1m_s": of(["itl_1m", "vtl_1m"], "seconds"),
        "logdet_1m_s": of(["logdet_1m"], "seconds"),
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [one.name for one in MEASUREMENTS]
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--only", nargs="*", choices=names, default=())
    parser.add_argument("--folder", type=Path, help="for the features; a temporary one otherwise")
    parser.add_argument("--measure", choices=names, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.measure:
        one = next(one for one in MEASUREMENTS if one.name == given.measure)
        print(json.dumps(measure(given.folder, one)))
        return
    print(f"{jax.default_backend()}, jax {jax.__version__}: K = {INDICES}, C = 2, limits {LIMITS}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        found = run(folder, given.rows, tuple(given.only))
    print(json.dumps(found | provenance()))


if __name__ == "__main__":
    main()

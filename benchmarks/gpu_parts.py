"""The parts of benchmarks/gpu.py: what each measures, and how large things are on a machine."""

import argparse
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import gpu_measure
import policies
import policies_options
import tuning
from gpu_measure import Clock, Matmul, Watchful
from policies_cells import CONFIG, QUICK, Cells, Size, config_of, sized, write_material
from policies_kept import Kept
from policies_page import study_lines

from enn_finetune import problem as problems
from enn_finetune.config import Config, load
from enn_finetune.files import read_json
from enn_finetune.models.tuning import MODES
from enn_finetune.progress import Display
from enn_finetune.records import Record

DTYPE = "bfloat16"
TOY_STUDY = Size(40, 5, 20, 20, 8, 4, 4, 1, 3, 1)


class Scale(NamedTuple):
    """How large things are on a machine."""

    matrices: tuple[int, ...]
    rows: int  # of a batch
    tokens: int  # of a row in the table
    steps: int  # different batches of the pipeline
    sample: float  # seconds


TOY = Scale((256,), 4, 8, 3, 0.01)
ON_CPU = Scale((512, 1024), 32, 32, 8, 0.5)
ON_GPU = Scale((4096, 8192, 16384), 512, 64, 32, 0.5)


class Study(NamedTuple):
    """What is run of the policies' study, by seed and arm."""

    task: str
    config: Config  # of the first cell
    cells: Cells
    arms: list[str]
    seeds: int
    records: dict[tuple[int, str], list[Record]]


class Bench:
    """The parts; each adds to `found` as it goes, so that what it has is kept if it is cut off."""

    def __init__(self, given: argparse.Namespace, scale: Scale, clock: Clock) -> None:
        self.given, self.scale, self.clock = given, scale, clock
        self.found: dict[str, Any] = {}
        self.left_out: list[str] = []
        self._peak: Matmul | None = None
        self._study: Study | None = None
        self._ready: tuple[problems.Problem, Config] | None = None

    def problem(self) -> tuple[problems.Problem, Config]:
        """The tokenised pool and the encoder, read when they are first asked for."""
        if self._ready is None:
            given, scale = self.given, self.scale
            keys = {
                "policy": "standard",
                "task.name": "messages" if given.toy else "sst2",
                "task.data": given.data / "glue",
                "backbone.path": given.encoder,
                "backbone.dtype": DTYPE,
                "backbone.pooling": "mean",
                "backbone.max_tokens": min(128, positions(given.encoder)),
                "budget.labels": scale.rows * scale.steps,
                "budget.start": min(50, scale.rows),
                "train.batch": scale.rows,
                "train.lr": 1e-6,
            }
            config = load(CONFIG, [f"{name}={value}" for name, value in keys.items()])
            self._ready = problems.prepare(config, Display(quiet=True)), config
        return self._ready

    def matmul(self) -> None:
        rates = self.found["matmul"] = {}
        for dtype in (DTYPE, "float32"):
            rate = gpu_measure.matmul(dtype, self.scale.matrices, self.scale.sample, self.clock)
            rates[dtype] = rate._asdict()
            if dtype == DTYPE:
                self._peak = rate
            print(
                f"{dtype} products of {rate.size}: {rate.flops_a_second / 1e12:.2f} TFLOP/s "
                f"({rate.counted:.3f} of them counted by the compiled program)"
            )

    def pipeline(self) -> None:
        problem, config = self.problem()
        taken = gpu_measure.pipeline(
            problem, config, self.scale.rows, self.scale.steps, self.scale.sample, self.clock
        )
        found = self.found["pipeline"] = taken.figures()
        for name, value in found.items():
            print(f"pipeline, {name.replace('_', ' ')}: {value:,.3f}")

    def table(self) -> None:
        modes: dict[str, Any] = {}
        self.found["table"] = {"modes": modes}
        if self._peak is None:  # matmul was left out or cut off
            sizes = self.scale.matrices[:1]
            self._peak = gpu_measure.matmul(DTYPE, sizes, self.scale.sample, self.clock)
        problem, config = self.problem()
        rows, tokens = self.scale.rows, min(self.scale.tokens, positions(self.given.encoder))
        self.found["table"] |= {"rows": rows, "tokens": tokens, "rank": tuning.RANK}
        with tempfile.TemporaryDirectory() as temporary:
            path = Path(temporary) / "batch.npz"
            tuning.write_batch(path, self.given.encoder, rows, tokens)
            batch = tuning._read(path)
        heads = (f"{work} rows/s, MFU, MiB".rjust(29) for work in tuning.WORKS)
        print(f"{'':8}{'trained':>12}", "".join(heads))
        waiting = list(dict.fromkeys(("full", "lora", *MODES)))  # these first: time may run out
        try:
            while waiting:
                mode = waiting[0]
                modes[mode] = gpu_measure.measure_mode(
                    problem, config, mode, batch, self._peak, self.scale.sample, self.clock
                )
                del waiting[0]
                print(row_of(mode, modes[mode]))
        finally:
            self.left_out += [f"table: {mode}" for mode in waiting]
        self.found["table"]["device_mib_peak"] = gpu_measure.device_mib("peak_bytes_in_use")

    def study(self) -> None:
        """The cells of benchmarks/policies.py --quick, one after another."""
        if not (self.given.data / "glue").is_dir():
            self.left_out.append(f"study: there is no {self.given.data / 'glue'}")
            return
        small, size = self.given.selector, TOY_STUDY if self.given.toy else QUICK
        name = "sst2" if self.given.toy else policies_options.TASKS[0]
        out = self.given.out / policies.folder_of(name, small)
        task, size = sized(name, size)
        most = min(128, positions(small))
        own = (("backbone.dtype", DTYPE), ("backbone.max_tokens", most))
        arms = policies_options.arms_of(quick=True, small=False)
        arms = [arm._replace(keys=arm.keys + own) for arm in arms]
        material = write_material(out, self.given.data, task, size)
        first = config_of(material, small, size, arms[0], 0, small)
        cells = Cells(first, out, Watchful(self.clock), Kept(None, out.name))
        self._study = Study(name, first, cells, [arm.name for arm in arms], size.seeds, {})
        for seed in range(size.seeds):
            cells.new_seed()
            for arm in arms:
                self.clock.check()
                began = time.monotonic()
                config = config_of(material, small, size, arm, seed, small)
                self._study.records[seed, arm.name] = cells.run(arm, config)
                print(f"study, seed {seed}, {arm.name}: {time.monotonic() - began:.1f} s")

    def conclude(self) -> None:
        """The study's figures, over the seeds that have all arms; after the parts, out of time."""
        if self._study is None:
            return
        task, first, cells, arms, seeds, records = self._study
        missing = [(s, arm) for s in range(seeds) for arm in arms if (s, arm) not in records]
        self.left_out += [f"study: seed {seed}, {arm}" for seed, arm in missing]
        whole = sorted(set(range(seeds)) - {seed for seed, _ in missing})
        if not whole:
            return
        kept = {arm: [one for seed in whole for one in records[seed, arm]] for arm in arms}
        found = policies.study(kept, cells.metric, first.prices.speed)
        found["commits"] = sorted(cells.commits)
        found |= {"data_fingerprint": cells.fingerprint, "config_hash": first.hash}
        print("\n".join(study_lines(f"{task}, {self.given.selector.name}", found)))
        self.found["study"] = {key: value for key, value in found.items() if key != "curves"}


def positions(encoder: Path) -> int:
    """How many tokens an encoder can read."""
    return int(read_json(encoder / "config.json")["max_position_embeddings"])


def row_of(name: str, mode: Mapping[str, Any]) -> str:
    """A line of the table."""
    line = f"{name:8}{mode['trained']:12,} "
    for one in (mode[work] for work in tuning.WORKS):
        mib = "-" if one["mib"] is None else f"{one['mib']:.0f}"
        line += f"{one['rows_per_second']:13.0f}{one['mfu']:8.3f}{mib:>8}"
    return line

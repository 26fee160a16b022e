"""Small benchmarks over the world of tiny_runs: a config file, a run, and what it left."""

import json
from pathlib import Path

import tiny_runs

from enn_finetune.bench import run as bench
from enn_finetune.bench import store
from enn_finetune.config import load_bench

TIMES = ("seconds", "scoring", "training", "encoding", "evaluation")

SETTINGS = """
[task]
train = "WORLD/train.jsonl"
test = "WORLD/test.jsonl"
name = "letters"
[backbone]
max_tokens = 16
cache = "none"
[budget]
labels = 16
start = 6
round = 5
[acquisition]
indices = 4
candidates = 3
[head]
hidden = [5]
index_dim = 4
[train]
batch = 4
warmup = 2
indices = 2
min_steps = 3
epochs = 1
[evaluation]
every = 5
indices = 4
batch = 8
[checkpoint]
every = 1
[bench]
tasks = ["letters"]
backbones = ["WORLD/bert"]
arms = ["linear/random", "epinet/bald"]
seeds = 2
"""


def write_config(folder: Path, world: Path, more: str = "") -> Path:
    """The TOML file of a small benchmark."""
    path = folder / "bench.toml"
    path.write_text(SETTINGS.replace("WORLD", str(world)) + more, encoding="utf-8")
    return path


def run(config: Path, out: Path, *overrides: str, resume: bool = False) -> bench.Outcome:
    """A quiet run."""
    return bench.run(load_bench(config, overrides), out, resume=resume, quiet=True)


def lines(out: Path, name: str) -> list[dict[str, object]]:
    """The lines of a file of results."""
    return [json.loads(line) for line in (out / name).read_text("utf-8").splitlines()]


def left_by(out: Path) -> dict[str, list[str]]:
    """Records and bought rows without times, in an order of their own: what must not change."""
    records = [
        {name: value for name, value in record.items() if name not in TIMES}
        for record in lines(out, store.RECORDS)
    ]
    kept = {"records": records, "bought": lines(out, store.BOUGHT)}
    texts = {name: [json.dumps(x, sort_keys=True) for x in found] for name, found in kept.items()}
    return {name: sorted(found) for name, found in texts.items()}


crash, Crash, before_call = tiny_runs.crash, tiny_runs.Crash, tiny_runs.before_call

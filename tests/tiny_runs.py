"""Small whole runs: a tiny random BERT and a task of made-up words, for tests of runs."""

import csv
import dataclasses
import itertools
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
import numpy as np
import pytest

from enn_finetune import experiment, files, problem
from enn_finetune.config import Config, build
from enn_finetune.progress import Display
from enn_finetune.session import CHECKPOINT, RECORDS, Session

sys.path.append(str(Path(__file__).parent / "models"))  # where the tiny encoder's tests are
import tiny_bert

LETTERS = "abcdefgh"
CLASSES = ("high", "low", "mid")
TRAIN_ROWS, TEST_ROWS = 60, 24

REGIMES: dict[str, dict[str, object]] = {
    "online, frozen": {"regime": "online", "backbone.tune": "frozen"},
    "online, full": {"regime": "online", "backbone.tune": "full"},
    "online, full, touched": {
        "regime": "online",
        "backbone.tune": "full",
        "backbone.embeddings": "touched",
    },
    "online, full, dense, epoch": {
        "regime": "online",
        "backbone.tune": "full",
        "backbone.embeddings": "dense",
        "acquisition.source": "epoch",
    },
    "pool, closed form": {"regime": "pool", "backbone.tune": "frozen"},
    "pool, frozen, gradient": {"regime": "pool", "backbone.tune": "frozen", "head.form": "mlp"},
    "pool, full": {"regime": "pool", "backbone.tune": "full"},
}


def sentences(count: int, seed: int) -> list[dict[str, object]]:
    """Rows of five letters; the label goes by the letters, so there is something to learn."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        letters = rng.choice(list(LETTERS), 5)
        place = np.mean([LETTERS.index(letter) for letter in letters])
        label = "low" if place < 3 else "high" if place > 4 else "mid"
        rows.append({"id": number, "text": " ".join(letters), "pair": "hello", "label": label})
    return rows


def write_rows(path: Path, rows: list[dict[str, object]]) -> Path:
    """JSON lines or CSV, by the suffix."""
    if path.suffix == ".csv":
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_world(folder: Path) -> Path:
    """The encoder and the two files of the task."""
    tensors = {k: v for k, v in tiny_bert.random_tensors().items() if "layer.1" not in k}
    tiny_bert.write(folder / "bert", tensors, num_hidden_layers=1)  # half the time to compile
    write_rows(folder / "train.jsonl", sentences(TRAIN_ROWS, 1))
    write_rows(folder / "test.jsonl", sentences(TEST_ROWS, 2))
    return folder


def values(world: Path, **keys: object) -> dict[str, object]:
    """Dotted keys of a small run over the world, some of them replaced."""
    return {
        "task.name": "custom",
        "task.train": str(world / "train.jsonl"),
        "task.test": str(world / "test.jsonl"),
        "backbone.path": str(world / "bert"),
        "backbone.max_tokens": 16,
        "acquisition.rule": "bald",
        "acquisition.candidates": 3,
        "acquisition.indices": 4,
        "head.hidden": [5],
        "head.index_dim": 4,
        "budget.labels": 20,
        "budget.start": 6,
        "budget.round": 5,
        "train.batch": 4,
        "train.warmup": 2,
        "train.indices": 2,
        "train.min_steps": 3,
        "train.epochs": 1,
        "train.weight_decay": 0.01,
        "evaluation.every": 5,
        "evaluation.indices": 4,
        "evaluation.batch": 8,
        "checkpoint.every": 1,
    } | keys


def config_of(world: Path, **keys: object) -> Config:
    """The config of `values`."""
    return build(values(world, **keys))


def toml(path: Path, config: Config) -> Path:
    """Write a config as the TOML file it could have come from."""
    lines, sections = [], []
    for name, value in dataclasses.asdict(config).items():
        if isinstance(value, dict):
            sections.append(f"[{name}]")
            sections += [f"{k} = {json.dumps(v)}" for k, v in value.items() if v is not None]
        else:
            lines.append(f"{name} = {json.dumps(value)}")
    path.write_text("\n".join([*lines, *sections]) + "\n", encoding="utf-8")
    return path


def run(config: Config, out: Path, *, resume: bool = False) -> experiment.Summary:
    """A quiet run."""
    return experiment.run(config, out, resume=resume, quiet=True)


def session(config: Config, out: Path, *, resume: bool = False) -> Session:
    """A quiet session in a folder that is made for it."""
    out.mkdir(parents=True, exist_ok=True)
    return Session(out, config, Display(quiet=True), "fingerprint", resume=resume)


def prepared(config: Config) -> problem.Problem:
    """The problem of a config, prepared quietly."""
    return problem.prepare(config, Display(quiet=True))


@contextmanager
def before_call(
    patch: pytest.MonkeyPatch, owner: object, name: str, number: int, act: Callable[[], object]
) -> Iterator[None]:
    """Within: just before the number-th call of a function, counted from 1, something happens."""
    real, calls = getattr(owner, name), itertools.count(1)

    def watched(*arguments: object, **options: object) -> object:
        if next(calls) == number:
            act()
        return real(*arguments, **options)

    with patch.context() as inner:
        inner.setattr(owner, name, watched)
        yield


class Crash(BaseException):
    """The process is gone: no error that the package could handle."""


def crash() -> None:
    """End the run on the spot."""
    raise Crash


def left_by(out: Path) -> dict[str, object]:
    """What a run leaves that must be the same however often it was interrupted."""
    records = [json.loads(line) for line in (out / RECORDS).read_text().splitlines()]
    for record in records:
        for timed in (record, *(part for part in record.values() if isinstance(part, dict))):
            timed.pop("seconds", None)
    summary = summary_of(out)
    del summary["wall_seconds"]
    arrays, metadata = files.load_arrays(out / CHECKPOINT)
    state = json.loads(metadata["state"])
    return {
        "records": records,
        "summary": summary,
        "model": {p.name: p.read_bytes() for p in sorted((out / experiment.MODEL).iterdir())},
        "state": {name: array.tobytes() for name, array in arrays.items()},
        "regime": state["regime"],
        "evaluated": state["session"]["evaluated"],
    }


def summary_of(out: Path) -> dict[str, object]:
    """summary.json."""
    return json.loads((out / experiment.SUMMARY).read_text(encoding="utf-8"))


def leaves(tree: object) -> list[np.ndarray]:
    """The arrays of a pytree, as numpy."""
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]

"""The cells of benchmarks/policies.py: its rows as files, and one run of one policy."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from policies_kept import Cell, Kept, digest, key_of

from enn_finetune import policies, problem
from enn_finetune.config import Config, load
from enn_finetune.data import tasks
from enn_finetune.files import atomic_write, claim, read_json
from enn_finetune.policies import Shared
from enn_finetune.progress import Display
from enn_finetune.records import Record, commit, read
from enn_finetune.report.money import Price
from enn_finetune.session import RECORDS, Session

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "policies.toml"
SMALL, LARGE = "paraphrase-MiniLM-L3-v2", "gte-small"
RANDOM = "random"
BEGUN, DONE, LOCK = "begun.json", "bought.json", "running.lock"


class Size(NamedTuple):
    """How much is run."""

    pool: int  # rows that labels are bought of, at most
    held: int  # training rows scored beside the dev split, at most
    dev: int  # rows of the dev split, at most
    labels: int
    start: int
    round: int
    every: int  # labels between evaluations
    epochs: int
    min_steps: int
    seeds: int
    rare: float = 0.0  # share that the second of two classes is thinned to; 0 leaves all as it is


# As many rows and labels as seven arms and five seeds leave time for on two cores.
WHOLE = Size(4000, 1000, 10**6, 240, 40, 20, 60, 4, 60, 5)
QUICK = WHOLE._replace(every=80, seeds=3)
RARE, SHARE, HELD = ":rare", 0.1, 5000
SPARSE = 80
"""Labels between evaluations of a 12-layer encoder, whose fits take four times as long."""


def sized(task: str, size: Size, *, large: bool = False) -> tuple[str, Size]:
    """The name of a task such as "sst2:rare" without what follows, and its size.

    With both classes of SST-2 as they are, a proxy's margin and random differed by less than seeds
    did after 240 and 480 labels (rows carved from training, 3 to 5 seeds, .012 of accuracy at
    most). F1 of a rare class is of few rows, so there more of them are test rows.
    """
    if large:
        size = size._replace(every=max(size.every, SPARSE))
    if not task.endswith(RARE):
        return task, size
    return task.removesuffix(RARE), size._replace(rare=SHARE, held=HELD)


class Arm(NamedTuple):
    """A policy, at a price where that matters to it, with a small selector or not."""

    policy: str  # random, standard, svpp, asvp, auto
    price: Price | None = None
    small: bool = False
    keys: tuple[tuple[str, Any], ...] = ()

    @property
    def name(self) -> str:
        """What records call it."""
        words = [self.policy] + ([f"({self.price.name})"] if self.price else [])
        words += ["small selector"] if self.small else []
        return " ".join([*words, *(["pseudo"] if "proxy.pseudo" in dict(self.keys) else [])])


def write_material(folder: Path, data: Path, task: str, size: Size) -> dict[str, str]:
    """The pool's and the test rows of a task as files: the keys of a config that reads them.

    The pool is drawn from the training split at random; dev and training rows that are not in the
    pool are the test rows.
    """
    known = tasks.find_task(task)
    train = tasks.load_split(known, "train", (data / "glue",))
    dev = tasks.load_split(known, known.evaluation[0], (data / "glue",))
    order = np.random.default_rng(0).permutation(len(train))
    held, pool = order[: min(size.held, len(order) // 5)], order[min(size.held, len(order) // 5) :]
    parts = {
        "train": [(train, row) for row in pool[: size.pool]],
        "test": [(dev, row) for row in range(min(len(dev), size.dev))]
        + [(train, row) for row in held],
    }
    paths = {}
    for name, rows in parts.items():
        lines = []
        for split, row in rows:
            name_of = known.classes[int(split.targets[row].argmax())]
            line = {"text": split.text[row], "label": name_of}
            if split.pair is not None:
                line["pair"] = split.pair[row]
            lines.append(json.dumps(line, ensure_ascii=False) + "\n")
        paths[name] = str(folder / f"{name}.jsonl")
        atomic_write(Path(paths[name]), "".join(lines))
    return {
        "task.name": known.name,
        "task.train": paths["train"],
        "task.test": paths["test"],
        "task.metric": "mcc" if "mcc" in known.metrics else "accuracy",
        "task.pair": "" if train.pair is None else "pair",
        **({"task.pool": "rare", "task.rare_share": str(size.rare)} if size.rare else {}),
    }


def config_of(
    material: Mapping[str, str], encoder: Path, size: Size, arm: Arm, seed: int, small: Path
) -> Config:
    """The config of one run."""
    keys: dict[str, Any] = {
        **material,
        "seed": seed,
        "backbone.path": str(encoder),
        "acquisition.rule": "random" if arm.policy == RANDOM else "margin",
        "policy": "standard" if arm.policy == RANDOM else arm.policy,
        "budget.labels": size.labels,
        "budget.start": size.start,
        "budget.round": size.round,
        "evaluation.every": size.every,
        "train.epochs": size.epochs,
        "train.min_steps": size.min_steps,
        "train.warmup": min(20, size.min_steps // 4),
    }
    if arm.small:
        keys["proxy.path"] = str(small)
    if arm.price is not None:
        keys |= {"prices.label": arm.price.label, "prices.hour": arm.price.hour}
    keys |= dict(arm.keys)
    return load(CONFIG, [f"{name}={value}" for name, value in keys.items()])


class Cells:
    """The runs over one task and encoder: rows are read once, what they share is computed once."""

    def __init__(self, config: Config, out: Path, display: Display, kept: Kept) -> None:
        self._problem = problem.prepare(config, display)
        self._out, self._display, self._shared, self._kept = out, display, Shared(), kept
        self.commits: set[str] = set()
        """Of the code that the cells were run with."""

    @property
    def fingerprint(self) -> str:
        """Of all rows and labels."""
        return self._problem.fingerprint

    @property
    def metric(self) -> str:
        """The score."""
        return self._problem.task.metrics[0]

    def new_seed(self) -> None:
        """Forget the fits of another seed, which no run of this one has."""
        self._shared.fits.clear()

    def has(self, config: Config) -> bool:
        """True where the cell is among those kept."""
        return self._kept.find(key_of(config, self.fingerprint)) is not None

    def run(self, arm: Arm, config: Config) -> list[Record]:
        """The records of one arm and seed: kept, from its folder where it is finished, or run."""
        key = key_of(config, self.fingerprint)
        found = self._kept.find(key)
        if found is None:
            folder = self._out / arm.name.replace(" ", "-") / str(config.seed)
            folder.mkdir(parents=True, exist_ok=True)
            done = folder / DONE
            for path in (done, folder / BEGUN):
                if path.exists() and read_json(path)["config_hash"] != config.hash:
                    raise SystemExit(f"{folder}: made with another config; give another --out")
            with claim(folder / LOCK, wait=False) as mine:
                if not mine:
                    raise SystemExit(f"{folder}: another process runs this; give another --out")
                if not done.exists():
                    self._run(folder, arm, config)
                line, records = json.loads(done.read_text("utf-8")), read(folder / RECORDS)
            labels = [record["labels_bought"] for record in records]
            if not labels or labels != sorted(set(labels)):
                raise SystemExit(f"{folder}: not the records of one run ({labels}); delete it")
            where = {"commit": line.get("commit", ""), "bought": digest(line["rows"])}
            found = Cell(arm=arm.name, seed=config.seed, key=key, **where, records=records)
            self._kept.add(found)
        self.commits.add(found["commit"])
        arm_keys = {"arm": arm.name, "head": "trained", "rule": arm.name, "seed": config.seed}
        return [Record(**(record | arm_keys)) for record in found["records"]]

    def _run(self, folder: Path, arm: Arm, config: Config) -> None:
        begun, mine = folder / BEGUN, {"config_hash": config.hash, "commit": commit()}
        if not begun.exists():
            atomic_write(begun, json.dumps(mine) + "\n")
        codes = dict.fromkeys((str(read_json(begun)["commit"]), mine["commit"]))
        work = self._problem._replace(oracle=self._problem.oracle.fresh())
        session = Session(folder, config, self._display, work.fingerprint, resume=True)
        policies.run(work, config, session, shared=self._shared)
        line = {"task": config.task.name, "seed": config.seed, "rule": arm.name}
        line |= {
            "rows": work.origin.rows[work.oracle.bought].tolist(),
            "commit": ", then ".join(codes),
        }
        line |= {"config": config.tree, "config_hash": config.hash}
        atomic_write(folder / DONE, json.dumps(line) + "\n")
        for path in folder.glob("checkpoint*"):
            path.unlink()

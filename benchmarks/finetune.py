"""A full fine-tuning run, ours against the same recipe in PyTorch transformers.

    python benchmarks/finetune.py --data ../shared

SST-2, 2,000 labels, 3-layer BERT, all of it trained but the word table. The recipe is
configs/sst2.toml with random selection; further key=value overrides may be given. Both sides start
from the same weights, linear head included, and train on the same rows in the same order: those of
our loader. They share nothing else: the PyTorch side tokenises, pads, drops out and optimises by
its own means. Each is evaluated once, at the end, on the weight average. Our epinet head is run on
the same rows too.

First the sides are compared step by step with dropout off, where they must agree to rounding: the
loss of each batch, and then the evaluation under the weight average. With dropout on they differ by
chance: see the standard error.

Seconds are from the first step to the end of the evaluation, tokenised and loaded before; ours
compile in the first seed, and `seconds_ratio` is the median over seeds. One thread a side, unless
asked: on a busy machine PyTorch's threads mostly wait for one another. Takes about a minute and a
half of one core's time a seed. benchmarks/encoder.py is the careful comparison of times.

Last line: one JSON object; differences are ours minus theirs, in points.
"""

import argparse
import dataclasses
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from provenance import provenance
from starting import run_script
from torch_recipe import Purchase, Reference, Texts

from enn_finetune import config as configs
from enn_finetune import metrics, online, train
from enn_finetune.config import Config
from enn_finetune.evaluating import predict
from enn_finetune.problem import Problem, batch_of, new_classifier, prepare
from enn_finetune.progress import Display
from enn_finetune.session import Session

ROOT = Path(__file__).resolve().parents[1]
PAIRED_STEPS = 40  # of the comparison without dropout
NEVER = 10**9


class Outcome(NamedTuple):
    """One run, evaluated on the first evaluation split."""

    accuracy: float
    nll: float
    seconds: float


def recipe(data: Path, labels: int, overrides: list[str]) -> Config:
    """The config of all runs; the seed, the head and dropout vary.

    Raises:
      SystemExit: the config asks for what the PyTorch side does not do.
    """
    settings = configs.load(
        ROOT / "configs" / "sst2.toml",
        [
            f"task.data={data / 'glue'}",
            f"backbone.path={data / 'models' / 'paraphrase-MiniLM-L3-v2'}",
            "acquisition.rule=random",
            "head.kind=linear",
            f"budget.labels={labels}",
            "budget.start=0",
            *overrides,
            f"evaluation.every={NEVER}",
            f"checkpoint.every={NEVER}",
        ],
    )
    fixed = {
        "regime": (settings.regime, "online"),
        "backbone.tune": (settings.backbone.tune, "full"),
        "backbone.pooling": (settings.backbone.pooling, "mean"),
        "backbone.embeddings": (settings.backbone.embeddings, "frozen"),
        "acquisition.rule": (settings.acquisition.rule, "random"),
        "head.kind": (settings.head.kind, "linear"),
        "train.schedule": (settings.train.schedule, "constant"),
        "train.weight_decay": (settings.train.weight_decay, 0.0),
    }
    for key, (found, needed) in fixed.items():
        if found != needed:
            raise SystemExit(f"{key}: found {found!r}; the PyTorch side knows only {needed!r}")
    return settings


def order_of(problem: Problem, settings: Config) -> list[Purchase]:
    """The rows of every step under random selection."""
    loader, order = online.loader_of(problem, settings), list[Purchase]()
    while not loader.finished:
        rows = loader.choose(loader.candidates())
        order.append(Purchase(rows, len(loader.bought)))
    return order


def ours(problem: Problem, settings: Config) -> Outcome:
    """The package's own run, by the path that `enn-finetune train` takes."""
    problem = problem._replace(oracle=problem.oracle.fresh())
    with tempfile.TemporaryDirectory() as folder, Display(quiet=True) as display:
        session = Session(Path(folder), settings, display, problem.fingerprint, resume=False)
        start = time.perf_counter()
        online.run(problem, settings, session)
        seconds = time.perf_counter() - start
    bought = [row for purchase in order_of(problem, settings) for row in purchase.rows]
    if list(dict.fromkeys(bought)) != problem.oracle.bought.tolist():
        raise SystemExit("the run bought other rows than the PyTorch side is given")
    scores = session.records.records[-1]["metrics"]
    return Outcome(scores["accuracy"], scores["nll"], seconds)


def theirs(problem: Problem, settings: Config, texts: Texts) -> Outcome:
    """The same run by PyTorch."""
    reference = Reference(problem, settings)
    batches = texts.batches(order_of(problem, settings))
    evaluation = texts.evaluation(32)
    start = time.perf_counter()
    for inputs, targets, labels in batches:
        reference.step(inputs, targets, labels)
    log_probs = reference.evaluate(evaluation)
    seconds = time.perf_counter() - start
    scores = metrics.evaluate(log_probs, texts.dev.targets, ("accuracy",), None)
    return Outcome(scores["accuracy"], scores["nll"], seconds)


def without_dropout(folder: Path, copy: Path) -> Path:
    """The encoder's folder again, with both dropout rates 0."""
    copy.mkdir()
    for path in folder.iterdir():
        if path.is_file() and path.name != "config.json":
            (copy / path.name).symlink_to(path.resolve())
    values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    values |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (copy / "config.json").write_text(json.dumps(values), encoding="utf-8")
    return copy


class Paired(NamedTuple):
    """Ours against theirs on the same batches without dropout: what rounding alone may change."""

    losses: np.ndarray  # (2, steps) of each batch, before its step
    log_probs: np.ndarray  # (2, N, C) of the evaluation split, under the averaged weights

    def gaps(self) -> tuple[float, float]:
        """The largest differences of the losses and of the log-probabilities, in nats."""
        return tuple(float(np.abs(ours - theirs).max()) for ours, theirs in self)


def paired(problem: Problem, settings: Config, texts: Texts, steps: int) -> Paired:
    """Both sides step by step, from an encoder without dropout."""
    with tempfile.TemporaryDirectory() as folder, Display(quiet=True) as display:
        still = str(without_dropout(problem.folder, Path(folder) / "encoder"))
        backbone = dataclasses.replace(settings.backbone, path=(still,))
        settings = dataclasses.replace(settings, backbone=backbone)
        problem = prepare(settings, display)
        reference = Reference(problem, settings)
    order = order_of(problem, settings)[:steps]
    parts = train.split(new_classifier(problem, settings), settings.backbone.embeddings)
    state = train.begin(parts, settings.training, settings.backbone.embeddings)
    losses: list[tuple[float, float]] = []
    for purchase, given in zip(order, texts.batches(order), strict=True):
        state, loss = train.train_step(
            parts.graph,
            parts.fixed,
            state,
            batch_of(problem, purchase.rows, settings.train.batch),
            jax.random.key(settings.seed),
            config=settings.training,
            total=jnp.float32(0),
        )
        losses.append((float(loss), reference.step(*given)))
    rows, now = problem.evaluations[0].rows, train.view(parts, state, averaged=True)
    ours, _ = predict(now, rows, np.arange(len(rows)), settings)
    theirs = reference.evaluate(texts.evaluation(32))
    return Paired(np.asarray(losses).T, np.stack([ours, theirs]))


def report(seeds: list[dict[str, Outcome]]) -> dict[str, object]:
    """Print the table; the figures for the JSON line."""
    sides = list(seeds[0])
    print(f"\n{'seed':>6}" + "".join(f"{side + ': acc, nll, s':>30}" for side in sides))
    for number, outcomes in enumerate(seeds):
        print(
            f"{number:6}"
            + "".join(f"{o.accuracy:16.4f}{o.nll:8.4f}{o.seconds:6.0f}" for o in outcomes.values())
        )
    mean = {side: Outcome(*np.mean([o[side] for o in seeds], 0).tolist()) for side in sides}
    print(
        "  mean" + "".join(f"{m.accuracy:16.4f}{m.nll:8.4f}{m.seconds:6.0f}" for m in mean.values())
    )
    gaps = [100 * (o["ours"].accuracy - o["torch"].accuracy) for o in seeds]
    error = statistics.stdev(gaps) / len(gaps) ** 0.5 if len(gaps) > 1 else None
    speed = statistics.median(o["ours"].seconds / o["torch"].seconds for o in seeds)
    print(
        f"ours - torch: {statistics.mean(gaps):+.2f} points"
        + ("" if error is None else f" (standard error {error:.2f})")
        + f", {speed:.2f} of its time"
    )
    return {
        "ours": round(mean["ours"].accuracy, 5),
        "torch": round(mean["torch"].accuracy, 5),
        "difference_points": round(statistics.mean(gaps), 3),
        "standard_error_points": None if error is None else round(error, 3),
        "epinet": round(mean["epinet"].accuracy, 5),
        "nll": {side: round(m.nll, 5) for side, m in mean.items()},
        "seconds_ratio": round(speed, 3),
        "runs": [
            {side: {k: round(v, 5) for k, v in o._asdict().items()} for side, o in outcomes.items()}
            for outcomes in seeds
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="of the config")
    parser.add_argument("--data", type=Path, default=Path("../shared"), help="has glue/, models/")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--labels", type=int, default=2000)
    parser.add_argument("--threads", type=int, default=1, help="of either side")
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):  # before jax counts cores for its own threads
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    try:
        import torch
        from transformers.utils import logging
    except ImportError:
        raise SystemExit("needs PyTorch to compare with: pip install torch") from None
    torch.set_num_threads(options.threads)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    settings = recipe(options.data, options.labels, options.overrides)
    with Display(quiet=True) as display:
        problem = prepare(settings, display)
    texts = Texts(problem, settings)
    print(
        f"{problem.task.name}, {options.labels:,} labels, batch {settings.train.batch}; "
        f"{torch.get_num_threads()} threads"
    )
    losses, log_probs = paired(problem, settings, texts, PAIRED_STEPS).gaps()
    print(
        f"without dropout: losses of the first {PAIRED_STEPS} steps within {losses:.1e}, then "
        f"log-probabilities within {log_probs:.1e}"
    )
    seeds: list[dict[str, Outcome]] = []
    for seed in range(options.seeds):
        seeded = dataclasses.replace(settings, seed=seed)
        epinet = dataclasses.replace(seeded, head=dataclasses.replace(seeded.head, kind="epinet"))
        seeds.append(
            {
                "ours": ours(problem, seeded),
                "torch": theirs(problem, seeded, texts),
                "epinet": ours(problem, epinet),
            }
        )
        print(f"seed {seed}: " + ", ".join(f"{k} {o.accuracy:.4f}" for k, o in seeds[-1].items()))
    figures = report(seeds) | {
        "without_dropout": {"steps": PAIRED_STEPS, "losses": losses, "log_probs": log_probs},
        "labels": options.labels,
        "threads": options.threads,
        "seeds": list(range(options.seeds)),
        "split": problem.evaluations[0].name,
        "rows": len(problem.evaluations[0].rows),
        "config_hash": settings.hash,
        "data_fingerprint": problem.fingerprint,
    }
    print(json.dumps(figures | provenance()))


if __name__ == "__main__":
    run_script(main)

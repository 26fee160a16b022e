"""One run from a config: prepare, choose and train, save the model, sum up."""

import json
import time
from pathlib import Path
from typing import TypedDict, cast

from enn_finetune import files, online, policies, pool, records
from enn_finetune.config import Config, ConfigError, PlainDict, differences, proxied, warnings
from enn_finetune.data.oracle import class_counts
from enn_finetune.models.card import Card
from enn_finetune.models.classifier import Classifier
from enn_finetune.models.places import backbone_name
from enn_finetune.problem import Origin, Problem, prepare
from enn_finetune.progress import Display
from enn_finetune.session import CHECKPOINT, RECORDS, Session

CONFIG = "config.json"
SUMMARY = "summary.json"
BOUGHT = "bought.jsonl"
MODEL = "model"


class Summary(TypedDict):
    """summary.json."""

    task: str
    metric: str
    score: float
    split: str
    labels_bought: int
    steps: int  # gradient steps; rounds in the pool regime
    regime: str
    head: str
    rule: str
    seed: int
    metrics: dict[str, dict[str, float]]  # by split
    config_hash: str
    commit: str
    data_fingerprint: str
    wall_seconds: float


def run(config: Config, out: Path, *, resume: bool = False, quiet: bool = False) -> Summary:
    """Run a config in a folder, from the start or from its last checkpoint.

    Writes records.jsonl, bought.jsonl, summary.json, model/, config.json and the checkpoint.

    Raises:
      ConfigError: the folder holds a run already (or, when resuming, one of another config).
      InputError: data or weights that cannot be read.
      RunStoppedError: a signal came; the run is saved and can be resumed.
    """
    began = time.monotonic()
    check_free(config, out, resume=resume)
    with Display(quiet=quiet) as display:
        for warning in warnings(config):
            display.say(f"warning: {warning}")
        problem = prepare(config, display)
        # Only now: a run that could not begin leaves nothing that stands in the way of the next.
        files.atomic_write(out / CONFIG, json.dumps(config.tree, indent=2) + "\n")
        session = Session(out, config, display, problem.fingerprint, resume=resume, began=began)
        regime = online.run if config.regime == "online" else pool.run
        if proxied(config):
            regime = policies.run
        classifier, steps = regime(problem, config, session)
        summary = summarise(problem, config, session, steps)
        save_model(problem, config, classifier, summary, out / MODEL)
        if problem.origin is not None:
            line = json.dumps(bought_line(problem, problem.origin, config), ensure_ascii=False)
            files.atomic_write(out / BOUGHT, line + "\n")
        files.atomic_write(out / SUMMARY, json.dumps(summary, indent=2) + "\n")
        display.say(
            f"{summary['split']} {summary['metric']} {summary['score']:.4f} with "
            f"{summary['labels_bought']:,} labels; results in {out}"
        )
    return summary


def check_free(config: Config, out: Path, *, resume: bool) -> None:
    """Refuse a folder with another run in it: nothing that another run wrote is ever overwritten.

    Raises:
      ConfigError: as `run` says.
    """
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out}: found a file where a folder is expected; give another --out")
    names = (CONFIG, RECORDS, CHECKPOINT, BOUGHT, SUMMARY, MODEL)
    found = [name for name in names if (out / name).exists()]
    if not found:
        return
    if not resume:
        raise ConfigError(f"{out} holds a run already; go on with --resume, or give another --out")
    if CONFIG not in found:
        raise ConfigError(
            f"{out} holds {', '.join(found)} but no {CONFIG} that says of which run; give another "
            "--out"
        )
    changed = differences(config, cast(PlainDict, files.read_json(out / CONFIG)))
    if changed:
        raise ConfigError(
            f"{out} holds a run of another config; these keys differ: {', '.join(changed)}. "
            "Resume with the same keys, or give another --out"
        )


def bought_line(problem: Problem, origin: Origin, config: Config) -> dict[str, object]:
    """What was bought, as `bench` writes it: `proxy.replay` and `bench.replay` buy it again."""
    bought = problem.oracle.bought
    return {
        "task": config.task.name,
        "pool": config.task.pool,
        "seed": config.seed,
        "head": config.head_name,
        "rule": config.acquisition.rule,
        "rows": origin.rows[bought].tolist(),
        "classes": class_counts(problem.oracle.buy(bought), problem.task.classes),
    }


def summarise(problem: Problem, config: Config, session: Session, steps: int) -> Summary:
    """The last evaluation and its provenance."""
    last = {
        split.name: record
        for split in problem.evaluations
        for record in session.records.records
        if record["split"] == split.name
    }
    first = problem.evaluations[0].name
    metric = problem.task.metrics[0]
    return Summary(
        task=problem.task.name,
        metric=metric,
        score=last[first]["metrics"][metric],
        split=first,
        labels_bought=len(problem.oracle.bought),
        steps=steps,
        regime=config.regime,
        head=config.head_name,
        rule=config.acquisition.rule,
        seed=config.seed,
        metrics={name: record["metrics"] for name, record in last.items()},
        config_hash=config.hash,
        commit=records.commit(),
        data_fingerprint=problem.fingerprint,
        wall_seconds=round(session.seconds, 3),
    )


def save_model(
    problem: Problem, config: Config, classifier: Classifier, summary: Summary, folder: Path
) -> None:
    """The whole classifier as a folder that `score` and `from_pretrained` read."""
    if config.backbone.tune == "frozen":
        classifier = Classifier(problem.encoder, classifier.head)
    card = Card(
        task=problem.task.name,
        base_model=backbone_name(problem.folder),
        tuned=config.backbone.tune,
        rule=config.acquisition.rule,
        seed=config.seed,
        labels_bought=summary["labels_bought"],
        described=config.task.describe,
        metrics=summary["metrics"][summary["split"]],
        config_hash=config.hash,
    )
    classifier.save_pretrained(
        folder,
        tokenizer=problem.folder,
        labels=problem.task.classes,
        max_tokens=config.backbone.max_tokens,
        text=problem.task.text,
        pair=problem.task.pair,
        card=card,
    )

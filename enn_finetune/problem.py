"""A config made concrete: the rows to choose from, the oracle, what is evaluated, the encoder."""

from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx

from enn_finetune.config import Config, ConfigError
from enn_finetune.data import tasks
from enn_finetune.data.faults import DataError
from enn_finetune.data.inputs import FeatureRows, Rows, TokenRows
from enn_finetune.data.oracle import Oracle
from enn_finetune.data.splits import Split, fingerprint
from enn_finetune.data.tokens import tokenise
from enn_finetune.models.backbone import Backbone, BertBackbone, Identity, encode, load_backbone
from enn_finetune.models.classifier import Classifier
from enn_finetune.models.heads import make_head
from enn_finetune.models.places import find_backbone, load_tokenizer
from enn_finetune.progress import Display
from enn_finetune.train import Batch


class Evaluation(NamedTuple):
    """A split that is scored and never chosen from."""

    name: str
    rows: Rows
    targets: np.ndarray  # (N, C)


class Problem(NamedTuple):
    """Everything a run works on. The pool has no labels: those are behind the oracle."""

    task: tasks.Task
    pool: Rows
    oracle: Oracle
    evaluations: tuple[Evaluation, ...]
    encoder: BertBackbone  # as pretrained
    folder: Path  # of the encoder and its tokenizer
    fingerprint: str  # of all rows and labels, training and evaluation


def task_of(config: Config) -> tasks.Task:
    """The task a config names.

    Raises:
      DataError: no such task (with the nearest name), or a custom task's file cannot be read.
    """
    task = config.task
    if task.name != "custom":
        return tasks.find_task(task.name)
    return tasks.custom_task(
        task.train,
        task.test,
        text=task.text,
        pair=task.pair or None,
        label=task.label,
        metric=task.metric,
    )


def prepare(config: Config, display: Display) -> Problem:
    """Read the task, load the encoder, and compute features once if it is frozen.

    Raises:
      InputError: data, weights or a budget that cannot be used: what, where, and what to do.
    """
    task = task_of(config)
    splits = [tasks.load_split(task, split.name, config.task.data) for split in task.splits]
    for split in splits:
        if split.skipped:  # QQP only: known faults of the published file
            display.say(f"{split.name}: {len(split.skipped)} rows without a text are left out")
    if config.budget.labels > len(splits[0]):
        raise ConfigError(
            f"budget.labels: {config.budget.labels} is more than the {len(splits[0])} training "
            f"rows of {task.name}"
        )
    folder = find_backbone(config.backbone.path)
    encoder = load_backbone(folder, pooling=config.backbone.pooling, dtype=config.backbone.dtype)
    tokenizer = load_tokenizer(folder)
    positions = encoder.bert.config.max_position_embeddings
    if config.backbone.max_tokens > positions:
        raise ConfigError(
            f"backbone.max_tokens: {config.backbone.max_tokens} is more than the {positions} "
            f"positions of the encoder in {folder}"
        )

    def rows(split: Split) -> Rows:
        ragged = tokenise(tokenizer, split.text, split.pair, config.backbone.max_tokens)
        tokenised = TokenRows.of(ragged, config.evaluation.batch)
        if config.backbone.tune == "full":
            return tokenised
        return features(encoder, tokenised, config.evaluation.batch, display, split.name)

    pool, *evaluations = [(split, rows(split)) for split in splits]
    return Problem(
        task=task,
        pool=pool[1],
        oracle=Oracle(_targets(pool[0]), config.budget.labels),
        evaluations=tuple(Evaluation(split.name, r, _targets(split)) for split, r in evaluations),
        encoder=encoder,
        folder=folder,
        fingerprint=fingerprint(*splits),
    )


def _targets(split: Split) -> np.ndarray:
    if split.targets is None:
        raise DataError(f"split {split.name}: found no labels; a run needs them")
    return split.targets


def features(
    encoder: BertBackbone, rows: TokenRows, batch: int, display: Display, name: str
) -> FeatureRows:
    """Features (N, D) of all rows, each computed once."""
    display.begin(f"encoding {name}", len(rows), "rows")

    batches = rows.batches(np.arange(len(rows)))
    return FeatureRows(encode(encoder, batches, len(rows), display.reach), batch)


def new_classifier(problem: Problem, config: Config) -> Classifier:
    """The classifier before training: pretrained backbone, head seeded by the run's seed.

    Frozen is the identity backbone over cached features, not a mode of its own.
    """
    backbone: Backbone = problem.encoder
    if config.backbone.tune == "frozen":
        backbone = Identity(problem.encoder.width)
    head: dict[str, object] = {
        "kind": config.head.kind,
        "features": problem.encoder.width,
        "classes": len(problem.task.classes),
    }
    if config.head.kind == "epinet":
        head |= {
            "hidden": list(config.head.hidden),
            "index_dim": config.head.index_dim or 10,
            "prior_scale": config.head.prior_scale,
        }
    return Classifier(backbone, make_head(head, rngs=nnx.Rngs(config.seed)))


def batch_of(problem: Problem, rows: np.ndarray, size: int) -> Batch:
    """The batch of these rows (n,), their labels bought from the oracle, padded to `size` rows."""
    targets = np.zeros((size, len(problem.task.classes)), np.float32)
    targets[: len(rows)] = problem.oracle.buy(rows)
    numbers = np.zeros(size, np.int32)
    numbers[: len(rows)] = rows
    return Batch(
        inputs=problem.pool.take(rows, size),
        targets=jnp.asarray(targets),
        weights=jnp.asarray(np.arange(size) < len(rows), jnp.float32),
        rows=jnp.asarray(numbers),
        labels=jnp.float32(len(problem.oracle.bought)),
    )

"""A config made concrete: the rows to choose from, the oracle, what is evaluated, the encoder."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx

from enn_finetune.config import Config, ConfigError
from enn_finetune.costs import Work
from enn_finetune.data import tasks
from enn_finetune.data.descriptions import Descriptions, describe
from enn_finetune.data.faults import DataError
from enn_finetune.data.inputs import Rows, subset
from enn_finetune.data.oracle import Oracle
from enn_finetune.data.pools import Selection, select
from enn_finetune.data.splits import Split, fingerprint
from enn_finetune.data.targets import at_most, find_targets
from enn_finetune.encoding import Encoded, encode_splits
from enn_finetune.models import tuning
from enn_finetune.models.backbone import Backbone, BertBackbone, Identity
from enn_finetune.models.classifier import Classifier
from enn_finetune.models.heads import make_head
from enn_finetune.progress import Display
from enn_finetune.train import Batch

TARGETS = 1000
"""Target rows at most: of more named, as many are drawn, the same ones on every machine."""


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
    origin: "Origin | None" = None  # None: the pool is the training split as it stands
    targets: Rows | None = None  # (M,) rows that predictions should become better for, if named
    encoding: Work = Work()  # of the pool's features, as when they were computed; 0 of tokens
    classes: np.ndarray | None = None  # (C, V * D) features of the classes' descriptions, if any

    @property
    def views(self) -> int:
        """V: how many of the encoder's layers stand side by side in features (N, V * D)."""
        return getattr(self.encoder, "views", 1)

    def share(self, rows: np.ndarray) -> float:
        """Of the pool's different rows, the share that those with these ids (n,) are."""
        if self.origin is None:
            return len(np.unique(rows)) / len(self.pool)
        ids = self.origin.rows
        return len(np.unique(ids[rows])) / len(np.unique(ids))


class Origin(NamedTuple):
    """Where the rows of a pool come from."""

    rows: np.ndarray  # (N,) ids in the training split; copies of a row have the same one
    training: Split  # as read, without labels


def task_of(config: Config) -> tasks.Task:
    """The task a config names.

    Raises:
      DataError: no such task (with the nearest name), or a custom task's file cannot be read.
    """
    task = config.task
    if task.train:
        return tasks.custom_task(
            task.train,
            task.test,
            text=task.text,
            pair=task.pair or None,
            label=task.label,
            metric=task.metric,
            name=task.name,
        )
    return tasks.find_task(task.name)


class Material(NamedTuple):
    """A task as read: every split whole, and which rows of them a config makes use of."""

    task: tasks.Task
    splits: tuple[Split, ...]  # training first; after those of the task, a file of target rows
    selection: Selection
    targets: np.ndarray | None = None  # (M,) places in the pool, where a filter names them
    descriptions: Descriptions = ()  # of the classes, where the config has some

    @property
    def target_file(self) -> int | None:
        """The place of the target rows among the splits, where they are a file."""
        own = len(self.task.splits)
        return own if len(self.splits) > own else None


def read(config: Config, display: Display) -> Material:
    """Read all splits of a task and choose the rows of its pool and its evaluation parts.

    Raises:
      InputError: data or a budget that cannot be used: what, where, and what to do.
    """
    task = task_of(config)
    splits = tuple(tasks.load_split(task, split.name, config.task.data) for split in task.splits)
    tell(task, splits, display.say)
    return name_targets(choose_rows(task, splits, config), config)


def tell(task: tasks.Task, splits: Sequence[Split], say: Callable[[str], None]) -> None:
    """Say what of a task's files is left out, and how many test rows are training rows too."""
    for split in splits:
        if split.skipped:  # QQP only: known faults of the published file
            say(f"{task.name}: {split.name}: {len(split.skipped)} rows without a text are left out")
    if task.folder or task.name == "messages":
        return
    train, *others = ({*zip(s.text, s.pair or s.text, strict=True)} for s in splits)
    for split, texts in zip(splits[1:], others, strict=True):
        if shared := len(train & texts):
            say(
                f"warning: {shared:,} of {len(texts):,} different texts of {split.name} are "
                "training texts too: scores on them say little; take them out of one of the files"
            )


def name_targets(material: Material, config: Config) -> Material:
    """Material with the rows that `acquisition.targets` names, if it names some.

    Raises:
      InputError: no such file, column or value, or no rows.
    """
    named = config.acquisition.targets
    if not named:
        return material
    task, splits, selection = material[:3]
    found = find_targets(named, task, config.task.data, splits[0], selection.pool)
    if isinstance(found, np.ndarray):
        return material._replace(targets=at_most(found, TARGETS))
    return material._replace(splits=(*splits, found.take(at_most(np.arange(len(found)), TARGETS))))


def choose_rows(task: tasks.Task, splits: tuple[Split, ...], config: Config) -> Material:
    """The rows that a config makes use of; F1 comes first among the scores of a rare pool.

    Raises:
      InputError: parts that leave no pool, a budget above it.
    """
    wanted = config.task
    selection = select(
        splits,
        wanted.pool,
        # A test split that is carved already is no smaller than what would be carved again.
        carved=0 if wanted.carve == "auto" and task.quarter else wanted.carve,
        develop=wanted.develop,
        share=wanted.rare_share,
        rows=wanted.rows,
        repeats=wanted.repeats,
    )
    if config.budget.labels > len(selection.pool):
        raise ConfigError(
            f"budget.labels: {config.budget.labels} is more than the {len(selection.pool)} "
            f"rows in the pool of {task.name}; its training file has {len(splits[0])}, of which "
            "task.carve, task.develop, task.pool and task.rows set some aside"
        )
    if wanted.pool == "rare":
        others = (metric for metric in task.metrics if metric != "f1")
        task = dataclasses.replace(task, metrics=("f1", *others))
    return Material(task, splits, selection, descriptions=_descriptions(task, config))


def _descriptions(task: tasks.Task, config: Config) -> Descriptions:
    if not config.task.describe:
        return ()
    if task.pair is not None or task.values is not None:
        what = "two texts a row" if task.pair is not None else "scores"
        raise ConfigError(
            f"task.describe: {task.name} has {what}, which a sentence about a class is not like; "
            "leave it out"
        )
    try:
        return describe(config.task.describe, task.classes)
    except DataError as error:
        raise ConfigError(f"task.describe: {task.name}: {error}") from None


def assemble(config: Config, material: Material, encoded: Encoded) -> Problem:
    """A problem with nothing bought, from what was read and encoded."""
    task, splits, selection, named, _ = material
    ids = selection.pool
    pool, targets = subset(encoded.rows[0], ids), None
    if material.target_file is not None:
        targets = encoded.rows[material.target_file]
    elif named is not None:
        targets = subset(pool, named)
    return Problem(
        task=task,
        pool=pool,
        oracle=Oracle(_targets(splits[0])[ids], config.budget.labels),
        evaluations=tuple(
            Evaluation(
                part.name,
                subset(encoded.rows[part.split], part.rows),
                _targets(splits[part.split])[part.rows],
            )
            for part in selection.parts
        ),
        encoder=encoded.encoder,
        folder=encoded.folder,
        fingerprint=fingerprint(*splits),  # a file of target rows too
        origin=Origin(ids, splits[0].without_labels()),
        targets=targets,
        encoding=encoded.work.times(len(np.unique(ids)) / len(splits[0])),
        classes=encoded.classes,
    )


def prepare(config: Config, display: Display) -> Problem:
    """Read the task, load the encoder, and compute features once if it is frozen.

    Raises:
      InputError: data, weights or a budget that cannot be used: what, where, and what to do.
    """
    material = read(config, display)
    encoded = encode_splits(config, material.splits, display, material.descriptions)
    return assemble(config, material, encoded)


def _targets(split: Split) -> np.ndarray:
    if split.targets is None:
        raise DataError(f"split {split.name}: found no labels; a run needs them")
    return split.targets


def new_classifier(problem: Problem, config: Config) -> Classifier:
    """The classifier before training: pretrained backbone, head and additions seeded by the run.

    Frozen is the identity backbone over cached features, not a mode of its own.
    """
    backbone: Backbone = Identity(problem.encoder.width)
    if config.backbone.tune != "frozen":
        backbone = tuning.adapted(problem.encoder, config.backbone, config.seed)
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

"""Rows, splits, features and problems of all studies; each task is read once."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from flax import nnx

from enn_finetune.config import ConfigError
from enn_finetune.costs import Work
from enn_finetune.data import spurious
from enn_finetune.data.inputs import FeatureRows, Rows, TokenRows, subset
from enn_finetune.data.oracle import Oracle
from enn_finetune.data.splits import Labels, Split, fingerprint
from enn_finetune.data.spurious import SpuriousSplit
from enn_finetune.data.tasks import Task
from enn_finetune.encoding import text_features
from enn_finetune.errors import InputError
from enn_finetune.intended.measures import Probe, probe
from enn_finetune.intended.plan import FRESH, Intended, Wanted
from enn_finetune.intended.rows import Attributed, MissingError, read_rows
from enn_finetune.models.backbone import BertBackbone, load_backbone
from enn_finetune.models.bert import Bert
from enn_finetune.models.places import find_backbone, load_tokenizer
from enn_finetune.problem import Evaluation, Origin, Problem
from enn_finetune.progress import Display

SETTINGS = "spurious"  # of an entry of studies.json: the split's settings


class Drawn(NamedTuple):
    """A task's rows and its split."""

    rows: Attributed
    split: SpuriousSplit

    @property
    def groups(self) -> list[str]:
        """Names of the groups, label by label."""
        return [f"{a}/{b}" for a in self.rows.split.classes for b in self.rows.values]

    @property
    def group(self) -> np.ndarray:
        """The group (N,) of each row."""
        return self.rows.labels * len(self.rows.values) + self.rows.attributes

    @property
    def disagrees(self) -> np.ndarray:
        """Mask of the rows of the pool and seed sets, in the problem's order, that disagree."""
        ids = self.split.rows
        return self.rows.labels[ids] != self.rows.attributes[ids]

    def first(self, seed: int) -> np.ndarray:
        """The seed set of a seed: places in the problem's pool."""
        return spurious.draw_start(self.rows.labels, self.rows.attributes, self.split, seed)


class Separability(NamedTuple):
    """Linear probes of an encoder's features on the balanced test rows."""

    intended: Probe
    spurious: Probe


def untrained(encoder: BertBackbone, seed: int) -> BertBackbone:
    """An encoder of the same shape as BERT's are initialised: normal weights of deviation .02."""
    bert = encoder.bert
    fresh = Bert(
        bert.config,
        pooler=bert.pooler is not None,
        dtype=bert.dtype,
        param_dtype=bert.word[...].dtype,
        rngs=nnx.Rngs(seed),
    )
    return BertBackbone(fresh, encoder.pooling, encoder.layers, encoder.pairs)


class Library:
    """What studies share: tasks stay in memory, of features those of the last study asked for."""

    def __init__(self, wanted: Wanted, display: Display) -> None:
        self._seed, self._display = wanted.settings.initialisation, display
        self._tasks: dict[str, Attributed] = {}
        self._problem: tuple[Intended, Problem] | None = None
        self._probes: dict[object, Separability] = {}

    def drawn(self, one: Intended) -> Drawn:
        """The rows of a study's task, split.

        Raises:
          MissingError: no place has the rows.
          InputError: faulty rows; too few of a group; a budget above the pool.
        """
        task = one.task
        if task.name not in self._tasks:
            found = self._tasks[task.name] = read_rows(task)
            left = ", ".join(f"{count:,} {why}" for why, count in found.dropped.items())
            self._display.say(
                f"{task.name}: {len(found.split):,} rows" + (f"; left out: {left}" if left else "")
            )
        rows = self._tasks[task.name]
        names = (rows.split.classes, rows.values)
        try:
            split = spurious.build_split(
                rows.labels, rows.attributes, one.sizes, names=names, seed=task.seed
            )
        except InputError as error:
            raise InputError(f"task {task.name}: {error}") from error
        budget = one.study.config.budget
        if budget.labels > len(split.rows):
            raise ConfigError(
                f"task {task.name}: budget.labels: {budget.labels} is more than the "
                f"{len(split.rows)} rows of the seed set and the pool"
            )
        return Drawn(rows, split)

    def problem(self, one: Intended) -> Problem:
        """A study's problem, with nothing bought; the test set is an evaluation for each group.

        Raises:
          InputError: data or weights that cannot be used.
        """
        if self._problem is None or self._problem[0].study.place != one.study.place:
            self._problem = None  # one set of features at a time
            drawn = self.drawn(one)
            encoder = self._encoder(one)
            folder = find_backbone(one.study.config.backbone.path)
            ids = np.concatenate([drawn.split.rows, drawn.split.test])
            texts = drawn.rows.split.take(ids)
            rows, work = _read(one, encoder, texts, self._display)
            self._problem = (one, _problem(one, drawn, encoder, folder, rows, work))
        return self._problem[1]

    def separability(self, one: Intended) -> Separability:
        """How well linear probes tell label and attribute in the features of a study's encoder.

        On the test rows, in which neither predicts the other; before any training.
        """
        read = one.study.config.backbone  # a regime, or a key of it, may read an encoder otherwise
        how = (read.layers, read.max_tokens, read.pooling, read.dtype)
        key = (one.task.name, one.study.place.backbone, how, one.sizes)
        if key not in self._probes:
            drawn, encoder = self.drawn(one), self._encoder(one)
            order = np.argsort(drawn.group[drawn.split.test], kind="stable")
            test = drawn.split.test[order]  # group by group
            if self._problem is not None and self._problem[0] == one and one.regime == "frozen":
                rows = [part.rows for part in self._problem[1].evaluations]
                features = np.concatenate([r.features for r in rows if isinstance(r, FeatureRows)])
            else:
                texts = drawn.rows.split.take(test)
                folder = find_backbone(one.study.config.backbone.path)
                asked = text_features(one.study.config, encoder, folder, self._display)
                features = asked(texts.text, None, texts.name)
            classes = (drawn.rows.labels[test], drawn.rows.attributes[test])
            self._probes[key] = Separability(
                *(probe(features, of, drawn.group[test], views=encoder.views) for of in classes)
            )
        return self._probes[key]

    def _encoder(self, one: Intended) -> BertBackbone:
        backbone = one.study.config.backbone
        folder = find_backbone(backbone.path)
        encoder = load_backbone(
            folder, pooling=backbone.pooling, layers=backbone.layers, dtype=backbone.dtype
        )
        positions = encoder.bert.config.max_position_embeddings
        if backbone.max_tokens > positions:
            raise ConfigError(
                f"backbone.max_tokens: {backbone.max_tokens} is more than the {positions} "
                f"positions of the encoder in {folder}"
            )
        return untrained(encoder, self._seed) if one.weights == FRESH else encoder


def _problem(
    one: Intended, drawn: Drawn, encoder: BertBackbone, folder: object, rows: Rows, work: Work
) -> Problem:
    """A problem over rows that stand as the pool and seed sets, then the test set.

    `work` is what their features took.
    """
    split, (ids, test) = drawn.rows.split, (drawn.split.rows, drawn.split.test)
    targets, places = split.targets, np.arange(len(ids) + len(test))
    if targets is None:
        raise ValueError("rows of a task have labels")
    evaluations = []
    for number, name in enumerate(drawn.groups):
        here = np.flatnonzero(drawn.group[test] == number)
        evaluations.append(Evaluation(name, subset(rows, len(ids) + here), targets[test[here]]))
    return Problem(
        task=_task(one.task.name, split),
        pool=subset(rows, places[: len(ids)]),
        oracle=Oracle(targets[ids], one.study.config.budget.labels),
        evaluations=tuple(evaluations),
        encoder=encoder,
        folder=folder,  # type: ignore[arg-type]
        fingerprint=fingerprint_of(drawn, one),
        origin=Origin(ids, split.without_labels()),
        encoding=work.times(len(ids) / len(places)),
    )


def _task(name: str, split: Split) -> Task:
    labels = Labels(split.classes, split.classes)
    return Task(
        name, "", (), text="text", pair=None, label="label", labels=labels, metrics=("accuracy",)
    )


def _read(
    one: Intended, encoder: BertBackbone, split: Split, display: Display
) -> tuple[Rows, Work]:
    """Features and what they took, or tokens."""
    config = one.study.config
    folder, size = find_backbone(config.backbone.path), config.evaluation.batch
    if one.regime == "frozen":
        features = text_features(config, encoder, folder, display)
        return FeatureRows(features(split.text, None, split.name), size), features.work
    tokenizer, most = load_tokenizer(folder), config.backbone.max_tokens
    return TokenRows.read(tokenizer, split.text, None, most, size), Work()


def fingerprint_of(drawn: Drawn, one: Intended) -> str:
    """First 16 hex digits of a digest of rows, attributes and the split that is made of them."""
    digest = hashlib.sha256(fingerprint(drawn.rows.split).encode())
    digest.update(np.ascontiguousarray(drawn.rows.attributes, "<i8").tobytes())
    settings = (dataclasses.asdict(one.task)["seed"], *one.sizes)
    digest.update(json.dumps(settings).encode())
    return digest.hexdigest()[:16]


class Checked(NamedTuple):
    """What can be run, and what is left out of it."""

    ready: tuple[Intended, ...]
    absent: Mapping[str, str]  # tasks and encoders that no place has, and why


def check_all(wanted: Wanted, library: Library, display: Display) -> Checked:
    """The studies whose rows and encoders are there: nothing is encoded or trained before this.

    Raises:
      InputError: tasks or encoders that no place has, unless `intended.skip_missing`; faulty rows;
        splits that cannot be made. All at once.
    """
    absent: dict[str, str] = {}
    faults: dict[str, None] = {}
    ready = []
    for one in wanted.studies:
        missing = len(absent)
        try:
            library.drawn(one)
        except MissingError as error:
            absent.setdefault(f"task {one.task.name}", str(error))
            missing = -1
        except InputError as error:
            faults.setdefault(str(error))
            continue
        try:
            find_backbone(one.study.config.backbone.path)
        except InputError as error:
            absent.setdefault(f"encoder {one.encoder}", str(error))
            missing = -1
        if missing == len(absent):
            ready.append(one)
    # A task's own messages begin with its name.
    reasons = {name: reason.removeprefix(f"{name}: ") for name, reason in absent.items()}
    if absent and not (wanted.settings.skip_missing and ready):
        faults |= dict.fromkeys(f"{name}: {reason}" for name, reason in reasons.items())
        faults |= {"intended.skip_missing = true would run the rest": None} if ready else {}
    if faults:
        raise InputError("the study cannot be run:\n  " + "\n  ".join(faults))
    for name, reason in reasons.items():
        display.say(f"SKIPPED, as intended.skip_missing allows: {name}: {reason}")
    return Checked(tuple(ready), reasons)

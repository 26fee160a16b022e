"""Tasks: GLUE as a table of records, the bundled messages, and files of the user's own.

Metrics are GLUE's, the primary one first. GLUE gives MRPC and QQP two, F1 (of class 1) and
accuracy: accuracy comes first here, as in arXiv 2211.01568, because "equivalent" for every row of
MRPC earns an F1 of .81. STS-B has Pearson, then Spearman.
"""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from enn_finetune.data.faults import DataError, FaultKind, nearest
from enn_finetune.data.hub import HubSource, read_hub
from enn_finetune.data.splits import Labels, Split, to_split
from enn_finetune.data.tables import read_table, stream_rows

Places = str | Path | Sequence[str | Path]

METRICS = ("accuracy", "macro_f1", "mcc", "f1")  # those a task of the user's own may name
_BUNDLED = Path(__file__).parent / "messages"


class SplitFile(NamedTuple):
    """One split: its name here, its file, and its name on the hub."""

    name: str
    file: str
    hub: str = ""


@dataclass(frozen=True)
class Task:
    """What is read, how labels are written, and what is scored. The first split is for training."""

    name: str
    folder: str  # in a folder of tasks; "" where the files of `splits` are full paths
    splits: tuple[SplitFile, ...]
    text: str  # column names
    pair: str | None
    label: str
    labels: Labels
    metrics: tuple[str, ...]  # the primary one first
    header: tuple[str, ...] | None = None  # column names of files without a header line
    hub: HubSource | None = None
    skip: tuple[FaultKind, ...] = ()  # faults the published files are known to have

    @property
    def classes(self) -> tuple[str, ...]:
        """C names; for a score, its grid points."""
        return self.labels.classes

    @property
    def values(self) -> tuple[float, ...] | None:
        """Grid of a score, whose prediction is the expected grid value; None for classes."""
        return self.labels.values

    @property
    def evaluation(self) -> tuple[str, ...]:
        """Names of the splits to evaluate on."""
        return tuple(split.name for split in self.splits[1:])


def _glue(
    folder: str,
    labels: Labels,
    metrics: tuple[str, ...],
    *,
    text: str = "sentence1",
    pair: str | None = "sentence2",
    label: str = "label",
    hub: tuple[str, str | None] | None = None,
    evaluation: tuple[str, ...] = ("dev",),
    header: tuple[str, ...] | None = None,
    skip: tuple[FaultKind, ...] = (),
) -> Task:
    """A GLUE record; `hub` has the text columns where the hub renamed them."""
    name = folder.replace("-", "").lower()
    dev = (
        SplitFile(split, f"{split}.tsv", split.replace("dev", "validation")) for split in evaluation
    )
    hub_text, hub_pair = hub or (text, pair)
    return Task(
        name=name,
        folder=folder,
        splits=(SplitFile("train", "train.tsv", "train"), *dev),
        text=text,
        pair=pair,
        label=label,
        labels=labels,
        metrics=metrics,
        header=header,
        hub=HubSource("nyu-mll/glue", name, hub_text, hub_pair),
        skip=skip,
    )


_ENTAILMENT = Labels(("entailment", "not_entailment"), ("entailment", "not_entailment"))
_NLI = Labels(
    ("entailment", "neutral", "contradiction"), ("entailment", "neutral", "contradiction")
)
_SIMILARITY = Labels(tuple("012345"), (), tuple(map(float, range(6))))


def _binary(*classes: str) -> Labels:
    return Labels(classes, ("0", "1"))


# Classes in the hub's order, so that a prediction is the class index that GLUE's tools expect.
GLUE: tuple[Task, ...] = (
    _glue(
        "CoLA",
        _binary("unacceptable", "acceptable"),
        ("mcc", "accuracy"),
        text="sentence",
        pair=None,
        header=("source", "label", "author_mark", "sentence"),
    ),
    _glue("SST-2", _binary("negative", "positive"), ("accuracy",), text="sentence", pair=None),
    _glue(
        "MRPC",
        _binary("not_equivalent", "equivalent"),
        ("accuracy", "f1"),
        text="#1 String",
        pair="#2 String",
        label="Quality",
        hub=("sentence1", "sentence2"),
    ),
    _glue(
        "QQP",
        _binary("not_duplicate", "duplicate"),
        ("accuracy", "f1"),
        text="question1",
        pair="question2",
        label="is_duplicate",
        skip=("length", "empty"),  # a few rows of the published file lack a question
    ),
    _glue(
        "MNLI",
        _NLI,
        ("accuracy",),
        label="gold_label",
        hub=("premise", "hypothesis"),
        evaluation=("dev_matched", "dev_mismatched"),
    ),
    _glue("QNLI", _ENTAILMENT, ("accuracy",), text="question", pair="sentence"),
    _glue("RTE", _ENTAILMENT, ("accuracy",)),
    _glue("WNLI", _binary("not_entailment", "entailment"), ("accuracy",)),
    _glue("STS-B", _SIMILARITY, ("pearson", "spearman"), label="score"),
)

NAMES = (*(task.name for task in GLUE), "messages")


def custom_task(
    train: Path | str,
    test: Path | str,
    *,
    text: str = "text",
    pair: str | None = None,
    label: str = "label",
    metric: str = "accuracy",
    name: str = "custom",
) -> Task:
    """A task over two CSV, TSV or JSON-lines files; the training file's labels are its classes.

    Raises:
      DataError: the training file cannot be read (see `read_table`), or the metric does not fit.
    """
    if metric not in METRICS:
        near = nearest(metric, METRICS)
        raise DataError(f"no metric {metric!r}: the nearest is {near}; known: {', '.join(METRICS)}")
    pair = pair or None
    classes = read_table(train, text=text, pair=pair, label=label).classes
    if metric == "f1" and len(classes) != 2:
        raise DataError(f"the metric f1 is for 2 classes, {train} has {len(classes)}: use macro_f1")
    return Task(
        name=name,
        folder="",
        splits=(SplitFile("train", str(train)), SplitFile("test", str(test))),
        text=text,
        pair=pair,
        label=label,
        labels=Labels(classes, classes),
        metrics=(metric,) if metric == "accuracy" else (metric, "accuracy"),
    )


def find_task(name: str) -> Task:
    """The GLUE or bundled task of a name, in any usual spelling: SST-2, sst_2, sst2.

    Raises:
      DataError: no such task; the message has the nearest and all the known names.
    """
    plain = "".join(letter for letter in name.lower() if letter.isalnum())
    for task in GLUE:
        if task.name == plain:
            return task
    if plain == "messages":
        files = (_BUNDLED / "train.jsonl", _BUNDLED / "test.jsonl")
        return custom_task(*files, metric="macro_f1", name="messages")
    known = ", ".join(NAMES)
    raise DataError(
        f"no task {name!r}: the nearest is {nearest(plain, NAMES)}; known: {known}; a task of your "
        "own is called custom and has task.train, task.test, task.text and task.label"
    )


def load_split(task: Task, split: str, places: Places = ()) -> Split:
    """A split from the first place that has it.

    Args:
      task: the task; one with files of its own needs no places.
      split: "train" or one of `task.evaluation`.
      places: folders that hold TASK/train.tsv or train.tsv itself, or the word "hub"; in order.

    Raises:
      DataError: no such split; no place has it (the message has every place and why); or the
        first file found is faulty, which no later place makes good.
    """
    record = _split(task, split)
    if not task.folder:
        return _read(task, record, Path(record.file))
    reasons = []
    for place in _listed(places):
        if place == "hub" and task.hub is not None:
            try:
                return read_hub(task.hub, record.hub, task.labels, name=split, skip=task.skip)
            except DataError as error:
                reasons.append(str(error))
        else:
            path, reason = _look(task, record, place)
            if path is not None:
                return _read(task, record, path)
            reasons.append(reason)
    raise DataError(
        f"task {task.name}, split {split}: not found; tried in order:"
        + "".join(f"\n  {reason}" for reason in reasons or ["no place at all; set task.data"])
        + f"\ngive task.data a folder with {task.folder}/{record.file}, or hub"
    )


def where(task: Task, places: Places = (), split: str = "train") -> str | None:
    """The file or hub data set a split would be read from; None where no place has it.

    The hub is taken at its word: it counts as a place if its extra is installed.
    """
    record = _split(task, split)
    if not task.folder:
        return record.file if Path(record.file).is_file() else None
    for place in _listed(places):
        if place == "hub" and task.hub is not None:
            if importlib.util.find_spec("datasets") is not None:
                return f"hub: {task.hub.id} ({task.hub.config})"
        elif (path := _look(task, record, place)[0]) is not None:
            return str(path)
    return None


def _split(task: Task, name: str) -> SplitFile:
    for record in task.splits:
        if record.name == name:
            return record
    known = ", ".join(record.name for record in task.splits)
    raise DataError(f"task {task.name} has no split {name!r}; it has {known}")


def _listed(places: Places) -> list[str | Path]:
    return [places] if isinstance(places, str | Path) else list(places)


def _look(task: Task, record: SplitFile, place: str | Path) -> tuple[Path | None, str]:
    """The file of a split in a folder, or why there is none."""
    root = Path(place).expanduser()
    if not str(place) or not root.is_dir():
        return None, f"{str(place)!r}: no such folder"
    tried = [f"{task.folder}/{record.file}", f"{task.name}/{record.file}", record.file]
    for file in tried:
        if (root / file).is_file():
            return root / file, ""
    return None, f"{place}: has no {tried[0]} and no {tried[-1]}"


def _read(task: Task, record: SplitFile, path: Path) -> Split:
    texts = [task.text] if task.pair is None else [task.text, task.pair]
    return to_split(
        stream_rows(path, texts=texts, others=[task.label], header=task.header),
        path,
        name=record.name,
        text=task.text,
        pair=task.pair,
        label=task.label,
        labels=task.labels,
        skip=task.skip,
    )

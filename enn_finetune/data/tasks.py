"""Tasks by name, and their splits: GLUE, reviews, the bundled messages, files of the user's own."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from enn_finetune.data.catalogue import GLUE, REVIEWS, SplitFile, Task
from enn_finetune.data.faults import DataError, nearest
from enn_finetune.data.hub import read_hub
from enn_finetune.data.oracle import carve
from enn_finetune.data.splits import Labels, Split, to_split
from enn_finetune.data.tables import read_table, stream_rows

__all__ = [
    "GLUE",
    "METRICS",
    "NAMES",
    "REVIEWS",
    "Places",
    "SplitFile",
    "Task",
    "custom_task",
    "find_task",
    "load_split",
    "where",
]

Places = str | Path | Sequence[str | Path]

METRICS = ("accuracy", "macro_f1", "mcc", "f1")  # those a task of the user's own may name
_BUNDLED = Path(__file__).parent / "messages"


NAMES = (*(task.name for task in (*GLUE, *REVIEWS)), "messages")
_QUARTER_SEED = 0


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
    """The task of a name, in any usual spelling: SST-2, sst_2, sst2.

    Raises:
      DataError: no such task; the message has the nearest and all the known names.
    """
    plain = "".join(letter for letter in name.lower() if letter.isalnum())
    for task in (*GLUE, *REVIEWS):
        if task.name.replace("-", "") == plain:
            return task
    if plain == "messages":
        files = (_BUNDLED / "train.jsonl", _BUNDLED / "test.jsonl")
        return custom_task(*files, metric="macro_f1", name="messages")
    known = ", ".join(NAMES)
    raise DataError(
        f"no task {name!r}: the nearest is {nearest(plain, NAMES)}; known: {known}; a task of your "
        "own has task.train, task.test, task.text and task.label"
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
        + f"\ngive task.data a folder with {task.folder}/{record.file}"
        + (", or hub" if task.hub is not None else "")
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
    split = to_split(
        stream_rows(path, texts=texts, others=[task.label], header=task.header),
        path,
        name=record.name,
        text=task.text,
        pair=task.pair,
        label=task.label,
        labels=task.labels,
        skip=task.skip,
    )
    if not task.quarter:
        return split
    rows = carve(len(split), [len(split) // 4], _QUARTER_SEED)
    return split.take(rows.pool if record == task.splits[0] else rows.held[0])

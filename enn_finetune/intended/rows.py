"""Rows of a task with labels and spurious attributes: of files, folders of files, known tasks."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from enn_finetune.config import SpuriousTask
from enn_finetune.config.intended import FILES
from enn_finetune.data import tasks
from enn_finetune.data.faults import DataError, RowError, nearest, row_faults, shown
from enn_finetune.data.splits import Split, label_name, one_hot, sort_labels
from enn_finetune.data.tables import stream_rows

TEXT = "text:"
NO, YES = "no", "yes"
_NEGATION = re.compile(r"\b(?:no|not|never|nothing|nobody|none|neither|nor|cannot)\b|n't\b", re.I)


class MissingError(DataError):
    """No place has the rows of a task."""


class Attributed(NamedTuple):
    """Rows with labels and attributes; attribute c goes with label c."""

    split: Split  # N rows with targets, distinct texts
    attributes: np.ndarray  # (N,) 0 to C - 1
    values: tuple[str, ...]  # C attribute values
    dropped: Mapping[str, int]  # rows left out, by why

    @property
    def labels(self) -> np.ndarray:
        """Class of each row (N,)."""
        targets = self.split.targets
        return np.empty(0, np.int64) if targets is None else targets.argmax(1)


class _Row(NamedTuple):
    text: str
    label: str
    attribute: str  # "" where the text tells it


def read_rows(task: SpuriousTask) -> Attributed:
    """All rows of a task whose label and attribute are among those to keep.

    A text that stands more than once is kept once, as it stands first.

    Raises:
      MissingError: no place has the rows; why, place by place.
      DataError: faulty rows, all at once; labels or attributes that are not there.
    """
    if task.attribute.startswith(TEXT) and task.attribute.removeprefix(TEXT) not in OF_TEXT:
        known = ", ".join(TEXT + name for name in OF_TEXT)
        raise DataError(
            f"task {task.name}: task.attribute: no {task.attribute!r}; there are {known}, or give "
            "the name of a column"
        )
    rows, names = _known(task) if task.source else (_filed(task), ())
    if not rows:
        raise DataError(
            f"task {task.name}: found no rows in {', '.join(task.data)}; give a file that has some"
        )
    found = sort_labels(row.label for row in rows)
    labels = _kept("labels", task.labels or (names if names else found), found, task)
    dropped = {"of another label": sum(row.label not in labels for row in rows)}
    rows = [row for row in rows if row.label in labels]
    if task.whole:
        whole = _whole([row.text for row in rows])
        dropped["part of another text"] = len(rows) - sum(whole)
        rows = [row for row, kept in zip(rows, whole, strict=True) if kept]
    first = {row.text: row for row in reversed(rows)}
    other = sum(row.label != first[row.text].label for row in rows)
    dropped["the same text with another label"] = other
    dropped["the same text again"] = len(rows) - len(first) - other
    rows = [row for row in rows if first[row.text] is row]
    attributes = [row.attribute for row in rows]
    if task.attribute.startswith(TEXT):
        told = OF_TEXT[task.attribute.removeprefix(TEXT)]([row.text for row in rows])
        attributes = [YES if yes else NO for yes in told]
    values = _kept("attributes", task.attributes or sort_labels(attributes),
                   sort_labels(attributes), task)  # fmt: skip
    kept = [place for place, value in enumerate(attributes) if value in values]
    dropped["of another attribute"] = len(rows) - len(kept)
    classes = task.classes or labels
    if len(classes) != len(labels):
        raise DataError(
            f"task {task.name}: task.classes: {len(classes)} names for {len(labels)} labels "
            f"({', '.join(labels)}); give one each"
        )
    codes = np.array([labels.index(rows[place].label) for place in kept], np.int64)
    split = Split(
        name=task.name,
        text=[rows[place].text for place in kept],
        pair=None,
        targets=one_hot(codes, len(labels)),
        classes=classes,
        lines=np.arange(1, len(kept) + 1),
    )
    places = np.array([values.index(attributes[place]) for place in kept], np.int64)
    return Attributed(split, places, values, {why: n for why, n in dropped.items() if n})


def _kept(
    what: str, wanted: Sequence[str], found: Sequence[str], task: SpuriousTask
) -> tuple[str, ...]:
    for name in wanted:
        if name not in found:
            raise DataError(
                f"task {task.name}: task.{what}: no row has {name!r}; the nearest is "
                f"{nearest(name, found)!r}, and there are {', '.join(found[:30])}"
            )
    return tuple(wanted)


def _filed(task: SpuriousTask) -> list[_Row]:
    """Rows of the first place that has them."""
    reasons = []
    for name in task.data:
        place = Path(name).expanduser()
        if place.is_file():
            return _file(place, task, None)
        if not place.is_dir():
            reasons.append(f"{name}: no such file or folder")
            continue
        stems = task.attributes or tuple(
            sorted(path.stem for path in place.iterdir() if path.suffix in FILES)
        )
        paths = {
            stem: next((path for end in FILES if (path := place / (stem + end)).is_file()), None)
            for stem in stems
        }
        missing = [stem for stem, path in paths.items() if path is None]
        if stems and not missing:
            return [row for stem, path in paths.items() if path for row in _file(path, task, stem)]
        reasons.append(
            f"{name}: has no file {', '.join(missing) or 'of rows'} ({', '.join(FILES)})"
        )
    raise MissingError(
        f"task {task.name}: its rows were not found; tried in order:"
        + "".join(f"\n  {reason}" for reason in reasons or ["no place at all"])
        + "\ngive task.data a file of rows, or a folder with a file for each attribute value"
    )


def _file(path: Path, task: SpuriousTask, stem: str | None) -> list[_Row]:
    """Rows of a file; in a folder the attribute is the file itself."""
    column = "" if stem is not None or task.attribute.startswith(TEXT) else task.attribute
    others = [task.label, column] if column else [task.label]
    rows, faults = [], []
    for row in stream_rows(path, texts=[task.text], others=others):
        if isinstance(row, RowError):
            faults.append(row)
            continue
        try:
            where = task.label
            label = label_name(row.columns[task.label])
            where = column
            attribute = _attribute(row.columns[column]) if column else stem or ""
            rows.append(_Row(str(row.columns[task.text]), label, attribute))
        except ValueError as error:
            faults.append(RowError(row.line, where, "label", str(error)))
    if faults:
        raise row_faults(path, faults)
    return rows


def _attribute(cell: object) -> str:
    """An attribute cell as a string, as labels are read."""
    try:
        return label_name(cell)
    except ValueError as error:
        raise ValueError(
            f"found {shown(cell)}; an attribute is a string or a whole number: fill it in, or "
            "leave the row out"
        ) from error


def _known(task: SpuriousTask) -> tuple[list[_Row], tuple[str, ...]]:
    """Rows of all splits of a known task, and its classes in order."""
    known = tasks.find_task(task.source)
    if known.pair is not None or known.values is not None:
        raise DataError(
            f"task {task.name}: task.source: {task.source} has two texts a row, or a score; give a "
            "task of one text and a class"
        )
    if not task.attribute.startswith(TEXT):
        raise DataError(
            f"task {task.name}: task.attribute: {task.source} has no column {task.attribute!r}; "
            "use " + ", ".join(TEXT + name for name in OF_TEXT)
        )
    if tasks.where(known, task.data) is None:
        raise MissingError(
            f"task {task.name}: {task.source} was not found in {', '.join(task.data) or 'no place'}"
            "; give task.data a folder that has it, as for `enn-finetune tasks`"
        )
    splits = [tasks.load_split(known, split.name, task.data) for split in known.splits]
    rows = [
        _Row(text, known.classes[int(code)], "")
        for split in splits
        if split.targets is not None
        for text, code in zip(split.text, split.targets.argmax(1), strict=True)
    ]
    return rows, known.classes


def _whole(texts: Sequence[str]) -> list[bool]:
    """Whether each text is no run of words inside another one."""
    words = [tuple(text.split()) for text in texts]
    parts = {part for text in set(words) for part in _parts(text)}
    return [hash(text) not in parts for text in words]


def _parts(words: tuple[str, ...]) -> Iterator[int]:
    """Hashes of the proper runs of words."""
    for start in range(len(words)):
        for stop in range(start + 1, len(words) + 1):
            if stop - start < len(words):
                yield hash(words[start:stop])


def _long(texts: Sequence[str]) -> list[bool]:
    counts = np.array([len(text.split()) for text in texts])
    return list(counts > np.median(counts)) if len(counts) else []


OF_TEXT: Mapping[str, Callable[[Sequence[str]], Sequence[bool]]] = {
    "question": lambda texts: ["?" in text for text in texts],
    "negation": lambda texts: [bool(_NEGATION.search(text)) for text in texts],
    "long": _long,
}
"""Attributes that a text has of itself: a question mark, a negation word, more words than the
median of all rows. The second is the best documented shortcut of text classifiers (Gururangan et
al. 2018, arXiv 1803.02324; Sagawa et al. 2020, arXiv 1911.08731)."""

"""`enn-finetune next`: a file of the rows to label next, and a table of how far labelling is."""

import csv
import dataclasses
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console

from enn_finetune import files, pool, train
from enn_finetune.config import Config, PlainValue, build
from enn_finetune.config.rules import RuleName
from enn_finetune.config.schema import HeadConfig
from enn_finetune.data.catalogue import Task
from enn_finetune.data.descriptions import Descriptions, described_classes, entries_of
from enn_finetune.data.descriptions import describe as describe_classes
from enn_finetune.data.faults import DataError
from enn_finetune.data.oracle import Oracle
from enn_finetune.data.splits import Labels, Split, fingerprint, one_hot
from enn_finetune.encoding import encode_splits
from enn_finetune.errors import InputError
from enn_finetune.labelling.rows import NONE, PREDICTED, Texts, read
from enn_finetune.labelling.standing import History, Standing, history
from enn_finetune.labelling.telling import tell
from enn_finetune.models.card import Card
from enn_finetune.models.classifier import Classifier
from enn_finetune.models.places import HEAD, backbone_name
from enn_finetune.problem import Problem, new_classifier
from enn_finetune.progress import Display

COLD: RuleName = "typiclust"
"""The rule where no head can be fitted: it reads features, and which rows have a label."""
TASK = "labelling"
FORMATS = (".csv", ".jsonl")
BOM = "\ufeff"
NOTHING = np.empty(0, np.int64)


class Chosen(NamedTuple):
    """What a call came to."""

    rule: str
    rows: list[int]  # among the distinct texts, best first
    history: History


def run(
    sources: Sequence[Path],
    out: Path,
    *,
    count: int = 20,
    text: str = "text",
    pair: str | None = None,
    label: str = "label",
    rule: str = "badge",
    encoder: Sequence[str] = (),
    max_tokens: int = 128,
    model: Path | None = None,
    seed: int = 0,
    describe: Sequence[str] = (),
    quiet: bool = False,
) -> Chosen:
    """Write the `count` rows to label next, with all their columns, and say how far it has come.

    The head is the linear epinet, in closed form on features of a frozen encoder.

    Args:
      sources: the files, labelled ones in the order in which they were labelled.
      out: .csv or .jsonl; a file that is there is never overwritten.
      count: how many rows, at most.
      text: column of the text.
      pair: column of the second text, if there is one.
      label: column of the label (see `labelling.rows.read`).
      rule: the acquisition rule; `COLD` takes its place until two classes are known.
      encoder: places of the encoder, tried in order; empty takes those of `backbone.path`.
      max_tokens: longer texts are cut.
      model: where to save the classifier that all labels give, for `score`; it may take the place
        of an earlier one of `next`. Where every text has a label that is all that is done.
      seed: of the indices and of rules that draw.
      describe: entries `CLASS: a sentence`, of all classes, or `@FILE` for a file of them, one a
        line: what the encoder makes of them is what the head begins with (`models/class_prior.py`),
        so that it says something of every text before the first label. A class is what stands
        before the first colon. `COLD` is asked
        until two classes have labels even so: it bought better first rows than what such a head
        is unsure of (benchmarks/NOTES.md).
      quiet: print nothing.

    Raises:
      InputError: whatever cannot be read or used, before anything is written.
    """
    _check_free(out, model)
    _check_names(text, pair, label)
    describe = _entries(describe)
    declared = _declared(describe, pair)
    texts = read(sources, text=text, pair=pair, label=label, declared=declared)
    descriptions = _descriptions(describe, texts.classes)
    left = bool((texts.labels == NONE).any())
    if not left and model is None:
        raise InputError(
            f"all {len(texts):,} texts have a label: nothing is left to ask about; --model saves "
            "what the labels give"
        )
    keys: dict[str, PlainValue] = {
        "seed": seed,
        "acquisition.rule": rule,
        "budget.round": count,
        "backbone.max_tokens": max_tokens,
    }
    config = _config(keys | ({"backbone.path": list(encoder)} if encoder else {}), len(texts))
    with Display(quiet=quiet) as display:
        if not quiet:
            said = [f"{fault}; the row is skipped" for fault in texts.skipped]
            said += [f"warning: {doubt}" for doubt in texts.doubts]
            for line in said:
                print(line, file=sys.stderr)
        problem = _problem(texts, config, display, descriptions, text, pair, label)
        found = history(problem, texts, [str(path) for path in sources], config, display)
        if found.parts is None and model is not None:
            raise InputError(f"--model {model}: a model needs labels of two classes, found fewer")
        cold = len(np.unique(texts.labels[texts.labels != NONE])) < 2
        asked = None if cold else found.parts
        number = len(found.rounds)
        rows = _choose(problem, config, asked, number, display) if left else NOTHING
        used = COLD if asked is None else config.acquisition.rule
        if left:
            _write(out, texts, rows, found.standing, label)
        if model is not None and found.parts is not None:
            _save(problem, found.parts, config, model, describe)
    if not quiet:
        tell(Console(), texts, found, used, len(rows), out, cold=COLD if cold else None)
    return Chosen(used, rows.tolist(), found)


def _check_free(out: Path, model: Path | None) -> None:
    if out.suffix.lower() not in FORMATS:
        raise InputError(f"--out {out}: expected a name that ends with {' or '.join(FORMATS)}")
    if out.exists():
        raise InputError(f"--out {out}: is there already, perhaps with labels; give another name")
    if model is None or not model.exists():
        return
    task = files.read_json(model / HEAD).get("task") if (model / HEAD).is_file() else None
    if task != TASK:
        raise InputError(f"--model {model}: is there, and no model of `next`; give another name")


def _check_names(text: str, pair: str | None, label: str) -> None:
    names = [text, *([] if pair is None else [pair]), label, *PREDICTED]
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise InputError(
            f"--text, --pair, --label: {', '.join(twice)} stands for two things; each of these and "
            f"the output's own {', '.join(PREDICTED)} is a column by itself"
        )


def _entries(values: Sequence[str]) -> list[str]:
    try:
        return entries_of(values)
    except InputError as error:
        raise InputError(f"--describe: {error}") from None


def _declared(entries: Sequence[str], pair: str | None) -> list[str]:
    """The classes that entries describe."""
    if entries and pair is not None:
        raise InputError("--describe: a sentence about a class is not like two texts; leave it out")
    try:
        declared = list(described_classes(entries))
    except DataError as error:
        raise InputError(f"--describe: {error}") from None
    if len(declared) == 1:
        raise InputError(f"--describe: found one class, {declared[0]!r}; describe two or more")
    return declared


def _descriptions(entries: Sequence[str], classes: Sequence[str]) -> Descriptions:
    try:
        return describe_classes(entries, classes)
    except DataError as error:
        raise InputError(f"--describe: {error} (or is it a label that is misspelt?)") from None


def _config(keys: dict[str, PlainValue], rows: int) -> Config:
    fixed: dict[str, PlainValue] = {
        "regime": "pool",
        "acquisition.indices": 100,  # rules that choose rows together want as many
        "budget.labels": rows,
        "budget.start": 1,
    }
    return build(fixed | keys)


def _problem(
    texts: Texts,
    config: Config,
    display: Display,
    descriptions: Descriptions,
    text: str,
    pair: str | None,
    label: str,
) -> Problem:
    """All texts as a pool, their labels behind an oracle that has sold none."""
    classes = texts.classes
    split = Split("texts", texts.text, texts.pair, None, (), np.arange(1, len(texts) + 1))
    encoded = encode_splits(config, (split,), display, descriptions)
    targets = np.zeros((len(texts), max(len(classes), 2)), np.float32)
    known = texts.labels != NONE
    if known.any():
        targets[known, : len(classes)] = one_hot(texts.labels[known], len(classes))
    return Problem(
        task=Task(TASK, "", (), text, pair, label, Labels(classes, classes), ("accuracy",)),
        pool=encoded.rows[0],
        oracle=Oracle(targets, len(texts)),
        evaluations=(),
        encoder=encoded.encoder,
        folder=encoded.folder,
        fingerprint=fingerprint(split),
        classes=encoded.classes,
    )


def _choose(
    problem: Problem, config: Config, parts: train.Parts | None, number: int, display: Display
) -> np.ndarray:
    if parts is None:  # the head is blank; the rule reads features alone
        cold = dataclasses.replace(config.acquisition, rule=COLD)
        config = dataclasses.replace(config, acquisition=cold, head=HeadConfig(kind="linear"))
        two = dataclasses.replace(problem.task, labels=Labels(("0", "1"), ("0", "1")))
        parts = train.split(new_classifier(problem._replace(task=two), config), "frozen")
    return pool.choose(problem, config, parts, number, display, None)[0]


def _write(
    out: Path, texts: Texts, rows: np.ndarray, standing: Standing | None, label: str
) -> None:
    lines: list[dict[str, object]] = []
    for row in rows.tolist():
        line = {**texts.columns[row], label: ""} | dict.fromkeys(PREDICTED, "")
        if standing is not None:
            values = (
                texts.classes[standing.classes[row]],
                round(float(standing.probability[row]), 4),
                round(float(standing.unsettled[row]), 4),
            )
            line |= dict(zip(PREDICTED, values, strict=True))
        lines.append(line)
    if out.suffix.lower() == ".jsonl":
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    else:
        names = list(dict.fromkeys(name for line in lines for name in line))
        file = io.StringIO(newline="")
        # A lone carriage return has to be quoted, and spreadsheets want the byte order mark.
        writer = csv.DictWriter(file, names, "", quoting=csv.QUOTE_ALL, lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
        text = BOM + file.getvalue()
    out.parent.mkdir(parents=True, exist_ok=True)
    files.atomic_write(out, text.encode("utf-8", "backslashreplace"))


def _save(
    problem: Problem, parts: train.Parts, config: Config, folder: Path, describe: Sequence[str]
) -> None:
    card = Card(
        task=TASK,
        base_model=backbone_name(problem.folder),
        tuned="frozen",
        rule=config.acquisition.rule,
        seed=config.seed,
        labels_bought=len(problem.oracle.bought),
        described=tuple(describe),
    )
    Classifier(problem.encoder, train.merge(parts).head).save_pretrained(
        folder,
        tokenizer=problem.folder,
        labels=problem.task.classes,
        max_tokens=config.backbone.max_tokens,
        text=problem.task.text,
        pair=problem.task.pair,
        card=card,
    )

"""Heads on frozen features against scikit-learn's LogisticRegressionCV, on the same labels.

    python benchmarks/heads.py --data ../shared [--quick]

A cell is an encoder, a task and a number of labels. In each, every seed draws labels at random, in
the proportions of the pool's classes, and all heads are fitted to the same ones and to the same
features: the encoder's last layer, or with --layers auto several. LogisticRegressionCV has its
defaults, but for iterations enough to converge. Test rows are those of PROTOCOL 5: dev together
with what is carved from train; for reviews a carved quarter. A cell whose pool has too few rows is
left out, which is said.

Accuracy and NLL (nats a row) are those of the mean prediction, over K indices where it is not known
in closed form. Joint NLL is that of
10 distinct near neighbours (nats a group). The ensemble has its 10 members, the epinet and
MC-dropout 1,000 indices. Differences are ours minus LogisticRegressionCV's, paired by seed.

The last line is one JSON object: `accuracy_minus_lr` and `nll_minus_lr` are means over cells;
`worst_cell` is the least, over cells, of the mean difference in accuracy plus its standard error;
`joint_nll_win_share` is the share of cells in which the epinet's joint NLL is below those of all
other heads. Scores that are not finite, and fits that have not converged, are counted in
`failures`; any makes the exit status 1. --quick takes four minutes on two cores, the whole two
hours or more; with --keep FILE a run that was cut off goes on where it was.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from heads_cells import HEADS, SCORES, THEIRS, Cell, Data, cells
from provenance import provenance
from starting import run_script

from enn_finetune import config as configs
from enn_finetune import problem
from enn_finetune.encoding import encode_splits
from enn_finetune.models.backbone import auto_layers
from enn_finetune.progress import Display
from enn_finetune.records import commit

MINILM, GTE = "minilm", "gte-small"
REVIEWS = tuple(f"reviews-{domain}" for domain in ("books", "dvd", "electronics", "kitchen"))
TASKS = ("sst2", "cola", "mrpc", "rte", *REVIEWS)
QUICK_TASKS = ("cola", "mrpc", "reviews-kitchen")
LABELS, QUICK_LABELS = (50, 100, 300, 1000, 3000), (50, 100, 300, 1000)


def load(given: argparse.Namespace, encoder: str, task: str, display: Display) -> Data:
    """A task's features, from the cache where they are in it."""
    data = given.data
    settings = configs.build(
        {
            "task.name": task,
            "task.data": [str(data / "glue"), str(data)],
            "task.carve": "auto",
            "backbone.path": encoder if encoder == MINILM else str(data / "models" / encoder),
            "backbone.layers": given.layers,
            "backbone.max_tokens": given.max_tokens,
            "budget.labels": 20,  # all labels are read here, beside the oracle
        }
    )
    found = problem.read(settings, display)
    encoded = encode_splits(settings, found.splits, display)
    work = problem.assemble(settings, found, encoded)
    depth = len(encoded.encoder.bert.layers)
    targets = found.splits[0].targets
    return Data(
        pool=np.asarray(work.pool.features),
        labels=targets[found.selection.pool].argmax(1),
        test=np.concatenate([np.asarray(part.rows.features) for part in work.evaluations]),
        test_labels=np.concatenate([part.targets.argmax(1) for part in work.evaluations]),
        classes=len(work.task.classes),
        views=1 if given.layers == "last" else len(auto_layers(depth)),
        fingerprint=work.fingerprint,
    )


def identity(given: argparse.Namespace, data: Data) -> dict[str, object]:
    """What a kept cell has to agree in."""
    return {
        "seeds": given.seeds,
        "layers": given.layers,
        "max_tokens": given.max_tokens,
        "data": data.fingerprint,
    }


def keep(given: argparse.Namespace, data: Data, cell: Cell) -> None:
    """Add a cell to the file of finished ones, with the commit it was run on."""
    scores = {
        head: {score: values.tolist() for score, values in of.items()}
        for head, of in cell.scores.items()
    }
    line = identity(given, data) | cell._asdict() | {"scores": scores, "commit": commit()}
    with given.keep.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def kept_cell(line: dict[str, Any]) -> Cell:
    """The cell of a line that `keep` wrote."""
    scores = {
        head: {score: np.asarray(values) for score, values in of.items()}
        for head, of in line["scores"].items()
    }
    return Cell(line["encoder"], line["task"], line["labels"], scores, line["unconverged"])


def kept_cells(
    given: argparse.Namespace, encoder: str, task: str, data: Data, commits: set[str]
) -> dict[int, Cell]:
    """The finished cells of an encoder and a task, by their labels; their commits are added."""
    if not given.keep or not given.keep.exists():
        return {}
    found = {}
    for kept in given.keep.read_text(encoding="utf-8").splitlines():
        line = json.loads(kept)
        mine = identity(given, data) | {"encoder": encoder, "task": task}
        if (
            all(line[key] == value for key, value in mine.items())
            and line["labels"] in given.labels
        ):
            commits.add(line["commit"])
            found[line["labels"]] = kept_cell(line)
    return found


def show(found: Sequence[Cell]) -> None:
    """One table an encoder and task: each score's mean over seeds, and the paired difference."""
    print(f"\n{found[0].encoder}, {found[0].task}")
    columns = (*HEADS, THEIRS)
    for score in SCORES:
        print(f"  {score:15}" + "".join(f"{head:>12}" for head in columns) + "    ours - lr_cv")
        for cell in found:
            means = "".join(f"{np.mean(cell.scores[head][score]):12.4f}" for head in columns)
            gap, error = cell.difference(score)
            print(f"  {cell.labels:8} labels{means}  {gap:+.4f} +- {error:.4f}")
    sys.stdout.flush()


def summary(found: Sequence[Cell]) -> dict[str, Any]:
    """The figures of the last line."""

    def bounds(score: str, sign: int) -> dict[str, tuple[float, float, float]]:
        gaps = {cell.name: cell.difference(score) for cell in found}
        return {name: (gap + sign * error, gap, error) for name, (gap, error) in gaps.items()}

    def worst(bound: dict[str, tuple[float, float, float]], choose: Callable[..., str]) -> Any:
        name = choose(bound, key=lambda one: bound[one][0])
        return {"cell": name, "difference": bound[name][1], "standard_error": bound[name][2]}

    accuracy, nll = bounds("accuracy", 1), bounds("nll", -1)
    failures = [
        f"{cell.name}: {head}'s {score} is not finite in {bad} seeds"
        for cell in found
        for head, scores in cell.scores.items()
        for score, values in scores.items()
        if (bad := int(np.sum(~np.isfinite(values))))
    ] + [
        f"{cell.name}: {cell.unconverged} fits of {THEIRS} stopped early"
        for cell in found
        if cell.unconverged
    ]
    losses = [cell.name for cell in found if accuracy[cell.name][0] < -0.003]
    return {
        "accuracy_minus_lr": float(np.mean([gap for _, gap, _ in accuracy.values()])),
        "worst_cell": min(value for value, _, _ in accuracy.values()),
        "worst_cell_detail": worst(accuracy, min),
        "nll_minus_lr": float(np.mean([gap for _, gap, _ in nll.values()])),
        "worst_nll_detail": worst(nll, max),
        "joint_nll_win_share": float(np.mean([cell.wins for cell in found])),
        "joint_nll_lost": [cell.name for cell in found if not cell.wins],
        "below_the_bar": losses,
        "cells": len(found),
        "failures": failures,
    }


def finite(value: Any) -> Any:
    """JSON has no NaN: null stands for it, and `failures` says so."""
    if isinstance(value, dict):
        return {key: finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [finite(one) for one in value]
    if isinstance(value, float):
        return round(value, 5) if np.isfinite(value) else None
    return value


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="has glue, reviews and models")
    parser.add_argument("--quick", action="store_true", help="one encoder, few tasks, 3 seeds")
    parser.add_argument("--encoders", nargs="+")
    parser.add_argument("--tasks", nargs="+")
    parser.add_argument("--labels", type=int, nargs="+")
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--keep", type=Path, help="JSON lines of finished cells, not run again")
    parser.add_argument("--layers", default="last", choices=("last", "auto"))
    parser.add_argument("--max-tokens", type=int, default=128, help="longer texts are cut")
    parser.add_argument("--workers", type=int, default=1, help="processes for LogisticRegressionCV")
    given = parser.parse_args()
    given.encoders = given.encoders or ([MINILM] if given.quick else [MINILM, GTE])
    given.tasks = given.tasks or (QUICK_TASKS if given.quick else TASKS)
    given.labels = given.labels or (QUICK_LABELS if given.quick else LABELS)
    given.seeds = given.seeds or (3 if given.quick else 10)
    return given


def main() -> None:
    given, start = options(), time.perf_counter()
    found: list[Cell] = []
    left_out: list[str] = []
    commits: set[str] = set()
    fingerprints: dict[str, str] = {}
    for encoder in given.encoders:
        for task in given.tasks:
            with Display() as display:
                data = load(given, encoder, task, display)
            fingerprints[task] = data.fingerprint
            kept = kept_cells(given, encoder, task, data, commits)
            fits = [n for n in given.labels if n <= len(data.labels)]
            for n in sorted(set(given.labels) - set(fits)):
                left_out.append(f"{encoder} {task} {n}: the pool has {len(data.labels)} rows")
                print(f"left out: {left_out[-1]}")
            todo = [n for n in fits if n not in kept]
            for cell in cells((encoder, task), data, todo, given.seeds, given.workers):
                kept[cell.labels] = cell
                if given.keep:
                    keep(given, data, cell)
            if kept:
                here = [kept[n] for n in sorted(kept)]
                show(here)
                found += here
    if not found:
        raise SystemExit("every cell was left out: give --labels that the pools can hold")
    figures = summary(found) | {
        "left_out": left_out,
        "seeds": list(range(given.seeds)),
        "layers": given.layers,
        "encoders": list(given.encoders),
        "data_fingerprints": fingerprints,
        "commits_of_kept_cells": sorted(commits),
        "seconds": time.perf_counter() - start,
    }
    print(json.dumps(finite(figures | provenance())))
    if figures["failures"]:
        raise SystemExit(1)


if __name__ == "__main__":
    run_script(main)

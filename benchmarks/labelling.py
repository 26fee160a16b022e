"""`enn-finetune next`, played with known labels: is what it expects right, and when does it stop?

    python benchmarks/labelling.py [--data ../shared] [--quick]

Rounds of 40 on the bundled messages (15 classes) and of 50 on 4,000 sentences of SST-2's training
file, if --data has it; frozen all-MiniLM-L6-v2 (extra: demo), rows chosen by badge. After each
round: the share of the texts without a label that the fit gets right, what it expected that share
to be, and the agreement with the round before. The labels are those of the files.

The last line is one JSON object: `largest_gap` between what was expected and what was right, over
all rounds from the third on; by task `stopped` (labels of the first round that says STOP, null
where none does), `right_at_stop`, `right_in_the_end`. --quick: messages alone, five rounds.
"""

import argparse
import csv
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from provenance import provenance
from starting import run_script

from enn_finetune.data import tasks
from enn_finetune.labelling import run
from enn_finetune.labelling.rows import NONE, read

SST2 = 4000
SETTLING = 2  # rounds at first, of which some classes may have no label yet


class Line(NamedTuple):
    """One round."""

    labels: int
    right: float  # of the texts without a label
    expected: float
    agreement: float | None
    stop: bool


def session(
    truth: Mapping[str, str], count: int, rounds: int, folder: Path, **options: Any
) -> list[Line]:
    """Ask and answer, round after round; `options` of `labelling.run`."""
    sources, lines = [folder / "pool.csv"], []
    _write(sources[0], [{"text": text} for text in truth])
    for number in range(rounds + 1):
        out = folder / f"round{number}.csv"
        found = run(sources, out, count=count, quiet=True, **options).history
        if found.standing is not None:
            texts = read(sources)
            left = texts.labels == NONE
            names = np.array(texts.classes)[found.standing.classes[left]]
            right = names == np.array([truth[text] for text in texts.text])[left]
            last = found.rounds[-1]
            line = Line(
                last.labels,
                float(right.mean()),
                last.expected or 0.0,
                last.agreement,
                found.settled,
            )
            lines.append(line)
            agreed = "    -" if line.agreement is None else f"{line.agreement:.3f}"
            print(
                f"{line.labels:6} labels  right {line.right:.3f}  expected {line.expected:.3f}  "
                f"agreement {agreed}  {'STOP' if line.stop else ''}".rstrip(),
                flush=True,
            )
        with open(out, newline="", encoding="utf-8-sig") as file:
            asked = list(csv.DictReader(file))
        _write(out, [{**row, "label": truth[row["text"]]} for row in asked])
        sources.append(out)
    return lines


def _write(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def truth_of(name: str, data: Path, rows: int | None) -> dict[str, str]:
    """The texts of a training file with their labels, the first one of a text that has several."""
    split = tasks.load_split(tasks.find_task(name), "train", (data / "glue",))
    order = np.arange(len(split))
    if rows is not None:
        order = np.random.default_rng(0).permutation(len(split))[:rows]
    found: dict[str, str] = {}
    assert split.targets is not None
    for row in order:
        found.setdefault(split.text[row], split.classes[int(split.targets[row].argmax())])
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared"), help="has glue/SST-2")
    parser.add_argument("--quick", action="store_true")
    given, began = parser.parse_args(arguments), time.monotonic()
    plans = {"messages": (40, 5 if given.quick else 15, None)}
    if not given.quick and (given.data / "glue").is_dir():
        plans["sst2"] = (50, 20, SST2)
    found, gaps = {}, []
    for name, (count, rounds, rows) in plans.items():
        print(f"{name}, rounds of {count}")
        with tempfile.TemporaryDirectory() as folder:
            lines = session(truth_of(name, given.data, rows), count, rounds, Path(folder))
        stop = next((line for line in lines if line.stop), None)
        gaps += [abs(line.right - line.expected) for line in lines[SETTLING:]]
        found[name] = {
            "rounds": [line._asdict() for line in lines],
            "stopped": stop.labels if stop else None,
            "right_at_stop": stop.right if stop else None,
            "right_in_the_end": lines[-1].right,
        }
    line = {"largest_gap": max(gaps, default=None), "tasks": found, "seeds": [0]}
    print(json.dumps(line | {"seconds": round(time.monotonic() - began, 1), **provenance()}))


if __name__ == "__main__":
    run_script(main)

"""Results to be committed: what the report reads of them, compressed.

    python benchmarks/pack.py DIR benchmarks/records/NAME

DIR is of `enn-finetune bench`, `intended` or `testbed`. Metrics are rounded to six decimals. Of the
bought rows, which hold texts of data sets that are not ours, what the page counts is kept: labels
of each class; of `intended` how many rows disagree by round. Of the rows themselves stand the
numbers of those that no rule chose and a digest of all, so that arms that began alike, or bought
the same, are still told.
"""

import argparse
import hashlib
import json
import lzma
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

from enn_finetune.files import atomic_write

Line = dict[str, object]
SOURCES = ("studies.json", "study.json")
CELL = ("task", "pool", "backbone", "tune", "regime", "head", "rule", "seed")
READ = ("rounds", "disagreeing", "classes")
DECIMALS = 6


def record(line: Line) -> Line:
    """A record with its metrics rounded; other lines as they are."""
    metrics = line.get("metrics")
    if not isinstance(metrics, Mapping):
        return line
    return {**line, "metrics": {name: round(value, DECIMALS) for name, value in metrics.items()}}


def bought(line: Line) -> Line:
    """The line of a cell without texts, its rows as the first ones and one number for all."""
    rows, rounds = cast(list[int], line["rows"]), cast(list[int], line.get("rounds") or [0])
    digest = hashlib.sha256(json.dumps(rows).encode()).digest()
    first = [] if "disagreeing" in line else rows[: rounds[0]]
    kept = {name: line[name] for name in (*CELL, *READ) if name in line}
    return kept | {"rows": [*first, int.from_bytes(digest[:6], "big")]}


def lines_of(path: Path) -> list[Line]:
    """The lines of a file, none where there is no file."""
    text = path.read_text("utf-8") if path.exists() else ""
    return [json.loads(line) for line in text.splitlines()]


def packed(lines: list[Line], change: Callable[[Line], Line]) -> bytes:
    """Lines, changed and compressed."""
    text = "".join(json.dumps(change(line), ensure_ascii=False) + "\n" for line in lines)
    return lzma.compress(text.encode(), preset=9)


def pack(source: Path, target: Path) -> None:
    """Write the files of one folder into another."""
    target.mkdir(parents=True, exist_ok=True)
    atomic_write(target / "records.jsonl.xz", packed(lines_of(source / "records.jsonl"), record))
    rows = lines_of(source / "bought.jsonl")
    if rows:
        atomic_write(target / "bought.jsonl.xz", packed(rows, bought))
    for name in SOURCES:
        if (source / name).exists():
            shutil.copy(source / name, target / name)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    given = parser.parse_args()
    pack(given.source, given.target)

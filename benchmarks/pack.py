"""Results to be committed: what the report reads of them, compressed.

    python benchmarks/pack.py DIR [DIR ...] benchmarks/records/NAME

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
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import cast

from enn_finetune.files import atomic_write

Line = dict[str, object]
STUDIES = "studies.json"
STUDY = "study.json"  # of a testbed
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


def studies(sources: Sequence[Path], records: Sequence[Line]) -> list[Line]:
    """The entries of all folders' studies.json that have records."""
    texts = [
        path.read_text("utf-8") for path in (one / STUDIES for one in sources) if path.exists()
    ]
    found = [entry for text in texts for entry in json.loads(text)]
    ran = {place(line) for line in records}
    kept = [entry for entry in found if place(entry) in ran]
    budgets: dict[tuple[object, ...], object] = {}
    for entry in kept:
        if budgets.setdefault(place(entry), entry.get("budget")) != entry.get("budget"):
            named = " ".join(str(part) for part in place(entry))
            raise SystemExit(f"two of the folders have other budgets of {named}; pack them apart")
    return [without_steps(entry) for entry in kept]


def without_steps(entry: Line) -> Line:
    """An entry of studies.json; online every step is a round, and early ones listed them all."""
    budget = entry.get("budget")
    if entry.get("regime") != "online" or not isinstance(budget, Mapping):
        return entry
    return {**entry, "budget": {name: budget[name] for name in budget if name != "rounds"}}


def refuse_cells_twice(sources: Sequence[Path], records: Sequence[Sequence[Line]]) -> None:
    """Folders may share a study (other seeds, other arms), but no cell of it."""
    owner: dict[tuple[object, ...], Path] = {}
    for source, lines in zip(sources, records, strict=True):
        for cell in {tuple(line.get(name) for name in CELL) for line in lines}:
            if owner.setdefault(cell, source) != source:
                named = " ".join(str(part) for part in cell)
                raise SystemExit(
                    f"{owner[cell]} and {source} both have results of {named}; pack one of them"
                )


def place(line: Line) -> tuple[object, ...]:
    """The columns that say of which study a line is."""
    return tuple(line.get(name) for name in CELL[:5])


def pack(sources: Sequence[Path], target: Path) -> None:
    """Write the files of folders into another one."""
    sources = list(dict.fromkeys(one.resolve() for one in sources))
    testbeds = [str(one) for one in sources if (one / STUDY).exists()]
    if len(sources) > 1 and testbeds:
        raise SystemExit(f"{', '.join(testbeds)}: of a testbed; pack each by itself")
    by_folder = [lines_of(one / "records.jsonl") for one in sources]
    refuse_cells_twice(sources, by_folder)
    records = [line for lines in by_folder for line in lines]
    found = studies(sources, records)
    target.mkdir(parents=True, exist_ok=True)
    atomic_write(target / "records.jsonl.xz", packed(records, record))
    rows = [line for one in sources for line in lines_of(one / "bought.jsonl")]
    if rows:
        atomic_write(target / "bought.jsonl.xz", packed(rows, bought))
    if found:
        atomic_write(target / STUDIES, json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    for one in sources:
        if (one / STUDY).exists():
            shutil.copy(one / STUDY, target / STUDY)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sources", type=Path, nargs="+", help="what was run side by side is joined")
    parser.add_argument("target", type=Path)
    given = parser.parse_args()
    pack(given.sources, given.target)

"""The folder of a benchmark. Whatever happens to the process, what is complete there stays.

    records.jsonl   one line an evaluation
    bought.jsonl    one line a cell and seed: see `replay`
    done.jsonl      one line a call: study, arm, commit, and the seeds whose lines are all there
    studies.json    one entry a study: where its figures come from

Lines are added and flushed to the disk in that order, so that a line of done.jsonl vouches for the
others. A run that goes on drops the lines that nothing vouches for.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from enn_finetune import files, records
from enn_finetune.bench.plan import Arm, Cell, Place, Plan, Study
from enn_finetune.config import ConfigError, PlainDict, differences
from enn_finetune.errors import InputError
from enn_finetune.records import Record

RECORDS, BOUGHT, DONE, STUDIES = "records.jsonl", "bought.jsonl", "done.jsonl", "studies.json"
LOCK = "bench.lock"
Line = Mapping[str, object]


class Store:
    """An open folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.studies: dict[Place, PlainDict] = {}
        self.done: set[Cell] = set()
        if (folder / STUDIES).exists():
            self.studies = {_place(entry): entry for entry in _entries(folder / STUDIES)}
            self.done = {cell for line in _lines(folder / DONE) for cell in _cells(line)}

    def rename(self, baseline: str, own: str) -> None:
        """Say anew which arms the studies that are here already are compared with."""
        for place, entry in self.studies.items():
            if (entry.get("baseline"), entry.get("own")) != (baseline, own):
                self.describe(place, {**entry, "baseline": baseline, "own": own})

    def commits(self) -> list[str]:
        """The commits that results here were made with, as far as they say."""
        found = [str(line["commit"]) for line in _lines(self.folder / DONE) if "commit" in line]
        return list(dict.fromkeys(found))

    def bought(self) -> dict[Cell, list[int]]:
        """The training rows that each complete cell bought."""
        lines = _lines(self.folder / BOUGHT) if self.done else []
        cells = {_cells(line)[0]: cast(list[int], line["rows"]) for line in lines}
        return {cell: rows for cell, rows in cells.items() if cell in self.done}

    def missing(self, study: Study, arm: Arm) -> list[int]:
        """The seeds of an arm that have no complete results."""
        return [seed for seed in study.seeds if Cell(study.place, arm, seed) not in self.done]

    def add(
        self,
        place: Place,
        arm: Arm,
        seeds: Sequence[int],
        lines: Iterable[Record],
        bought: Iterable[Line],
    ) -> None:
        """Keep the results of some seeds of an arm."""
        _append(self.folder / RECORDS, lines)
        _append(self.folder / BOUGHT, bought)
        about = {**place._asdict(), **arm._asdict()}
        _append(self.folder / DONE, [{**about, "seeds": list(seeds), "commit": records.commit()}])
        self.done |= {Cell(place, arm, seed) for seed in seeds}

    def describe(self, place: Place, entry: PlainDict) -> None:
        """Write a study's entry of studies.json."""
        self.studies[place] = cast(PlainDict, place._asdict()) | entry
        text = json.dumps(list(self.studies.values()), indent=2, ensure_ascii=False)
        files.atomic_write(self.folder / STUDIES, text + "\n")

    def check_data(self, place: Place, fingerprint: str) -> None:
        """Refuse to add to figures of other data.

        Raises:
          ConfigError: the study began on data with another fingerprint.
        """
        before = self.studies.get(place, {}).get("data_fingerprint", fingerprint)
        if before != fingerprint:
            raise ConfigError(
                f"{self.folder}: {place} began on data with the fingerprint {before}, the data "
                f"read now has {fingerprint}; put the files back, or give another --out"
            )


@contextmanager
def open_store(folder: Path, plan: Plan, *, resume: bool) -> Iterator[Store]:
    """The folder of a benchmark, for this process alone, cut back to what is complete.

    A plan may have grown since: other tasks, arms and seeds are added to what is there.

    Raises:
      ConfigError: the folder holds something else, or a benchmark and `resume` is False; keys of a
        study have changed, which are named; or another process is at work there.
    """
    check(folder, plan, resume=resume)
    folder.mkdir(parents=True, exist_ok=True)
    with files.claim(folder / LOCK, wait=False) as mine:
        if not mine:
            raise ConfigError(f"{folder}: another process is running this benchmark; let it finish")
        store = Store(folder)
        for name in (RECORDS, BOUGHT):
            _keep_complete(folder / name, store.done)
        _rewrite(folder / DONE, list(_lines(folder / DONE)))
        yield store


def check(folder: Path, plan: Plan, *, resume: bool) -> None:
    """Refuse a folder in which the plan cannot be run; reads only.

    Raises:
      ConfigError: as `open_store` says.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder}: found a file where a folder is expected; give another --out")
    if not (folder / STUDIES).exists():
        kept = [path.name for path in folder.iterdir()] if folder.exists() else []
        found = sorted(name for name in kept if name not in (LOCK, "cells"))
        if found:
            raise ConfigError(
                f"{folder} holds {', '.join(found[:5])} but no {STUDIES}, so no benchmark that "
                "could go on; give another --out"
            )
        return
    if not resume:
        raise ConfigError(
            f"{folder} holds a benchmark already; go on with --resume, or give another --out"
        )
    store = Store(folder)
    faults = []
    for study in plan.studies:
        entry = store.studies.get(study.place)
        if entry is not None:
            changed = differences(study.config, cast(PlainDict, entry.get("config", {})))
            if changed:
                faults.append(f"{study.place}: {', '.join(changed)}")
    if faults:
        raise ConfigError(
            f"{folder} holds a benchmark of other settings; these keys differ:\n  "
            + "\n  ".join(faults)
            + "\ngo on with the same ones, or give another --out"
        )


def _entries(path: Path) -> list[PlainDict]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return [dict(entry) for entry in found]
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: not a list of studies ({error}); put the file back") from error


def _lines(path: Path) -> list[dict[str, object]]:
    return cast(list[dict[str, object]], records.read(path))


def _place(line: Line) -> Place:
    return Place(*(str(line.get(name, "")) for name in Place._fields))


def _cells(line: Line) -> list[Cell]:
    seeds = cast(list[int], line["seeds"] if "seeds" in line else [line["seed"]])
    arm = Arm(str(line["head"]), str(line["rule"]))
    return [Cell(_place(line), arm, seed) for seed in seeds]


def _keep_complete(path: Path, done: set[Cell]) -> None:
    lines = _lines(path)
    _rewrite(path, [line for line in lines if _cells(line)[0] in done])


def _rewrite(path: Path, lines: Sequence[Line]) -> None:
    """The file with these lines and no others; untouched where it is that already."""
    text = "".join(map(_text, lines))
    if path.exists() and path.stat().st_size != len(text.encode()):
        files.atomic_write(path, text)


def _append(path: Path, lines: Iterable[Line]) -> None:
    with open(path, "a", encoding="utf-8") as file:
        file.write("".join(map(_text, lines)))
        file.flush()
        os.fsync(file.fileno())


def _text(line: Line) -> str:
    return json.dumps(line, ensure_ascii=False) + "\n"

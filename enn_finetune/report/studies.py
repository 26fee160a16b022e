"""Any number of folders to studies: records merged, and each study given its shortest name."""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from enn_finetune.config import flatten
from enn_finetune.errors import InputError
from enn_finetune.records import Record
from enn_finetune.report import reading
from enn_finetune.report.reading import Line
from enn_finetune.savings.curves import LOWER_IS_BETTER

SECOND = "held"  # the split carved from train where the task's own is small
SHARED = ("task.", "backbone.", "head.", "train.", "evaluation.", "budget.steps")
"""Keys that all arms of a study must share; those of acquisition are the rules' own."""
PLACES = {"task.data", "task.name", "task.train", "task.test", "backbone.path", "backbone.cache"}
"""Where things lie: the fingerprint of the data and the encoder's name say what they are."""


class StudyKey(NamedTuple):
    """What a study is one of."""

    task: str
    pool: str = "plain"
    backbone: str = ""
    tune: str = ""
    regime: str = ""
    budget: str = ""  # "50 labels in rounds of 10", where studies.json says so


PLACE = StudyKey._fields[:-1]


@dataclass
class Study:
    """One study's records, of all folders together."""

    key: StudyKey
    metric: str
    records: list[Record] = field(default_factory=list)
    bought: list[Line] = field(default_factory=list)
    sources: list[Line] = field(default_factory=list)  # entries of studies.json, or of summary.json

    @property
    def splits(self) -> list[str]:
        """Names of its evaluation splits, the task's own first."""
        found = list(dict.fromkeys(record["split"] for record in self.records))
        return sorted(found, key=lambda split: split == SECOND)


Cell = tuple[StudyKey, str, int]  # study, arm, seed


def read_folders(folders: Sequence[Path]) -> dict[str, Study]:
    """All studies of these folders by name, in order of first appearance.

    A cell and seed that several folders hold counts once where they agree. Where one holds a part
    of what another does (it was interrupted), the larger counts. The same task with another budget
    or other rounds is another study.

    Raises:
      InputError: no folder; a damaged file; two folders that disagree about a cell; or one study
        with another metric, other data or other settings in two of them.
    """
    if not folders:
        raise InputError("a report needs at least one folder, got none")
    studies: dict[StudyKey, Study] = {}
    cells: dict[Cell, tuple[Path, list[Record]]] = {}
    lists: dict[Cell, tuple[Path, Line]] = {}
    for folder in dict.fromkeys(Path(folder) for folder in folders):
        defaults = reading.read_defaults(folder)
        sources: dict[StudyKey, list[Line]] = {}
        for entry in reading.read_studies(folder):
            sources.setdefault(_place(entry), []).append(entry)
        keys = {place: _with_budget(place, one, folder) for place, one in sources.items()}
        for (place, arm, seed), records in _cells(reading.read_records(folder), defaults).items():
            entries, cell = sources.get(place, [defaults]), (keys.get(place, place), arm, seed)
            study = studies.setdefault(cell[0], Study(cell[0], _metric(entries[0], records)))
            for source in entries:
                if source and source not in study.sources:
                    _same_study(study, source, folder)
                    study.sources.append(source)
            cells[cell] = _larger(cell, cells.get(cell), (folder, records))
        for found in reading.read_bought(folder):
            line = {**defaults, **found}
            if "rule" in defaults:  # a run by itself, whose rule says who chose
                line["rule"] = defaults["rule"]
            place, arm = _place(line), f"{line['head']}/{line['rule']}"
            cell = (keys.get(place, place), arm, int(str(line["seed"])))
            if cell in lists and lists[cell][1]["rows"] != line["rows"]:
                raise _disagreement(cell, lists[cell][0], folder, "bought other rows")
            lists.setdefault(cell, (folder, line))
    for (key, _, _), (_, records) in cells.items():
        studies[key].records += records
    for (key, _, _), (_, line) in lists.items():
        if key in studies:
            studies[key].bought.append(line)
    return dict(zip(names(list(studies)), studies.values(), strict=True))


def _place(line: Line) -> StudyKey:
    """What a line says of its study: all but the budget, which only studies.json knows."""
    key = StudyKey(*(str(line.get(name) or "") for name in PLACE))
    task, _, pool = key.task.partition(":")
    return key._replace(task=task or "task", pool=key.pool or pool or "plain")


def _with_budget(place: StudyKey, entries: Sequence[Line], folder: Path) -> StudyKey:
    """A study's key with the budget that its entries in one folder name."""
    budgets = list(dict.fromkeys(map(_budget, entries)))
    if len(budgets) > 1:
        raise InputError(
            f"{folder}: {place.task} has entries of {' and of '.join(budgets)} in studies.json; "
            "report them apart"
        )
    return place._replace(budget=budgets[0])


def _budget(source: Line) -> str:
    """The budget of an entry of studies.json, in words; nothing where it does not say."""
    budget = source.get("budget")
    if not isinstance(budget, dict) or not isinstance(budget.get("labels"), int):
        return ""
    words, rounds = f"{budget['labels']:,} labels", budget.get("rounds")
    if source.get("regime") == "online" or not isinstance(rounds, list) or len(rounds) < 2:
        return words
    sizes = [after - before for before, after in pairwise(map(int, rounds))]
    if len(set(sizes[:-1])) > 1:
        return f"{words} in {len(sizes)} rounds"
    return f"{words} in rounds of {sizes[0]:,}"


def _cells(records: Iterable[Record], defaults: Line) -> dict[Cell, list[Record]]:
    """Records by study, arm and seed, with what they leave unsaid filled in."""
    wanted = (*PLACE, "head", "rule", "seed")
    filling = {name: defaults[name] for name in wanted if name in defaults}
    cells: dict[Cell, list[Record]] = {}
    for given in records:
        line: Line = {**filling, **given}
        head, rule = line.get("head"), line.get("rule")
        arm = f"{head}/{rule}" if head and rule else str(line.get("arm") or "run")
        record = Record(**{**line, "arm": arm})  # type: ignore[typeddict-item]
        cells.setdefault((_place(line), arm, record.get("seed", 0)), []).append(record)
    return cells


def _metric(source: Line, records: Sequence[Record]) -> str:
    """The score: as the source says, else the first metric that is not one of calibration."""
    named = source.get("metric")
    if isinstance(named, str):
        return named
    metrics = list(records[0]["metrics"])
    scores = [name for name in metrics if name not in LOWER_IS_BETTER and "nll" not in name]
    return (scores or metrics or [""])[0]


def _same_study(study: Study, source: Line, folder: Path) -> None:
    """Refuse to pair figures of another metric, of other data, or made with other settings."""
    what = f"{folder}: {study.key.task}"
    apart = "an earlier folder (or entry of this one); report them apart"
    named = source.get("metric", study.metric)
    if named != study.metric:
        raise InputError(f"{what} is scored by {named} here and by {study.metric} in {apart}")
    data = {str(e["data_fingerprint"]) for e in [*study.sources, source] if "data_fingerprint" in e}
    if len(data) > 1:
        raise InputError(
            f"{what} has other data here ({source['data_fingerprint']}) than in {apart}"
        )
    for earlier in study.sources:
        differing = _differing(earlier, source)
        if differing:
            raise InputError(
                f"{what} was run with other settings here ({', '.join(differing)}), so that its "
                f"arms cannot be paired, than in {apart}"
            )


def _differing(one: Line, other: Line) -> list[str]:
    """Keys that all arms must share and that two entries of studies.json give other values."""
    ours, theirs = (_keys(entry.get("config")) for entry in (one, other))
    return sorted(name for name in ours.keys() & theirs.keys() if ours[name] != theirs[name])


def _keys(config: object) -> dict[str, object]:
    found = flatten(config) if isinstance(config, dict) else {}
    if found:  # a tree without the key has pools of all rows; heads alone are told of descriptions
        found.setdefault("task.rows", None)
    kept = {name: value for name, value in found.items() if name.startswith(SHARED)}
    return {name: value for name, value in kept.items() if name not in PLACES}


def _content(records: Iterable[Record]) -> dict[Hashable, dict[str, float]]:
    """What two runs of a cell must agree in: everything but the time they took."""
    return {(r["split"], r["labels_bought"], r["step"]): r["metrics"] for r in records}


def _larger(
    cell: Cell, before: tuple[Path, list[Record]] | None, new: tuple[Path, list[Record]]
) -> tuple[Path, list[Record]]:
    if before is None:
        return new
    old, fresh = _content(before[1]), _content(new[1])
    small, large = sorted((old, fresh), key=len)
    if any(large.get(place) != metrics for place, metrics in small.items()):
        raise _disagreement(cell, before[0], new[0], "have other records")
    return new if len(fresh) > len(old) else before


def _disagreement(cell: Cell, one: Path, other: Path, what: str) -> InputError:
    key, arm, seed = cell
    study = " ".join(part for part in key if part)
    return InputError(
        f"{one} and {other} {what} of the same cell ({study}, {arm}, seed {seed}); report one of "
        "the two folders only"
    )


def names(keys: Sequence[StudyKey]) -> list[str]:
    """The shortest unambiguous name of each study.

    A task, with ":rare" or ":repeated" for a pool of that kind; then, where there are several
    studies of it, the encoder where they have several, and the regime, what is trained and the
    budget where those are still needed to tell it apart: "sst2", "sst2:rare", "sst2 · l3 · online".
    """
    short = [key._replace(backbone=key.backbone.rstrip("/").rsplit("/", 1)[-1]) for key in keys]
    if len(set(short)) < len(set(keys)):
        short = list(keys)
    return [_name(key, short) for key in short]


def _name(key: StudyKey, keys: Sequence[StudyKey]) -> str:
    rivals = [other for other in keys if (other.task, other.pool) == (key.task, key.pool)]
    parts = [key.task if key.pool == "plain" else f"{key.task}:{key.pool}"]
    for index in (2, 4, 3, 5):  # backbone, regime, tune, budget
        others = [other for other in rivals if other != key]
        if others and any(other[index] != key[index] for other in others):
            parts.append(key[index] or "unnamed")
            rivals = [other for other in rivals if other[index] == key[index]]
    return " · ".join(parts)

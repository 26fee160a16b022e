"""Lists of bought rows: what `bench` writes to bought.jsonl, and what it can buy again.

A list is a JSON-lines file with one line for each task, arm and seed:

    {"task": "sst2", "seed": 0, "head": "epinet", "rule": "margin", "rows": [512, 7, 66001, ...]}

`rows` are the rows of the training file, counted from 0 as they were read and before anything was
carved off, in the order in which their labels were bought; the first `budget.start` are those that
no rule chose. In a repeated pool a row's number stands as often as copies of it were bought. Only
`task`, `seed` and `rows` are needed: `head` (which head is trained on the rows) is otherwise the
head of `bench.own`, `rule` (what the list is called) the file's name. `pool`, `backbone`, `tune`
and `regime`, where given, say which studies the list is for. Every other key is passed over;
`bench` adds `rounds` (labels bought after each round), `classes` (labels bought of each class) and
`examples` (text and label of the first rows that the rule chose).

The rows of `enn-finetune bench` for reviews are those of the file less the quarter that is tested
on; carved rows (`task.carve`) are not in any pool, and a list that has them is refused.
"""

import json
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np

from enn_finetune.bench.plan import REPLAY, Arm, Cell, Place, Plan, Study
from enn_finetune.data.oracle import class_counts
from enn_finetune.errors import InputError
from enn_finetune.models.solvers import SOLVERS
from enn_finetune.problem import Origin, Problem

FIRST = 8  # examples of what a rule chose

BoughtLine = dict[str, object]
Rows = Sequence[int]


def bought_line(
    study: Study, arm: Arm, seed: int, problem: Problem, bought: np.ndarray, rounds: Sequence[int]
) -> BoughtLine:
    """The line of one arm and seed that bought the pool rows (n,), in this order."""
    origin = origin_of(problem)
    oracle, start = problem.oracle.fresh(), study.config.budget.start
    labels = oracle.buy(bought)
    names = problem.task.classes
    shown = bought[start : start + FIRST]
    return {
        **study.place._asdict(),
        **arm._asdict(),
        "seed": seed,
        "rows": origin.rows[bought].tolist(),
        "rounds": list(rounds),
        "classes": class_counts(labels, names),
        "examples": [
            [_text(problem, int(row)), names[int(label.argmax())]]
            for row, label in zip(shown, labels[start : start + FIRST], strict=True)
        ],
    }


def origin_of(problem: Problem) -> Origin:
    """Where the rows of a benchmark's pool come from."""
    if problem.origin is None:
        raise ValueError("a benchmark's pool knows where its rows come from")
    return problem.origin


def _text(problem: Problem, row: int) -> str:
    origin = origin_of(problem)
    number, split = origin.rows[row], origin.training
    return split.text[number] + (f" [SEP] {split.pair[number]}" if split.pair is not None else "")


class List(NamedTuple):
    """One line of a list of bought rows."""

    where: str
    place: Mapping[str, str]  # the columns that say which studies it is for
    arm: Arm
    seed: int
    rows: Rows


class Lists(NamedTuple):
    """All lines of all files of `bench.replay`."""

    lines: tuple[List, ...]

    def arms(self, place: Place) -> list[Arm]:
        """The arms that a study has by them."""
        return list(dict.fromkeys(line.arm for line in self._of(place)))

    def seeds(self, place: Place, arm: Arm) -> dict[int, List]:
        """Each seed's line of an arm.

        Raises:
          InputError: two lines for one seed.
        """
        found: dict[int, List] = {}
        for line in self._of(place):
            if line.arm == arm and line.seed in found:
                raise InputError(f"{line.where}: {found[line.seed].where} is for the same seed")
            if line.arm == arm:
                found[line.seed] = line
        return found

    def _of(self, place: Place) -> Iterator[List]:
        mine = place._asdict()
        for line in self.lines:
            if all(mine[name] == value for name, value in line.place.items()):
                yield line


def read_lists(plan: Plan) -> Lists:
    """The files of `bench.replay`.

    Raises:
      InputError: a file that cannot be read, or a line that is no list of bought rows.
    """
    own = plan.bench.own.partition("/")[0]
    lines = tuple(line for file in plan.bench.replay for line in _read(Path(file), own))
    for line in lines:
        if not any(True for study in plan.studies if line in Lists((line,))._of(study.place)):
            known = "; ".join(str(study.place) for study in plan.studies)
            raise InputError(f"{line.where}: for {dict(line.place)}, which is none of: {known}")
    return Lists(lines)


def with_replays(study: Study, lists: Lists) -> Study:
    """The study with the arms of the lists after its own; online has none.

    A seed that a list has no line for is left out of its arm only.
    """
    if study.place.tune != "frozen":
        return study
    return study._replace(arms=(*study.arms, *lists.arms(study.place)))


def pool_rows(ids: np.ndarray, line: List) -> list[int]:
    """The pool rows of the training rows of a list; `ids` (N,) are the training rows of a pool.

    Raises:
      InputError: a row that is not in the pool, or more often than its copies are.
    """
    places: dict[int, deque[int]] = defaultdict(deque)
    for place, row in enumerate(ids.tolist()):
        places[row].append(place)
    found = []
    for row in line.rows:
        if not places.get(row):
            raise InputError(
                f"{line.where}: training row {row} is not in the pool (any more): it is of other "
                "data, carved off for evaluation, thinned out, or stands in the list too often"
            )
        found.append(places[row].popleft())
    return found


def faults(study: Study, lists: Lists, ids: np.ndarray, kept: Mapping[Cell, Rows]) -> Iterator[str]:
    """What stands against buying a study's lists, each with its file and line.

    Args:
      study: the study.
      lists: all lists.
      ids: (N,) the training rows of its pool.
      kept: what the folder of the benchmark has bought already, by lists of the same name.
    """
    budget = study.config.budget.labels
    for arm in lists.arms(study.place) if study.place.tune == "frozen" else ():
        for line in lists.seeds(study.place, arm).values():
            if line.seed not in study.seeds:
                continue
            if len(line.rows) < budget:
                yield (
                    f"{line.where}: has {len(line.rows)} rows, {study.place} buys {budget}; set "
                    f"budget.labels to {len(line.rows)} or fewer"
                )
                continue
            try:
                pool_rows(ids, line._replace(rows=line.rows[:budget]))
            except InputError as error:
                yield str(error)
            before = kept.get(Cell(study.place, arm, line.seed))
            if before is not None and list(before) != list(line.rows[:budget]):
                yield (
                    f"{line.where}: the folder holds results of another list of this name "
                    f"({arm}, seed {line.seed}); call one of the files otherwise, or give "
                    "another --out"
                )


def _read(path: Path, own: str) -> Iterator[List]:
    try:
        texts = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); give a list of bought rows") from error
    for number, text in enumerate(texts, 1):
        if text.strip():
            yield _line(text, f"{path}, line {number}", path.stem, own)


def _line(text: str, where: str, stem: str, own: str) -> List:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise InputError(f"{where}: not JSON ({error}); write one object a line") from error
    if not isinstance(found, dict):
        raise InputError(f"{where}: found a {type(found).__name__}; write one object a line")
    for name, kind in (("task", str), ("seed", int), ("rows", list)):
        if not isinstance(found.get(name), kind):
            raise InputError(f"{where}: {name}: found {found.get(name)!r}; see the format's text")
    rows = cast(list[object], found["rows"])
    if not all(isinstance(row, int) and not isinstance(row, bool) for row in rows):
        raise InputError(f"{where}: rows: give whole numbers, those of the training rows")
    head = found.get("head", own)
    if head not in SOLVERS:
        head = own
    task, _, pool = str(found["task"]).partition(":")
    place = {name: str(found[name]) for name in Place._fields if name in found} | {"task": task}
    if pool:
        place["pool"] = pool
    rule = str(found.get("rule", stem)).removeprefix(f"{REPLAY}:")
    arm = Arm(str(head), f"{REPLAY}:{rule}")
    return List(where, place, arm, found["seed"], cast(list[int], rows))

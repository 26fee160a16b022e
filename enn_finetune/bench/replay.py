"""Lists of bought rows (see `data.bought`): what `bench` writes, and what it can buy again.

Of a line's further keys `head` (which head is trained on the rows) is otherwise the head of
`bench.own`, `rule` (what the list is called) the file's name. `pool`, `backbone`, `tune` and
`regime`, where given, say which studies the list is for. Every other key is passed over; `bench`
adds `rounds` (labels bought after each round), `classes` (labels bought of each class) and
`examples` (text and label of the first rows that the rule chose).
"""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from enn_finetune.bench.plan import REPLAY, Arm, Cell, Place, Plan, Study
from enn_finetune.data.bought import BoughtRows, pool_places, read_bought
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
    paths = [Path(file) for file in plan.bench.replay]
    lines = tuple(_list(line, path.stem, own) for path in paths for line in read_bought(path))
    frozen = [study.place for study in plan.studies if study.place.tune == "frozen"]
    for line in lines:
        if not any(list(Lists((line,))._of(place)) for place in frozen):
            known = "; ".join(map(str, frozen)) or "none in this benchmark"
            raise InputError(
                f"{line.where}: for {dict(line.place)}, which is none of the frozen studies, the "
                f"only ones that buy lists again: {known} (`train` with proxy.replay trains the "
                "whole encoder on one)"
            )
    return Lists(lines)


def with_replays(plan: Plan, lists: Lists) -> Plan:
    """The plan with the arms of the lists after the own ones of its frozen studies.

    A seed that a list has no line for is left out of its arm only.

    Raises:
      InputError: `bench.arms` names a list that no file has.
    """
    for study in plan.studies:
        given = lists.arms(study.place) if study.place.tune == "frozen" else []
        missing = [arm for arm in study.arms if arm.rule.startswith(REPLAY) and arm not in given]
        if missing:
            raise InputError(
                f"bench.arms: {missing[0]}: no list of that name for {study.place}; name its file "
                "in bench.replay (the arm then comes by itself)"
            )
    return plan._replace(
        studies=tuple(
            study._replace(arms=tuple(dict.fromkeys((*study.arms, *lists.arms(study.place)))))
            if study.place.tune == "frozen"
            else study
            for study in plan.studies
        )
    )


def pool_rows(ids: np.ndarray, line: List) -> list[int]:
    """The pool rows of the training rows of a list (see `pool_places`)."""
    return pool_places(ids, line.rows, line.where)


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


def _list(line: BoughtRows, stem: str, own: str) -> List:
    head = str(line.values.get("head", own))
    if head not in SOLVERS:
        near = difflib.get_close_matches(head, SOLVERS, n=1, cutoff=0.0)[0]
        raise InputError(
            f"{line.where}: head: found {head!r}, which names what is trained on the rows; the "
            f"nearest is {near}; without the key it is the head of bench.own, {own}"
        )
    rule = str(line.values.get("rule", stem)).removeprefix(f"{REPLAY}:")
    named = {name: str(line.values[name]) for name in Place._fields if name in line.values}
    place = named | {"task": line.task} | ({"pool": line.pool} if line.pool else {})
    return List(line.where, place, Arm(head, f"{REPLAY}:{rule}"), line.seed, line.rows)

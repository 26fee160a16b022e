"""What a study compares: courses, and the names of the arms they are recorded under."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from enn_finetune.data.oracle import Oracle
from enn_finetune.errors import InputError
from enn_finetune.records import Record

REPLAY = "replay"
NOTHING: Mapping[int, Sequence[int]] = MappingProxyType({})


class Course(NamedTuple):
    """What is compared: a rule, and the heads whose predictions are recorded on its purchases."""

    rule: str
    """A name of `acquisition.choose.NAMES`, or "replay" or "replay:NAME"."""
    heads: tuple[str, ...]
    """Names of `models.solvers.SOLVERS`. The first one feeds the rule."""
    rows: Mapping[int, Sequence[int]] = NOTHING
    """replay: each seed's pool rows in the order in which they are to be bought, from the first."""
    first: Mapping[int, Sequence[int]] = NOTHING
    """Each seed's first pool rows, `budget.start` of them; a seed without any begins uniformly."""

    @property
    def replayed(self) -> bool:
        """True where the purchases are given."""
        return self.rule.split(":")[0] == REPLAY

    @property
    def blind(self) -> bool:
        """True where the purchases do not depend on any head."""
        return self.rule == "random" or self.replayed

    def rule_of(self, head: str) -> str:
        """What records call the rule for a head: "margin@epinet" where another head fed it."""
        own = self.blind or head == self.heads[0]
        return self.rule if own else f"{self.rule}@{self.heads[0]}"


def arm(head: str, rule: str) -> str:
    """What records and tables call a head on a rule's purchases."""
    return f"{head}/{rule}"


class Outcome(NamedTuple):
    """What a course left: its records, and each seed's oracle, which knows what was bought."""

    records: list[Record]
    oracles: list[Oracle]
    rounds: tuple[int, ...] = ()
    """Labels bought in all at each fit."""

    @property
    def rows(self) -> list[list[int]]:
        """Each seed's pool rows in order of purchase."""
        return [oracle.bought.tolist() for oracle in self.oracles]


def uniform_order(rows: int, seed: int) -> np.ndarray:
    """A random order of all rows: every arm's first labels, and all those of a random arm."""
    return np.random.Generator(np.random.Philox(key=seed)).permutation(rows)


def given_orders(course: Course, seeds: Sequence[int], rows: int, labels: int) -> list[np.ndarray]:
    """The order in which each seed buys a pool of `rows` as long as no head is asked.

    Raises:
      InputError: a replay without the rows of a seed, with too few, or with rows that are not there
        or stand twice.
    """
    if not course.replayed:
        return [_begun(course, seed, rows) for seed in seeds]
    return [_replayed(course, seed, rows, labels) for seed in seeds]


def _begun(course: Course, seed: int, rows: int) -> np.ndarray:
    """The seed's first rows if it has some, the others in a random order."""
    order, first = uniform_order(rows, seed), np.asarray(course.first.get(seed, ()), np.int64)
    return np.concatenate([first, order[~np.isin(order, first)]])


def _replayed(course: Course, seed: int, rows: int, labels: int) -> np.ndarray:
    if seed not in course.rows:
        raise InputError(
            f"{course.rule}: found no rows for seed {seed}, only for "
            f"{', '.join(map(str, sorted(course.rows))) or 'none'}; give them, or leave it out"
        )
    order = np.asarray(course.rows[seed], np.int64)
    outside = order[(order < 0) | (order >= rows)]
    if len(outside):
        raise InputError(
            f"{course.rule}, seed {seed}: row {outside[0]} is not among the pool's rows 0 to "
            f"{rows - 1}; the list is of other data"
        )
    numbers, counts = np.unique(order, return_counts=True)
    if (counts > 1).any():
        raise InputError(
            f"{course.rule}, seed {seed}: row {numbers[counts > 1][0]} stands more than once; a "
            "label is bought once"
        )
    if len(order) < labels:
        raise InputError(
            f"{course.rule}, seed {seed}: found {len(order)} rows, the budget is {labels} labels; "
            f"set budget.labels to {len(order)} or fewer"
        )
    return order

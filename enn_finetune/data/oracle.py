"""The only door to training labels: it counts every distinct row whose label is read."""

import operator
from collections.abc import Sequence
from typing import NamedTuple, TypedDict

import numpy as np


class BudgetError(ValueError):
    """A purchase that the label budget does not cover; no label of it was revealed."""


class OracleState(TypedDict):
    """What a checkpoint keeps of an oracle: plain JSON, and no labels."""

    rows: int  # N
    bought: list[int]  # row ids in order of purchase


class Oracle:
    """Targets (N, C) behind a budget of distinct rows.

    A row is paid for once: to read it again is free, and the order of first purchase is kept.
    """

    def __init__(self, targets: np.ndarray, budget: int) -> None:
        if targets.ndim != 2:
            raise ValueError(f"targets have the shape (N, C), got {targets.shape}")
        if isinstance(budget, bool) or operator.index(budget) < 0:
            raise ValueError(f"a budget is a number of rows, 0 or more, got {budget!r}")
        self._targets = targets.copy()  # what the caller does to its array must not leak in
        self._budget = operator.index(budget)
        self._bought: list[int] = []
        self._owned = np.zeros(len(targets), bool)

    def __len__(self) -> int:
        """N, the rows there are."""
        return len(self._targets)

    @property
    def classes(self) -> int:
        """C."""
        return self._targets.shape[1]

    @property
    def budget(self) -> int:
        """Distinct rows that may be bought in all."""
        return self._budget

    @property
    def remaining(self) -> int:
        """Distinct rows that may still be bought."""
        return self._budget - len(self._bought)

    @property
    def bought(self) -> np.ndarray:
        """Ids (n,) int64 of the rows bought, in order of purchase."""
        return np.asarray(self._bought, np.int64)

    @property
    def owned(self) -> np.ndarray:
        """Mask (N,) of the rows bought."""
        return self._owned.copy()

    def fresh(self) -> "Oracle":
        """Another oracle for the same rows and budget, with nothing bought: one for each seed."""
        return Oracle(self._targets, self._budget)

    def cost(self, rows: np.ndarray | Sequence[int]) -> int:
        """How many distinct rows `buy(rows)` would pay for; reveals nothing."""
        return len(self._new(self._checked(rows)))

    def buy(self, rows: np.ndarray | Sequence[int]) -> np.ndarray:
        """Targets (n, C) of the rows with the ids (n,), in that order; new rows are paid for.

        Raises:
          BudgetError: the new rows are more than `remaining`; none of them is then bought.
          IndexError: an id below 0 or not below N.
          TypeError: ids that are not a one-dimensional array of integers.
        """
        rows = self._checked(rows)
        new = self._new(rows)
        if len(new) > self.remaining:
            raise BudgetError(
                f"asked for {len(new)} new labels with {len(self._bought)} of {self._budget} "
                f"bought, which leaves {self.remaining}; ask for fewer or raise budget.labels"
            )
        self._bought.extend(new.tolist())
        self._owned[new] = True
        return self._targets[rows]

    def state(self) -> OracleState:
        """What `restore` needs, as plain JSON."""
        return {"rows": len(self), "bought": list(self._bought)}

    def restore(self, state: OracleState) -> None:
        """Take over the purchases of a saved state, exactly; the budget stays this oracle's own.

        Raises:
          ValueError: a state of other data, with a row twice, or above the budget.
        """
        if state["rows"] != len(self):
            raise ValueError(
                f"the saved state counts {state['rows']} training rows and the data {len(self)}; "
                "the training data is not what the run was started on"
            )
        bought = self._checked(state["bought"])
        if len(np.unique(bought)) != len(bought):
            raise ValueError("the saved state lists a bought row twice; it is damaged")
        if len(bought) > self._budget:
            raise BudgetError(
                f"the saved state has {len(bought)} labels bought, above the budget of "
                f"{self._budget}; raise budget.labels"
            )
        self._bought = bought.tolist()
        self._owned = np.zeros(len(self), bool)
        self._owned[bought] = True

    def _checked(self, rows: np.ndarray | Sequence[int]) -> np.ndarray:
        ids = np.asarray(rows)
        if ids.ndim != 1 or (ids.size and not np.issubdtype(ids.dtype, np.integer)):
            raise TypeError(
                f"row ids are integers in one dimension, got {ids.dtype} of shape {ids.shape}"
            )
        outside = ids[(ids < 0) | (ids >= len(self))]
        if outside.size:
            raise IndexError(f"row {outside[0]} is not among the rows 0 to {len(self) - 1}")
        return ids.astype(np.int64)

    def _new(self, rows: np.ndarray) -> np.ndarray:
        """Distinct ids not owned yet, in order of first appearance."""
        fresh = rows[~self._owned[rows]]
        _, first = np.unique(fresh, return_index=True)
        return fresh[np.sort(first)]


class Carved(NamedTuple):
    """Row ids of disjoint parts that together are all the rows; each part is ascending."""

    pool: np.ndarray  # what is left
    held: tuple[np.ndarray, ...]  # the held-out parts, in the order of the sizes


def carve(rows: int, sizes: Sequence[int], seed: int) -> Carved:
    """Hold out parts of the given sizes from N rows, uniformly at random.

    The ids depend on (N, sizes, seed) alone: they are ranked by raw Philox words, whose stream
    numpy guarantees across versions, as it does not for `permutation`.

    Raises:
      ValueError: negative sizes, or sizes that leave no row for the pool.
    """
    if min(sizes, default=0) < 0 or sum(sizes) >= rows:
        raise ValueError(
            f"cannot hold out {list(sizes)} of {rows} rows; sizes are 0 or more and must leave "
            "at least one row for the pool"
        )
    order = np.argsort(np.random.Philox(seed).random_raw(rows), kind="stable")
    *held, pool = np.split(order, np.cumsum(sizes, dtype=np.int64))
    return Carved(np.sort(pool), tuple(np.sort(part) for part in held))


def class_counts(labels: np.ndarray, classes: Sequence[str]) -> dict[str, float]:
    """Labels (n, C) bought of each class, soft ones in parts, as a list of bought rows has them."""
    return {
        name: round(float(count), 3) for name, count in zip(classes, labels.sum(0), strict=True)
    }

"""The prioritised loader: which rows the next step trains on, and what that costs in labels.

Algorithm 1 of arXiv 2211.01568: draw a candidate batch, score it, train on its top rows. The loader
knows row numbers only. It serves any random-access source and any scoring function, and its whole
state is a small JSON object: restored at any step, it goes on with the same rows.
"""

import math
from collections.abc import Callable, Iterator
from typing import Literal, Protocol, TypeVar

import numpy as np

from enn_finetune.loader_state import LoaderState, check_state
from enn_finetune.shares import Shares, check_shares

Arrays_co = TypeVar("Arrays_co", covariant=True)


class Source(Protocol[Arrays_co]):
    """Random access to training inputs, without labels."""

    def __len__(self) -> int:
        """How many rows there are."""
        ...

    def __getitem__(self, rows: np.ndarray) -> Arrays_co:
        """The inputs of the given rows (n,), in that order."""
        ...


class PrioritisedLoader:
    """Candidate batches and the choice of rows from them.

    Args:
      rows: size of the training set.
      batch: rows trained on at a step (n_b).
      candidates: rows offered at a step (n_c), none of them twice.
      labels: distinct rows that may be chosen in all; None for no limit.
      start: labels bought uniformly before priorities count, rounded up to whole batches; the
        same rows for every scoring function of one seed and source.
      steps: steps after which iteration ends; None ends it when the labels are spent (or, should
        priorities keep returning to rows already bought, after 10 passes' worth of steps).
      source: "whole" draws candidates from all rows (a row bought before costs nothing when it is
        chosen again; once the budget is spent only such rows are drawn); "epoch" draws from rows
        not yet trained on in this epoch, which ends when fewer than `batch` of them are left (once
        the budget is spent, an epoch is over the rows bought).
      seed: of the candidates. Under "whole" and within the budget, those of step s depend on
        (seed, s) only, so that runs with other scoring functions are offered the same rows.
      uniform: share of what is chosen, in [0, 1], that is taken from the candidates as they come,
        whatever the priorities; where it is no whole number of rows, the right share over steps.
        Such a slice keeps every kind of row coming: a rule alone ends up below uniform selection.
      anneal: the uniform share grows linearly from `uniform` to 1 at the last of `steps`, so
        that a run ends as a uniform one does.
      revisit: share of each batch, in [0, 1), that is drawn uniformly from the rows bought before,
        whose labels are paid: labels are then bought more slowly than rows are trained on. The
        rest of the batch is chosen from as large a part of the candidates. It begins with the
        priorities, after one whole batch at the least, and wants source "whole".

    Raises:
      ValueError: numbers that do not fit together, or an unknown source.
    """

    def __init__(
        self,
        rows: int,
        *,
        batch: int,
        candidates: int,
        labels: int | None = None,
        start: int = 0,
        steps: int | None = None,
        source: Literal["whole", "epoch"] = "whole",
        seed: int = 0,
        uniform: float = 0.0,
        anneal: bool = False,
        revisit: float = 0.0,
    ):
        check_shares(uniform, revisit, anneal=anneal, steps=steps)
        if not 1 <= batch <= candidates <= rows:
            raise ValueError(
                f"expected 1 <= batch <= candidates <= rows, got {batch=} {candidates=} {rows=}"
            )
        if labels is not None and not 1 <= labels <= rows:
            raise ValueError(f"expected 1 <= labels <= rows, got {labels=} {rows=}")
        budget = rows if labels is None else labels
        if not 0 <= start <= budget:
            raise ValueError(f"expected 0 <= start <= labels, got {start=} labels={budget}")
        if source not in ("whole", "epoch"):
            raise ValueError(f"expected source whole or epoch, got {source=}")
        if revisit and source != "whole":
            raise ValueError(f"an epoch trains on no row twice: expected source whole, {revisit=}")
        passes = 10 * math.ceil(budget / (batch * (1 - revisit)))
        self._shares = Shares(batch, steps or passes, uniform, anneal, revisit)
        self._rows, self._candidates, self._limit = rows, candidates, budget
        self._source, self._seed = source, seed
        self._start = max(start, min(batch, budget)) if revisit else start
        self._ends_with_labels = steps is None
        self._step = 0
        self._bought: list[int] = []
        self._is_bought = np.zeros(rows, bool)
        self._in_epoch = np.zeros(rows, bool)

    @property
    def step(self) -> int:
        """Steps taken."""
        return self._step

    @property
    def bought(self) -> np.ndarray:
        """Distinct rows chosen so far (n,), in order of purchase."""
        return np.asarray(self._bought, np.int64)

    @property
    def labels_left(self) -> int:
        """Labels that may still be bought."""
        return max(0, self._limit - len(self._bought))

    @property
    def reads_priorities(self) -> bool:
        """False where `choose` takes the candidates as they come: scores would be wasted.

        So it is while the initial labels are bought, and where the uniform share is all.
        """
        return self._begun and self._shares.uniform_of(self._step) < self._chosen_rows()

    @property
    def offered(self) -> int:
        """The most candidates that priorities are asked for at a step."""
        return math.ceil(self._candidates * (1 - self._shares.revisit))

    @property
    def _begun(self) -> bool:
        """True when the initial labels are bought."""
        return len(self._bought) >= self._start

    @property
    def finished(self) -> bool:
        """True when a budget is spent."""
        spent = self._ends_with_labels and self.labels_left == 0
        return spent or self._step >= self._shares.steps

    def candidates(self) -> np.ndarray:
        """The candidate rows (N,) of this step, distinct, in random order; the same if asked again.

        N is smaller than asked for only where fewer rows are left to draw from.
        """
        philox = np.random.Philox(key=self._seed, counter=[0, 0, 0, self._step])
        generator = np.random.Generator(philox)
        if self._source == "whole" and self.labels_left > 0:
            drawn = generator.choice(self._rows, self._candidates, replace=False)
        else:
            pool = np.flatnonzero(self._drawable())
            drawn = generator.choice(pool, min(self._candidates, len(pool)), replace=False)
        return drawn[: self.offered] if self._begun else drawn

    def _revisited_rows(self) -> int:
        """How many rows of this step's batch are of those bought before."""
        return min(self._shares.revisited(self._step), len(self._bought)) if self._begun else 0

    def _chosen_rows(self) -> int:
        """How many rows of this step's batch are chosen from the candidates."""
        return self._shares.batch - self._revisited_rows()

    def _revisited(self) -> np.ndarray:
        """Rows (n,) bought before that this step trains on again, distinct, drawn uniformly."""
        count = self._revisited_rows()
        if count == 0:
            return np.zeros(0, np.int64)
        philox = np.random.Philox(key=self._seed, counter=[0, 0, 1, self._step])
        return np.random.Generator(philox).choice(self.bought, count, replace=False)

    def _begin_epoch_if_over(self) -> None:
        if self._drawable().sum() < self._shares.batch:
            self._in_epoch[:] = False

    def _drawable(self) -> np.ndarray:
        """Flags (rows,) of the rows that candidates may come from."""
        affordable = self._is_bought if self.labels_left == 0 else np.ones(self._rows, bool)
        return affordable & ~self._in_epoch

    def choose(
        self,
        candidates: np.ndarray,
        priorities: np.ndarray | None = None,
        wanted: np.ndarray | None = None,
    ) -> np.ndarray:
        """Take the step: the rows (n,) to train on; new ones are bought.

        First the uniform share, which is the same rows under every scoring function, then the
        others, best first, then what is revisited.

        Args:
          candidates: (N,) what `candidates` returned.
          priorities: (N,) larger first, ties in candidate order; None takes all rows as they
            come, which is uniform selection.
          wanted: (N,) False leaves a row out, but for the uniform share; None takes all.

        Returns:
          At most `batch` rows; fewer, or none, when the label budget does not reach, rows are
          left out, or candidates barely enough are among those revisited.

        Raises:
          ValueError: priorities that are not finite, or not one for each candidate.
        """
        candidates = np.asarray(candidates)
        order = np.arange(len(candidates))
        if priorities is not None:
            priorities = np.asarray(priorities, np.float64)  # unsigned numbers have no minus
            if priorities.shape != candidates.shape:
                raise ValueError(
                    f"expected one priority for each of {len(candidates)} candidates, "
                    f"got shape {priorities.shape}"
                )
            if not np.isfinite(priorities).all():
                bad = candidates[~np.isfinite(priorities)]
                raise ValueError(f"priorities of rows {bad[:5].tolist()} are not finite")
            if self.reads_priorities:
                first = self._shares.uniform_of(self._step)
                order[first:] = first + np.argsort(-priorities[first:], kind="stable")
        if wanted is not None and self.reads_priorities:
            order = order[np.asarray(wanted)[order] | (order < self._shares.uniform_of(self._step))]
        again = self._revisited()
        rows = candidates[order]
        rows = rows[~np.isin(rows, again)]
        new = ~self._is_bought[rows]
        rows = rows[~new | (np.cumsum(new) <= self.labels_left)][: self._chosen_rows()]
        fresh = rows[~self._is_bought[rows]]
        self._bought.extend(fresh.tolist())
        self._is_bought[fresh] = True
        if self._source == "epoch":
            self._in_epoch[rows] = True
            self._begin_epoch_if_over()
        self._step += 1
        return np.concatenate([rows, again])

    def batches(
        self, source: Source[Arrays_co], score: Callable[[Arrays_co], np.ndarray]
    ) -> Iterator[tuple[np.ndarray, Arrays_co]]:
        """Iterate over (rows, their inputs) until a budget is spent, scoring the candidates.

        Steps that are uniform anyway, those of the initial labels first, are not scored.
        """
        while not self.finished:
            candidates = self.candidates()
            priorities = None
            if self.reads_priorities:
                priorities = np.asarray(score(source[candidates]))
            rows = self.choose(candidates, priorities)
            yield rows, source[rows]

    def state(self) -> LoaderState:
        """Everything that is needed to go on from here, as plain JSON."""
        return {
            "rows": self._rows,
            "batch": self._shares.batch,
            "candidates": self._candidates,
            "source": self._source,
            "seed": self._seed,
            "uniform": self._shares.uniform,
            "anneal": self._shares.anneal,
            "revisit": self._shares.revisit,
            "step": self._step,
            "bought": list(self._bought),
            "epoch": np.flatnonzero(self._in_epoch).tolist(),
        }

    def restore(self, state: LoaderState) -> None:
        """Go on from a saved state.

        The budgets may differ from the saved run's: a longer run goes on from a shorter one (and
        anneals, from there on, towards its own end).

        Raises:
          ValueError: the state is damaged, or is of a loader with other settings; all differences
            are listed, and this loader is left as it was.
        """
        check_state(state, self.state())
        self._step, self._bought = state["step"], list(state["bought"])
        for flags, rows in ((self._is_bought, state["bought"]), (self._in_epoch, state["epoch"])):
            flags[:] = False
            flags[np.asarray(rows, np.int64)] = True
        self._begin_epoch_if_over()  # it is, where the budget is smaller than the saved run's

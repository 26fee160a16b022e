"""The prioritised loader: which rows the next step trains on, and what that costs in labels.

Algorithm 1 of arXiv 2211.01568: draw a candidate batch, score it, train on its top rows. The loader
knows row numbers only. It serves any random-access source and any scoring function, and its whole
state is a small JSON object: restored at any step, it goes on with the same rows.
"""

from collections.abc import Callable, Iterator
from typing import Literal, Protocol, TypedDict, TypeVar

import numpy as np

Arrays_co = TypeVar("Arrays_co", covariant=True)


class Source(Protocol[Arrays_co]):
    """Random access to training inputs, without labels."""

    def __len__(self) -> int:
        """How many rows there are."""
        ...

    def __getitem__(self, rows: np.ndarray) -> Arrays_co:
        """The inputs of the given rows (n,), in that order."""
        ...


class LoaderState(TypedDict):
    """What `PrioritisedLoader.state` returns: plain JSON."""

    rows: int
    batch: int
    candidates: int
    source: str
    seed: int
    uniform: float
    anneal: bool
    step: int
    bought: list[int]
    epoch: list[int]


class PrioritisedLoader:
    """Candidate batches and the choice of rows from them.

    Args:
      rows: size of the training set.
      batch: rows trained on at a step (n_b).
      candidates: rows offered at a step (n_c), none of them twice.
      labels: distinct rows that may be chosen in all; None for no limit.
      start: labels bought uniformly before priorities count, rounded up to whole batches; the
        same rows for every scoring function of one seed.
      steps: steps after which iteration ends; None ends it when the labels are spent (or, should
        priorities keep returning to rows already bought, after 10 passes' worth of steps).
      source: "whole" draws candidates from all rows (a row bought before costs nothing when it is
        chosen again; once the budget is spent only such rows are drawn); "epoch" draws from rows
        not yet trained on in this epoch, which ends when fewer than `batch` of them are left (once
        the budget is spent, an epoch is over the rows bought).
      seed: of the candidates. Under "whole" and within the budget, those of step s depend on
        (seed, s) only, so that runs with other scoring functions are offered the same rows.
      uniform: share of each batch, in [0, 1], that is taken from the candidates as they come,
        whatever the priorities; where it is no whole number of rows, the right share over steps.
        Such a slice keeps every kind of row coming: a rule alone ends up below uniform selection.
      anneal: the uniform share grows linearly from `uniform` to 1 at the last of `steps`, so
        that a run ends as a uniform one does.

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
    ):
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
        if not 0 <= uniform <= 1:
            raise ValueError(f"expected 0 <= uniform <= 1, got {uniform=}")
        if anneal and steps is None:
            raise ValueError("annealing ends at the last step: give steps")
        self._rows, self._batch, self._candidates = rows, batch, candidates
        self._uniform, self._anneal = uniform, anneal
        self._limit, self._start, self._source, self._seed = budget, start, source, seed
        self._steps = steps if steps is not None else 10 * -(-budget // batch)
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
        return len(self._bought) >= self._start and self._uniform_rows() < self._batch

    @property
    def finished(self) -> bool:
        """True when a budget is spent."""
        return self._step >= self._steps or (self._ends_with_labels and self.labels_left == 0)

    def candidates(self) -> np.ndarray:
        """The candidate rows (N,) of this step, distinct, in random order; the same if asked again.

        N is smaller than asked for only where fewer rows are left to draw from.
        """
        philox = np.random.Philox(key=self._seed, counter=[0, 0, 0, self._step])
        generator = np.random.Generator(philox)
        if self._source == "whole" and self.labels_left > 0:
            return generator.choice(self._rows, self._candidates, replace=False)
        pool = np.flatnonzero(self._drawable())
        return generator.choice(pool, min(self._candidates, len(pool)), replace=False)

    def _uniform_rows(self) -> int:
        """How many rows of this step's batch are taken as the candidates come."""
        return self._uniform_rows_before(self._step + 1) - self._uniform_rows_before(self._step)

    def _uniform_rows_before(self, step: int) -> int:
        """Uniform rows of all steps before `step`: the integral of the share, rounded down."""
        within, share = min(step, self._steps), self._uniform * step
        if self._anneal:
            share += (1 - self._uniform) * (within**2 / (2 * self._steps) + step - within)
        return int(self._batch * share + 1e-6)  # products like 10 * 0.7 may fall short of whole

    def _begin_epoch_if_over(self) -> None:
        if self._drawable().sum() < self._batch:
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
        others, best first.

        Args:
          candidates: (N,) what `candidates` returned.
          priorities: (N,) larger first, ties in candidate order; None takes all rows as they
            come, which is uniform selection.
          wanted: (N,) False leaves a row out, but for the uniform share; None takes all.

        Returns:
          At most `batch` rows; fewer, or none, when the label budget does not reach or rows are
          left out.

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
                first = self._uniform_rows()
                order[first:] = first + np.argsort(-priorities[first:], kind="stable")
        if wanted is not None and self.reads_priorities:
            order = order[np.asarray(wanted)[order] | (order < self._uniform_rows())]
        rows = candidates[order]
        new = ~self._is_bought[rows]
        rows = rows[~new | (np.cumsum(new) <= self.labels_left)][: self._batch]
        fresh = rows[~self._is_bought[rows]]
        self._bought.extend(fresh.tolist())
        self._is_bought[fresh] = True
        if self._source == "epoch":
            self._in_epoch[rows] = True
            self._begin_epoch_if_over()
        self._step += 1
        return rows

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
            "batch": self._batch,
            "candidates": self._candidates,
            "source": self._source,
            "seed": self._seed,
            "uniform": self._uniform,
            "anneal": self._anneal,
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
        mine = self.state()
        missing = sorted(mine.keys() - state.keys())
        if missing:
            raise ValueError(f"the saved state is damaged: it lacks {', '.join(missing)}")
        settings = ("rows", "batch", "candidates", "source", "seed", "uniform", "anneal")
        wrong = [
            f"{name}: saved {state[name]!r}, here {mine[name]!r}"  # type: ignore[literal-required]
            for name in settings
            if state[name] != mine[name]  # type: ignore[literal-required]
        ]
        if wrong:
            raise ValueError("the saved state is of another loader: " + "; ".join(wrong))
        for name, rows in (("bought", state["bought"]), ("epoch", state["epoch"])):
            if len(set(rows)) < len(rows) or not set(rows) <= set(range(self._rows)):
                raise ValueError(
                    f"the saved state is damaged: {name} does not list distinct rows "
                    f"below {self._rows}"
                )
        self._step, self._bought = state["step"], list(state["bought"])
        for flags, rows in ((self._is_bought, state["bought"]), (self._in_epoch, state["epoch"])):
            flags[:] = False
            flags[np.asarray(rows, np.int64)] = True
        self._begin_epoch_if_over()  # it is, where the budget is smaller than the saved run's

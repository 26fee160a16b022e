"""A course: rounds of fitting, recording and buying, with all seeds of an arm side by side."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax import Array

from enn_finetune.acquisition.choose import NAMES
from enn_finetune.config import Config
from enn_finetune.costs import Work
from enn_finetune.data.oracle import Oracle
from enn_finetune.models.solvers import SOLVERS, Solver
from enn_finetune.problem import Problem
from enn_finetune.records import Record
from enn_finetune.study.arms import Course, Outcome, given_orders
from enn_finetune.study.choosing import choose_all, choosing
from enn_finetune.study.ground import Ground, shaping
from enn_finetune.study.heads import (
    averaging,
    fit_all,
    fitting,
    predict_all,
    predicting,
    thresholds_all,
)
from enn_finetune.study.programs import Workers
from enn_finetune.study.recording import Spent, scored


def run_course(
    course: Course,
    problem: Problem,
    config: Config,
    seeds: Sequence[int],
    progress: Callable[[int], None] | None = None,
    *,
    ground: Ground | None = None,
) -> Outcome:
    """Buy `budget.labels` by one rule with every seed, in the rounds of `budget.rounds`.

    What a seed buys and is scored does not depend on the other seeds. A KeyboardInterrupt is raised
    when the seeds under way have finished the step they are in; nothing is kept then.

    Args:
      course: takes the place of the config's rule and head.
      problem: its pool and evaluation splits are features (`backbone.tune` = frozen).
      config: budget and indices; its seed is not used.
      seeds: one run each, distinct.
      progress: told the labels bought by each seed so far, after every round.
      ground: of this problem, from an earlier course or `Ground(problem)`; it saves a course the
        shaping of the pool.

    Raises:
      ValueError: no seeds, or one twice; a head or rule that is not known; a share of candidates,
        which single runs have and studies have not.
      InputError: a replay whose rows do not fit the pool, the seeds or the budget.
    """
    _check(course, seeds)
    if config.acquisition.candidates_share < 1:
        raise ValueError("acquisition.candidates_share: a study scores the whole pool; set it to 1")
    run = _Run(course, config, seeds, ground or Ground(problem))
    rounds = config.budget.rounds
    with Workers(len(seeds)) as work:
        for number, labels in enumerate(rounds):
            run.buy(labels, number - 1, work)
            run.fit_and_record(number, work)
            if progress is not None:
                progress(labels)
    return Outcome(run.records, run.oracles, rounds)


def forget_programs() -> None:
    """Give back the memory of all compiled programs: between studies, whose shapes differ.

    A program on a CPU takes memory maps by the dozen, and a process may have 65,530 of them: some
    eighty arms over seven tasks. Programs of shapes that return come back from jax's cache on disk.
    """
    for made in (fitting, predicting, averaging, choosing, shaping):
        made.cache_clear()
    jax.clear_caches()


class _Run:
    """The seeds of a course between rounds."""

    def __init__(
        self, course: Course, config: Config, seeds: Sequence[int], ground: Ground
    ) -> None:
        self.course, self.config, self.seeds, self.ground = course, config, seeds, ground
        self.began = time.monotonic()
        self.records: list[Record] = []
        self.oracles: list[Oracle] = [ground.problem.oracle.fresh() for _ in seeds]
        self.orders = given_orders(course, seeds, len(self.oracles[0]), config.budget.labels)
        self.fits: dict[Solver, list[Any]] = {}
        self.scoring, self.training = Work(), {solver: Work() for solver in self._solvers()}

    def buy(self, labels: int, number: int, work: Workers) -> None:
        """Buy up to `labels` with each seed: as given, or as the fits of round `number` say."""
        count = labels - len(self.oracles[0].bought)
        orders = self.orders
        if number >= 0 and not self.course.blind:
            solving = SOLVERS[self.course.heads[0]]
            orders, cost = choose_all(
                solving.make,
                self.fits[solving.fit],
                self.ground,
                self.oracles,
                self._keys(number),
                work,
                rule=self.course.rule,
                count=self.config.budget.programmed(count),
                indices=self.config.acquisition.indices,
            )
            self.scoring = self.scoring.plus(cost)
        for oracle, order in zip(self.oracles, orders, strict=True):
            oracle.buy(order[~oracle.owned[order]][:count])

    def fit_and_record(self, number: int, work: Workers) -> None:
        """Fit every head to what each seed bought, and score it on every evaluation split."""
        keys = self._keys(number)
        for solver in self.training:
            self.fits[solver], cost = fit_all(solver, self.ground, self.oracles, keys, work)
            # Where no fit chooses, those before the last one only draw the curve.
            earlier = Work() if self.course.blind else self.training[solver]
            self.training[solver] = earlier.plus(cost)
        for head in self.course.heads:
            solving, indices = SOLVERS[head], self.config.evaluation.indices
            fits = self.fits[solving.fit]
            predicted = predict_all(solving.make, fits, self.ground, keys, indices, work)
            decided = thresholds_all(solving.make, fits, self.ground, keys, indices, work)
            spent = Spent(
                (time.monotonic() - self.began) / len(self.seeds),
                self._encoding(head),
                self.scoring,
                self.training[solving.fit],
            )
            self.records += scored(
                self.course, head, self.ground.problem, self.seeds, number,
                self.oracles, predicted, decided, spent, work,
            )  # fmt: skip

    def _encoding(self, head: str) -> Work:
        """Of the pool; of the rows bought alone where neither rule nor head looks at others.

        The regression centres rows by the pool's mean, for which those bought would do.
        """
        problem = self.ground.problem
        if (self.course.rule, head) != ("random", "linear"):
            return problem.encoding
        shares = [problem.share(oracle.bought) for oracle in self.oracles]
        return problem.encoding.times(float(np.mean(shares)))

    def _solvers(self) -> list[Solver]:
        return list(dict.fromkeys(SOLVERS[head].fit for head in self.course.heads))

    def _keys(self, number: int) -> list[Array]:
        """Each seed's randomness of a round, the same under every rule."""
        return [jax.random.fold_in(jax.random.key(seed), number) for seed in self.seeds]


def _check(course: Course, seeds: Sequence[int]) -> None:
    if not len(seeds) or len(np.unique(seeds)) < len(seeds):
        raise ValueError(f"seeds must be distinct and at least one, got {list(seeds)}")
    if not course.heads:
        raise ValueError(f"{course.rule}: give at least one head")
    if not course.blind and course.rule not in NAMES:
        raise ValueError(f"rule {course.rule!r} is not known; use one of {', '.join(NAMES)}")
    for head in course.heads:
        if head not in SOLVERS:
            raise ValueError(f"head {head!r} is not known; use one of {', '.join(SOLVERS)}")

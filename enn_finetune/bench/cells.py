"""Running one arm: all missing seeds side by side on frozen features, or one seed of a trained one.

Both go through the code that single runs and the demo use.
"""

import math
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
from flax import nnx

from enn_finetune import online, policies, pool
from enn_finetune.bench import replay
from enn_finetune.bench.plan import Arm, Study, config_of
from enn_finetune.config import Config, proxied
from enn_finetune.data.inputs import TokenRows
from enn_finetune.problem import Problem
from enn_finetune.progress import Display
from enn_finetune.records import Record
from enn_finetune.session import Session
from enn_finetune.study import Course, Ground, run_course


class Results(NamedTuple):
    """What an arm leaves: its records, and a list of bought rows for each seed."""

    records: list[Record]
    bought: list[replay.BoughtLine]


def frozen(
    study: Study,
    arm: Arm,
    seeds: Sequence[int],
    problem: Problem,
    ground: Ground,
    lists: replay.Lists,
    progress: Callable[[int], None],
) -> Results:
    """All the given seeds of an arm, in the same compiled programs.

    Raises:
      InputError: a list of bought rows that does not fit the pool.
    """
    course = Course(arm.rule, (arm.head,))
    if course.replayed:
        given, ids = lists.seeds(study.place, arm), replay.origin_of(problem).rows
        course = course._replace(rows={seed: replay.pool_rows(ids, given[seed]) for seed in seeds})
    found = run_course(course, problem, study.config, seeds, progress, ground=ground)
    bought = [
        replay.bought_line(study, arm, seed, problem, oracle.bought, found.rounds)
        for seed, oracle in zip(seeds, found.oracles, strict=True)
    ]
    return Results([_named(record, study, arm) for record in found.records], bought)


def trained(
    study: Study, arm: Arm, seed: int, problem: Problem, display: Display, cells: Path
) -> Results:
    """One seed of an arm whose encoder is trained; it goes on from its last checkpoint, if any.

    Raises:
      RunStoppedError: a signal came; the checkpoint is saved.
    """
    config = config_of(study, arm, seed)
    problem = problem._replace(oracle=problem.oracle.fresh())
    folder = cells / cell_name(study, arm, seed)
    folder.mkdir(parents=True, exist_ok=True)
    session = Session(folder, config, display, problem.fingerprint, resume=True)
    run = online.run if config.regime == "online" else pool.run
    (policies.run if proxied(config) else run)(problem, config, session)
    bought = problem.oracle.bought
    rounds = sorted({record["labels_bought"] for record in session.records.records})
    if config.regime == "pool":
        rounds = list(config.budget.rounds)
    costs = Costs(problem, config)
    lines = [
        Record(**{**costs.of(record), **record, "head": arm.head, "rule": arm.rule, "seed": seed})  # type: ignore[typeddict-item]
        for record in session.records.records
    ]
    return Results(
        [_named(record, study, arm) for record in lines],
        [replay.bought_line(study, arm, seed, problem, bought, rounds)],
    )


def clean(study: Study, arm: Arm, seed: int, cells: Path) -> None:
    """Remove the checkpoint of a seed whose results are kept."""
    shutil.rmtree(cells / cell_name(study, arm, seed), ignore_errors=True)


def cell_name(study: Study, arm: Arm, seed: int) -> str:
    """The folder of one seed of a trained arm."""
    parts = (*study.place, *arm, str(seed))
    return "--".join(re.sub(r"[^\w.-]", "_", part) for part in parts)


def _named(record: Record, study: Study, arm: Arm) -> Record:
    """A record with the columns of its study before all others."""
    rest = {name: value for name, value in record.items() if name != "arm"}
    return Record(**{**study.place._asdict(), **arm._asdict(), **rest})  # type: ignore[typeddict-item]


class Costs:
    """Floating-point operations of a trained run, estimated from its sizes.

    2 a parameter and token forwards, three times that for a training step (Kaplan et al. 2020,
    arXiv 2001.08361, section 2.1); embeddings and attention scores, a few per cent, are left out.
    """

    def __init__(self, problem: Problem, config: Config) -> None:
        self._config, self._rows = config, len(problem.pool)
        bert = problem.encoder.bert
        sizes = [leaf.size for leaf in jax.tree.leaves(nnx.state(bert.layers, nnx.Param))]
        tokens = 1.0
        if isinstance(problem.pool, TokenRows):
            tokens = float(problem.pool.ragged.lengths.mean())
        self._row = 2.0 * sum(sizes) * tokens

    def of(self, record: Record) -> dict[str, dict[str, float]]:
        """The columns `scoring` and `training` of a record: operations so far."""
        trained, scored = (
            self._online(record["step"])
            if self._config.regime == "online"
            else self._pool(record["step"])
        )
        if self._config.acquisition.rule == "random":
            scored = 0
        return {
            "scoring": {"flops": float(round(scored * self._row))},
            "training": {"flops": float(round(3 * trained * self._row))},
        }

    def _online(self, step: int) -> tuple[float, float]:
        """Rows trained on and rows scored by this step."""
        batch = self._config.train.batch
        first = -(-self._config.budget.start // batch)  # steps that no rule chooses for
        return step * batch, max(0, step - first) * batch * self._config.acquisition.candidates

    def _pool(self, number: int) -> tuple[float, float]:
        """Rows trained on and rows scored when the fit of this round is done."""
        train, labels = self._config.train, self._config.budget.rounds[: number + 1]
        steps = [max(train.min_steps, -(-train.epochs * n // train.batch)) for n in labels]
        left = [self._rows - n for n in labels[:-1]]
        share = self._config.acquisition.candidates_share
        if share < 1:  # from the second time on, those that past scores name
            left = [*left[:1], *(min(n, math.ceil(share * self._rows)) for n in left[1:])]
        if self._config.acquisition.rule == "random":  # earlier fits only draw the curve
            steps = steps[-1:]
        return sum(steps) * train.batch, sum(left)

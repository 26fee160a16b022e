"""Run what is missing of a benchmark, cell by cell, and report on it."""

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from enn_finetune.bench import cells, replay
from enn_finetune.bench.jobs import OneGround, Outcome, in_turn, progress_of
from enn_finetune.bench.material import Library, check_all
from enn_finetune.bench.plan import REPLAY, Arm, Cell, Plan, Study, plan
from enn_finetune.bench.store import Store, check, open_store
from enn_finetune.config import BenchFile, PlainDict
from enn_finetune.config.rules import pays_no_heed
from enn_finetune.errors import InputError
from enn_finetune.problem import Problem
from enn_finetune.progress import Display
from enn_finetune.records import Record, commit
from enn_finetune.sittings import stoppable

CELLS = "cells"  # checkpoints of trained cells under way


class Job(NamedTuple):
    """What is run at once: all missing seeds of a frozen arm, or one seed of a trained one."""

    study: Study
    arm: Arm
    seeds: tuple[int, ...]

    @property
    def weight(self) -> float:
        """Size, to guess the time left from the time of jobs that are done."""
        return len(self.seeds) * self.study.config.budget.labels

    def __str__(self) -> str:
        which = f"seed {self.seeds[0]}" if len(self.seeds) == 1 else f"{len(self.seeds)} seeds"
        return f"{self.study.place} · {self.arm} · {which}"


class CellDisplay(Display):
    """Scores of single evaluations are shown beside the bar only."""

    def score(self, record: Record, metric: str) -> None:
        """Nothing on a line of its own."""


def run(
    file: BenchFile, out: Path, *, resume: bool = False, command: str = "", quiet: bool = False
) -> Outcome:
    """Run every cell of a benchmark that has no complete results in the folder.

    Raises:
      InputError: names, data, encoders, budgets or lists of bought rows that cannot be used, or a
        folder of another benchmark; nothing is run then, and nothing written.
      RunStoppedError: a signal came; what is complete is kept.
    """
    wanted = plan(file)
    lists = replay.read_lists(wanted)
    wanted = replay.with_replays(wanted, lists)
    check(out, wanted, resume=resume)
    with CellDisplay(quiet=quiet) as display:
        library = Library(display)
        ready = check_all(wanted, library, display.say)
        for warning in _warnings(ready):
            display.say(f"warning: {warning}")
        if lists.lines:
            _check_lists(ready, lists, library, Store(out).bought())
        with open_store(out, wanted, resume=resume) as store:
            store.rename(wanted.bench.baseline, wanted.bench.own)
            jobs = list(_jobs(ready, store, lists))
            others = [one for one in store.commits() if one != commit()]
            if jobs and others:
                display.say(
                    f"warning: {out} holds results of commit {', '.join(others)}, and what is run "
                    f"now is of {commit()}: arms of one study may differ in more than their rules"
                )
            with stoppable(out, command):
                return _Runner(wanted, store, library, lists, display, command).run(jobs)


def _warnings(studies: tuple[Study, ...]) -> list[str]:
    """What does not stand in the way of a benchmark and may not be what was meant, each once."""
    told = [study for study in studies if study.config.acquisition.targets]
    names = dict.fromkeys(arm.chooses for study in told for arm in study.arms)
    heedless = pays_no_heed([name for name in names if not name.startswith(REPLAY)])
    return [heedless] if heedless else []


def _check_lists(
    studies: tuple[Study, ...],
    lists: replay.Lists,
    library: Library,
    kept: Mapping[Cell, replay.Rows],
) -> None:
    """Refuse lists that cannot be bought, before any work starts; all faults at once."""
    faults = [
        fault
        for study in studies
        for fault in replay.faults(study, lists, library.material(study).selection.pool, kept)
    ]
    if faults:
        raise InputError("bench.replay:\n  " + "\n  ".join(faults))


def _jobs(studies: tuple[Study, ...], store: Store, lists: replay.Lists) -> Iterator[Job]:
    for study in studies:
        frozen = study.place.tune == "frozen"
        arms = [(arm, store.missing(study, arm)) for arm in study.arms]
        if not frozen:  # all arms of a seed, then the next seed: what is there is always paired
            for seed in study.seeds:
                yield from (Job(study, arm, (seed,)) for arm, seeds in arms if seed in seeds)
            continue
        for arm, seeds in arms:
            if arm.rule.startswith(REPLAY):
                given = lists.seeds(study.place, arm)
                chosen = tuple(seed for seed in seeds if seed in given)
            else:
                chosen = tuple(seeds)
            if chosen:
                yield Job(study, arm, chosen)


class _Runner:
    """The jobs of one call."""

    def __init__(
        self,
        wanted: Plan,
        store: Store,
        library: Library,
        lists: replay.Lists,
        display: Display,
        command: str,
    ) -> None:
        self._plan, self._store, self._library = wanted, store, library
        self._lists, self._display, self._command = lists, display, command
        self._ground_of = OneGround()

    def run(self, jobs: list[Job]) -> Outcome:
        """All of them in order; one that fails does not stop the others."""
        return in_turn(jobs, self._job, self._store, self._display)

    def _job(self, job: Job) -> None:
        study, began = job.study, time.monotonic()
        problem = self._library.problem(study)
        self._store.check_data(study.place, problem.fingerprint)
        self._describe(study, problem, 0.0)
        self._display.begin(str(job), study.config.budget.labels)
        folder = self._store.folder / CELLS
        if study.place.tune == "frozen":
            found = cells.frozen(
                study,
                job.arm,
                job.seeds,
                problem,
                self._ground_of(problem),
                self._lists,
                self._display.advance,
            )
        else:
            found = cells.trained(study, job.arm, job.seeds[0], problem, self._display, folder)
        self._store.add(study.place, job.arm, job.seeds, found.records, found.bought)
        for seed in job.seeds:
            cells.clean(study, job.arm, seed, folder)
        self._describe(study, problem, time.monotonic() - began)

    def _describe(self, study: Study, problem: Problem, seconds: float) -> None:
        """Bring a study's entry of studies.json up to date."""
        ran = progress_of(self._store, study.place, self._command, seconds)
        self._store.describe(study.place, {**entry(study, problem, self._plan), **ran})


def entry(study: Study, problem: Problem, wanted: Plan) -> PlainDict:
    """What studies.json says of a study, but for what has been run of it."""
    budget, online = study.config.budget, study.place.regime == "online"
    rounds: PlainDict = {} if online else {"rounds": list(budget.rounds)}
    return {
        "metric": problem.task.metrics[0],
        "classes": list(problem.task.classes),
        "config_hash": study.config.hash,
        "data_fingerprint": problem.fingerprint,
        "budget": {"labels": budget.labels, "start": budget.start, **rounds},
        "pool_rows": len(problem.pool),
        "splits": {part.name: len(part.rows) for part in problem.evaluations},
        "baseline": wanted.bench.baseline,
        "own": wanted.bench.own,
        "config": study.config.tree,
    }

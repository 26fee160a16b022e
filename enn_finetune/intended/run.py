"""Run what is missing of the studies of an intended task, cell by cell."""

import dataclasses
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, cast

from enn_finetune.bench.cells import clean
from enn_finetune.bench.jobs import OneGround, Outcome, in_turn, progress_of
from enn_finetune.bench.plan import Arm, Plan
from enn_finetune.bench.run import CELLS, CellDisplay
from enn_finetune.bench.store import STUDIES, Store, check, open_store
from enn_finetune.config import ConfigError, IntendedConfig, IntendedFile, PlainDict
from enn_finetune.intended import cells
from enn_finetune.intended.material import (
    SETTINGS,
    Checked,
    Library,
    check_all,
    fingerprint_of,
)
from enn_finetune.intended.plan import FRESH, Intended, Wanted, plan
from enn_finetune.problem import Problem
from enn_finetune.progress import Display
from enn_finetune.sittings import stoppable

# Of an entry of studies.json:
INITIALISATION = "initialisation"  # the seed of its fresh weights
LEFT_OUT = "left_out"  # tasks and encoders that no place had when the study last ran, and why


class Job(NamedTuple):
    """What is run at once: all missing seeds of a frozen arm, or one seed of a trained one."""

    one: Intended
    arm: Arm
    seeds: tuple[int, ...]

    @property
    def weight(self) -> float:
        """Size, to guess the time left: a trained seed takes some fifty times a frozen one."""
        dear = 1 if self.one.regime == "frozen" else 50
        return dear * len(self.seeds) * self.one.study.config.budget.labels

    def __str__(self) -> str:
        place = self.one.study.place
        which = f"seed {self.seeds[0]}" if len(self.seeds) == 1 else f"{len(self.seeds)} seeds"
        return f"{place.task} · {place.backbone} · {self.one.regime} · {self.arm} · {which}"


def run(
    file: IntendedFile, out: Path, *, resume: bool = False, command: str = "", quiet: bool = False
) -> Outcome:
    """Run every cell that has no complete results in the folder.

    Raises:
      InputError: names, rows, encoders or budgets that cannot be used, or a folder of another
        study; nothing is run then, and nothing written.
      RunStoppedError: a signal came; what is complete is kept.
    """
    wanted = plan(file)
    bench = Plan(wanted.bench, tuple(one.study for one in wanted.studies))
    check(out, bench, resume=resume)
    _check_settings(out, wanted)
    with CellDisplay(quiet=quiet) as display:
        library = Library(wanted, display)
        checked = check_all(wanted, library, display)
        _check_rows(out, checked.ready, library)
        kept = bench._replace(studies=tuple(one.study for one in checked.ready))
        with open_store(out, kept, resume=resume) as store, stoppable(out, command):
            return _Runner(wanted, store, library, display, command).run(checked)


def settings_of(one: Intended) -> PlainDict:
    """What studies.json says of how a study's rows were chosen and split."""
    task = dataclasses.asdict(one.task)
    return cast(PlainDict, json.loads(json.dumps(task)))


def initialisation_of(one: Intended, settings: IntendedConfig) -> int | None:
    """What studies.json says of a study's fresh weights; None where they are pretrained."""
    return settings.initialisation if one.weights == FRESH else None


def _check_settings(out: Path, wanted: Wanted) -> None:
    """Refuse to add to figures of another split, or of other fresh weights."""
    if not (out / STUDIES).exists():
        return
    store = Store(out)
    faults = []
    for one in wanted.studies:
        entry = store.studies.get(one.study.place)
        if entry is None:
            continue
        seed = initialisation_of(one, wanted.settings)
        # An entry without it is from before it was kept: taken to be the default's.
        first = entry.get(INITIALISATION, None if seed is None else IntendedConfig.initialisation)
        if first != seed:
            faults.append(
                f"{one.study.place}: intended.{INITIALISATION}: was {first!r}, is {seed!r}"
            )
        before = entry.get(SETTINGS)
        if not isinstance(before, dict):
            continue
        faults += [
            f"{one.study.place}: task.{name}: was {before.get(name)!r}, is {value!r}"
            for name, value in settings_of(one).items()
            if name != "data" and before.get(name) != value  # places may differ, rows may not
        ]
    if faults:
        raise ConfigError(
            f"{out} holds a study of other settings:\n  "
            + "\n  ".join(faults)
            + "\ngo on with the same ones, or give another --out"
        )


def _check_rows(out: Path, ready: Sequence[Intended], library: Library) -> None:
    """Refuse to add to figures of other rows, or to show them as those of the rows given now."""
    if not (out / STUDIES).exists():
        return
    store = Store(out)
    faults: dict[str, None] = {}
    for one in ready:
        before = store.studies.get(one.study.place, {}).get("data_fingerprint")
        found = fingerprint_of(library.drawn(one), one)
        if before not in (None, found):
            faults[f"{one.task.name}: the fingerprint was {before}, is {found}"] = None
    if faults:
        raise ConfigError(
            f"{out} holds a study of other rows:\n  "
            + "\n  ".join(faults)
            + "\nput the rows back as they were, or give another --out"
        )


def _jobs(ready: tuple[Intended, ...], store: Store) -> Iterator[Job]:
    for one in ready:
        arms = [(arm, store.missing(one.study, arm)) for arm in one.study.arms]
        if one.regime == "frozen":
            yield from (Job(one, arm, tuple(seeds)) for arm, seeds in arms if seeds)
            continue
        for seed in one.study.seeds:  # all arms of a seed, so that what is there is paired
            yield from (Job(one, arm, (seed,)) for arm, seeds in arms if seed in seeds)


class _Runner:
    """The jobs of one call."""

    def __init__(
        self, wanted: Wanted, store: Store, library: Library, display: Display, command: str
    ) -> None:
        self._wanted, self._store, self._library = wanted, store, library
        self._display, self._command = display, command
        self._ground_of = OneGround()
        self._left_out: Mapping[str, str] = {}

    def run(self, checked: Checked) -> Outcome:
        """All of them in order; one that fails does not stop the others."""
        self._left_out = checked.absent
        jobs = list(_jobs(checked.ready, self._store))
        return in_turn(jobs, self._job, self._store, self._display)

    def _job(self, job: Job) -> None:
        one, began = job.one, time.monotonic()
        problem, drawn = self._library.problem(one), self._library.drawn(one)
        place = one.study.place
        self._store.check_data(place, problem.fingerprint)
        self._describe(one, problem, 0.0)
        self._display.begin(str(job), one.study.config.budget.labels)
        at = self._store.folder / CELLS
        if one.regime == "frozen":
            ground, advance = self._ground_of(problem), self._display.advance
            found = cells.frozen(one, job.arm, job.seeds, problem, drawn, ground, advance)
        else:
            found = cells.trained(one, job.arm, job.seeds[0], problem, drawn, self._display, at)
        self._store.add(place, job.arm, job.seeds, found.records, found.bought)
        for seed in job.seeds:
            clean(one.study, job.arm, seed, at)
        self._describe(one, problem, time.monotonic() - began)

    def _describe(self, one: Intended, problem: Problem, seconds: float) -> None:
        """Bring a study's entry of studies.json up to date."""
        place, store = one.study.place, self._store
        entry = store.studies.get(place) or self._about(one, problem)
        ran = progress_of(store, place, self._command, seconds)
        here = {"main": self._wanted.settings.main, LEFT_OUT: dict(self._left_out)}
        store.describe(place, cast(PlainDict, {**entry, **here, **ran}))

    def _about(self, one: Intended, problem: Problem) -> PlainDict:
        """What a study is, and the probes of its encoder; written when it begins."""
        drawn, bench, config = self._library.drawn(one), self._wanted.bench, one.study.config
        split, probes = drawn.split, self._library.separability(one)
        about: dict[str, object] = {
            "encoder": one.encoder,
            "weights": one.weights,
            INITIALISATION: initialisation_of(one, self._wanted.settings),
            "metric": cells.ACCURACY,
            "classes": drawn.rows.split.classes,
            "attributes": drawn.rows.values,
            "groups": drawn.groups,
            "seed_set": {"rows": config.budget.start, "groups": split.start.reshape(-1).tolist()},
            "pool_rows": int(split.pool.sum()),
            "pool_groups": split.pool.reshape(-1).tolist(),
            "pool_disagreeing": split.disagreeing,
            "test_rows": len(split.test),
            "separability": {name: value._asdict() for name, value in probes._asdict().items()},
            "baseline": bench.baseline,
            "own": bench.own,
            "budget": {"labels": config.budget.labels, "start": config.budget.start},
            "config_hash": config.hash,
            "data_fingerprint": problem.fingerprint,
            SETTINGS: settings_of(one),
            "config": config.tree,
        }
        return cast(PlainDict, json.loads(json.dumps(about)))

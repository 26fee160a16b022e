"""Data and features of all studies: each task read once, each encoder's features computed once."""

from collections.abc import Callable
from typing import NamedTuple

from enn_finetune.bench.plan import Plan, Study
from enn_finetune.data import tasks
from enn_finetune.data.splits import Split
from enn_finetune.encoding import Encoded, encode_splits
from enn_finetune.errors import InputError
from enn_finetune.models.places import find_backbone
from enn_finetune.problem import (
    Material,
    Problem,
    assemble,
    choose_rows,
    name_targets,
    task_of,
    tell,
)
from enn_finetune.progress import Display

Say = Callable[[str], None]
Key = tuple[object, ...]
Absent = tuple[str, str] | None  # what is not there, and why


class TaskFiles(NamedTuple):
    """A task and its splits, whole."""

    task: tasks.Task
    splits: tuple[Split, ...]


class Library:
    """What studies share: tasks stay in memory, of features those of the last study asked for."""

    def __init__(self, display: Display) -> None:
        self._display = display
        self._tasks: dict[Key, TaskFiles] = {}
        self._encoded: tuple[Key, Encoded] | None = None
        self._problem: tuple[Study, Problem] | None = None

    def material(self, study: Study) -> Material:
        """The rows of a study.

        Raises:
          InputError: see `problem.read`.
        """
        found = self.files(study)
        chosen = choose_rows(found.task, found.splits, study.config)
        return name_targets(chosen, study.config)

    def files(self, study: Study) -> TaskFiles:
        """The task of a study, read at the first call."""
        key = _task_key(study)
        if key not in self._tasks:
            task, places = task_of(study.config), study.config.task.data
            splits = tuple(tasks.load_split(task, split.name, places) for split in task.splits)
            tell(task, splits, self._display.say)
            self._tasks[key] = TaskFiles(task, splits)
        return self._tasks[key]

    def problem(self, study: Study) -> Problem:
        """A study's problem, with nothing bought: take `oracle.fresh()` of it for every run.

        Raises:
          InputError: data or weights that cannot be used.
        """
        if self._problem is None or self._problem[0].place != study.place:
            self._problem = None  # one set of features at a time
            material = self.material(study)
            problem = assemble(study.config, material, self._encode(study, material))
            self._problem = (study, problem)
        return self._problem[1]

    def _encode(self, study: Study, material: Material) -> Encoded:
        config = study.config
        targets = config.acquisition.targets
        described = material.descriptions
        key = (*_task_key(study), config.backbone, config.evaluation.batch, targets, described)
        if self._encoded is None or self._encoded[0] != key:
            self._encoded = None
            self._encoded = (key, encode_splits(config, material.splits, self._display, described))
        return self._encoded[1]


def _task_key(study: Study) -> Key:
    task = study.config.task
    return (task.name, task.data, task.train, task.test, task.text, task.pair, task.label)


def check_all(plan: Plan, library: Library, say: Say) -> tuple[Study, ...]:
    """The studies whose data and encoders are there: nothing is encoded or trained before this.

    Raises:
      InputError: tasks or encoders that no place has, unless `bench.skip_missing`; faulty files;
        budgets above a pool. All at once.
    """
    absent: dict[str, str] = {}
    faults: dict[str, None] = {}
    looked: dict[object, Absent] = {}  # the hub is asked once for each
    ready = []
    for study in plan.studies:
        task, places = _task_key(study), study.config.backbone.path
        if task not in looked:
            looked[task] = _absent_task(study, library)
        if places not in looked:
            looked[places] = _absent_encoder(study)
        why = looked[task] or looked[places]
        if why is not None:
            absent.setdefault(*why)
            continue
        try:
            library.material(study)
        except InputError as error:
            faults.setdefault(f"{study.place}: {error}")
        else:
            ready.append(study)
    if absent and not (plan.bench.skip_missing and ready):
        faults |= dict.fromkeys(f"{name}: {reason}" for name, reason in absent.items())
        faults |= {"bench.skip_missing = true would run the rest": None} if ready else {}
    if faults:
        raise InputError("the benchmark cannot be run:\n  " + "\n  ".join(faults))
    for name, reason in absent.items():
        say(f"SKIPPED, as bench.skip_missing allows: {name}: {reason}")
    return tuple(ready)


def _absent_task(study: Study, library: Library) -> Absent:
    """The task's name and why it cannot be found; None where it can, or is faulty."""
    try:
        library.files(study)
    except InputError as error:
        config = study.config.task
        if not config.train:
            place = tasks.where(tasks.find_task(config.name), config.data)
            if place is None or place.startswith("hub"):
                return f"task {config.name}", str(error).replace("\n", "\n    ")
    return None


def _absent_encoder(study: Study) -> Absent:
    try:
        find_backbone(study.config.backbone.path)
    except InputError as error:
        return f"encoder {study.place.backbone}", str(error).replace("\n", "\n    ")
    return None

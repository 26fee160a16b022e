"""From a config to studies: pure, and every name checked before any work starts."""

from typing import NamedTuple

from enn_finetune.bench.plan import (
    DESCRIBED,
    REPLAY,
    Arm,
    Place,
    Study,
    backbone_name,
    parse_arm,
)
from enn_finetune.config import (
    BenchConfig,
    ConfigError,
    IntendedConfig,
    IntendedFile,
    PlainDict,
    SpuriousTask,
    build,
)
from enn_finetune.data.spurious import Sizes
from enn_finetune.errors import InputError

FRESH = "random"  # weights that are not pretrained
UNIFORM = "random"  # the rule


class Intended(NamedTuple):
    """One study: a benchmark's, of a task that has a spurious attribute."""

    study: Study
    task: SpuriousTask
    encoder: str  # what reports call it, pretrained or not
    weights: str  # "pretrained" or "random"

    @property
    def regime(self) -> str:
        """Whether the encoder stays as it is: frozen, or trained."""
        return "frozen" if self.study.place.tune == "frozen" else "trained"

    @property
    def sizes(self) -> Sizes:
        """Of the split."""
        task = self.task
        return Sizes(
            self.study.config.budget.start,
            task.pool,
            task.test,
            task.start_agreement,
            task.pool_agreement,
        )


class Wanted(NamedTuple):
    """All that is run, in order: what shares a task and an encoder stands together."""

    settings: IntendedConfig
    studies: tuple[Intended, ...]

    @property
    def bench(self) -> BenchConfig:
        """The references that a benchmark's report compares with."""
        return BenchConfig(baseline=f"linear/{UNIFORM}", own=f"epinet/{UNIFORM}")


def plan(file: IntendedFile) -> Wanted:
    """The studies of a config.

    Raises:
      InputError: unknown heads or rules, each with the nearest known name; arms that a regime
        cannot run, or that nothing is compared with; configs that cannot be run. All at once.
    """
    faults: list[str] = []
    settings, studies = file.settings, []
    main = parse_arm(settings.main, faults, key="intended.main")
    for regime in dict.fromkeys(settings.regimes):  # frozen first if so written: it is quick
        about, _ = file.regimes[regime]
        arms = _arms(about.arms, regime, faults)
        if main not in arms:
            faults.append(
                f"intended.main: {main} is not among {regime}.arms ({', '.join(about.arms)}); "
                "studies are compared by it, so add it there or name one of them"
            )
        for task, section in file.tasks:
            if not all(task.name in named for named in (settings.tasks, about.tasks) if named):
                continue
            if task.pool_agreement == 1:
                faults.append(
                    f"{task.name}: task.pool_agreement: 1 leaves no row in which label and "
                    "attribute disagree, so that nothing can settle the task; give less"
                )
            for entry in about.encoders or settings.encoders:
                for weights in dict.fromkeys(settings.weights):
                    name = backbone_name(entry)
                    called = f"{name}-{FRESH}" if weights == FRESH else name
                    tune = "frozen" if regime == "frozen" else "full"
                    place = Place(task.name, "plain", called, tune, "pool")
                    keys = file.keys(section, regime) | _keys(place, entry)
                    if keys.get("task.describe"):
                        faults.append(
                            "task.describe: a study of the intended task tells no head what the "
                            "classes are, for that would settle which task is meant; leave it out"
                        )
                    try:
                        study = Study(place, build(keys), arms, range(*about.seeds))
                    except InputError as error:
                        faults.append(f"{task.name} · {called} · {regime}: {error}")
                        continue
                    studies.append(Intended(study, task, name, weights))
    if len({one.study.place for one in studies}) < len(studies):
        faults.append("intended.encoders: two have the same last part")
    if not studies and not faults:
        faults.append(
            "nothing to run: intended.tasks, encoders, weights and regimes leave none, with the "
            f"tasks of each regime ({_only(file)})"
        )
    if faults:
        raise ConfigError("the study cannot be run:\n  " + "\n  ".join(dict.fromkeys(faults)))
    return Wanted(settings, tuple(studies))


def _only(file: IntendedFile) -> str:
    """What sections of regimes say of their tasks."""
    about = {name: regime.tasks for name, (regime, _) in file.regimes.items()}
    said = (f"{name}.tasks={','.join(tasks) or 'all'}" for name, tasks in about.items())
    return ", ".join(said)


def _keys(place: Place, entry: str) -> PlainDict:
    """The keys of runs that the study sets itself."""
    return {
        "task.name": place.task,
        "backbone.path": [part.strip() for part in entry.split("|")],
        "backbone.tune": place.tune,
        "regime": place.regime,
        "head.kind": "epinet",
        "acquisition.rule": "random",
        "evaluation.every": 1,
    }


def _arms(names: tuple[str, ...], regime: str, faults: list[str]) -> tuple[Arm, ...]:
    kind = "frozen" if regime == "frozen" else "pool"
    arms = tuple(
        dict.fromkeys(parse_arm(name, faults, kind, key=f"{regime}.arms") for name in names)
    )
    faults += [
        f"{regime}.arms: {arm}: rows bought elsewhere have no seed sets; use a rule"
        for arm in arms
        if arm.rule.startswith(REPLAY)
    ]
    faults += [
        f"{regime}.arms: {arm}: the classes are not described here; use another head"
        for arm in arms
        if arm.head in DESCRIBED
    ]
    for head in dict.fromkeys(["linear", *(arm.head for arm in arms)]):
        if Arm(head, UNIFORM) not in arms:
            faults.append(
                f"{regime}.arms: {head}/{UNIFORM} is not among them; savings are against it"
            )
    return arms

"""From a config to studies and arms: pure, and every name checked before any work starts."""

import dataclasses
import difflib
import re
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

from enn_finetune.acquisition import choose
from enn_finetune.config import BenchConfig, BenchFile, Config, ConfigError, PlainDict, build
from enn_finetune.data import tasks
from enn_finetune.errors import InputError
from enn_finetune.models.solvers import SOLVERS

PLAIN, KINDS = "plain", ("plain", "rare", "repeated")
TRAINABLE = ("linear", "epinet")  # heads that gradient steps train
NO_SPREAD = ("linear", "shaped", "described")  # heads whose predictions do not depend on an index
DESCRIBED = ("described", "described_epinet")  # heads that read task.describe
REPLAY = "replay"
DEPARTS = "+"  # between an online arm's rule and how it departs from the config


class Arm(NamedTuple):
    """A head on what a rule buys."""

    head: str
    rule: str

    def __str__(self) -> str:
        return f"{self.head}/{self.rule}"

    @property
    def chooses(self) -> str:
        """The rule without how the arm departs from the config."""
        return self.rule.partition(DEPARTS)[0]

    @property
    def changes(self) -> dict[str, Any] | None:
        """Keys of `acquisition` that an online arm sets itself; None where it names none."""
        _, said, what = self.rule.partition(DEPARTS)
        if not said:
            return {}
        if what == "epoch":
            return {"source": "epoch"}
        share = re.fullmatch(r"revisit(0\.[0-9]{0,5}[1-9])", what)
        return {"revisit": float(share[1])} if share else None


class Place(NamedTuple):
    """What a study is: the columns that all its lines in the results have."""

    task: str
    pool: str
    backbone: str
    tune: str
    regime: str

    def __str__(self) -> str:
        pool = "" if self.pool == PLAIN else f":{self.pool}"
        regime = "frozen" if self.tune == "frozen" else self.regime
        return f"{self.task}{pool} · {self.backbone} · {regime}"


class Cell(NamedTuple):
    """One seed of one arm of one study."""

    place: Place
    arm: Arm
    seed: int


class Study(NamedTuple):
    """One task, encoder and regime, and what is compared there."""

    place: Place
    config: Config  # of its runs; head, rule and seed stand at their defaults
    arms: tuple[Arm, ...]
    seeds: range


class Plan(NamedTuple):
    """All that a benchmark runs, in order: what shares an encoder and a task stands together."""

    bench: BenchConfig
    studies: tuple[Study, ...]


def plan(file: BenchFile) -> Plan:
    """The studies of a benchmark.

    Raises:
      InputError: unknown tasks, heads or rules, each with the nearest known name; arms that a
        regime cannot run; configs that cannot be run. All at once.
    """
    faults: list[str] = []
    bench = file.bench
    names = [_split_task(name, faults) for name in dict.fromkeys(bench.tasks)]
    backbones = {backbone_name(entry): entry for entry in bench.backbones}
    if len(backbones) < len(set(bench.backbones)):
        faults.append(f"bench.backbones: two have the same last part, among {[*backbones]}")
    regime = "online" if "online" in bench.regimes else "frozen"
    for key, arm in (("bench.baseline", bench.baseline), ("bench.own", bench.own)):
        parse_arm(arm, faults, regime if DEPARTS in arm else "frozen", key=key)
    studies, order = [], [task for task, _ in names]
    for backbone, entry in backbones.items():
        for name in sorted(names, key=lambda name: order.index(name[0])):
            for regime in dict.fromkeys(bench.regimes):
                study = _study(file, name, backbone, entry, regime, faults)
                if study is not None:
                    studies.append(study)
    if not studies and not faults:
        faults.append("bench: nothing to run: every study is skipped by a table [[bench.set]]")
    if faults:
        found = dict.fromkeys(faults)
        raise ConfigError("the benchmark cannot be run:\n  " + "\n  ".join(found))
    return Plan(bench, tuple(studies))


def backbone_name(entry: str) -> str:
    """What records call an encoder: the last part of the first of its places."""
    return entry.split("|", maxsplit=1)[0].strip().rstrip("/").rsplit("/", 1)[-1]


def config_of(study: Study, arm: Arm, seed: int) -> Config:
    """The config of one run of a trainable arm."""
    config = study.config
    return dataclasses.replace(
        config,
        seed=seed,
        head=dataclasses.replace(config.head, kind=cast(Any, arm.head)),
        acquisition=dataclasses.replace(
            config.acquisition, rule=cast(Any, arm.chooses), **arm.changes or {}
        ),
    )


def _split_task(name: str, faults: list[str]) -> tuple[str, str]:
    task, colon, pool = name.partition(":")
    if colon and pool not in KINDS:
        near = difflib.get_close_matches(pool, KINDS, n=1, cutoff=0.0)[0]
        faults.append(f"bench.tasks: {name}: no pool {pool!r}; the nearest is {near}")
        pool = PLAIN
    return task, pool or PLAIN


def _study(
    file: BenchFile,
    name: tuple[str, str],
    backbone: str,
    entry: str,
    regime: str,
    faults: list[str],
) -> Study | None:
    task, pool = name
    full = task if pool == PLAIN else f"{task}:{pool}"
    try:
        bench = file.study_bench(full, regime, backbone)
        if bench is None:
            return None
        keys = _keys(file.study_keys(full, regime, backbone), task, faults)
        keys |= {
            "task.pool": pool,
            "task.develop": "yes" if file.bench.develop else "no",
            "backbone.path": [part.strip() for part in entry.split("|")],
            "backbone.tune": "frozen" if regime == "frozen" else "full",
            "regime": "online" if regime == "online" else "pool",
            "head.kind": "epinet",
            "acquisition.rule": "random",
        }
        config = build(keys)
    except InputError as error:
        faults.append(f"{full} · {backbone} · {regime}: {error}")
        return None
    share = config.acquisition.candidates_share
    if regime == "frozen" and share < 1:
        faults.append(
            f"{full} · {backbone} · frozen: acquisition.candidates_share: {share}; frozen studies "
            "score the whole pool in every round: set it to 1, or use bench.regimes = pool"
        )
    if regime != "online" and config.budget.start == 0:
        faults.append(
            f"{full} · {backbone} · {regime}: budget.start: got 0; all arms of a seed begin with "
            "the same labels: give it at least 1 (a single `train` can begin with none)"
        )
    arms = tuple(dict.fromkeys(parse_arm(arm, faults, regime) for arm in bench.arms))
    if config.acquisition.indices == 1:
        faults += [
            f"acquisition.indices: {arm} reads the spread over indices, and one index has none; "
            "give 2 or more"
            for arm in arms
            if arm.chooses in choose.EPISTEMIC
        ]
    passes = [str(arm) for arm in arms if "revisit" in (arm.changes or {})]
    if passes and config.acquisition.source == "epoch":
        faults.append(
            f"{full} · {backbone} · {regime}: {', '.join(passes)}: an epoch trains on no row "
            "twice; set acquisition.source = whole"
        )
    twice = [str(arm) for arm in arms if arm.changes == {"source": config.acquisition.source}]
    if twice:
        faults.append(
            f"{full} · {backbone} · {regime}: {', '.join(twice)}: acquisition.source is epoch for "
            f"all arms; leave {DEPARTS}epoch out, or set acquisition.source = whole"
        )
    silent = [str(arm) for arm in arms if arm.head in DESCRIBED and not config.task.describe]
    if silent:
        faults.append(
            f"{full} · {backbone} · {regime}: {', '.join(silent)}: the head begins with what the "
            "classes' descriptions say, and there are none; give task.describe"
        )
    place = Place(config.task.name, pool, backbone, config.backbone.tune, config.regime)
    return Study(place, config, arms, range(*bench.seeds))


def _keys(keys: PlainDict, task: str, faults: list[str]) -> PlainDict:
    """The keys of a study's runs, those of a custom task left out where it is another's."""
    custom = keys.get("task.train") and task == keys.get("task.name", task)
    if not custom:
        mine = ("train", "test", "text", "pair", "label", "metric")
        keys = {name: v for name, v in keys.items() if name not in {f"task.{k}" for k in mine}}
        try:
            task = tasks.find_task(task).name
        except InputError as error:
            faults.append(f"bench.tasks: {error}")
            task = "messages"
    return keys | {"task.name": task}


def parse_arm(
    text: str, faults: list[str], regime: str = "frozen", *, key: str = "bench.arms"
) -> Arm:
    """An arm that the regime can run; a fault that names the key where it is none."""
    head, slash, rule = text.partition("/")
    if not slash or not rule:
        faults.append(f"{key}: {text!r}: write an arm as HEAD/RULE, such as epinet/margin")
        return Arm("linear", "random")
    frozen = regime == "frozen"
    if DEPARTS in rule:
        arm = Arm(head, rule)
        if regime != "online":
            faults.append(
                f"{key}: {text}: only arms of bench.regimes = online depart from the config with "
                f"{DEPARTS}; this one is of {regime}"
            )
        elif arm.changes is None:
            faults.append(
                f"{key}: {text}: after {DEPARTS} stands epoch (acquisition.source) or revisit with "
                "a share between 0 and 1 without needless digits (acquisition.revisit), such as "
                f"{arm.chooses}{DEPARTS}revisit0.5"
            )
        parse_arm(f"{head}/{arm.chooses}", faults, regime, key=key)
        return arm
    heads: Sequence[str] = tuple(SOLVERS) if frozen else TRAINABLE
    rules: Sequence[str] = choose.NAMES
    for kind, name, known in (("head", head, heads), ("rule", rule, rules)):
        if name in known or (kind == "rule" and name.split(":")[0] == REPLAY):
            continue
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
        where = "" if frozen else f" under bench.regimes = {regime}"
        faults.append(f"{key}: {text}: no {kind} {name!r}{where}; the nearest is {near}")
    if head in NO_SPREAD and rule in choose.EPISTEMIC:
        faults.append(
            f"{key}: {text}: {rule} reads the spread over indices, and the head {head} has "
            "none; use margin, entropy or least_confidence, or the head epinet"
        )
    return Arm(head, rule)

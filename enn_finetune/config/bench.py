"""The section `bench` of a config: which studies a benchmark runs, and what differs between them.

A study is one task, encoder and regime. Its config is put together from, later ones winning: the
keys of the file, every table `[[bench.set]]` that matches the study, and the command line.

    [[bench.set]]
    tasks = ["cola", "*:rare"]     # patterns; a key left out matches everything
    regimes = ["frozen"]
    backbones = ["gte-small"]
    arms = ["linear/random"]       # or seeds, or skip = true
    "budget.labels" = 300          # any key of a run
"""

import dataclasses
import fnmatch
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import BeforeValidator, ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from enn_finetune.config.reading import (
    ConfigError,
    PlainDict,
    PlainValue,
    fault_of,
    flatten,
    name_custom_task,
    parse_overrides,
    read_file,
    unknown,
)
from enn_finetune.config.values import Names


def _span(value: object) -> object:
    """Seeds: how many from 0, or START:STOP."""
    if isinstance(value, str):
        start, colon, stop = value.rpartition(":")
        value = [start or "0", stop] if colon else int(value) if value.isdecimal() else value
    if isinstance(value, int) and not isinstance(value, bool):
        value = (0, value)
    first, last = (int(part) for part in value) if isinstance(value, list | tuple) else (0, 0)
    if not 0 <= first < last < 2**32:
        raise ValueError("give how many seeds, from 1, or START:STOP")
    return first, last


Span = Annotated[tuple[int, int], BeforeValidator(_span)]
Regime = Literal["frozen", "pool", "online"]


def _several(value: object) -> object:
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class BenchConfig:
    """Tasks x encoders x regimes x arms x seeds, and how the report compares them."""

    tasks: Names = ("messages",)
    """Names, with :rare or :repeated after them for these pools."""
    backbones: Names = ("minilm|sentence-transformers/all-MiniLM-L6-v2",)
    """Encoders; the places of one encoder, tried in order, are divided by |. It is called after
    the last part of its first place."""
    regimes: Annotated[tuple[Regime, ...], BeforeValidator(_several)] = ("frozen",)
    """frozen: rounds on cached features; pool: rounds that train the whole encoder; online: one
    warm model, a candidate batch at every step."""
    arms: Names = ("linear/random", "epinet/random", "epinet/margin", "epinet/bald")
    """HEAD/RULE; all arms of a seed begin with the same labels. Online, HEAD/RULE+revisit0.5 trains
    half of each batch on rows bought before (`acquisition.revisit`), and linear/random+epoch takes
    each row once in an epoch (`acquisition.source`): the usual training on all rows, whose first
    batch alone is that of the other arms."""
    seeds: Span = (0, 10)
    """How many, or START:STOP."""
    baseline: str = "linear/random"
    """The arm of the system ratio's denominator: random selection with the plain head, on
    frozen features a cross-validated regression."""
    own: str = "epinet/random"
    """The arm of the acquisition ratio's denominator: random selection with the head of ours."""
    develop: bool = False
    """Score rows carved from the pool in place of the evaluation splits (`task.develop`)."""
    replay: Names = ()
    """Files of bought rows; each adds arms HEAD/replay:RULE that buy the rows it lists."""
    skip_missing: bool = False
    """Leave out tasks and encoders that no place has, and say so; else they are an error."""


class Setting(NamedTuple):
    """One table `[[bench.set]]`."""

    tasks: tuple[str, ...]
    regimes: tuple[str, ...]
    backbones: tuple[str, ...]
    bench: PlainDict  # arms, seeds, skip
    keys: PlainDict  # keys of a run

    def matches(self, task: str, regime: str, backbone: str) -> bool:
        """True where each of the three is named, or nothing of its kind is."""
        pairs = ((self.tasks, task), (self.regimes, regime), (self.backbones, backbone))
        return all(
            not patterns or any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
            for patterns, name in pairs
        )


class BenchFile(NamedTuple):
    """A benchmark as written: what it spans, and the keys of its runs by where they come from."""

    bench: BenchConfig
    keys: PlainDict  # of the file
    settings: tuple[Setting, ...]
    overrides: PlainDict  # of the command line
    told: frozenset[str]  # the keys of the section bench that the command line gave

    def study_keys(self, task: str, regime: str, backbone: str) -> PlainDict:
        """The keys of a study's runs, as far as the file and the command line say them."""
        keys = dict(self.keys)
        for setting in self.settings:
            if setting.matches(task, regime, backbone):
                keys |= setting.keys
        return keys | self.overrides

    def study_bench(self, task: str, regime: str, backbone: str) -> BenchConfig | None:
        """The arms and seeds of a study; None where a table says skip."""
        changes: PlainDict = {}
        for setting in self.settings:
            if setting.matches(task, regime, backbone):
                changes |= setting.bench
        if changes.pop("skip", False):
            return None
        changes = {name: value for name, value in changes.items() if name not in self.told}
        return _bench(dataclasses.asdict(self.bench) | changes)


_ADAPTER = TypeAdapter(BenchConfig)
_MATCHES = ("tasks", "regimes", "backbones")
_CHOSEN = {
    "seed": "bench.seeds",
    "regime": "bench.regimes",
    "backbone.tune": "bench.regimes",
    "backbone.path": "bench.backbones",
    "head.kind": "bench.arms",
    "acquisition.rule": "bench.arms",
    "acquisition.revisit": "bench.arms (epinet/margin+revisit0.5), not in the file",
    "task.pool": "bench.tasks",
    "task.develop": "bench.develop",
}
"""Keys of a run that the benchmark itself sets, and where it is told."""


def load_bench(path: Path | str, overrides: Sequence[str] = ()) -> BenchFile:
    """A benchmark from a TOML file and `key=value` overrides, which win over all its tables.

    A file without the section bench describes one study. `replay=FILE` is short for
    `bench.replay=FILE`; a `task.train` on the command line makes that task the only one.

    Raises:
      ConfigError: what `load` says, and unknown keys in `[[bench.set]]`, all at once.
    """
    tree = read_file(path)
    section = tree.pop("bench", None)
    keys, told = flatten(tree), parse_overrides(overrides)
    if "replay" in told:
        told["bench.replay"] = told.pop("replay")
    name_custom_task(keys)
    name_custom_task(told, keys)
    faults: list[str] = []
    if section is None:
        section = _one_study(keys, faults)
    elif not isinstance(section, dict):
        raise ConfigError(f"{path}: bench: got {section!r}; write it as a section [bench]")
    tables = section.pop("set", [])
    bench = {name: told.pop(f"bench.{name}") for name in _names() if f"bench.{name}" in told}
    if "task.name" in told and "tasks" not in bench:
        bench["tasks"] = told["task.name"]
    faults += [_chosen(name) for name in [*keys, *told] if name in _CHOSEN]
    faults += unknown([*keys, *told], {f"bench.{name}": str for name in _names()})
    settings = tuple(_setting(table, faults) for table in _tables(tables, faults))
    try:
        found = _bench(section | bench)
    except ConfigError as error:
        faults.append(str(error))
    if faults:
        raise ConfigError(f"{path}: the benchmark cannot be run:\n  " + "\n  ".join(faults))
    return BenchFile(found, keys, settings, told, frozenset(bench))


def _names() -> list[str]:
    return [field.name for field in dataclasses.fields(BenchConfig)]


def _bench(values: Mapping[str, object]) -> BenchConfig:
    faults = unknown([f"bench.{name}" for name in values], {f"bench.{n}": str for n in _names()})
    try:
        known = {name: value for name, value in values.items() if name in _names()}
        config = _ADAPTER.validate_python(known)
    except ValidationError as error:
        faults += [f"bench.{fault_of(item)}" for item in error.errors()]
    if faults:
        raise ConfigError("\n  ".join(faults))
    return config


def _chosen(name: str) -> str:
    return f"{name}: a benchmark chooses this itself; say it in {_CHOSEN[name]}"


def _one_study(keys: PlainDict, faults: list[str]) -> PlainDict:
    """The section bench of a file that describes a single run; the keys it takes over are gone."""
    tuned, path = keys.pop("backbone.tune", "frozen"), keys.pop("backbone.path", None)
    if tuned not in ("frozen", "full"):
        faults.append(
            f"backbone.tune: got {tuned!r}; a benchmark trains nothing (bench.regimes = frozen) or "
            "the whole encoder (pool, online): set it to frozen or full, or use `train`"
        )
    regime = keys.pop("regime", "pool")
    pool = keys.pop("task.pool", "plain")
    section: PlainDict = {"regimes": [regime if tuned == "full" else "frozen"]}
    section["tasks"] = [f"{keys.get('task.name', 'messages')}" + f":{pool}" * (pool != "plain")]
    if path is not None:
        section["backbones"] = ["|".join(map(str, path)) if isinstance(path, list) else path]
    for name in ("seed", "head.kind", "acquisition.rule", "task.develop"):
        keys.pop(name, None)
    return section


def _tables(found: PlainValue, faults: list[str]) -> list[PlainDict]:
    if isinstance(found, list) and all(isinstance(table, dict) for table in found):
        return found  # type: ignore[return-value]
    faults.append(f"bench.set: got {found!r}; write it as tables [[bench.set]]")
    return []


def _setting(table: PlainDict, faults: list[str]) -> Setting:
    """One table, checked: its matches, its arms and seeds, its keys of a run."""
    rest = flatten(table)
    matches = []
    for kind in _MATCHES:
        value = rest.pop(kind, [])
        names = [value] if isinstance(value, str) else value
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            faults.append(f"bench.set: {kind}: got {value!r}; give a list of names")
            names = []
        matches.append(tuple(str(name) for name in names))
    own = ("arms", "seeds", "skip")
    bench: PlainDict = {name: rest.pop(name) for name in own if name in rest}
    faults += [f"bench.set: {_chosen(name)}" for name in rest if name in _CHOSEN]
    faults += [f"bench.set: {fault}" for fault in unknown([n for n in rest if n not in _CHOSEN])]
    tasks, regimes, backbones = matches
    return Setting(tasks, regimes, backbones, bench, rest)

"""A config of the intended task: rows with a spurious attribute, encoders, regimes, arms.

A study is one task, encoder (pretrained or not) and regime. Its runs' keys are put together from,
later ones winning: the keys of the file, those in the section of the regime, those in the table of
the task, and the command line.

    [task]                        # task.KEY=value on the command line
    data = ["reviews"]
    [[also]]                      # further tasks, with the same keys
    source = "messages"
    "budget.labels" = 80          # any key of a run
    [frozen]                      # or [trained]
    seeds = 10
    arms = ["linear/random", "linear/margin"]
"""

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, TypeVar, cast

from pydantic import BeforeValidator, ConfigDict, Field, NonNegativeInt, TypeAdapter
from pydantic import ValidationError as Invalid
from pydantic.dataclasses import dataclass

from enn_finetune.config.bench import Span
from enn_finetune.config.reading import (
    ConfigError,
    PlainDict,
    PlainValue,
    fault_of,
    flatten,
    parse_overrides,
    read_file,
    unknown,
)
from enn_finetune.config.values import Names, Seed, Share

FILES = (".csv", ".tsv", ".jsonl", ".ndjson")
REGIMES = ("frozen", "trained")
_STRICT = ConfigDict(extra="forbid")


def _several(value: object) -> object:
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


Regimes = Annotated[tuple[Literal["frozen", "trained"], ...], BeforeValidator(_several)]
Weights = Annotated[tuple[Literal["pretrained", "random"], ...], BeforeValidator(_several)]


@dataclass(frozen=True, config=_STRICT)
class SpuriousTask:
    """Rows with a label and an attribute, and how they are split.

    The seed set has `budget.start` rows.
    """

    name: str = "task"
    """What reports call it; a file that the command line gives as `task.data` lends it its own."""
    data: Names = ()
    """Places tried in order: a file of rows (.csv, .tsv, .jsonl), or a folder with one such file
    for each of `attributes`, named after it. With `source`: where that task's files are."""
    source: str = ""
    """Take the rows of this known task (messages, sst2, cola, ...), all splits together."""
    text: str = "text"
    """Column of the text."""
    label: str = "label"
    """Column of the label, which is what is meant."""
    attribute: str = "attribute"
    """Column of the spurious attribute. Or text:question, text:negation, text:long, which are read
    off the text and are "no" or "yes". A folder's attribute is the file that a row stands in."""
    labels: Names = ()
    """Labels to keep, other rows being left out; empty takes all, sorted."""
    attributes: Names = ()
    """Attribute values to keep, each going with the label at its place; empty likewise."""
    classes: Names = ()
    """What reports call the labels."""
    whole: bool = False
    """Leave out rows whose text is a part of another row's, as phrases of SST-2's sentences are
    (for short texts: all their runs of words are held in memory)."""
    start_agreement: Share = 1.0
    """Share of the seed set's rows whose attribute goes with their label."""
    pool_agreement: Share = 0.95
    """The same of the pool."""
    pool: NonNegativeInt = 0
    """Rows to buy from; 0 takes as many as there are rows for."""
    test: Annotated[int, Field(ge=2)] = 150
    """Rows of each group of label and attribute in the test set."""
    seed: Seed = 0
    """Of the split into test set and pool, which is one for all runs."""


@dataclass(frozen=True, config=_STRICT)
class IntendedConfig:
    """What is compared."""

    tasks: Names = ()
    """Names of the tasks to run; empty runs all that the file describes."""
    encoders: Names = ("minilm|sentence-transformers/all-MiniLM-L6-v2",)
    """Encoders; the places of one, tried in order, are divided by |."""
    weights: Weights = ("pretrained", "random")
    """As pretrained, and freshly initialised at the same size."""
    regimes: Regimes = ("frozen", "trained")
    """frozen: heads on cached features; trained: the encoder is trained, anew in every round."""
    main: str = "linear/least_confidence"
    """The arm by which tasks and encoders are compared: plain uncertainty sampling."""
    initialisation: Seed = 0
    """Seed of the fresh weights, which are the same for all runs."""
    skip_missing: bool = False
    """Leave out tasks and encoders that no place has, and say so; else they are an error."""


@dataclass(frozen=True, config=_STRICT)
class RegimeConfig:
    """The runs of one regime."""

    seeds: Span = (0, 10)
    """How many, or START:STOP."""
    arms: Names = ("linear/random", "linear/least_confidence", "epinet/random", "epinet/bald")
    """HEAD/RULE; a head with a rule needs HEAD/random beside it to be compared with."""
    tasks: Names = ()
    """Names of the tasks run in this regime; empty: all."""
    encoders: Names = ()
    """The encoders of this regime; empty: those of `intended.encoders`."""


class Section(NamedTuple):
    """Run keys of a task or regime: as in the file, and as on the command line."""

    keys: PlainDict
    told: PlainDict


class IntendedFile(NamedTuple):
    """A config as written."""

    settings: IntendedConfig
    tasks: tuple[tuple[SpuriousTask, Section], ...]
    regimes: Mapping[str, tuple[RegimeConfig, Section]]
    run: Section  # what all runs share

    def keys(self, task: Section, regime: str) -> PlainDict:
        """The keys of a study's runs, as far as the file and the command line say them."""
        (_, about), shared = self.regimes[regime], self.run
        return shared.keys | about.keys | task.keys | shared.told | about.told | task.told


C = TypeVar("C", SpuriousTask, IntendedConfig, RegimeConfig)
_CHOSEN = {
    "seed": "frozen.seeds, trained.seeds",
    "regime": "intended.regimes",
    "backbone.tune": "intended.regimes",
    "backbone.path": "intended.encoders",
    "head.kind": "frozen.arms, trained.arms",
    "acquisition.rule": "frozen.arms, trained.arms",
}
"""Keys of a run that the study itself sets, and where it is told."""


def load_intended(path: Path | str, overrides: Sequence[str] = ()) -> IntendedFile:
    """A config from a TOML file and `key=value` overrides, which win over all its tables.

    `task.KEY` is about the table [task]; `task.data` also about tables [[also]] that have its data.
    A `task.data` that names a file makes that the only task, all other keys of which are what the
    command line says or their defaults.

    Raises:
      ConfigError: no TOML file, unknown keys (with the nearest known one), values that do not fit;
        all at once.
    """
    tree, faults = read_file(path), cast(list[str], [])
    told = _sections(parse_overrides(overrides), ("task", "intended", *REGIMES))
    tables: list[PlainDict] = [_table(tree.pop("task", {}), "task", faults)]
    others = tree.pop("also", [])
    named = told["task"].get("data")
    if isinstance(named, str) and Path(named).suffix in FILES:
        tables, others = [{"name": Path(named).stem}], []
        for part in ("intended", *REGIMES):  # the tasks that the file names are not there
            told[part].setdefault("tasks", "")
    if not isinstance(others, list):
        faults.append(f"also: got {others!r}; write it as tables [[also]]")
        others = []
    tables += [_table(other, "also", faults) for other in others]
    tasks = tuple(
        _build(SpuriousTask, table, _told(told["task"], table, tables[0]), "task", faults)
        for table in tables
    )
    settings, extra = _build(
        IntendedConfig,
        _table(tree.pop("intended", {}), "intended", faults),
        told["intended"],
        "intended",
        faults,
        runs=False,
    )
    regimes = {
        name: _build(
            RegimeConfig, _table(tree.pop(name, {}), name, faults), told[name], name, faults
        )
        for name in REGIMES
    }
    run = Section(flatten(tree), told[""])
    for section in (*(about for _, about in (*tasks, *regimes.values())), run, extra):
        faults += _unfit([*section.keys, *section.told])
    names = [str(table.get("name", SpuriousTask.name)) for table in tables]
    if names:
        names[0] = str(told["task"].get("name", names[0]))
    faults += [f"two tasks are called {name!r}" for name in {*names} if names.count(name) > 1]
    for where in (settings.tasks, *(about.tasks for about, _ in regimes.values())):
        faults += [f"no task {name!r}; there are {', '.join(names)}"
                   for name in where if name not in names]  # fmt: skip
    if faults:
        found = dict.fromkeys(faults)
        raise ConfigError(f"{path}: the study cannot be run:\n  " + "\n  ".join(found))
    return IntendedFile(settings, tasks, regimes, run)


def _told(told: PlainDict, table: PlainDict, first: PlainDict) -> PlainDict:
    """What the command line says of a task: all that it says, of the first one."""
    if table is first:
        return told
    shared = "data" in told and table.get("data") == first.get("data")
    return {"data": told["data"]} if shared else {}


def _sections(told: PlainDict, names: Sequence[str]) -> dict[str, PlainDict]:
    """Keys by the section that they begin with; "" for those of runs."""
    found: dict[str, PlainDict] = {name: {} for name in (*names, "")}
    for key, value in told.items():
        section, _, rest = key.partition(".")
        found[section if section in names and rest else ""][
            rest if section in names and rest else key
        ] = value
    return found


def _table(found: PlainValue, name: str, faults: list[str]) -> PlainDict:
    if isinstance(found, dict):
        return flatten(found)
    faults.append(f"{name}: got {found!r}; write it as a section [{name}]")
    return {}


def _build(
    kind: type[C],
    table: PlainDict,
    told: PlainDict,
    name: str,
    faults: list[str],
    *,
    runs: bool = True,
) -> tuple[C, Section]:
    """A section's own keys as its class, and its keys of runs (dotted), where it may have some."""
    known = {field.name for field in dataclasses.fields(kind)}
    for key in [*table, *told]:
        if key not in known and not (runs and "." in key):
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.0)[0]
            faults.append(f"{name}.{key}: no such key; the nearest is {name}.{near}")
    own = {key: value for key, value in (table | told).items() if key in known}
    section = Section(
        {key: value for key, value in table.items() if "." in key},
        {key: value for key, value in told.items() if "." in key},
    )
    try:
        return TypeAdapter(kind).validate_python(own), section
    except Invalid as error:
        faults += [f"{name}.{fault_of(item)}" for item in error.errors()]
        return kind(), section


def _proxies(name: str) -> bool:
    """Whether a key lets another model choose (`config.proxied`), which these runs do not."""
    return name == "policy" or name.startswith("proxy.")


def _unfit(names: Sequence[str]) -> list[str]:
    """A fault for each key that is none of a run, or that runs are not told by."""
    chosen = [f"{name}: the study sets this itself; say it in {_CHOSEN[name]}"
              for name in names if name in _CHOSEN]  # fmt: skip
    chosen += [
        f"{name}: here the model that is trained chooses its rows itself; leave this key out"
        for name in names
        if _proxies(name)
    ]
    rest = [name for name in names if name not in _CHOSEN and not _proxies(name)]
    return chosen + unknown(rest)

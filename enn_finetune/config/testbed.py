"""A study on the neural testbed: what is asked of which agents on which problems.

Sections `active` and `supervised`, and a table of options for each agent (`agents.epinet`); on the
command line active.KEY=value, agents.AGENT.OPTION=value.

A study is problems x agents x rules (or settings). Problems and seeds are one axis: the number of a
problem, with the study's `seed`, is the seed of its generator, rows and labels, and of the agent
that learns from them (its start, batches and indices). Each problem is thus learnt once by each
agent, intervals over problems hold both kinds of luck, and more seeds are more `problems`. Another
`seed` gives other problems too: agents of several seeds on one problem there are none.
"""

import dataclasses
import difflib
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, ConfigDict, Field, PositiveInt, TypeAdapter
from pydantic import ValidationError as Invalid
from pydantic.dataclasses import dataclass

from enn_finetune.config.reading import (
    ConfigError,
    PlainDict,
    PlainValue,
    fault_of,
    flatten,
    parse_overrides,
    read_file,
)
from enn_finetune.config.testbed_agents import Options, agent_faults, arm_faults, option_faults
from enn_finetune.config.values import Names, Positive, Seed

_STRICT = ConfigDict(extra="forbid")


def _several(value: object) -> object:
    """A list; on a command line its parts are divided by commas."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value if isinstance(value, list | tuple) else [value]


Counts = Annotated[tuple[PositiveInt, ...], BeforeValidator(_several)]
Amounts = Annotated[tuple[Positive, ...], BeforeValidator(_several)]

LATER: Mapping[str, Mapping[str, object]] = {"supervised": {"anchors": 2}}
"""Keys that came when there were figures under a hash, each with what it was before it was a key.

With this value they are left out of the hash, and a study.json without them has it: the figures
are those of the same study as before, which can be run again and go on.
"""


@dataclass(frozen=True, config=_STRICT)
class ActiveConfig:
    """Active learning: one label at a time from some candidates."""

    arms: Names = (
        "mlp/random", "mlp/entropy", "mlp/margin",
        "ensemble_prior/random", "ensemble_prior/bald", "ensemble_prior/variance",
        "epinet/random", "epinet/entropy", "epinet/margin", "epinet/bald", "epinet/variance",
    )  # fmt: skip
    """AGENT/RULE, every step buying the one label of another candidate."""
    again: Names = ("mlp/random", "epinet/random", "epinet/variance")
    """The same in the paper's protocol: any candidate at every step, each time with a new draw of
    its label, which costs nothing where it was chosen before. May be empty, as may `arms`."""
    baseline: str = "mlp/random"
    """The arm whose score with all candidates labelled is the target."""
    input_dim: PositiveInt = 10
    classes: Annotated[int, Field(ge=2)] = 2
    temperature: Positive = 0.1
    candidates: Annotated[int, Field(ge=2)] = 200
    problems: PositiveInt = 16
    """Each has its own generator, candidates and seed of the agent; its arms share them."""
    first_problem: Annotated[int, Field(ge=0)] = 0
    """The number of the first: give another to look at problems that no choice was made on."""
    updates: PositiveInt = 10
    """Gradient steps after each choice."""
    rounds: PositiveInt = 40
    """How many times as many steps as candidates an arm of `again` takes."""
    again_updates: PositiveInt = 2
    """Gradient steps after each of them."""
    batch: PositiveInt = 32
    """Rows of one."""
    learning_rate: Positive = 1e-3
    functions: PositiveInt = 10
    """Draws of an agent's function that the rules read."""
    exam_functions: PositiveInt = 32
    """Draws of it that scores read."""
    exam_groups: PositiveInt = 150
    """Pairs of rows that an agent is examined on."""
    every: PositiveInt = 10
    """Steps between evaluations; divides `candidates`."""


@dataclass(frozen=True, config=_STRICT)
class SupervisedConfig:
    """Agents on labels drawn at random: marginal and joint predictions."""

    agents: Names = (
        "mlp", "dropout", "ensemble", "ensemble_prior", "epinet", "laplace", "sngp",
    )  # fmt: skip
    input_dims: Counts = (2, 10)
    classes: Annotated[int, Field(ge=2)] = 2
    temperatures: Amounts = (0.1, 0.5)
    ratios: Amounts = (1.0, 10.0, 100.0)
    """Training rows per input dimension."""
    problems: PositiveInt = 6
    """Generators of each input dimension, each with its own rows and one seed of the agents: the
    same for all agents, temperatures and ratios (whose rows are the first ones of the largest)."""
    first_problem: Annotated[int, Field(ge=0)] = 0
    taus: Counts = (1, 10, 100)
    """Rows predicted together."""
    anchors: PositiveInt = 2
    """Different rows among them, each drawn with replacement: kappa of polyadic sampling (arXiv
    2202.13509). 2 is dyadic sampling; 1 is one row again and again."""
    steps: PositiveInt = 1000
    """Gradient steps."""
    batch: PositiveInt = 32
    """Rows of one."""
    learning_rate: Positive = 1e-3
    functions: PositiveInt = 300
    """Draws of an agent's function that scores read."""
    groups: PositiveInt = 100
    """Groups of `anchors` rows that an agent is examined on."""
    particles: Annotated[int, Field(ge=0)] = 50_000
    """Of the floor, a multiple of 500; 0 leaves it out."""
    floor_rows: PositiveInt = 20
    """Up to so many training rows the floor is computed: more labels need far more particles."""


@dataclass(frozen=True, config=_STRICT)
class TestbedConfig:
    """The whole study."""

    __test__ = False  # no test, whatever pytest makes of its name

    seed: Seed = 0
    """Of everything: problems, agents and choices, each told apart by the problem's number."""
    parts: Annotated[
        tuple[Literal["active", "supervised"], ...], BeforeValidator(_several)
    ] = ("active", "supervised")  # fmt: skip
    active: ActiveConfig = dataclasses.field(default_factory=ActiveConfig)
    supervised: SupervisedConfig = dataclasses.field(default_factory=SupervisedConfig)
    agents: Options = dataclasses.field(default_factory=lambda: {"epinet": {"prior_scale": 0.1}})
    """Options of agents, by agent, of the ranges in `testbed_agents`; widths of layers are one
    number or several. What is left out is the agent's own."""
    chunk: PositiveInt = 24
    """Runs that go through a program at once."""

    @property
    def hash(self) -> str:
        """16 hex digits of all values, but for keys of `LATER` with the value of before."""
        values = dataclasses.asdict(self)
        for section, keys in LATER.items():
            for key, before in keys.items():
                if values[section][key] == before:
                    del values[section][key]
        text = json.dumps(values, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


_ADAPTER = TypeAdapter(TestbedConfig)
_SECTIONS: Mapping[str, type] = {"active": ActiveConfig, "supervised": SupervisedConfig}


def load_testbed(path: Path | str | None = None, overrides: Sequence[str] = ()) -> TestbedConfig:
    """A study from a TOML file, or the default one, and `key=value` overrides, which win.

    Raises:
      ConfigError: no TOML file; unknown keys, agents, rules and options (with the nearest known
        one), values that do not fit; all at once, each named by its key.
    """
    tree = {} if path is None else read_file(path)
    values = flatten(tree) | parse_overrides(overrides)
    faults, known = _unknown(values), {name: values[name] for name in values if _is_key(name)}
    for name in [name for name, value in known.items() if isinstance(value, bool)]:
        faults.append(f"{name}: got {known.pop(name)!r}; this key is not a yes or no")
    try:
        found = _ADAPTER.validate_python(_nested(known))
        faults += name_faults(found) + _contradictions(found)
    except Invalid as error:
        faults += [fault_of(item) for item in error.errors()]
        # What the other values name is checked too; what they say together cannot be.
        wrong = {_dotted(item["loc"]) for item in error.errors()}
        rest = {name: value for name, value in known.items() if name not in wrong}
        faults += name_faults(_ADAPTER.validate_python(_nested(rest)))
    if faults:
        where = "the study" if path is None else f"{path}: the study"
        raise ConfigError(f"{where} cannot be run:\n  " + "\n  ".join(dict.fromkeys(faults)))
    return found


def name_faults(config: TestbedConfig) -> list[str]:
    """A fault for every agent, rule and option that is not known, and options out of range."""
    faults, active = option_faults(config.agents), config.active
    if "active" in config.parts:
        faults += arm_faults("active.arms", active.arms) + arm_faults("active.again", active.again)
    if "supervised" in config.parts:
        faults += agent_faults("supervised.agents", config.supervised.agents)
    return faults


def with_later(before: Mapping[str, object]) -> dict[str, object]:
    """A config as JSON from a study.json, with keys of `LATER` that it was written without."""
    found = dict(before)
    for section, keys in LATER.items():
        given = found.get(section)
        if isinstance(given, dict):
            found[section] = {**keys, **given}
    return found


def _is_key(name: str) -> bool:
    """Whether this may be given: a key, or an option of an agent."""
    return name in _keys() or (name.startswith("agents.") and name.count(".") == 2)


def _nested(values: Mapping[str, PlainValue]) -> PlainDict:
    """Dotted keys as a tree of sections."""
    tree: PlainDict = {}
    for name, value in values.items():
        *sections, last = name.split(".")
        place = tree
        for section in sections:
            place = place.setdefault(section, {})  # type: ignore[assignment]
        place[last] = value
    return tree


def _dotted(place: Sequence[object]) -> str:
    """The key that a fault is of; places in a list are left out."""
    return ".".join(part for part in place if isinstance(part, str))


def _keys() -> list[str]:
    """Every key but the agents' options."""
    inner = [f"{section}.{field.name}" for section, kind in _SECTIONS.items()
             for field in dataclasses.fields(kind)]  # fmt: skip
    return ["seed", "parts", "chunk", *inner]


def _unknown(names: Sequence[str] | Mapping[str, object]) -> list[str]:
    known, faults = _keys(), []
    for name in names:
        if _is_key(name):
            continue
        if name.split(".")[0] == "agents":
            faults.append(f"{name}: write an option as agents.AGENT.OPTION")
            continue
        namesakes = [key for key in known if key.split(".")[-1] == name.split(".")[-1]]
        near = difflib.get_close_matches(name, namesakes or known, n=1, cutoff=0.0)[0]
        faults.append(f"{name}: no such key; the nearest is {near}")
    return faults


def _contradictions(config: TestbedConfig) -> list[str]:
    active, supervised, faults = config.active, config.supervised, []
    if active.candidates % active.every:
        faults.append(
            f"active.every: {active.every} does not divide active.candidates = {active.candidates}"
        )
    if "active" in config.parts:
        for key, arms in (("arms", active.arms), ("again", active.again)):
            if arms and active.baseline not in arms:
                faults.append(f"active.baseline: {active.baseline} is none of active.{key}")
    if supervised.particles % 500:
        faults.append(f"supervised.particles: {supervised.particles} is no multiple of 500")
    if not config.parts:
        faults.append("parts: nothing to run; give active, supervised or both")
    return faults

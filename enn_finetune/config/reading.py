"""From a TOML file and `key=value` overrides to a `Config`; every fault is reported at once."""

import dataclasses
import difflib
import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from enn_finetune.config.contradictions import contradictions
from enn_finetune.config.schema import Config
from enn_finetune.errors import InputError

PlainValue = str | int | float | bool | None | list["PlainValue"] | dict[str, "PlainValue"]
PlainDict = dict[str, PlainValue]


class ConfigError(InputError):
    """A config that cannot be run; the message lists every fault and what to do."""


_ADAPTER = TypeAdapter(Config)
LATER = ("task.describe", "task.rows", "acquisition.revisit")
"""Keys that configs saved before them lack."""
MANY = 10
"""Words that a key may have, beyond which a fault names the nearest and not all."""


def keys(of: type = Config, prefix: str = "") -> dict[str, type | None]:
    """Every key of a config by its dotted name; None as type marks a section."""
    found: dict[str, type | None] = {}
    for field in dataclasses.fields(of):
        name = prefix + field.name
        if isinstance(field.type, type) and dataclasses.is_dataclass(field.type):
            found[name] = None
            found |= keys(field.type, name + ".")
        else:
            found[name] = field.type  # type: ignore[assignment]
    return found


def flatten(tree: Mapping[str, PlainValue], prefix: str = "") -> PlainDict:
    """A tree of sections as dotted keys."""
    flat: dict[str, PlainValue] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def unknown(names: Sequence[str], more: Mapping[str, type] | None = None) -> list[str]:
    """A fault for every name that is no key of a run, nor among `more`."""
    known = [name for name, kind in keys().items() if kind is not None] + [*(more or {})]
    faults = []
    for name in names:
        if name in known:
            continue
        namesakes = [key for key in known if key.split(".")[-1] == name.split(".")[-1]]
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.9)  # a letter or two
        near = near or difflib.get_close_matches(name, namesakes or known, n=1, cutoff=0.0)
        faults.append(f"{name}: no such key; the nearest is {near[0]}")
    return faults


def build(values: Mapping[str, PlainValue]) -> Config:
    """A config from dotted keys; values may be strings, as on a command line.

    Raises:
      ConfigError: unknown keys (with the nearest known one), values that do not fit, and
        combinations that make no sense; all of them at once.
    """
    kinds = keys()
    faults = unknown(list(values))
    tree: PlainDict = {}
    for name, value in values.items():
        if kinds.get(name) is None:
            continue
        if isinstance(value, bool) and kinds[name] is not bool:
            faults.append(f"{name}: got {value!r}; this key is not a yes or no")
            continue
        *sections, last = name.split(".")
        place = tree
        for section in sections:
            place = place.setdefault(section, {})  # type: ignore[assignment]
        place[last] = value
    config = None
    try:
        config = _ADAPTER.validate_python(tree)
        faults += contradictions(config)
    except ValidationError as error:
        faults += [fault_of(item) for item in error.errors()]
    if config is None or faults:
        raise ConfigError("the config cannot be run:\n  " + "\n  ".join(faults))
    return config


def fault_of(item: Mapping[str, object]) -> str:
    """One fault that pydantic found, in our words."""
    where = ".".join(str(part) for part in item["loc"] if isinstance(part, str))  # type: ignore[attr-defined]
    options = re.findall("'([^']*)'", str(item["msg"])) if item["type"] == "literal_error" else []
    if len(options) > MANY:  # too many to read through
        near = difflib.get_close_matches(str(item["input"]), options, n=1, cutoff=0.0)
        return f"{where}: got {item['input']!r}; no such value; the nearest is {near[0]}"
    return f"{where}: got {item['input']!r}; {str(item['msg']).lower()}"


def load(path: Path | str, overrides: Sequence[str] = ()) -> Config:
    """A config from a TOML file and `key=value` overrides, which win.

    A section `bench` is left aside: it is for `load_bench`.

    Raises:
      ConfigError: the file is missing or no TOML, an override has no `=`, or see `build`.
    """
    tree = read_file(path)
    tree.pop("bench", None)
    values, told = flatten(tree), parse_overrides(overrides)
    name_custom_task(values)
    name_custom_task(told, values)
    try:
        return build(values | told)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def read_file(path: Path | str) -> PlainDict:
    """The tree of a TOML file.

    Raises:
      ConfigError: the file is missing, cannot be read, or is no TOML.
    """
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except FileNotFoundError:
        found = "no such config file; the shipped ones are in configs/"
        raise ConfigError(f"{path}: {found}") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a TOML file: {error}") from None


def parse_overrides(overrides: Sequence[str]) -> PlainDict:
    """Dotted keys and values of `key=value` words; of two with one key, the later.

    Raises:
      ConfigError: a word has no `=`.
    """
    values: PlainDict = {}
    for override in overrides:
        name, equals, value = override.partition("=")
        if not equals:
            raise ConfigError(f"override {override!r} has no '='; write it as key=value")
        values[name.strip()] = value.strip()
    return values


def name_custom_task(values: PlainDict, under: Mapping[str, PlainValue] | None = None) -> None:
    """Keep the name of a task and its files in step, in values that win over those of `under`.

    Files without a name are called after the one for training, unless `under` has files (and a
    name) already. A name without files is that of a known task: `under`'s files are left.
    """
    train, below = values.get("task.train"), under or {}
    files = below.get("task.train")
    if isinstance(train, str) and train and "task.name" not in values and not files:
        values["task.name"] = Path(train).stem
    renamed = "task.name" in values and values["task.name"] != below.get("task.name")
    if files and renamed and "task.train" not in values:
        values |= {"task.train": "", "task.test": ""}


def differences(ours: Config, theirs: Mapping[str, PlainValue]) -> list[str]:
    """Keys whose values differ between a config and one read back from JSON.

    A key that came later (see `Config.tree`) and is empty is as good as not there.
    """
    mine, other = (
        {name: value for name, value in flatten(tree).items() if value or name not in LATER}
        for tree in (json.loads(json.dumps(dataclasses.asdict(ours))), theirs)
    )
    return sorted(name for name in mine.keys() | other.keys() if mine.get(name) != other.get(name))

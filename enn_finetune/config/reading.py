"""From a TOML file and `key=value` overrides to a `Config`; every fault is reported at once."""

import dataclasses
import difflib
import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from enn_finetune.config.schema import Config
from enn_finetune.errors import InputError

PlainValue = str | int | float | bool | None | list["PlainValue"] | dict[str, "PlainValue"]
PlainDict = dict[str, PlainValue]


class ConfigError(InputError):
    """A config that cannot be run; the message lists every fault and what to do."""


_ADAPTER = TypeAdapter(Config)


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


def _flatten(tree: Mapping[str, PlainValue], prefix: str = "") -> dict[str, PlainValue]:
    flat: dict[str, PlainValue] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def _unknown(names: Sequence[str]) -> list[str]:
    known = [name for name, kind in keys().items() if kind is not None]
    faults = []
    for name in names:
        if name in known:
            continue
        namesakes = [key for key in known if key.split(".")[-1] == name.split(".")[-1]]
        near = difflib.get_close_matches(name, namesakes or known, n=1, cutoff=0.0)
        faults.append(f"{name}: no such key; the nearest is {near[0]}")
    return faults


def build(values: Mapping[str, PlainValue]) -> Config:
    """A config from dotted keys; values may be strings, as on a command line.

    Raises:
      ConfigError: unknown keys (with the nearest known one), values that do not fit, and
        combinations that make no sense; all of them at once.
    """
    kinds = keys()
    faults = _unknown(list(values))
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
        faults += _contradictions(config)
    except ValidationError as error:
        faults += [_fault(item) for item in error.errors()]
    if config is None or faults:
        raise ConfigError("the config cannot be run:\n  " + "\n  ".join(faults))
    return config


def _fault(item: Mapping[str, object]) -> str:
    where = ".".join(str(part) for part in item["loc"] if isinstance(part, str))  # type: ignore[attr-defined]
    return f"{where}: got {item['input']!r}; {str(item['msg']).lower()}"


def _contradictions(config: Config) -> list[str]:
    faults = []
    if config.head.form == "linear" and not config.closed_form:
        faults.append(
            "head.form: linear is solved in closed form, which needs backbone.tune = frozen and "
            f"regime = pool, got {config.backbone.tune} and {config.regime}; use head.form = mlp"
        )
    if config.head.kind == "linear" and config.acquisition.rule in ("bald", "variance"):
        faults.append(
            f"acquisition.rule: {config.acquisition.rule} reads the spread over indices, and a "
            "linear head has none; use head.kind = epinet, or margin, entropy, least_confidence"
        )
    if config.budget.start > config.budget.labels:
        faults.append(
            f"budget.start: {config.budget.start} is more than budget.labels = "
            f"{config.budget.labels}"
        )
    if config.regime == "pool" and config.budget.start == 0:
        faults.append("budget.start: a pool run fits before it scores; give it at least 1 label")
    if config.regime == "online" and config.train.schedule == "linear" and not config.budget.steps:
        faults.append("train.schedule: linear decay ends at the last step; give budget.steps")
    if config.task.name == "custom" and not (config.task.train and config.task.test):
        faults.append("task.train, task.test: a custom task names both files")
    return faults


def load(path: Path | str, overrides: Sequence[str] = ()) -> Config:
    """A config from a TOML file and `key=value` overrides, which win.

    Raises:
      ConfigError: the file is missing or no TOML, an override has no `=`, or see `build`.
    """
    try:
        with open(path, "rb") as file:
            values = _flatten(tomllib.load(file))
    except FileNotFoundError:
        found = "no such config file; the shipped ones are in configs/"
        raise ConfigError(f"{path}: {found}") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a TOML file: {error}") from None
    for override in overrides:
        name, equals, value = override.partition("=")
        if not equals:
            raise ConfigError(f"override {override!r} has no '='; write it as key=value")
        values[name.strip()] = value.strip()
    try:
        return build(values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def differences(ours: Config, theirs: Mapping[str, PlainValue]) -> list[str]:
    """Keys whose values differ between a config and one read back from JSON."""
    mine = _flatten(json.loads(json.dumps(dataclasses.asdict(ours))))
    other = _flatten(theirs)
    return sorted(name for name in mine.keys() | other.keys() if mine.get(name) != other.get(name))

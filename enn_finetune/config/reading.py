"""From a TOML file and `key=value` overrides to a `Config`; every fault is reported at once."""

import dataclasses
import difflib
import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from enn_finetune.config.rules import EPISTEMIC
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
        faults += _contradictions(config)
    except ValidationError as error:
        faults += [fault_of(item) for item in error.errors()]
    if config is None or faults:
        raise ConfigError("the config cannot be run:\n  " + "\n  ".join(faults))
    return config


def fault_of(item: Mapping[str, object]) -> str:
    """One fault that pydantic found, in our words."""
    where = ".".join(str(part) for part in item["loc"] if isinstance(part, str))  # type: ignore[attr-defined]
    return f"{where}: got {item['input']!r}; {str(item['msg']).lower()}"


def _contradictions(config: Config) -> list[str]:
    faults = []
    if config.head.form == "linear" and not config.closed_form:
        faults.append(
            "head.form: linear is solved in closed form, which needs backbone.tune = frozen and "
            f"regime = pool, got {config.backbone.tune} and {config.regime}; use head.form = mlp"
        )
    if config.backbone.tune != "frozen" and config.backbone.layers != "last":
        faults.append(
            "backbone.layers: only a frozen encoder is read at other layers than its last, got "
            f"tune = {config.backbone.tune}; use backbone.layers = last"
        )
    if config.backbone.tune != "frozen" and config.backbone.pairs == "difference":
        faults.append(
            "backbone.pairs: only a frozen encoder reads pairs as differences, got "
            f"tune = {config.backbone.tune}; use backbone.pairs = joint or auto"
        )
    itself = config.policy == "standard" and not _drops(config)
    if itself and config.head.kind == "linear" and config.acquisition.rule in EPISTEMIC:
        faults.append(
            f"acquisition.rule: {config.acquisition.rule} reads the spread over indices, and a "
            "linear head has none; use head.kind = epinet, or margin, entropy, least_confidence"
        )
    faults += _policy_faults(config)
    asked = config.acquisition
    if asked.threshold and (config.regime != "online" or asked.rule != "neuronal"):
        faults.append(
            "acquisition.threshold: is for a stream, which needs regime = online and "
            f"acquisition.rule = neuronal, got {config.regime} and {asked.rule}"
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
    if config.acquisition.anneal and not config.budget.steps:
        faults.append("acquisition.anneal: annealing ends at the last step; give budget.steps")
    task = config.task
    if bool(task.train) != bool(task.test) or (task.name == "custom" and not task.train):
        faults.append("task.train, task.test: a custom task names both files")
    return faults


def proxied(config: Config) -> bool:
    """True where something else than the model that is trained in the end chooses rows."""
    return config.policy != "standard" or bool(config.proxy.path or config.proxy.replay)


def _drops(config: Config) -> bool:
    """True where another encoder, fine-tuned in every round, chooses by MC-dropout."""
    proxy = config.proxy
    return config.policy == "standard" and bool(proxy.path) and proxy.head == "mc_dropout"


def _policy_faults(config: Config) -> list[str]:
    """What stands against choosing rows by another model than the one that is trained."""
    if not proxied(config):
        if config.proxy.pseudo:
            return [
                f"proxy.pseudo: got {config.proxy.pseudo}, which is for rounds in which another "
                "model chose; set policy = svpp, asvp or auto, or leave it at 0"
            ]
        return []
    what = f"policy = {config.policy}"
    what += "".join(f", proxy.{n} given" for n in ("path", "replay") if getattr(config.proxy, n))
    asked, faults = config.acquisition, []
    if config.backbone.tune == "frozen" or config.regime != "pool":
        faults.append(
            f"policy: got {what}, which is for rounds (regime = pool) with an encoder that is "
            f"trained in the end, got regime = {config.regime} and backbone.tune = "
            f"{config.backbone.tune}; set backbone.tune = full, or policy = standard"
        )
    if asked.candidates_share < 1 or asked.targets:
        faults.append(
            f"policy: got {what}, which scores the whole pool and knows no targets; leave "
            "acquisition.candidates_share and acquisition.targets as they are by default"
        )
    if "frozen" in config.proxy.modes:
        faults.append(
            "proxy.modes: got frozen among them; name modes that train some of the encoder, such "
            "as bitfit, lora, last"
        )
    if _drops(config) and config.head.kind != "linear":
        faults.append(
            "proxy.head: mc_dropout of an encoder that is fine-tuned (policy = standard) is in its "
            f"linear classification layer, got head.kind = {config.head.kind}; use linear"
        )
    spreadless = config.policy != "standard" and config.proxy.head in ("linear", "shaped")
    if spreadless and asked.rule in EPISTEMIC:
        faults.append(
            f"proxy.head: {asked.rule} reads the spread over indices, and the head "
            f"{config.proxy.head} has none; use proxy.head = epinet"
        )
    return faults


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
    """Keys whose values differ between a config and one read back from JSON."""
    mine = flatten(json.loads(json.dumps(dataclasses.asdict(ours))))
    other = flatten(theirs)
    return sorted(name for name in mine.keys() | other.keys() if mine.get(name) != other.get(name))

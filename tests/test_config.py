"""Configs: defaults, overrides, every fault at once, a hash that names exactly one run."""

import dataclasses
import json
import typing

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import FEW

from enn_finetune.acquisition.choose import EPISTEMIC, NAMES
from enn_finetune.config import Config, ConfigError, build, differences, keys, load, rules

VALUES = {name: kind for name, kind in keys().items() if kind is not None}

# What else has to be said so that a value of a key makes sense.
COMPANIONS = {
    "task.name": {"task.train": "a.csv", "task.test": "b.csv"},
    "task.train": {"task.train": "a.csv", "task.test": "b.csv", "task.name": "mine"},
    "task.test": {"task.train": "a.csv", "task.test": "b.csv"},
    "train.schedule": {"budget.steps": 9, "regime": "online"},
    "budget.start": {"budget.labels": 500},
    "acquisition.anneal": {"budget.steps": 9},
    "acquisition.threshold": {"regime": "online", "acquisition.rule": "neuronal"},
    "policy": {"backbone.tune": "full"},
    "proxy.path": {"backbone.tune": "full"},
    "proxy.replay": {"backbone.tune": "full"},
    "proxy.pseudo": {"backbone.tune": "full", "policy": "svpp"},
}

OTHERS = {"backbone.layers": "3,6", "proxy.layers": "3,6", "proxy.modes": "lora,last"}


def default(name: str) -> object:
    value: object = Config()
    for part in name.split("."):
        value = getattr(value, part)
    return value


def another(name: str) -> str:
    """A valid value of a key that is not its default, as a command line would give it."""
    kind, value = VALUES[name], default(name)
    base = typing.get_args(kind)[0] if hasattr(kind, "__metadata__") else kind
    if typing.get_origin(base) is typing.Literal:
        return next(option for option in typing.get_args(base) if option != value)
    if name in OTHERS:
        return OTHERS[name]
    if isinstance(value, tuple):
        return "17,5" if all(isinstance(part, int) for part in value) else "here,there"
    if isinstance(value, float):
        return str(1.5 if name == "budget.growth" else value / 2 + 0.125)
    if isinstance(value, str):
        return "custom" if name == "task.name" else "other"
    return str(not value).lower() if isinstance(value, bool) else str((value or 20) + 1)


def dotted(config: Config) -> dict[str, object]:
    """A config as JSON would carry it, by dotted key."""
    tree = json.loads(json.dumps(dataclasses.asdict(config)))
    sections = {name: value for name, value in tree.items() if isinstance(value, dict)}
    flat = {f"{name}.{k}": v for name, keys in sections.items() for k, v in keys.items()}
    return flat | {name: value for name, value in tree.items() if name not in sections}


every_key = pytest.mark.parametrize("name", sorted(VALUES))


def test_every_key_has_a_default_and_the_defaults_can_be_run():
    assert build({}) == Config()
    assert dotted(Config()).keys() == VALUES.keys()


def test_the_keys_that_the_documentation_promises_exist():
    promised = "task.name task.data backbone.path backbone.tune head.kind acquisition.rule regime"
    assert {*promised.split(), "budget.labels", "seed"} <= VALUES.keys()


def test_the_rules_of_the_schema_are_those_of_the_table():
    assert sorted(typing.get_args(VALUES["acquisition.rule"])) == sorted(NAMES)
    assert sorted(rules.EPISTEMIC) == sorted(EPISTEMIC)


@pytest.mark.parametrize("rule", sorted(NAMES))
def test_exactly_the_epistemic_rules_need_an_epinet(rule):
    asked = {"head.kind": "linear", "acquisition.rule": rule}
    if rule in EPISTEMIC:
        with pytest.raises(ConfigError, match="a linear head has none"):
            build(asked)
    else:
        assert build(asked).acquisition.rule == rule


@every_key
def test_every_key_can_be_overridden_and_changes_the_hash_and_nothing_else(name, tmp_path):
    path = tmp_path / "run.toml"
    path.write_text("")
    companions = [f"{key}={value}" for key, value in COMPANIONS.get(name, {}).items()]
    plain, changed = load(path, companions), load(path, [*companions, f"{name}={another(name)}"])
    assert differences(changed, json.loads(json.dumps(dataclasses.asdict(plain)))) == [name]
    assert plain.hash != changed.hash
    assert changed == build(dotted(changed))


@every_key
def test_a_value_of_no_sensible_type_is_a_fault_of_its_key(name):
    wrong: list[object] = [{}, [[]], [None]]
    for value in wrong if VALUES[name] is bool else [True, *wrong]:
        with pytest.raises(ConfigError, match=f"{name}: got"):
            build({name: value})


def test_overrides_win_and_have_the_types_of_the_schema(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text('seed = 3\n[head]\nhidden = [64, 32]\n[task]\ndata = "one"\n')
    plain = load(path)
    assert (plain.seed, plain.head.hidden, plain.task.data) == (3, (64, 32), ("one",))
    overrides = ["seed=4", " train.lr = 3e-5 ", "head.hidden=8, 9", "head.index_dim=none"]
    found = load(path, [*overrides, "backbone.path=a/b=c,d", "task.train=", "seed=5"])
    assert found.seed == 5
    assert found.train.lr == 3e-5
    assert found.head.hidden == (8, 9)
    assert found.head.index_dim is None
    assert found.backbone.path == ("a/b=c", "d")
    assert found.task.train == ""


# ---- faults


def test_every_fault_is_reported_at_once():
    with pytest.raises(ConfigError) as caught:
        build(
            {
                "budget.lables": 5,
                "budget.labels": "many",
                "train.lr": -1,
                "train.clip": float("nan"),
                "train.average": 1.0,
                "head.hidden": "50,0",
                "head.index_dim": "1.5",
                "regime": "offline",
                "seed": True,
            }
        )
    lines = str(caught.value).splitlines()[1:]
    starts = [line.strip().split(":")[0] for line in lines]
    faulty = "budget.lables budget.labels train.lr train.clip train.average"
    faulty += " head.hidden head.index_dim regime seed"
    assert sorted(starts) == sorted(faulty.split())
    report = str(caught.value)
    assert "budget.lables: no such key; the nearest is budget.labels" in report
    assert "regime: got 'offline'; input should be 'online' or 'pool'" in report
    assert "budget.labels: got 'many'; input should be a valid integer" in report


def test_unknown_keys_do_not_hide_a_contradiction():
    with pytest.raises(ConfigError, match=r"(?s)lables.*budget.start: 600 is more than"):
        build({"budget.lables": 5, "budget.start": 600})


@pytest.mark.parametrize("keys", [{"regime": "online"}, {"acquisition.rule": "neuronal"}])
def test_a_threshold_without_a_stream_is_refused(keys):
    with pytest.raises(ConfigError, match=r"acquisition\.threshold: is for a stream, .*, got "):
        build({"acquisition.threshold": 1.0, **keys})


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("acquisition.rul", "acquisition.rule"),
        ("rule", "acquisition.rule"),
        ("budget.rule", "acquisition.rule"),
        ("labels", "budget.labels"),
        ("aquisition.candidates", "acquisition.candidates"),
        ("backbone.tun", "backbone.tune"),
        ("sede", "seed"),
        ("hceckpoint.every", "checkpoint.every"),
        ("task.lable", "task.label"),
    ],
)
def test_an_unknown_key_is_answered_with_the_nearest(typed, meant):
    with pytest.raises(ConfigError, match=f"{typed}: no such key; the nearest is {meant}$"):
        build({typed: 1})


def test_two_letters_swapped_still_find_their_key():
    names = [name for name in sorted(VALUES) if len(name.split(".")[-1]) > 4]
    typed = {
        name[:at] + name[at + 1] + name[at] + name[at + 2 :]: name
        for name in names
        for at in range(len(name) - 1)
        if "." not in name[at : at + 2] and name[at] != name[at + 1]
    }
    with pytest.raises(ConfigError) as caught:
        build(dict.fromkeys(typed, 1))
    faults = [line.strip() for line in str(caught.value).splitlines()[1:]]
    answers = dict(fault.split(": no such key; the nearest is ") for fault in faults)
    assert answers == typed


@FEW
@given(
    st.dictionaries(
        st.sampled_from([*sorted(keys()), "x", "", "task.x.y", "seed.x"]),
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text(max_size=5)
        | st.lists(st.integers(), max_size=2),
        max_size=8,
    )
)
def test_anything_is_a_config_or_a_config_error(values):
    try:
        config = build(values)
    except ConfigError:
        return  # any other error fails the test
    assert build(dotted(config)) == config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"head.form": "linear", "regime": "online"}, "head.form: linear is solved in closed form"),
        ({"head.form": "linear", "backbone.tune": "full"}, "use head.form = mlp"),
        ({"backbone.layers": "auto", "backbone.tune": "full"}, "only a frozen encoder is read at"),
        ({"backbone.pairs": "difference", "backbone.tune": "full"}, "use backbone.pairs = joint"),
        ({"backbone.layers": [6, 3]}, r"backbone.layers: got \[6, 3\]; .*in rising order"),
        ({"backbone.layers": "0,3"}, "backbone.layers: got '0,3'; .*from 1 upwards"),
        ({"backbone.layers": "last,3"}, "backbone.layers: got 'last,3'; .*give last, auto, or"),
        ({"budget.start": 501}, "budget.start: 501 is more than budget.labels = 500"),
        ({"budget.start": 0}, "margin asks a fitted head.*reads features alone: typiclust, "),
        (
            {"budget.start": 0, "backbone.tune": "full", "policy": "svpp"},
            "got 0 and policy = svpp; give it at least 1 label",
        ),
        ({"head.kind": "neuronal", "backbone.tune": "full"}, "neuronal is solved for on features"),
        ({"head.kind": "neuronal", "regime": "online"}, "neuronal is solved .* frozen and online;"),
        ({"regime": "online", "train.schedule": "linear"}, "give budget.steps"),
        ({"task.name": "custom", "task.train": "a.csv"}, "names both files"),
        ({"seed": 2**32}, "seed: got 4294967296; input should be less than 4294967296"),
    ],
)
def test_combinations_that_make_no_sense_are_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        build(values)


@pytest.mark.parametrize(
    ("values", "closed"),
    [
        ({}, True),
        ({"head.form": "mlp"}, False),
        ({"head.kind": "linear", "head.form": "mlp"}, True),
        ({"head.kind": "neuronal", "head.form": "mlp"}, True),
        ({"regime": "online"}, False),
        ({"backbone.tune": "full"}, False),
    ],
)
def test_the_closed_form_is_for_frozen_features_in_rounds(values, closed):
    assert build(values).closed_form is closed


def test_what_cannot_be_read_is_named_with_its_path(tmp_path):
    path = tmp_path / "run.toml"
    with pytest.raises(ConfigError, match=r"run\.toml: no such config file"):
        load(path)
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(tmp_path)
    path.write_text("seed = = 3")
    with pytest.raises(ConfigError, match=r"run\.toml: not a TOML file: .*line 1"):
        load(path)
    path.write_bytes(b'[task]\nname = "\xff"')
    with pytest.raises(ConfigError, match=r"run\.toml: not a TOML file"):
        load(path)
    path.write_text("[head]\nkind = 3\n")
    with pytest.raises(ConfigError, match=r"(?s)run\.toml: .*head.kind: got 3"):
        load(path)
    path.write_text("head = 3\n")
    with pytest.raises(ConfigError, match="head: no such key"):
        load(path, ["head.kind=linear"])
    path.write_text("")
    with pytest.raises(ConfigError, match="override 'seed' has no '='; write it as key=value"):
        load(path, ["seed"])

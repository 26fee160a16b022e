"""Rules in configs and in the README: near misses, what they need, and who reads targets."""

import re
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from enn_finetune.config import ConfigError, build, warnings
from enn_finetune.config.rules import (
    EPISTEMIC,
    FEATURES_ALONE,
    NAMES,
    TARGETED,
    pays_no_heed,
)

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    """The text under a heading of the README."""
    return README.split(f"\n## {title}\n")[1].split("\n## ")[0]


def named(text: str) -> set[str]:
    """The rules that names and patterns in backticks stand for, each of which stands for some."""
    found = {
        word: {n for n in NAMES if fnmatchcase(n, word)} for word in re.findall("`(.+?)`", text)
    }
    assert all(found.values()), [word for word, names in found.items() if not names]
    return set().union(*found.values())


# ---- what is said of a rule that cannot be used


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("margn", "margin"), ("blad", "bald"), ("softmax_entorpy", "softmax_entropy"), (3, "")],
)
def test_a_misspelt_rule_is_answered_with_the_nearest(typed, meant):
    with pytest.raises(ConfigError) as caught:
        build({"acquisition.rule": typed})
    fault = str(caught.value).splitlines()[1].strip()
    assert fault.startswith(f"acquisition.rule: got {typed!r}; no such value; the nearest is ")
    assert fault.endswith(meant or fault[-1])


@pytest.mark.parametrize("rule", ["bald", "itl", "power_epig", "margin", "random", "itl_features"])
def test_one_index_has_no_spread(rule):
    keys = {"acquisition.rule": rule, "acquisition.indices": 1}
    if rule in EPISTEMIC:
        with pytest.raises(ConfigError, match=rf"acquisition\.indices: {rule} reads the spread"):
            build(keys)
    else:
        assert build(keys).acquisition.indices == 1


@pytest.mark.parametrize("rule", NAMES)
@pytest.mark.parametrize("tune", ["frozen", "full"])
def test_exactly_the_rules_that_read_features_can_begin_without_a_label(rule, tune):
    keys = {"acquisition.rule": rule, "budget.start": 0, "backbone.tune": tune}
    if rule in FEATURES_ALONE or rule == "random":
        assert build(keys).budget.rounds[:2] == (20, 40)
    else:
        with pytest.raises(ConfigError, match=f"{rule} asks a fitted head"):
            build(keys)
    assert build({**keys, "regime": "online"}).budget.start == 0


def test_targets_that_a_rule_does_not_read_are_warned_of():
    for rule in NAMES:
        config = build({"acquisition.rule": rule, "acquisition.targets": "a.csv"})
        told = warnings(config)
        assert bool(told) == (rule not in TARGETED and rule != "random"), rule
        assert all(f"{rule} pays no heed" in line for line in told)
    assert warnings(build({"acquisition.rule": "margin"})) == []
    assert "margin, bald pay no heed" in pays_no_heed(["margin", "itl", "bald", "random"])


def test_keys_of_the_epinet_are_warned_of_where_there_is_none():
    for keys in ({"head.form": "linear"}, {"head.index_dim": 8}):
        assert warnings(build({"head.kind": "epinet", **keys})) == []
        for kind in ("linear", "neuronal"):
            (told,) = warnings(build({"head.kind": kind, **keys}))
            assert told == f"{', '.join(keys)}: read by the epinet alone; head.kind is {kind}"


def test_keys_of_a_policy_that_reads_them_not_are_warned_of():
    base = {"backbone.tune": "full", "regime": "pool", "acquisition.rule": "margin"}
    said = {
        ("svpp", "proxy.modes", "lora"): True,
        ("auto", "proxy.modes", "lora"): False,
        ("svpp", "proxy.tolerance", 0.5): True,
        ("asvp", "proxy.tolerance", 0.5): False,
        ("asvp", "proxy.gain", 0.5): True,
        ("auto", "proxy.refreshes", 3): True,
        ("standard", "proxy.head", "linear"): True,
    }
    for (policy, key, value), warned in said.items():
        told = warnings(build({**base, "policy": policy, key: value}))
        assert told == ([f"{key}: not read where policy = {policy}"] if warned else [])
    drops = {"proxy.path": "small", "proxy.head": "mc_dropout", "head.kind": "linear"}
    assert warnings(build({**base, **drops})) == []


# ---- what the README says


def test_the_readme_says_who_reads_targets():
    sentence = section("Named targets").split(" then buy ")[0]
    assert named(sentence) == TARGETED


def test_the_readme_has_every_rule_in_its_table():
    rows = [line for line in section("Which rule to use when").splitlines() if line.count("|") == 5]
    told = {}
    for line in rows[2:]:
        when, rules = line.split("|")[1:3]
        words = [word for word in re.findall("`(.+?)`", rules) if "=" not in word]
        told[when.strip()] = named(" ".join(f"`{word}`" for word in words))
    assert set().union(*told.values()) | {"random"} == set(NAMES)
    (cold,) = (names for when, names in told.items() if when == "no labels to begin with")
    assert cold == set(FEATURES_ALONE)

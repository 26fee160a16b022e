"""A study's config: options of agents and their ranges, faults told at once, and its hash."""

import inspect

import jax
import jax.numpy as jnp
import pytest

from enn_finetune.acquisition.choose import EPISTEMIC, RULES
from enn_finetune.config import ConfigError, TestbedConfig, load_testbed
from enn_finetune.config import testbed_agents as names
from enn_finetune.config.rules import EPISTEMIC as KNOWN_EPISTEMIC
from enn_finetune.config.testbed import ActiveConfig, with_later
from enn_finetune.testbed.agents import AGENTS
from enn_finetune.testbed.plan import agent_of, plan
from enn_finetune.testbed.types import Spec

OPTIONS = [(agent, name) for agent, options in names.OPTIONS.items() for name in options]


def default(agent, option):
    return inspect.signature(AGENTS[agent]).parameters[option].default


def test_names_are_those_of_the_code():
    assert [*names.OPTIONS] == [*AGENTS]
    for agent, options in names.OPTIONS.items():
        assert {"spec", *options} == {*inspect.signature(AGENTS[agent]).parameters}, agent
    assert {*names.RULES} == {*RULES}
    assert EPISTEMIC & {*RULES} == KNOWN_EPISTEMIC & {*RULES}


@pytest.mark.parametrize(("agent", "option"), OPTIONS)
def test_ranges_fit_the_options(agent, option):
    kind, value = names.OPTIONS[agent][option], default(agent, option)
    assert kind.holds(value)
    assert kind.several == isinstance(value, tuple)
    assert kind.whole == isinstance(value, int | tuple)
    assert not kind.holds(-1.0)
    assert not kind.holds(())
    assert kind.holds((3.0, 4.0)) == kind.several
    assert kind.holds(0.5) == (not kind.whole)
    again = names.arguments(agent, {option: value})[option]
    assert (again, type(again)) == (value, type(value))


def test_options_reach_the_agent():
    given = ["agents.mlp.hidden=7,5", "agents.ensemble.hidden=6", "agents.ensemble.members=3"]
    config, spec = load_testbed(None, given), Spec()
    params, _ = agent_of(config, "mlp", spec).init(jax.random.key(0), spec)
    assert [weights.shape for weights, _ in params] == [(2, 7), (7, 5), (5, 2)]
    agent = agent_of(config, "ensemble", spec)
    assert agent.functions == 3
    params, _ = agent.init(jax.random.key(0), spec)
    assert [weights.shape for weights, _ in params] == [(3, 2, 6), (3, 6, 2)]


def test_a_file_gives_widths_as_a_list(tmp_path):
    (tmp_path / "study.toml").write_text("[agents.mlp]\nhidden = [7, 5]\nl2 = 2\n")
    config = load_testbed(tmp_path / "study.toml")
    assert config.agents == {"mlp": {"hidden": (7.0, 5.0), "l2": 2.0}}
    assert config.hash == load_testbed(tmp_path / "study.toml", ["agents.mlp.hidden=7,5"]).hash


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ("agents.mlp.hidden=0", "got 0; give whole numbers from 1, one a layer"),
        ("agents.mlp.hidden=5,2.5", "got 5,2.5; give whole numbers from 1, one a layer"),
        ("agents.mlp.hidden=", "got ''; value error, give a finite number, or several"),
        ("agents.mlp.l2=abc", "got 'abc'; value error, give a finite number, or several"),
        ("agents.mlp.l2=1,2", "got 1,2; give a number from 0"),
        ("agents.mlp.l2=inf", "got 'inf'; value error, give a finite number"),
        ("agents.laplace.l2=0", "got 0; give a number above 0"),
        ("agents.ensemble.members=0", "got 0; give a whole number from 1"),
        ("agents.dropout.rate=2", "got 2; give a number from 0 to below 1"),
        ("agents.dropout.rate=1", "got 1; give a number from 0 to below 1"),
        ("agents.epinet.index_dim=2.5", "got 2.5; give a whole number from 1"),
        ("agents.sngp.length=-1", "got -1; give a number above 0"),
    ],
)
def test_options_out_of_range_are_refused(given, fault):
    with pytest.raises(ConfigError) as error:
        load_testbed(None, [given])
    assert f"  {given.partition('=')[0]}: {fault}" in str(error.value)


def test_all_faults_are_told_at_once():
    given = {
        "active.problms=3": "active.problms: no such key",
        "active.updates=x": "active.updates: got 'x'",
        "supervised.ratios=1,-1": "supervised.ratios: got '-1'",
        "supervised.agents=laplas": "no agent 'laplas'",
        "active.again=mlp/bald": "active.again: mlp/bald: bald reads the spread",
        "agents.epine.l2=1": "agents.epine: no agent",
        "agents.mlp.l2=abc": "agents.mlp.l2: got 'abc'",
        "agents.dropout.rate=2": "agents.dropout.rate: got 2",
        "agents.mlp.width=2": "agents.mlp.width: no option",
    }
    with pytest.raises(ConfigError) as error:
        load_testbed(None, [*given])
    said = str(error.value).splitlines()[1:]
    assert all(any(fault in line for line in said) for fault in given.values()), said
    assert len(said) == len(given), said  # and nothing that follows from them only


def test_a_yes_is_no_number(tmp_path):
    (tmp_path / "study.toml").write_text("active.problems = true\nagents.mlp.l2 = true\n")
    with pytest.raises(ConfigError) as error:
        load_testbed(tmp_path / "study.toml")
    assert str(error.value).count("got True; this key is not a yes or no") == 2


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({"agents": {"ensemble": {"members": 0}}}, "agents.ensemble.members: got 0"),
        ({"agents": {"epine": {}}}, "no agent 'epine'"),
        ({"active": ActiveConfig(arms=("mlp/random", "mlp/bald"))}, "bald reads the spread"),
    ],
)
def test_a_config_made_in_python_is_checked_by_the_plan(given, fault):
    with pytest.raises(ConfigError, match=fault):
        plan(TestbedConfig(**given))


def test_the_default_study_keeps_the_hash_that_its_figures_are_published_under():
    assert load_testbed().hash == "eb8a483ac4db4246"
    assert load_testbed(None, ["supervised.anchors=2"]).hash == load_testbed().hash
    others = ["supervised.anchors=3", "supervised.problems=7", "agents.epinet.prior_scale=0.2"]
    hashes = {load_testbed(None, [one]).hash for one in others}
    assert len(hashes | {load_testbed().hash}) == 4


def test_keys_that_came_later_are_filled_in():
    old = {"supervised": {"problems": 6}, "active": {}}
    assert with_later(old) == {"supervised": {"problems": 6, "anchors": 2}, "active": {}}
    new = {"supervised": {"anchors": 3}}
    assert with_later(new) == new
    assert with_later({}) == {}
    assert "anchors" not in old["supervised"]  # what was given is left as it is


@pytest.mark.parametrize("agent", names.OPTIONS)
def test_the_least_of_every_option_can_be_run(agent):
    spec, options = Spec(), names.OPTIONS[agent]
    least = {name: kind.least for name, kind in options.items() if not kind.apart}
    made = agent_of(TestbedConfig(agents={agent: least}), agent, spec)
    keys = jax.random.split(jax.random.key(0), 3)
    x, y, weight = jax.random.normal(keys[0], (4, 2)), jnp.arange(4) % 2, jnp.ones(4)
    params, fixed = made.init(keys[1], spec)
    loss = made.loss(params, fixed, keys[2], x, y, weight)
    log_probs = made.log_probs(made.finish(params, fixed, x, y, weight), keys[2], x, 3)
    assert jnp.isfinite(loss)
    assert jnp.isfinite(log_probs).all()

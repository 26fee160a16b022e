"""Whole runs of every policy: what they buy, what they are charged, stop and go on."""

import numpy as np
import pytest
import tiny_runs
import worlds

from enn_finetune import checkpoint, pool
from enn_finetune.config import ConfigError
from enn_finetune.policies import Shared
from enn_finetune.report import command
from enn_finetune.session import CHECKPOINT, RunStoppedError


def test_standard_buys_and_scores_as_a_pool_run_does(world, whole, tmp_path):
    config = worlds.config_of(world)
    problem = tiny_runs.prepared(config)
    pool.run(problem, config, tiny_runs.session(config, tmp_path))
    assert problem.oracle.bought.tolist() == whole["standard"][3]
    plain = worlds.timeless(worlds.records(tmp_path))
    assert worlds.timeless(worlds.records(whole["standard"][0])) == plain, "costs too"
    assert plain[-1]["policy"] == "standard"
    assert plain[-1]["training"]["flops"] > plain[0]["training"]["flops"] > 0
    assert plain[-1]["scoring"]["flops"] > plain[0]["scoring"]["flops"] == 0
    assert plain[-1]["encoding"]["flops"] == 0


def test_rows_bought_at_random_need_one_fit_only(world, tmp_path):
    config = worlds.config_of(world, **{"acquisition.rule": "random"})
    pool.run(tiny_runs.prepared(config), config, tiny_runs.session(config, tmp_path / "pool"))
    worlds.course(config, tmp_path / "policy")
    found = worlds.timeless(worlds.records(tmp_path / "pool"))
    assert found == worlds.timeless(worlds.records(tmp_path / "policy"))
    assert len({one["training"]["flops"] for one in found}) == 1
    assert found[-1]["scoring"]["flops"] == 0
    assert found[-1]["evaluation"]["flops"] > 4 * found[-1]["training"]["flops"]


def test_an_interrupted_standard_run_is_charged_once(world, tmp_path, monkeypatch):
    config = worlds.config_of(world)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    pool.run(tiny_runs.prepared(config), config, tiny_runs.session(config, whole))
    crash = tiny_runs.before_call(monkeypatch, pool, "choose", 3, tiny_runs.crash)
    with crash, pytest.raises(tiny_runs.Crash):
        pool.run(tiny_runs.prepared(config), config, tiny_runs.session(config, cut))
    for _ in range(2):  # a finished run is resumed into itself
        session = tiny_runs.session(config, cut, resume=True)
        pool.run(tiny_runs.prepared(config), config, session)
        assert worlds.left_by(cut) == worlds.left_by(whole)


def test_a_run_that_began_without_an_account_has_none_of_a_half(world, tmp_path, monkeypatch):
    config = worlds.config_of(world)
    crash = tiny_runs.before_call(monkeypatch, pool, "choose", 3, tiny_runs.crash)
    with crash, pytest.raises(tiny_runs.Crash):
        pool.run(tiny_runs.prepared(config), config, tiny_runs.session(config, tmp_path))
    _, saved = checkpoint.restore(tmp_path / CHECKPOINT, None)
    del saved["session"]["ledger"]  # as checkpoints were before
    checkpoint.save(tmp_path / CHECKPOINT, None, saved)
    kept = saved["session"]["records"]
    session = tiny_runs.session(config, tmp_path, resume=True)
    pool.run(tiny_runs.prepared(config), config, session)
    found = worlds.records(tmp_path)
    assert ["training" in one for one in found] == [True] * kept + [False] * (5 - kept)


@pytest.mark.parametrize("name", worlds.CASES)
def test_rounds_buy_what_the_budget_says(whole, name):
    out, _, rounds, bought = whole[name]
    assert rounds == 4
    assert len(set(bought)) == len(bought) == 24
    assert [one["labels_bought"] for one in worlds.records(out)] == worlds.LABELS
    assert bought[:8] == whole["standard"][3][:8], "policies of a seed begin alike"


def test_costs_only_grow_and_what_draws_the_curve_is_apart(whole):
    for out, *_ in whole.values():
        found = worlds.records(out)
        for part in ("encoding", "scoring", "evaluation"):
            values = [one[part]["flops"] for one in found]
            assert values == sorted(values)
    last = {name: worlds.records(case[0])[-1] for name, case in whole.items()}
    assert last["standard"]["encoding"]["flops"] == 0
    ends = last["svpp"]["training"]["flops"]
    scored = last["standard"]["evaluation"]["flops"]
    assert scored > 0, "the predictions of the evaluation splits"
    assert last["svpp"]["evaluation"]["flops"] == pytest.approx(scored + 5 * ends, rel=1e-6)
    firsts = [one["training"]["flops"] for one in worlds.records(whole["svpp"][0])]
    assert set(firsts) == {ends}, "one fit of as many steps, wherever svpp ends"
    assert last["standard"]["training"]["flops"] == pytest.approx(5 * ends, rel=0.01)


def test_svpp_never_refreshes_and_asvp_as_often_as_it_may(whole):
    assert worlds.records(whole["svpp"][0])[-1]["refreshed"] == []
    asvp = worlds.records(whole["asvp"][0])
    # A reading begins anew with new features: two of them before they can be stale.
    assert asvp[-1]["refreshed"] == [12, 20]
    encoding = [one["encoding"]["flops"] for one in asvp]
    assert encoding[2] == pytest.approx(2 * encoding[0], rel=0.3)
    assert encoding[0] == encoding[1]


def test_features_of_a_refresh_change_what_is_bought(world, tmp_path):
    """Under a learning rate that moves the features far, whatever rounding does to near ties."""
    bought = {}
    for name in ("svpp", "asvp"):
        keys = worlds.CASES[name] | {"train.lr": 3e-2, "evaluation.every": 24}
        _, _, bought[name] = worlds.course(worlds.config_of(world, **keys), tmp_path / name)
    assert bought["asvp"][:12] == bought["svpp"][:12]
    assert bought["asvp"] != bought["svpp"]


def test_a_probe_comes_first_until_the_features_are_stale(world, tmp_path, monkeypatch):
    seen = worlds.watched_fits(
        monkeypatch, lambda problem, config, number: (number, config.train.probe_steps)
    )
    keys = {"proxy.tolerance": 1e6, "proxy.patience": 2}
    worlds.course(worlds.config_of(world, policy="asvp", **keys), tmp_path)
    assert [probe for _, probe in seen] == [2, 2, 0, 0, 0]
    assert worlds.records(tmp_path)[-1]["refreshed"] == [16]


@pytest.mark.parametrize("name", ["svpp", "asvp", "auto", "standard"])
@pytest.mark.parametrize("choice", [1, 3])
def test_a_signal_in_any_round_changes_nothing(world, whole, tmp_path, monkeypatch, name, choice):
    import signal

    config = worlds.config_of(world, **worlds.CASES[name])
    strike = tiny_runs.before_call(
        monkeypatch, pool, "choose", choice, lambda: signal.raise_signal(signal.SIGTERM)
    )
    with strike, pytest.raises(RunStoppedError):
        worlds.course(config, tmp_path)
    worlds.course(config, tmp_path)
    assert worlds.left_by(tmp_path) == worlds.left_by(whole[name][0])


@pytest.mark.parametrize("name", ["asvp", "auto"])
def test_a_kill_changes_nothing(world, whole, tmp_path, monkeypatch, name):
    config = worlds.config_of(world, **worlds.CASES[name])
    crash = tiny_runs.before_call(monkeypatch, pool, "choose", 4, tiny_runs.crash)
    with crash, pytest.raises(tiny_runs.Crash):
        worlds.course(config, tmp_path)
    worlds.course(config, tmp_path)
    assert worlds.left_by(tmp_path) == worlds.left_by(whole[name][0])


def test_a_finished_run_is_resumed_into_itself(world, whole, tmp_path):
    config = worlds.config_of(world, policy="asvp", **worlds.EVERY_ROUND)
    first, *_ = worlds.course(config, tmp_path)
    before = worlds.left_by(tmp_path)
    again, *_ = worlds.course(config, tmp_path)
    assert worlds.left_by(tmp_path) == before
    ours, theirs = map(tiny_runs.leaves, (first.backbone, again.backbone))
    assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_runs_that_share_are_charged_as_if_they_did_not(world, whole, tmp_path):
    shared = Shared()
    for name in ("svpp", "asvp", "auto"):
        config = worlds.config_of(world, **worlds.CASES[name])
        worlds.course(config, tmp_path / name, shared=shared)
        assert worlds.left_by(tmp_path / name) == worlds.left_by(whole[name][0])
    assert len(shared.features) == 1


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"policy": "svpp", "backbone.tune": "frozen"}, "policy = svpp"),
        ({"proxy.path": "somewhere", "backbone.tune": "frozen"}, "proxy.path given"),
        ({"policy": "asvp", "regime": "online"}, "regime = pool"),
        ({"policy": "asvp", "acquisition.candidates_share": 0.5}, "candidates_share"),
        (
            {
                "policy": "svpp",
                "head.kind": "epinet",
                "proxy.head": "linear",
                "acquisition.rule": "bald",
            },
            "proxy.head",
        ),
        ({"policy": "sometimes"}, "policy"),
        (
            {"proxy.path": "some", "proxy.head": "mc_dropout", "head.kind": "epinet"},
            "linear classification layer",
        ),
        ({"proxy.head": "mc_dropout", "acquisition.rule": "bald"}, "linear head has none"),
    ],
)
def test_what_cannot_be_run_is_refused(world, keys, words):
    with pytest.raises(ConfigError, match=words):
        worlds.config_of(world, **keys)


def test_train_and_report_say_what_policies_cost(world, tmp_path):
    runs = {
        "random": {"acquisition.rule": "random"},
        "standard": {},
        "svpp": {"policy": "svpp"},
    }
    for name, keys in runs.items():
        config = worlds.config_of(world, **keys, **{"evaluation.every": 16})
        summary = tiny_runs.run(config, tmp_path / name)
        assert summary["labels_bought"] == 24
        assert (tmp_path / name / "model" / "model.safetensors").exists()
    found = command.run([tmp_path / name for name in runs], tmp_path / "r" / "report.html")
    (money,) = found["money"].values()
    arms = {name: arm["flops"] for name, arm in money["arms"].items()}
    assert list(arms) == ["linear/random", "linear/margin", "linear/margin, svpp"]
    one_fit, standard, svpp = arms.values()
    assert standard["training"] == pytest.approx(5 * one_fit["training"], rel=0.01)
    assert svpp["training"] == pytest.approx(one_fit["training"], rel=0.01)
    assert svpp["encoding"] > standard["encoding"] == one_fit["encoding"] == 0
    assert money["prices"][0]["label"] == 0.1, "the config's prices come first"
    assert money["speed"] == 1e6

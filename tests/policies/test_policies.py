"""Whole runs of every policy: what they buy, what they are charged, stop and go on."""

import numpy as np
import pytest
import tiny_runs
import worlds

from enn_finetune import pool
from enn_finetune.config import ConfigError
from enn_finetune.errors import InputError
from enn_finetune.policies import Shared, deciding, fits, selector
from enn_finetune.session import RunStoppedError

LABELS = [8, 12, 16, 20, 24]
EVERY_ROUND = {"proxy.tolerance": 1e6, "proxy.patience": 1, "proxy.refreshes": 9}
DEAR = {"prices.label": 1e6}
CASES = {
    "standard": {},
    "svpp": {"policy": "svpp"},
    "asvp": {"policy": "asvp", **EVERY_ROUND},
    "auto": {"policy": "auto", "proxy.modes": "bitfit", **DEAR},
}


@pytest.fixture(scope="module")
def whole(world, tmp_path_factory):
    """Each policy run once, whole."""
    found = {}
    for name, keys in CASES.items():
        out = tmp_path_factory.mktemp(name)
        found[name] = (out, *worlds.course(worlds.config_of(world, **keys), out))
    return found


def test_standard_buys_and_scores_as_a_pool_run_does(world, whole, tmp_path):
    config = worlds.config_of(world)
    problem = tiny_runs.prepared(config)
    pool.run(problem, config, tiny_runs.session(config, tmp_path))
    assert problem.oracle.bought.tolist() == whole["standard"][3]
    plain = [(one["labels_bought"], one["metrics"]) for one in worlds.records(tmp_path)]
    ours = [(one["labels_bought"], one["metrics"]) for one in worlds.records(whole["standard"][0])]
    assert ours == plain


@pytest.mark.parametrize("name", CASES)
def test_rounds_buy_what_the_budget_says(whole, name):
    out, _, rounds, bought = whole[name]
    assert rounds == 4
    assert len(set(bought)) == len(bought) == 24
    assert [one["labels_bought"] for one in worlds.records(out)] == LABELS
    assert bought[:8] == whole["standard"][3][:8], "policies of a seed begin alike"


def test_costs_only_grow_and_what_draws_the_curve_is_apart(whole):
    for out, *_ in whole.values():
        found = worlds.records(out)
        for part in ("encoding", "scoring", "evaluation"):
            values = [one[part]["flops"] for one in found]
            assert values == sorted(values)
    last = {name: worlds.records(case[0])[-1] for name, case in whole.items()}
    assert last["standard"]["evaluation"]["flops"] == 0
    assert last["standard"]["encoding"]["flops"] == 0
    assert last["svpp"]["evaluation"]["flops"] > 0
    ends = last["svpp"]["training"]["flops"]
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


def test_features_of_a_refresh_change_what_is_bought(whole):
    bought = {name: case[3] for name, case in whole.items()}
    assert bought["asvp"][:12] == bought["svpp"][:12]
    assert bought["asvp"] != bought["svpp"]


def test_auto_follows_prices(world, whole, tmp_path):
    dear, _, _, _ = whole["auto"]
    assert worlds.records(dear)[-1]["refreshed"] == [8, 12, 16, 20]
    config = worlds.config_of(world, policy="auto", **{"prices.label": 1e-12})
    _, _, bought = worlds.course(config, tmp_path)
    assert worlds.records(tmp_path)[-1]["refreshed"] == []
    assert bought == whole["svpp"][3]


def test_a_probe_comes_first_until_the_features_are_stale(world, tmp_path, monkeypatch):
    seen = []
    real = fits.trained

    def watched(problem, config, number):
        seen.append((number, config.train.probe_steps))
        return real(problem, config, number)

    monkeypatch.setattr(fits, "trained", watched)
    keys = {"proxy.tolerance": 1e6, "proxy.patience": 2}
    worlds.course(worlds.config_of(world, policy="asvp", **keys), tmp_path)
    assert [probe for _, probe in seen] == [2, 2, 0, 0, 0]
    assert worlds.records(tmp_path)[-1]["refreshed"] == [16]


@pytest.mark.parametrize("name", ["svpp", "asvp", "auto", "standard"])
@pytest.mark.parametrize("choice", [1, 3])
def test_a_signal_in_any_round_changes_nothing(world, whole, tmp_path, monkeypatch, name, choice):
    import signal

    config = worlds.config_of(world, **CASES[name])
    strike = tiny_runs.before_call(
        monkeypatch, pool, "choose", choice, lambda: signal.raise_signal(signal.SIGTERM)
    )
    with strike, pytest.raises(RunStoppedError):
        worlds.course(config, tmp_path)
    worlds.course(config, tmp_path)
    assert worlds.left_by(tmp_path) == worlds.left_by(whole[name][0])


@pytest.mark.parametrize("name", ["asvp", "auto"])
def test_a_kill_changes_nothing(world, whole, tmp_path, monkeypatch, name):
    config = worlds.config_of(world, **CASES[name])
    crash = tiny_runs.before_call(monkeypatch, pool, "choose", 4, tiny_runs.crash)
    with crash, pytest.raises(tiny_runs.Crash):
        worlds.course(config, tmp_path)
    worlds.course(config, tmp_path)
    assert worlds.left_by(tmp_path) == worlds.left_by(whole[name][0])


def test_a_finished_run_is_resumed_into_itself(world, whole, tmp_path):
    config = worlds.config_of(world, policy="asvp", **EVERY_ROUND)
    first, *_ = worlds.course(config, tmp_path)
    before = worlds.left_by(tmp_path)
    again, *_ = worlds.course(config, tmp_path)
    assert worlds.left_by(tmp_path) == before
    ours, theirs = map(tiny_runs.leaves, (first.backbone, again.backbone))
    assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_runs_that_share_are_charged_as_if_they_did_not(world, whole, tmp_path):
    shared = Shared()
    for name in ("svpp", "asvp", "auto"):
        config = worlds.config_of(world, **CASES[name])
        worlds.course(config, tmp_path / name, shared=shared)
        assert worlds.left_by(tmp_path / name) == worlds.left_by(whole[name][0])
    assert len(shared.features) == 1


# Another model chooses


@pytest.fixture(scope="module")
def smaller(tmp_path_factory):
    """Another encoder: its weights in another order."""
    import tiny_bert

    folder = tmp_path_factory.mktemp("smaller") / "bert"
    every = tiny_bert.random_tensors().items()
    tensors = {name: array[::-1].copy() for name, array in every if "layer.1" not in name}
    tiny_bert.write(folder, tensors, num_hidden_layers=1)
    return folder


@pytest.mark.parametrize("policy", ["standard", "svpp", "asvp"])
def test_a_small_model_selects_for_another(world, whole, smaller, tmp_path, monkeypatch, policy):
    trained = []
    real = fits.trained

    def watched(problem, config, number):
        trained.append((config.backbone.path, number))
        return real(problem, config, number)

    monkeypatch.setattr(fits, "trained", watched)
    keys = CASES[policy] | {"proxy.path": str(smaller), "evaluation.every": 16}
    _, _, bought = worlds.course(worlds.config_of(world, **keys), tmp_path)
    assert bought[:8] == whole[policy][3][:8]
    assert bought != whole[policy][3]
    small = [number for path, number in trained if path == (str(smaller),)]
    large = [number for path, number in trained if path != (str(smaller),)]
    assert small == {"standard": [0, 1, 2, 3], "svpp": [], "asvp": [1, 3]}[policy]
    assert large == [0, 2, 4], "where the curve is drawn, and in the end"
    last = worlds.records(tmp_path)[-1]
    assert last["evaluation"]["flops"] > 0


@pytest.mark.slow
def test_mc_dropout_is_an_option_of_the_proxy(world, whole, tmp_path):
    keys = {"policy": "svpp", "proxy.head": "mc_dropout", "evaluation.every": 24}
    _, _, bought = worlds.course(worlds.config_of(world, **keys), tmp_path)
    assert bought[:8] == whole["svpp"][3][:8]
    assert bought != whole["svpp"][3]


def test_a_list_is_replayed_on_any_successor(world, smaller, tmp_path):
    rows = np.random.default_rng(0).permutation(tiny_runs.TRAIN_ROWS)[:24]
    config = worlds.config_of(world, **{"backbone.path": str(smaller), "evaluation.every": 8})
    _, _, bought = worlds.course(config, tmp_path, given=rows)
    assert bought == rows.tolist()
    last = worlds.records(tmp_path)[-1]
    assert last["scoring"]["flops"] == last["encoding"]["flops"] == 0
    assert last["training"]["flops"] > 0


def test_a_file_of_bought_rows_is_replayed(world, whole, tmp_path):
    import json

    bought = whole["asvp"][3]
    lines = [{"task": "custom", "seed": seed, "rows": bought[:: 1 - 2 * seed]} for seed in (0, 1)]
    path = tmp_path / "bought.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    keys = {"proxy.replay": str(path), "evaluation.every": 24}
    _, _, again = worlds.course(worlds.config_of(world, **keys), tmp_path / "run")
    assert again == bought, "the pool is the whole training file: rows have their own numbers"
    for words, line in {
        "at least the 24 rows": {"rows": bought[:5]},
        "not in the pool": {"rows": [9999] * 24},
        "found 0 lists": {"seed": 7},
    }.items():
        path.write_text(json.dumps(lines[0] | line) + "\n")
        with pytest.raises(InputError, match=words):
            worlds.course(worlds.config_of(world, **keys), tmp_path / words)


# Pseudo-labels


def test_pseudo_labels_read_no_label(world, tmp_path, monkeypatch):
    asked = []
    real = fits.Oracle

    class Watched(real):
        def __init__(self, targets, budget):
            asked.append(targets.copy())
            super().__init__(targets, budget)

    monkeypatch.setattr(fits, "Oracle", Watched)
    config = worlds.config_of(world, policy="svpp", **{"proxy.pseudo": 0.2, "evaluation.every": 24})
    problem = tiny_runs.prepared(config)
    real_targets = problem.oracle._targets
    session = tiny_runs.session(config, tmp_path)
    from enn_finetune.policies import run

    run(problem, config, session)
    assert len(problem.oracle.bought) == 24, "none of them is bought"
    owned = problem.oracle.owned
    assert (asked[-1].sum(1) > 0).sum() == 24 + 12
    np.testing.assert_array_equal(asked[-1][owned], real_targets[owned])


def test_the_surest_of_each_class_are_taken_as_they_are_predicted():
    first = np.array([0.9, 0.6, 0.95, 0.3, 0.45, 0.99])
    found = fits.surest(np.stack([first, 1 - first], 1), 3)
    assert sorted(found.tolist()) == [2, 3, 5]


# Decisions


def reading(labels, value):
    return deciding.Reading(labels, 0.0, value)


def test_features_are_stale_when_the_indicator_no_longer_rises(world):
    config = worlds.config_of(world, policy="asvp", **{"proxy.tolerance": 0.01})
    rising = [reading(8, -0.8), reading(12, -0.7), reading(16, -0.6)]
    assert not deciding.stale(rising, config)
    assert deciding.stale([*rising, reading(20, -0.595)], config)
    assert not deciding.stale(rising[:1] + rising[:1], config), "too few to say"


def test_new_features_are_worth_less_where_the_old_ones_are_young(world):
    config = worlds.config_of(world, **{"prices.label": 2.0})
    assert deciding.worth(8, 0, config, 0.1) == pytest.approx(0.1 * 16 * 2)
    assert deciding.worth(16, 12, config, 0.1) == pytest.approx(0.1 * 0.25 * 8 * 2)
    assert deciding.worth(24, 0, config, 0.1) == 0


def test_what_is_learned_of_new_features_is_bounded():
    worse, better = np.full(9, 0.9), np.full(9, 0.3)
    assert deciding.learned(0.1, worse, better) == 0.2
    assert deciding.learned(0.1, better, worse) == 0.05
    assert deciding.learned(0.25, worse, better) == deciding.MOST
    assert deciding.learned(0.1, worse, worse) == 0.1
    noisy = np.array([0.0, 5.0, 0.0, 0.1])
    assert deciding.learned(0.1, noisy, noisy[::-1]) == 0.1


def test_the_cheapest_mode_that_is_as_good_is_taken():
    rng = np.random.default_rng(0)
    base = rng.uniform(0.2, 0.8, 30)
    losses = [base, base + 0.001 * rng.normal(size=30), base + 0.5]
    assert deciding.cheapest(losses, [3.0, 2.0, 1.0]) in (0, 1)
    assert deciding.cheapest([base, base, base + 0.5], [3.0, 2.0, 1.0]) == 1
    assert deciding.cheapest([base, base + 0.5], [3.0, 1.0]) == 0


# Configs


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
    ],
)
def test_what_cannot_be_run_is_refused(world, keys, words):
    with pytest.raises(ConfigError, match=words):
        worlds.config_of(world, **keys)


def test_a_train_command_runs_a_policy(world, tmp_path):
    keys = {"policy": "svpp", "evaluation.every": 24}
    summary = tiny_runs.run(worlds.config_of(world, **keys), tmp_path)
    assert summary["labels_bought"] == 24
    assert (tmp_path / "model" / "model.safetensors").exists()
    assert selector.Shared().fits == {}

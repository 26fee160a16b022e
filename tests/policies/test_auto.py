"""Runs of the policy auto: what it pays for, what it goes on with, and what it leaves alone."""

import numpy as np
import pytest
import worlds

from enn_finetune.config import ConfigError
from enn_finetune.costs import CHARGED
from enn_finetune.policies import deciding, selector


def test_auto_follows_prices(world, whole, tmp_path):
    dear, _, _, _ = whole["auto"]
    found = worlds.records(dear)
    assert found[-1]["refreshed"] == [16, 20], "once there are twice the labels of the start"
    config = worlds.config_of(world, policy="auto", **{"prices.label": 1e-12})
    _, _, bought = worlds.course(config, tmp_path)
    cheap = worlds.records(tmp_path)
    assert cheap[-1]["refreshed"] == []
    assert bought == whole["svpp"][3]
    parts = ("encoding", "scoring", "training", "evaluation", "metrics")
    for mine, its in zip(
        *map(worlds.timeless, (cheap, worlds.records(whole["svpp"][0]))), strict=True
    ):
        assert [mine[part] for part in parts] == [its[part] for part in parts]


def test_auto_pays_for_all_that_it_tries(whole):
    auto, svpp = (worlds.records(whole[name][0]) for name in ("auto", "svpp"))
    last = [one["training"]["flops"] for one in auto]
    ends = svpp[-1]["training"]["flops"]
    # Three ways of training at 16 labels, one refresh more at 20, and the fit in the end.
    assert last[2] == last[1] == pytest.approx(ends)
    assert last[3] == pytest.approx(4 * ends, rel=0.5)
    assert last[4] > last[3]
    encoding = [one["encoding"]["flops"] for one in auto]
    assert encoding[3] > encoding[2] == encoding[0]
    state = worlds.left_by(whole["auto"][0])[1]
    assert state["tried"]
    charged = [sum(one[-1][part]["flops"] for part in CHARGED) for one in (auto, svpp)]
    assert encoding[4] - encoding[0] + 3 * ends < state["explored"] < charged[0] - ends / 2
    assert state["explored"] == pytest.approx(charged[0] - charged[1], rel=0.2)


def test_no_way_of_training_takes_more_than_auto_reckons_with(world, tmp_path, monkeypatch):
    """A probe's steps and a dearer mode are part of what is asked whether it can be afforded."""
    reckoned, real = [], selector.Selector._fit_flops

    def told(self, way):
        reckoned.append((way, real(self, way)))
        return reckoned[-1][1]

    monkeypatch.setattr(selector.Selector, "_fit_flops", told)
    taken: list[float] = []
    fit = selector.Selector._made

    def counted(self, refresh):
        with self.ledger.measured() as work:
            made = fit(self, refresh)
        taken.append(work().flops)
        return made

    monkeypatch.setattr(selector.Selector, "_made", counted)
    mode, other = "lora", "full"
    keys = {"policy": "auto", "backbone.tune": mode, "proxy.modes": other, **worlds.DEAR}
    config = worlds.config_of(world, **keys, **{"proxy.probe_steps": 30})
    worlds.course(config, tmp_path)
    ways = reckoned[:3]
    assert [way.mode for way, _ in ways] == [mode, mode, other]
    assert [way.probe for way, _ in ways] == [False, True, False]
    for (way, most), flops in zip(ways, taken[:3], strict=True):
        assert flops <= 1.05 * most, way
    assert ways[1][1] > 3 * ways[0][1], "the probe's 30 steps beside 6"


@pytest.mark.parametrize("better", [True, False])
def test_auto_goes_on_with_what_predicted_better(world, whole, tmp_path, monkeypatch, better):
    """New features of whatever quality, judged by losses that are made up."""
    real = selector.Selector._losses

    def made_up(self, parts, problem, count):
        assert count == 4, "half of the labels bought at random"
        mine = real(self, parts, problem, count)
        fresh = problem.pool is not self.old.problem.pool
        return np.full_like(mine, 0.1 if fresh == better else 0.9)

    monkeypatch.setattr(selector.Selector, "_losses", made_up)
    config = worlds.config_of(world, policy="auto", **worlds.DEAR)
    _, _, bought = worlds.course(config, tmp_path)
    state = worlds.left_by(tmp_path)[1]
    assert [one[-1] for one in state["refreshes"]] == [better, False] if better else [False, False]
    assert (bought == whole["svpp"][3]) == (not better)


def test_rows_apart_train_no_encoder_that_chooses(world, tmp_path, monkeypatch):
    seen = worlds.watched_fits(
        monkeypatch, lambda problem, config, number: problem.oracle.bought.tolist()
    )
    keys = worlds.CASES["auto"] | {"evaluation.every": 24}
    _, _, bought = worlds.course(worlds.config_of(world, **keys), tmp_path)
    assert seen[0] == bought[:8]
    assert seen[-1] == bought, "the last fit takes them all"
    assert len(seen) == 2 + 3 + 1
    assert all(not set(one) & set(bought[:4]) for one in seen[1:-1])


def test_lp_ft_ends_in_auto_when_the_pretrained_features_are_stale(world, tmp_path, monkeypatch):
    """New features begin the readings of asvp anew; auto reads those of the pretrained encoder."""
    probes = worlds.watched_fits(
        monkeypatch, lambda problem, config, number: (number, config.train.probe_steps)
    )
    monkeypatch.setattr(deciding, "chosen", lambda losses: 1)  # LP-FT
    keys = {"policy": "auto", "proxy.tolerance": 1e6, "budget.labels": 36, **worlds.DEAR}
    worlds.course(worlds.config_of(world, **keys), tmp_path)
    last = dict(probes)
    assert [last[number] for number in (0, 3, 4, 5, 6, 7)] == [0, 2, 2, 0, 0, 0]
    assert worlds.left_by(tmp_path)[1]["fired"]


def test_modes_are_checked_before_work_starts(world, tmp_path):
    config = worlds.config_of(world, policy="auto", **{"proxy.modes": "lora", "backbone.rank": 99})
    with pytest.raises(ConfigError, match=r"proxy.modes: lora: backbone.rank: 99 is more than"):
        worlds.course(config, tmp_path)
    assert worlds.records(tmp_path) == []

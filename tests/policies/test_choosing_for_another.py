"""Another model than the one trained in the end chooses rows, or a list does; pseudo-labels."""

import json

import numpy as np
import pytest
import tiny_runs
import worlds

from enn_finetune import experiment
from enn_finetune.errors import InputError
from enn_finetune.policies import fits, run


@pytest.mark.parametrize("policy", ["standard", "svpp", "asvp"])
def test_a_small_model_selects_for_another(world, whole, smaller, tmp_path, monkeypatch, policy):
    trained = worlds.watched_fits(
        monkeypatch, lambda problem, config, number: (config.backbone.path, number)
    )
    keys = worlds.CASES[policy] | {"proxy.path": str(smaller), "evaluation.every": 16}
    _, _, bought = worlds.course(worlds.config_of(world, **keys), tmp_path)
    assert bought[:8] == whole[policy][3][:8]
    assert bought != whole[policy][3]
    small = [number for path, number in trained if path == (str(smaller),)]
    large = [number for path, number in trained if path != (str(smaller),)]
    assert small == {"standard": [0, 1, 2, 3], "svpp": [], "asvp": [1, 3]}[policy]
    assert large == [0, 2, 4], "where the curve is drawn, and in the end"
    last = worlds.records(tmp_path)[-1]
    assert last["evaluation"]["flops"] > 0


def test_a_list_is_replayed_on_any_successor(world, smaller, tmp_path):
    rows = np.random.default_rng(0).permutation(tiny_runs.TRAIN_ROWS)[:24]
    config = worlds.config_of(world, **{"backbone.path": str(smaller), "evaluation.every": 8})
    _, _, bought = worlds.course(config, tmp_path, given=rows)
    assert bought == rows.tolist()
    last = worlds.records(tmp_path)[-1]
    assert last["scoring"]["flops"] == last["encoding"]["flops"] == 0
    assert last["training"]["flops"] > 0


def test_a_file_of_bought_rows_is_replayed(world, whole, tmp_path):
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
        r"number 2: found \[3\]": {"rows": [0, [3], *range(4, 30)]},
        "number 1: found True": {"rows": [True, *range(4, 30)]},
        "found 0 lists": {"seed": 7},
    }.items():
        path.write_text(json.dumps(lines[0] | line) + "\n")
        with pytest.raises(InputError, match=words):
            worlds.course(worlds.config_of(world, **keys), tmp_path / "none")


def test_rows_given_twice_are_refused(world, tmp_path):
    rows = np.array([0] * 20 + [*range(40)])
    with pytest.raises(InputError, match="4 different rows among the first 24"):
        worlds.course(worlds.config_of(world), tmp_path, given=rows)


def test_what_train_bought_is_replayed(world, tmp_path):
    keys = {"policy": "svpp", "evaluation.every": 24}
    experiment.run(worlds.config_of(world, **keys), tmp_path / "first", quiet=True)
    line = json.loads((tmp_path / "first" / "bought.jsonl").read_text())
    assert len(set(line["rows"])) == 24 == sum(line["classes"].values())
    keys = {"proxy.replay": str(tmp_path / "first" / "bought.jsonl"), "evaluation.every": 24}
    experiment.run(worlds.config_of(world, **keys), tmp_path / "again", quiet=True)
    assert json.loads((tmp_path / "again" / "bought.jsonl").read_text())["rows"] == line["rows"]


def test_a_selector_that_is_not_there_is_named_by_its_own_key(world, tmp_path):
    config = worlds.config_of(world, policy="svpp", **{"proxy.path": str(tmp_path / "none")})
    with pytest.raises(InputError, match=r"^proxy\.path"):
        worlds.course(config, tmp_path)


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
    run(problem, config, session)
    assert len(problem.oracle.bought) == 24, "none of them is bought"
    owned = problem.oracle.owned
    assert (asked[-1].sum(1) > 0).sum() == 24 + 12
    np.testing.assert_array_equal(asked[-1][owned], real_targets[owned])


def test_the_surest_of_each_class_are_taken_as_they_are_predicted():
    first = np.array([0.9, 0.6, 0.95, 0.3, 0.45, 0.99])
    found = fits.surest(np.stack([first, 1 - first], 1), 3)
    assert sorted(found.tolist()) == [2, 3, 5]

"""Every kind of rule in every regime, and the rows that a user names as targets."""

import signal

import jax
import numpy as np
import pytest
import study_made
import tiny_bench
import tiny_runs
from tiny_runs import REGIMES, before_call, config_of, left_by, run

from enn_finetune import online, pool, train
from enn_finetune.acquisition.history import begin, update
from enn_finetune.bench import store
from enn_finetune.bench.material import Library
from enn_finetune.bench.plan import plan
from enn_finetune.config import ConfigError, load_bench
from enn_finetune.data.inputs import FeatureRows
from enn_finetune.errors import InputError
from enn_finetune.problem import new_classifier
from enn_finetune.progress import Display
from enn_finetune.session import RunStoppedError
from enn_finetune.study import Course, run_course

FILTER = "first=a,b"
KINDS = {  # of one kind each: joint, towards targets, two geometric, sampled, gradient embeddings
    "batchbald": {},
    "itl": {"acquisition.targets": FILTER},
    "kcenter": {},
    "typiclust": {},
    "power_bald": {},
    "badge": {},
}
QUICK = {
    *(("pool, closed form", rule) for rule in KINDS if rule != "badge"),
    ("pool, frozen, gradient", "itl"),
    ("pool, full", "itl"),
    ("online, frozen", "itl"),
}
CELLS = [
    pytest.param(regime, rule, marks=() if (regime, rule) in QUICK else pytest.mark.slow)
    for regime in REGIMES
    if regime != "online, full, dense, epoch"
    for rule in KINDS
]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The world of tiny_runs with a column more, and a file of the texts that the filter names."""
    folder = tiny_runs.write_world(tmp_path_factory.mktemp("world"))
    rows = tiny_runs.sentences(tiny_runs.TRAIN_ROWS, 1)
    rows = [row | {"first": str(row["text"])[0]} for row in rows]
    named = [{"text": row["text"]} for row in rows if row["first"] in "ab"]
    assert 3 <= len(named) < 30
    tiny_runs.write_rows(folder / "train.jsonl", rows)
    tiny_runs.write_rows(folder / "targets.jsonl", named)
    return folder


def bought(out) -> list[int]:
    regime = left_by(out)["regime"]
    return regime["oracle"]["bought"]


# ---- what targets change


@pytest.mark.parametrize(("rule", "reads"), [("itl", True), ("bald", False)])
def test_rules_that_read_targets_buy_other_rows_in_a_study(rule, reads):
    problem, config = study_made.problem(), study_made.config()
    far = np.float32([[0, 3, 0, 0, 0]]) + 0.1 * problem.pool.features[:12]
    named = problem._replace(targets=FeatureRows(far, 16))
    course = Course(rule, ("epinet",))
    plain, told = (run_course(course, one, config, [0, 1]).rows for one in (problem, named))
    for without, within in zip(plain, told, strict=True):
        assert without[:6] == within[:6], "the first labels are the same"
        assert (without == within) != reads


@pytest.mark.slow
def test_a_bench_with_targets_buys_other_rows(world, tmp_path):
    rows = []
    for name, named in {"none": "", "file": str(world / "targets.jsonl")}.items():
        (tmp_path / name).mkdir()
        config, out = tiny_bench.write_config(tmp_path / name, world), tmp_path / name / "out"
        told = ["bench.arms=epinet/itl", "bench.seeds=1", f"acquisition.targets={named}"]
        assert tiny_bench.run(config, out, *told).complete == 1
        rows.append(tiny_bench.lines(out, store.BOUGHT)[0]["rows"])
    assert rows[0][:6] == rows[1][:6]
    assert rows[0] != rows[1]


@pytest.mark.parametrize("regime", ["frozen", "pool"])
def test_a_file_and_a_filter_name_the_same_rows(world, tmp_path, regime):
    config, found = tiny_bench.write_config(tmp_path, world), []
    for named in (str(world / "targets.jsonl"), FILTER):
        told = [f"bench.regimes={regime}", f"acquisition.targets={named}"]
        (study,) = plan(load_bench(config, ["bench.arms=epinet/itl", *told])).studies
        targets = Library(Display(quiet=True)).problem(study).targets
        (_, inputs), *_ = targets.batches(np.arange(8))
        found.append((len(targets), tiny_runs.leaves(inputs)))
    (first, by_file), (second, by_filter) = found
    assert first == second
    for a, b in zip(by_file, by_filter, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_a_bench_with_targets_that_are_not_there_runs_nothing(world, tmp_path):
    config = tiny_bench.write_config(tmp_path, world)
    with pytest.raises(InputError, match=r"acquisition\.targets.*'z'; the nearest is"):
        tiny_bench.run(config, tmp_path / "out", "acquisition.targets=first=z")
    assert not (tmp_path / "out").exists()


# ---- every kind of rule


def stop_at(regime: str):
    """What a run calls when it chooses, and the call before which it is stopped."""
    return (pool, "choose", 2) if regime.startswith("pool") else (online, "score", 1)


@pytest.mark.parametrize(("regime", "rule"), CELLS)
def test_every_kind_of_rule_in_every_regime(world, tmp_path, monkeypatch, regime, rule):
    """It buys its labels, from the first ones that all rules share, and can stop and go on."""
    keys = {"acquisition.rule": rule, "acquisition.candidates_share": 0.5, "budget.labels": 16}
    config = config_of(world, **REGIMES[regime], **KINDS[rule], **keys)
    run(config, tmp_path / "whole")
    rows = bought(tmp_path / "whole")
    assert len(rows) == len(set(rows)) == 16
    if regime.startswith("pool"):
        assert rows[:6] == pool.first_rows(tiny_runs.TRAIN_ROWS, config).tolist()
    owner, name, call = stop_at(regime)
    with (
        before_call(monkeypatch, owner, name, call, lambda: signal.raise_signal(signal.SIGTERM)),
        pytest.raises(RunStoppedError, match="--resume"),
    ):
        run(config, tmp_path / "parts")
    run(config, tmp_path / "parts", resume=True)
    assert left_by(tmp_path / "parts") == left_by(tmp_path / "whole")


@pytest.mark.parametrize("rule", ["bald", "kcenter"])
def test_a_share_of_the_pool_is_scored_after_the_first_round(world, rule):
    keys = {"acquisition.rule": rule, "acquisition.candidates_share": 0.5}
    config, key, owned = config_of(world, **keys), jax.random.key(0), np.arange(60) < 8
    assert len(pool.candidates(begin(60), ~owned, config, 5, key)) == 60
    history = update(begin(60), np.arange(60), np.arange(60.0), 0)
    rows = pool.candidates(history, ~owned, config, 5, key)
    assert len(rows) == {"bald": 30, "kcenter": 50}[rule], "twice what may be bought, at the least"
    assert np.isin(np.arange(8), rows).all() == (rule == "kcenter"), "coresets see what is bought"
    best = np.arange(60 - int(0.5 * 30), 60)
    assert np.isin(best, rows).all(), "those of highest score are looked at again"


def test_targets_change_what_a_pool_run_buys(world, tmp_path):
    for name, named in {"none": "", "file": str(world / "targets.jsonl")}.items():
        keys = {
            "acquisition.rule": "itl",
            "acquisition.targets": named,
            "acquisition.indices": 32,
            "budget.labels": 16,
        }
        run(config_of(world, **REGIMES["pool, closed form"], **keys), tmp_path / name)
    first, second = bought(tmp_path / "none"), bought(tmp_path / "file")
    assert first[:6] == second[:6]
    assert first != second


def test_targets_change_what_an_online_step_trains_on(world):
    config = config_of(world, **REGIMES["online, frozen"], **{"acquisition.rule": "itl"})
    problem = tiny_runs.prepared(config)
    parts = train.split(new_classifier(problem, config), "frozen")
    few = FeatureRows(problem.pool.features[40:42], 8)
    chosen = []
    for targets in (None, few):
        told, key = problem._replace(targets=targets), jax.random.key(1)
        places, _ = online.score(told, config, parts, np.arange(12), key, 3, 12)
        assert sorted(places[places > 0]) == [1, 2, 3, 4], "a batch is placed, the others are last"
        chosen.append(np.argsort(-places)[:4].tolist())
    assert chosen[0] != chosen[1]


def test_frozen_studies_refuse_to_score_a_share(world, tmp_path):
    config = tiny_bench.write_config(tmp_path, world)
    told = ["acquisition.candidates_share=0.5", "bench.arms=epinet/bald"]
    with pytest.raises(ConfigError, match=r"candidates_share: 0\.5.*set it to 1"):
        plan(load_bench(config, told))
    (study,) = plan(load_bench(config, [*told, "bench.regimes=pool"])).studies
    assert study.config.acquisition.candidates_share == 0.5
    with pytest.raises(ValueError, match="candidates_share"):
        run_course(Course("bald", ("epinet",)), study_made.problem(), study.config, [0])

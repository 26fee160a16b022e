"""Pool runs that begin without a label: a rule reads features alone, then heads are fitted."""

import signal

import jax
import jax.numpy as jnp
import pytest
import tiny_bench
import tiny_runs
from tiny_runs import REGIMES, before_call, config_of, left_by, run

from enn_finetune import checkpoint, pool
from enn_finetune.acquisition.choose import choose
from enn_finetune.config import ConfigError
from enn_finetune.config.rules import FEATURES_ALONE
from enn_finetune.session import RunStoppedError
from enn_finetune.types import Shown

COLD = {"budget.start": 0, "budget.labels": 12}  # rounds of 5: 5, 10, 12
QUICK = {("pool, frozen, gradient", "lcmd")}
CELLS = [
    pytest.param(regime, rule, marks=() if (regime, rule) in QUICK else pytest.mark.slow)
    for regime in REGIMES
    if regime.startswith("pool")
    for rule in (*FEATURES_ALONE, "random")
]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return tiny_runs.write_world(tmp_path_factory.mktemp("world"))


def bought(out) -> list[int]:
    return left_by(out)["regime"]["oracle"]["bought"]


@pytest.mark.parametrize(("regime", "rule"), CELLS)
def test_a_run_without_first_labels_can_be_stopped_anywhere(
    world, tmp_path, monkeypatch, regime, rule
):
    config = config_of(world, **REGIMES[regime], **COLD, **{"acquisition.rule": rule})
    assert config.budget.rounds == (5, 10, 12)
    run(config, tmp_path / "whole")
    expected = left_by(tmp_path / "whole")
    rows = expected["regime"]["oracle"]["bought"]
    assert len(set(rows)) == len(rows) == 12
    assert [record["labels_bought"] for record in expected["records"]] == [5, 10, 12]

    def strike():
        signal.raise_signal(signal.SIGTERM)

    for call in (1, 2):
        out = tmp_path / f"stopped {call}"
        stopping = before_call(monkeypatch, pool, "choose", call, strike)
        with stopping, pytest.raises(RunStoppedError):
            run(config, out)
        run(config, out, resume=True)
        assert left_by(out) == expected
    crashing = before_call(monkeypatch, checkpoint, "save", 1, tiny_runs.crash)
    with crashing, pytest.raises(tiny_runs.Crash):
        run(config, tmp_path / "killed")
    run(config, tmp_path / "killed", resume=True)
    assert left_by(tmp_path / "killed") == expected


@pytest.mark.parametrize("rule", FEATURES_ALONE)
def test_the_first_rows_are_those_that_the_rule_says_of_pretrained_features(world, tmp_path, rule):
    """Nothing else is known, whatever the head and its seed of weights."""
    first = {}
    for kind, seed in (("epinet", 0), ("neuronal", 0), ("linear", 0), ("epinet", 1)):
        keys = {"head.kind": kind, "acquisition.rule": rule, "seed": seed}
        config = config_of(world, **REGIMES["pool, closed form"], **COLD, **keys)
        problem = tiny_runs.prepared(config)
        session = tiny_runs.session(config, tmp_path)
        first[kind, seed] = pool.begun(problem, config, session).tolist()
    assert first["epinet", 0] == first["neuronal", 0] == first["linear", 0]
    drawn = first["epinet", 1] != first["epinet", 0]
    assert drawn == (rule == "typiclust"), "its clusters begin at random rows"
    features = jnp.asarray(problem.pool.features)
    seen = Shown(jnp.zeros((1, len(features), 3)), features, jnp.ones(len(features), bool))
    key = jax.random.fold_in(jax.random.key(1), 2**20 + pool.BEFORE)
    rows = choose(rule, seen, 5, jax.random.split(key)[1])
    assert first["epinet", 1] == rows.tolist()


@pytest.mark.parametrize("regime", ["frozen", "pool"])
def test_a_bench_refuses_to_begin_without_labels(world, tmp_path, regime):
    config = tiny_bench.write_config(tmp_path, world)
    told = ["budget.start=0", f"bench.regimes={regime}", "bench.arms=epinet/typiclust"]
    with pytest.raises(ConfigError, match=f"{regime}: budget.start: got 0; all arms of a seed"):
        tiny_bench.run(config, tmp_path / "out", *told)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_head_of_networks_is_trained_saved_and_scored(world, tmp_path):
    """`neuronal` in a single run, with the rule that its paper has."""
    from enn_finetune import scoring

    keys = {"head.kind": "neuronal", "acquisition.rule": "neuronal", "budget.labels": 11}
    summary = run(config_of(world, **REGIMES["pool, closed form"], **keys), tmp_path / "out")
    assert (summary["head"], summary["labels_bought"]) == ("neuronal", 11)
    found = scoring.run(
        tmp_path / "out" / "model", world / "test.jsonl", tmp_path / "scored.jsonl", quiet=True
    )
    assert found.scored == tiny_runs.TEST_ROWS


# ---- warnings


@pytest.mark.parametrize("rule", ["margin", "vtl_features"])
def test_a_run_says_first_that_its_rule_reads_no_targets(world, tmp_path, capsys, rule):
    from enn_finetune import experiment

    targets = str(world / "test.jsonl")
    keys = {"acquisition.rule": rule, "acquisition.targets": targets, "budget.labels": 6}
    experiment.run(config_of(world, **REGIMES["pool, closed form"], **keys), tmp_path)
    told = " ".join(capsys.readouterr().err.split())
    assert told.count("pays no heed to the rows") == (rule == "margin")
    if rule == "margin":
        assert told.index("margin pays no heed") < told.index("labels 6")


def test_a_bench_names_the_rules_that_read_no_targets_once(world, tmp_path, capsys, monkeypatch):
    from enn_finetune.bench import run as bench
    from enn_finetune.config import load_bench

    monkeypatch.setattr(bench, "in_turn", lambda *arguments: bench.Outcome(0, (), 0))
    config = tiny_bench.write_config(tmp_path, world)
    told = [f"acquisition.targets={world / 'test.jsonl'}", "bench.regimes=frozen,online"]
    told += ["bench.arms=linear/random,linear/margin,epinet/bald,epinet/itl"]
    bench.run(load_bench(config, told), tmp_path / "out")
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("margin, bald pay no heed to the rows") == 1


def test_a_bench_refuses_one_index_for_rules_that_read_a_spread(world, tmp_path):
    config = tiny_bench.write_config(tmp_path, world)
    told = ["acquisition.indices=1", "bench.arms=epinet/margin,epinet/bald"]
    with pytest.raises(ConfigError, match="indices: epinet/bald reads the spread") as caught:
        tiny_bench.run(config, tmp_path / "out", *told)
    assert "epinet/margin" not in str(caught.value)


WORDS = "high: f g h f g|low: a b c a b|mid: d e d e d"


def test_a_head_that_is_told_what_the_classes_are_is_asked_before_any_label(world, tmp_path):
    keys = REGIMES["pool, closed form"] | COLD | {"acquisition.rule": "margin"}
    with pytest.raises(ConfigError, match=r"budget.start: got 0.*task.describe"):
        config_of(world, **keys)
    config = config_of(world, **keys, **{"task.describe": WORDS})
    run(config, tmp_path / "whole")
    left = left_by(tmp_path / "whole")
    assert [record["labels_bought"] for record in left["records"]] == [0, 5, 10, 12]
    assert len(set(left["regime"]["oracle"]["bought"])) == 12
    problem = tiny_runs.prepared(config)
    assert problem.classes.shape == (3, problem.encoder.width)


@pytest.mark.parametrize("call", [1, 2])
def test_such_a_run_can_be_stopped_anywhere(world, tmp_path, monkeypatch, call):
    keys = {"acquisition.rule": "badge", "task.describe": WORDS}
    config = config_of(world, **REGIMES["pool, closed form"], **COLD, **keys)
    run(config, tmp_path / "whole")
    stopping = before_call(
        monkeypatch, pool, "choose", call, lambda: signal.raise_signal(signal.SIGTERM)
    )
    with stopping, pytest.raises(RunStoppedError):
        run(config, tmp_path / "stopped")
    run(config, tmp_path / "stopped", resume=True)
    assert left_by(tmp_path / "stopped") == left_by(tmp_path / "whole")


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"task.describe": "high: f|low: a"}, "no description of 'mid'"),
        ({"task.describe": WORDS + "|odd: x"}, "'odd' is described, which is no class"),
        ({"task.describe": WORDS, "task.pair": "pair"}, "has two texts a row"),
    ],
)
def test_descriptions_that_do_not_fit_the_task_are_refused_by_name(world, keys, words):
    config = config_of(world, **REGIMES["pool, closed form"], **keys)
    with pytest.raises(ConfigError, match=f"task.describe: .*{words}"):
        tiny_runs.prepared(config)


@pytest.mark.parametrize(
    "keys",
    [
        REGIMES["pool, full"],
        REGIMES["pool, frozen, gradient"],
        REGIMES["online, frozen"],
        REGIMES["pool, closed form"] | {"head.kind": "neuronal"},
    ],
)
def test_heads_that_cannot_be_told_are_refused(world, keys):
    with pytest.raises(ConfigError, match=r"task.describe: only a regression or an epinet in clos"):
        config_of(world, **keys, **{"task.describe": WORDS})

"""Benchmarks: every fault is found before any work; cells whose encoder is trained."""

import json
from pathlib import Path

import pytest
import tiny_bench
import tiny_runs

from enn_finetune.bench import jobs, run, store
from enn_finetune.bench.plan import plan
from enn_finetune.bench.replay import Lists
from enn_finetune.bench.run import _jobs
from enn_finetune.config import load_bench
from enn_finetune.data.descriptions import describe
from enn_finetune.data.tasks import find_task
from enn_finetune.errors import InputError
from enn_finetune.session import Session

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return tiny_runs.write_world(tmp_path_factory.mktemp("world"))


# Before anything runs


def test_missing_data_is_named_before_any_work(world, tmp_path):
    config = tiny_bench.write_config(tmp_path, world)
    more = ("bench.tasks=letters,cola,reviews-dvd", f"task.data={tmp_path}")
    with pytest.raises(InputError, match=r"(?s)task cola: .*task reviews-dvd: .*skip_missing"):
        tiny_bench.run(config, tmp_path / "out", *more)
    assert not (tmp_path / "out").exists()
    found = tiny_bench.run(config, tmp_path / "out", *more, "bench.skip_missing=yes")
    assert (found.failed, found.complete) == ((), 4)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["bench.tasks=mrcp"], "no task 'mrcp': the nearest is mrpc"),
        (["bench.tasks=letters:rear"], "no pool 'rear'; the nearest is rare"),
        (["bench.tasks=letters:rare"], "thins the second of two classes, train has 3"),
        (["bench.arms=epinet/margni"], "no rule 'margni'; the nearest is margin"),
        (["bench.arms=epinte/margin"], "no head 'epinte'; the nearest is epinet"),
        (["bench.arms=epinet"], "write an arm as HEAD/RULE"),
        (["bench.arms=linear/bald"], "bald reads the spread over indices"),
        (["bench.arms=described/bald"], "bald reads the spread over indices"),
        (["bench.arms=described/margin"], "described/margin: .*there are none; give task.describe"),
        (
            ["bench.regimes=pool", "bench.arms=laplace/bald"],
            "no head 'laplace' under bench.regimes",
        ),
        (["bench.regimes=offline"], "bench.regimes: got 'offline'"),
        (["bench.baseline=linear/randm"], "no rule 'randm'"),
        (["bench.seeds=0"], "bench.seeds: got '0'; .*how many seeds"),
        (["bench.sedes=3"], "bench.sedes: no such key; the nearest is bench.seeds"),
        (["budget.lables=3"], "budget.lables: no such key; the nearest is budget.labels"),
        (["budget.labels=61"], "61 is more than the 60 rows in the pool of letters; .* has 60"),
        (["head.kind=linear"], "head.kind: a benchmark chooses this itself; say it in bench.arms"),
        (["acquisition.revisit=0.5"], r"acquisition.revisit: .*say it in bench.arms .epinet/marg"),
        (
            ["bench.arms=epinet/margin+revisit0.5"],
            "only arms of bench.regimes = online depart .* this one is of frozen",
        ),
        *(
            (["bench.regimes=online", f"bench.arms=epinet/margin+{what}"], "stands epoch .* or rev")
            for what in (
                *("revisit", "revisithalf", "revisit0", "revisit1", "revisit0.50", "revisit.5"),
                *("revisit0.99999999999", "revisit0.\u06655", "epochs"),
            )
        ),
        (
            ["bench.regimes=online", "bench.baseline=linear/random+revisit.5"],
            "bench.baseline: .*a share between 0 and 1 without needless digits",
        ),
        (["bench.own=epinet/random+epoch"], "bench.own: .*only arms of bench.regimes = online"),
        (
            [
                "bench.regimes=online",
                "bench.arms=linear/random+epoch",
                "acquisition.source=epoch",
            ],
            "linear/random.epoch: acquisition.source is epoch for all arms; leave .epoch out",
        ),
        (
            [
                "bench.regimes=online",
                "bench.arms=epinet/bald+revisit0.5",
                "acquisition.source=epoch",
            ],
            "epinet/bald.revisit0.5: an epoch trains on no row twice",
        ),
        (
            ["bench.regimes=online", "bench.arms=linear/bald+revisit0.5"],
            "linear/bald: bald reads the spread over indices",
        ),
        (["bench.backbones=./none"], "encoder none: "),
        (["replay=none.jsonl"], r"none\.jsonl: cannot be read"),
    ],
)
def test_faults_are_found_before_any_work(world, tmp_path, overrides, message):
    config = tiny_bench.write_config(tmp_path, world)
    with pytest.raises(InputError, match=message):
        tiny_bench.run(config, tmp_path / "out", *overrides)
    assert not (tmp_path / "out").exists()


def test_heads_are_told_what_the_classes_are(world, tmp_path):
    config = tiny_bench.write_config(tmp_path, world)
    words = "task.describe=high: f g h f g|low: a b c a b|mid: d e d e d"
    arms = "bench.arms=linear/random,epinet/random,described/random,described_epinet/badge"
    found = tiny_bench.run(config, tmp_path / "out", words, arms, "bench.seeds=1")
    assert (found.failed, found.complete) == ((), 4)
    first = {
        line["head"]: line["metrics"]["nll"]
        for line in tiny_bench.lines(tmp_path / "out", "records.jsonl")
        if line["labels_bought"] == 6
    }
    assert first["described"] == pytest.approx(first["described_epinet"], abs=1e-3)
    assert first["epinet"] != first["described_epinet"]


# Trained encoders


@pytest.mark.parametrize("regime", ["pool", "online"])
def test_trained_cells_go_on_from_their_checkpoint(world, tmp_path, monkeypatch, regime):
    config = tiny_bench.write_config(tmp_path, world)
    keys = (f"bench.regimes={regime}", "bench.arms=linear/random,epinet/margin", "bench.seeds=1")
    assert tiny_bench.run(config, tmp_path / "a", *keys) == (2, (), 2)
    assert not list((tmp_path / "a" / "cells").iterdir())
    records = tiny_bench.lines(tmp_path / "a", store.RECORDS)
    assert {(r["tune"], r["regime"]) for r in records} == {("full", regime)}
    last = records[-1]
    assert last["labels_bought"] == 16
    assert last["training"]["flops"] > last["scoring"]["flops"] > 0
    (entry,) = json.loads((tmp_path / "a" / store.STUDIES).read_text())
    assert ("rounds" in entry["budget"]) == (regime == "pool")  # online every batch is one
    saves = 2 if regime == "pool" else 5
    with (
        pytest.raises(tiny_bench.Crash),
        tiny_bench.before_call(monkeypatch, Session, "evaluate", saves, tiny_bench.crash),
    ):
        tiny_bench.run(config, tmp_path / "b", *keys)
    assert list((tmp_path / "b" / "cells").iterdir())
    tiny_bench.run(config, tmp_path / "b", *keys, resume=True)
    assert tiny_bench.left_by(tmp_path / "b") == tiny_bench.left_by(tmp_path / "a")


def test_an_arm_that_revisits_buys_more_slowly(world, tmp_path):
    config = tiny_bench.write_config(tmp_path, world)
    arms = "linear/random,linear/random+revisit0.5,epinet/bald+revisit0.75"
    keys = ("bench.regimes=online", "bench.seeds=1", "budget.steps=4", "budget.start=4")
    more = (f"bench.arms={arms}", "bench.own=linear/random+revisit0.5", "budget.labels=40")
    assert tiny_bench.run(config, tmp_path / "out", *keys, *more) == (3, (), 3)
    lines = tiny_bench.lines(tmp_path / "out", "bought.jsonl")
    bought = {line["rule"]: line["rows"] for line in lines}
    assert list(bought) == ["random", "random+revisit0.5", "bald+revisit0.75"]
    assert len({tuple(rows[:4]) for rows in bought.values()}) == 1  # all begin with the same ones
    counts = [len(rows) for rows in bought.values()]
    assert counts == sorted(counts, reverse=True)
    assert counts[1] <= 4 + 3 * 2
    assert counts[2] <= 4 + 3 * 1


def test_an_arm_can_take_every_row_once_an_epoch(world, tmp_path):
    config = tiny_bench.write_config(tmp_path, world)
    keys = ("bench.regimes=online", "bench.seeds=1", "budget.steps=15", "budget.labels=60")
    arms = ("bench.arms=linear/random,linear/random+epoch", "bench.baseline=linear/random+epoch")
    assert tiny_bench.run(config, tmp_path / "out", *keys, *arms) == (2, (), 2)
    whole, epoch = tiny_bench.lines(tmp_path / "out", "bought.jsonl")
    assert (whole["rule"], epoch["rule"]) == ("random", "random+epoch")
    assert len(whole["rows"]) < 60 == len(epoch["rows"])


def test_trained_arms_of_a_seed_stand_together(world, tmp_path):
    config = tiny_bench.write_config(tmp_path, world)
    file = load_bench(config, ["bench.regimes=online", "bench.arms=linear/random,epinet/margin"])
    found = list(_jobs(plan(file).studies, store.Store(tmp_path), Lists(())))
    assert [(str(job.arm), job.seeds) for job in found] == [
        ("linear/random", (0,)),
        ("epinet/margin", (0,)),
        ("linear/random", (1,)),
        ("epinet/margin", (1,)),
    ]


# The shipped benchmarks


def test_the_shipped_descriptions_are_of_the_classes_of_their_tasks():
    for study in plan(load_bench(ROOT / "configs" / "described.toml")).studies:
        classes = find_task(study.place.task).classes
        assert len(describe(study.config.task.describe, classes)) == len(classes) >= 2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["quick", "standard", "full", "paper"])
def test_every_shipped_benchmark_runs_when_shrunk(name, world, tmp_path):
    (tmp_path / "CoLA").mkdir()
    for file, count, seed in (("train", 200, 1), ("dev", 40, 2)):
        rows = tiny_runs.sentences(count, seed)
        lines = [f"s\t{int(row['label'] == 'low')}\t\t{row['text']}\n" for row in rows]
        (tmp_path / "CoLA" / f"{file}.tsv").write_text("".join(lines))
    small = ["bench.tasks=cola", f"task.data={tmp_path}", "bench.seeds=1", "budget.labels=16"]
    small += ["budget.start=8", "budget.round=4", "train.batch=4", "train.min_steps=2"]
    small += ["train.epochs=1", "evaluation.every=8", "evaluation.batch=8", "backbone.cache=none"]
    small += [f"bench.backbones={world}/bert", "acquisition.indices=4", "backbone.max_tokens=16"]
    small += ["task.carve=40"] * (name in ("paper", "standard"))
    file = load_bench(ROOT / "configs" / f"{name}.toml", small)
    found = run.run(file, tmp_path / "out", quiet=True)
    assert found.failed == ()
    arms = sum(len(study.arms) for study in plan(file).studies)
    fewest = {"quick": 7, "standard": 7, "full": 14, "paper": 9}
    assert found.complete == found.done == arms >= fewest[name]


def test_programs_are_forgotten_between_problems_alone(monkeypatch):
    """Also after one that failed."""
    forgotten, made = [], []

    def ground(problem):
        made.append(problem)
        if problem == "bad":
            raise ValueError(problem)
        return f"ground of {problem}"

    monkeypatch.setattr(jobs, "forget_programs", lambda: forgotten.append(made[-1]))
    monkeypatch.setattr(jobs, "Ground", ground)
    one = jobs.OneGround()
    a, b, bad = (str(name) for name in ("a", "b", "bad"))
    assert [one(a), one(a), one(b)] == ["ground of a", "ground of a", "ground of b"]
    assert forgotten == ["a"]
    with pytest.raises(ValueError, match="bad"):
        one(bad)
    assert one(a) == "ground of a"
    assert (forgotten, made) == (["a", "b", "bad"], ["a", "b", "bad", "a"])

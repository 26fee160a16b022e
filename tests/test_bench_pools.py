"""Benchmarks of pools as people have them, and lists of bought rows bought again."""

import json

import pytest
import tiny_bench
import tiny_runs

from enn_finetune.bench import material, store
from enn_finetune.errors import InputError


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return tiny_runs.write_world(tmp_path_factory.mktemp("world"))


# Pools


def test_pools_of_a_custom_task(world, tmp_path):
    config = tiny_bench.write_config(tmp_path, world)
    only = ("bench.seeds=1", "bench.arms=epinet/bald", "task.carve=auto", "task.repeats=2")
    tiny_bench.run(config, tmp_path / "out", "bench.tasks=letters:repeated", *only)
    records = tiny_bench.lines(tmp_path / "out", store.RECORDS)
    assert {record["split"] for record in records} == {"test", "held"}
    assert {record["pool"] for record in records} == {"repeated"}
    (entry,) = json.loads((tmp_path / "out" / store.STUDIES).read_text())
    assert (entry["pool_rows"], entry["splits"]) == (90, {"test": 24, "held": 15})
    tiny_bench.run(config, tmp_path / "dev", "bench.develop=true", *only)
    records = tiny_bench.lines(tmp_path / "dev", store.RECORDS)
    assert {record["split"] for record in records} == {"develop"}


# Replay


@pytest.mark.parametrize(
    "pool", [pytest.param("letters", marks=pytest.mark.slow), "letters:repeated"]
)
def test_a_replay_is_the_run_it_came_from(world, tmp_path, pool):
    config = tiny_bench.write_config(tmp_path, world)
    keys = (f"bench.tasks={pool}", "task.carve=10", "task.repeats=2")
    tiny_bench.run(config, tmp_path / "a", *keys)
    list_file = tmp_path / "a" / store.BOUGHT
    tiny_bench.run(config, tmp_path / "b", *keys, "bench.arms=linear/random", f"replay={list_file}")
    assert sorted(
        {(r["head"], r["rule"]) for r in tiny_bench.lines(tmp_path / "b", store.BOUGHT)}
    ) == [
        ("epinet", "replay:bald"),
        ("linear", "random"),
        ("linear", "replay:random"),
    ]
    for name in (store.RECORDS, store.BOUGHT):
        ours = {"bald": [], "replay:bald": []}
        for out in "ab":
            for line in tiny_bench.lines(tmp_path / out, name):
                if line["rule"] in ours:
                    skip = (*tiny_bench.TIMES, "rule")
                    ours[line["rule"]].append({k: v for k, v in line.items() if k not in skip})
        assert ours["bald"]
        assert ours["bald"] == ours["replay:bald"]


def test_a_list_of_another_framework_needs_three_keys(world, tmp_path):
    config = tiny_bench.write_config(tmp_path, world)
    theirs = tmp_path / "theirs.jsonl"
    theirs.write_text(json.dumps({"task": "letters", "seed": 1, "rows": list(range(20))}) + "\n")
    found = tiny_bench.run(config, tmp_path / "out", "bench.arms=linear/random", f"replay={theirs}")
    assert found == (2, (), 3)
    (line,) = [x for x in tiny_bench.lines(tmp_path / "out", store.BOUGHT) if "replay" in x["rule"]]
    assert (line["head"], line["rule"], line["seed"]) == ("epinet", "replay:theirs", 1)
    assert line["rows"] == list(range(16))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"task": "letters", "seed": 0, "rows": [0, 1]}, "has 2 rows, .* buys 16"),
        (
            {"task": "letters", "seed": 0, "rows": [0.5] * 20},
            r"rows, number 1: found 0\.5; give whole",
        ),
        ({"task": "letters", "seed": 0}, "rows: found None"),
        (
            {"task": "words", "seed": 0, "rows": [*range(20)]},
            "which is none of the frozen .*: letters",
        ),
        (
            {"task": "letters", "seed": 0, "rows": [*range(9990, 9999), *range(9)]},
            "row 9990 is not",
        ),
        ({"task": "letters", "seed": 0, "rows": [3] * 16}, "row 3 is not .* too often"),
        (
            {"task": "letters", "seed": 0, "rows": [*range(20)], "head": "epinett"},
            "line 1: head: found 'epinett', .* nearest is epinet",
        ),
        (
            {"task": "letters", "seed": 0, "rows": [*range(20)], "regime": "online"},
            "none of the frozen studies",
        ),
    ],
)
def test_lists_that_cannot_be_replayed(world, tmp_path, monkeypatch, line, message):
    """Before any feature is computed."""
    monkeypatch.setattr(material, "encode_splits", tiny_bench.crash)
    config = tiny_bench.write_config(tmp_path, world)
    (tmp_path / "list.jsonl").write_text(json.dumps(line) + "\n")
    with pytest.raises(InputError, match=message):
        tiny_bench.run(config, tmp_path / "out", f"replay={tmp_path}/list.jsonl")
    assert not (tmp_path / "out").exists()


def test_an_arm_that_buys_a_list_no_file_has(world, tmp_path):
    config = tiny_bench.write_config(tmp_path, world)
    with pytest.raises(InputError, match=r"bench.arms: epinet/replay:theirs: no list of that name"):
        tiny_bench.run(config, tmp_path / "out", "bench.arms=linear/random,epinet/replay:theirs")
    assert not (tmp_path / "out").exists()


def test_a_list_that_was_edited_between_sittings_is_refused(world, tmp_path):
    config = tiny_bench.write_config(tmp_path, world)
    path, out = tmp_path / "theirs.jsonl", tmp_path / "out"
    keys = ("bench.arms=linear/random", f"replay={path}")
    rows = list(range(16))
    path.write_text(json.dumps({"task": "letters", "seed": 1, "rows": [*rows, 17]}) + "\n")
    tiny_bench.run(config, out, *keys)
    before = (out / store.RECORDS).read_bytes()
    path.write_text(json.dumps({"task": "letters", "seed": 1, "rows": rows[::-1]}) + "\n")
    with pytest.raises(InputError, match=r"theirs\.jsonl, line 1: .*another list of this name"):
        tiny_bench.run(config, out, *keys, resume=True)
    path.write_text(json.dumps({"task": "letters", "seed": 1, "rows": rows}) + "\n")
    assert tiny_bench.run(config, out, *keys, resume=True).done == 0
    assert (out / store.RECORDS).read_bytes() == before

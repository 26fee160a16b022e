"""Benchmarks: what is complete stays, what is missing is run, and nothing is run twice."""

import json
import shutil
import signal
import subprocess
import sys
import time

import pytest
import tiny_bench
import tiny_runs

from enn_finetune import records
from enn_finetune.bench import cells, store
from enn_finetune.bench import run as bench
from enn_finetune.config import ConfigError, load_bench
from enn_finetune.session import RunStoppedError

PLACE = {"task": "letters", "pool": "plain", "backbone": "bert", "tune": "frozen", "regime": "pool"}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return tiny_runs.write_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def whole(world, tmp_path_factory):
    """A benchmark that nothing interrupted: its config and its results."""
    folder = tmp_path_factory.mktemp("whole")
    config = tiny_bench.write_config(folder, world)
    assert tiny_bench.run(config, folder / "out") == (2, (), 4)
    return config, folder / "out"


def test_what_a_benchmark_leaves(whole):
    _, out = whole
    records = tiny_bench.lines(out, store.RECORDS)
    assert len(records) == 2 * 2 * 3
    for record in records:
        assert {name: record[name] for name in PLACE} == PLACE
        assert record["split"] == "test"
        assert {"accuracy", "nll", "brier", "ece"} <= record["metrics"].keys()
    assert {r["labels_bought"] for r in records} == {6, 11, 16}
    bought = tiny_bench.lines(out, store.BOUGHT)
    assert len(bought) == 4
    for line in bought:
        assert len(line["rows"]) == len(set(line["rows"])) == 16
        assert line["rounds"] == [6, 11, 16]
        assert sum(line["classes"].values()) == 16
        assert len(line["examples"]) == 8
    first = {(line["rule"], line["seed"]): line["rows"][:6] for line in bought}
    assert first["random", 0] == first["bald", 0] != first["random", 1]
    (entry,) = json.loads((out / store.STUDIES).read_text())
    assert {name: entry[name] for name in PLACE} == PLACE
    assert (entry["metric"], entry["classes"]) == ("accuracy", list(tiny_runs.CLASSES))
    assert entry["budget"] == {"labels": 16, "start": 6, "rounds": [6, 11, 16]}
    assert {"config_hash", "commit", "data_fingerprint", "command", "machine"} <= entry.keys()
    assert entry["arms"] == ["epinet/bald", "linear/random"]
    assert entry["seeds"] == [0, 1]


def test_texts_of_the_bought_rows_are_those_of_the_training_file(whole, world):
    _, out = whole
    rows = [json.loads(line) for line in (world / "train.jsonl").read_text().splitlines()]
    for line in tiny_bench.lines(out, store.BOUGHT):
        chosen = [rows[row] for row in line["rows"][6:14]]
        assert line["examples"] == [[row["text"], row["label"]] for row in chosen]


def test_a_folder_is_not_written_over(whole, tmp_path):
    config, out = whole
    with pytest.raises(ConfigError, match="holds a benchmark already; go on with --resume"):
        tiny_bench.run(config, out)
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"holds thesis.txt but no studies.json"):
        tiny_bench.run(config, tmp_path, resume=True)


def test_a_complete_benchmark_runs_nothing(whole):
    config, out = whole
    before = tiny_bench.left_by(out)
    assert tiny_bench.run(config, out, resume=True) == (0, (), 4)
    assert tiny_bench.left_by(out) == before


def test_another_baseline_is_taken_up_without_a_run(whole, tmp_path):
    config, out = whole
    shutil.copytree(out, tmp_path / "out")
    keys = ("bench.baseline=epinet/bald", "bench.own=linear/random")
    assert tiny_bench.run(config, tmp_path / "out", *keys, resume=True) == (0, (), 4)
    (entry,) = json.loads((tmp_path / "out" / store.STUDIES).read_text())
    (before,) = json.loads((out / store.STUDIES).read_text())
    assert entry == {**before, "baseline": "epinet/bald", "own": "linear/random"}


def test_results_of_another_commit_are_told(whole, tmp_path, monkeypatch, capsys):
    config, out = whole
    shutil.copytree(out, tmp_path / "out")
    assert [line["commit"] for line in tiny_bench.lines(out, store.DONE)] == [records.commit()] * 2
    monkeypatch.setattr("enn_finetune.bench.run.commit", lambda: "abc1234")
    monkeypatch.setattr("enn_finetune.bench.run._Runner.run", lambda runner, jobs: len(jobs))
    file = load_bench(config, ("bench.seeds=3",))
    assert bench.run(file, tmp_path / "out", resume=True) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert f"holds results of commit {records.commit()}, and what is run now is of abc1234" in told


def test_changed_keys_are_refused_by_name(whole):
    config, out = whole
    with pytest.raises(ConfigError, match=r"bert · frozen: acquisition.indices, budget.labels"):
        tiny_bench.run(config, out, "budget.labels=15", "acquisition.indices=5", resume=True)
    words = "task.describe=high: f g h|low: a b c|mid: d e"
    with pytest.raises(ConfigError, match=r"bert · frozen: task.describe"):
        tiny_bench.run(config, out, words, resume=True)


SLOW = (pytest.param(call, marks=pytest.mark.slow) for call in (2, 5))


@pytest.mark.parametrize("call", [1, 3, *SLOW])
def test_what_a_crash_left_half_written_is_dropped(whole, tmp_path, monkeypatch, call):
    config, out = whole
    with (
        pytest.raises(tiny_bench.Crash),
        tiny_bench.before_call(monkeypatch, store, "_append", call, tiny_bench.crash),
    ):
        tiny_bench.run(config, tmp_path / "out")
    with open(tmp_path / "out" / store.RECORDS, "a") as file:
        file.write('{"task": "lett')  # cut off in the middle of a line
    assert tiny_bench.run(config, tmp_path / "out", resume=True).complete == 4
    assert tiny_bench.left_by(tmp_path / "out") == tiny_bench.left_by(out)


def test_seeds_and_arms_are_added_later(whole, tmp_path, monkeypatch):
    config, out = whole
    small = ("bench.seeds=1", "bench.arms=linear/random")
    assert tiny_bench.run(config, tmp_path / "out", *small) == (1, (), 1)
    ran = []
    real = cells.frozen

    def watched(study, arm, seeds, *rest):
        ran.append((str(arm), seeds))
        return real(study, arm, seeds, *rest)

    monkeypatch.setattr(cells, "frozen", watched)
    assert tiny_bench.run(config, tmp_path / "out", resume=True) == (2, (), 4)
    assert ran == [("linear/random", (1,)), ("epinet/bald", (0, 1))]
    assert tiny_bench.left_by(tmp_path / "out") == tiny_bench.left_by(out)


def test_one_failing_cell_loses_nothing_else(whole, tmp_path, monkeypatch):
    config, out = whole
    real = cells.frozen

    def failing(study, arm, seeds, *rest):
        if arm.head == "linear":
            raise FloatingPointError("no figures")
        return real(study, arm, seeds, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(cells, "frozen", failing)
        found = tiny_bench.run(config, tmp_path / "out")
    assert (found.done, found.complete) == (1, 2)
    assert "linear/random · 2 seeds: FloatingPointError: no figures" in found.failed[0]
    assert tiny_bench.run(config, tmp_path / "out", resume=True).failed == ()
    assert tiny_bench.left_by(tmp_path / "out") == tiny_bench.left_by(out)


@pytest.mark.parametrize("how", [KeyboardInterrupt, RunStoppedError])  # frozen, trained cells
def test_an_interrupt_says_how_to_go_on(whole, tmp_path, monkeypatch, how):
    config, out = whole

    def strike():
        raise how

    with (
        pytest.raises(RunStoppedError, match=r"complete is kept in .* go on with .*--resume"),
        tiny_bench.before_call(monkeypatch, cells, "frozen", 2, strike),
    ):
        tiny_bench.run(config, tmp_path / "out")
    assert tiny_bench.run(config, tmp_path / "out", resume=True) == (1, (), 4)
    assert tiny_bench.left_by(tmp_path / "out") == tiny_bench.left_by(out)


def test_other_data_is_refused(world, tmp_path):
    text = (world / "train.jsonl").read_text().splitlines()
    (tmp_path / "train.jsonl").write_text("\n".join(text) + "\n")
    table = f'[[bench.set]]\n"task.train" = "{tmp_path}/train.jsonl"\n'
    config = tiny_bench.write_config(tmp_path, world, table)
    tiny_bench.run(config, tmp_path / "out", "bench.seeds=1")
    (tmp_path / "train.jsonl").write_text("\n".join(text[:-1]) + "\n")
    found = tiny_bench.run(config, tmp_path / "out", resume=True)
    assert found.complete == 2
    assert all("began on data with the fingerprint" in failure for failure in found.failed)


# kill -9


@pytest.mark.slow
def test_killed_and_resumed_is_as_if_nothing_had_happened(whole, tmp_path):
    config, out = whole
    program = (
        "import sys; sys.path[:0] = ['tests', 'tests/models']\n"
        "import conftest, pathlib, tiny_bench\n"
        "c, out = map(pathlib.Path, sys.argv[1:])\n"
        "tiny_bench.run(c, out, resume=True)\n"
    )
    target = tmp_path / "out"
    command = [sys.executable, "-c", program, str(config), str(target)]
    for _ in range(3):
        process = subprocess.Popen(command, cwd=tiny_runs.Path(__file__).parents[1])
        before = (target / store.DONE).stat().st_size if (target / store.DONE).exists() else 0
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            records = target / store.RECORDS
            if records.exists() and records.stat().st_size > before:
                break
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
    tiny_bench.run(config, target, resume=True)
    assert tiny_bench.left_by(target) == tiny_bench.left_by(out)

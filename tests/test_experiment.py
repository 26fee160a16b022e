"""A whole run: what it leaves, what it refuses, and that not even kill -9 changes its outcome."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tiny_runs
from tiny_runs import REGIMES, config_of, left_by, run, write_rows

from enn_finetune import config as configs
from enn_finetune import problem
from enn_finetune.errors import InputError
from enn_finetune.models.classifier import load_classifier
from enn_finetune.progress import Display

ROOT = Path(__file__).resolve().parents[1]
PROVENANCE = {
    "task", "metric", "score", "labels_bought", "rule", "seed", "config_hash", "commit",
    "data_fingerprint", "wall_seconds",
}  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return tiny_runs.write_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def closed(world):
    return lambda **keys: config_of(world, **REGIMES["pool, closed form"], **keys)


def everything(folder: Path) -> dict[str, bytes]:
    """The bytes of all files below a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# What it says


def test_test_rows_that_are_training_rows_are_told(closed, tmp_path, capsys):
    rows = tiny_runs.sentences(30, 1)
    train = write_rows(tmp_path / "train.jsonl", rows)
    test = write_rows(tmp_path / "test.jsonl", [*rows[:4], *tiny_runs.sentences(8, 9)])
    config = closed(**{"task.train": str(train), "task.test": str(test)})
    problem.prepare(config, Display())
    assert "warning: 4 of 12 different texts of test are training texts too" in " ".join(
        capsys.readouterr().err.split()
    ) + " ".join(capsys.readouterr().out.split())


# What it leaves


def test_summary_records_and_model_agree(closed, tmp_path):
    config = closed()
    summary = run(config, tmp_path)
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    assert summary.keys() >= PROVENANCE
    assert (summary["task"], summary["metric"], summary["rule"]) == ("custom", "accuracy", "bald")
    assert (summary["labels_bought"], summary["seed"]) == (20, 0)
    assert summary["config_hash"] == config.hash
    assert len(summary["data_fingerprint"]) == 16
    records = [json.loads(line) for line in (tmp_path / "records.jsonl").read_text().splitlines()]
    for record in records:
        assert record.keys() >= {"step", "labels_bought", "split", "metrics", "seconds"}
    assert summary["score"] == records[-1]["metrics"]["accuracy"]
    seconds = [record["seconds"] for record in records]
    assert seconds == sorted(seconds)
    assert summary["wall_seconds"] >= seconds[-1] > 0
    loaded = load_classifier(tmp_path / "model")
    assert loaded.labels == tiny_runs.CLASSES
    assert (loaded.max_tokens, loaded.text, loaded.pair) == (16, "text", None)
    assert sorted(item.name for item in tmp_path.iterdir()) == [
        "bought.jsonl", "checkpoint.safetensors", "config.json", "model", "records.jsonl",
        "summary.json",
    ]  # fmt: skip


def test_the_saved_model_predicts_what_was_evaluated(closed, world, tmp_path):
    """The whole path again, from the files: encoder, head, tokenizer, labels."""
    from enn_finetune import scoring

    summary = run(closed(), tmp_path)
    scoring.run(
        tmp_path / "model", world / "test.jsonl", tmp_path / "scored", indices=400, quiet=True
    )
    rows = tiny_runs.sentences(tiny_runs.TEST_ROWS, 2)
    scored = [json.loads(line) for line in (tmp_path / "scored").read_text().splitlines()]
    right = [s["label"] == row["label"] for s, row in zip(scored, rows, strict=True)]
    assert np.mean(right) == pytest.approx(summary["score"], abs=0.1)


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_pairs_and_columns_of_the_users_own(closed, tmp_path, suffix):
    for name, count in (("a", 30), ("b", 10)):
        rows = tiny_runs.sentences(count, count)
        renamed = [{"q": r["text"], "a,b": r["pair"], "so": r["label"]} for r in rows]
        write_rows(tmp_path / f"{name}.{suffix}", renamed)
    config = closed(
        **{
            "task.train": str(tmp_path / f"a.{suffix}"),
            "task.test": str(tmp_path / f"b.{suffix}"),
            "task.text": "q",
            "task.pair": "a,b",
            "task.label": "so",
            "task.metric": "macro_f1",
            "head.kind": "linear",
            "acquisition.rule": "margin",
        }
    )
    summary = run(config, tmp_path / "out")
    assert summary["metric"] == "macro_f1"
    assert summary["metrics"]["test"].keys() >= {"macro_f1", "accuracy", "nll"}
    loaded = load_classifier(tmp_path / "out" / "model")
    assert (loaded.text, loaded.pair) == ("q", "a,b")


def test_the_fingerprint_is_of_the_data(closed, tmp_path, world):
    first = run(closed(), tmp_path / "1")
    other = write_rows(tmp_path / "test.jsonl", tiny_runs.sentences(tiny_runs.TEST_ROWS, 3))
    second = run(closed(**{"task.test": str(other)}), tmp_path / "2")
    third = run(closed(seed=1), tmp_path / "3")
    assert first["data_fingerprint"] == third["data_fingerprint"] != second["data_fingerprint"]
    assert len({s["config_hash"] for s in (first, second, third)}) == 3


# What it refuses


def test_another_runs_folder_is_refused_and_not_touched(closed, tmp_path):
    run(closed(), tmp_path)
    before = everything(tmp_path)
    with pytest.raises(InputError, match="holds a run already; go on with --resume"):
        run(closed(), tmp_path)
    changed = closed(seed=3, **{"acquisition.rule": "margin", "budget.labels": 21})
    with pytest.raises(InputError, match=r"differ: acquisition\.rule, budget\.labels, seed\. "):
        run(changed, tmp_path, resume=True)
    assert everything(tmp_path) == before


@pytest.mark.parametrize("name", ["records.jsonl", "checkpoint.safetensors", "summary.json"])
@pytest.mark.parametrize("resume", [False, True])
def test_what_another_program_left_is_refused(closed, tmp_path, name, resume):
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match="holds"):
        run(closed(), tmp_path, resume=resume)
    assert everything(tmp_path) == {name: b"mine"}


def test_a_file_in_the_folders_place(closed, tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(InputError, match="found a file where a folder is expected"):
        run(closed(), tmp_path / "out")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"task.train": "no.jsonl"}, r"no\.jsonl: no such file"),
        ({"task.label": "Label"}, "no column 'Label'"),
        ({"backbone.path": "./nowhere"}, r"backbone\.path: found no encoder"),
        ({"backbone.max_tokens": 17}, r"backbone\.max_tokens: 17 is more than the 16 positions"),
        ({"budget.labels": 61}, r"budget\.labels: 61 is more than the 60 rows in the pool"),
    ],
)
def test_a_run_that_cannot_begin_leaves_the_folder_free(closed, tmp_path, keys, message):
    with pytest.raises(InputError, match=message):
        run(closed(**keys), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_other_data_than_the_run_began_with(closed, tmp_path):
    train = write_rows(tmp_path / "train.jsonl", tiny_runs.sentences(tiny_runs.TRAIN_ROWS, 1))
    config = closed(**{"task.train": str(train)})
    run(config, tmp_path / "out")
    write_rows(train, tiny_runs.sentences(tiny_runs.TRAIN_ROWS, 9))
    before = (tmp_path / "out" / "records.jsonl").read_bytes()
    with pytest.raises(InputError, match="the data read now has"):
        run(config, tmp_path / "out", resume=True)
    assert (tmp_path / "out" / "records.jsonl").read_bytes() == before


def test_resume_without_a_run_begins_one(closed, tmp_path):
    run(closed(), tmp_path / "1", resume=True)
    run(closed(), tmp_path / "2")
    assert left_by(tmp_path / "1") == left_by(tmp_path / "2")


# kill -9


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["online, full, touched", "pool, frozen, gradient"])
def test_kill_9_changes_nothing(world, tmp_path, kind):
    keys = {"budget.labels": 60, "budget.round": 1, "evaluation.every": 1, "train.min_steps": 60}
    if kind.startswith("online"):
        keys["budget.steps"] = 400
    config = tiny_runs.toml(tmp_path / "c.toml", config_of(world, **REGIMES[kind], **keys))

    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")}

    def start(out: Path, *options: str) -> subprocess.Popen:
        command = [sys.executable, "-m", "enn_finetune", "train", config, "--out", out, *options]
        return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)

    assert start(tmp_path / "whole").wait() == 0
    records = tmp_path / "parts" / "records.jsonl"
    for goal in (3, 12, 25):
        child = start(tmp_path / "parts", "--resume")
        while not records.exists() or records.read_bytes().count(b"\n") < goal:
            assert child.poll() is None, "the run ended before it could be killed"
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert not (tmp_path / "parts" / "summary.json").exists()
    assert start(tmp_path / "parts", "--resume").wait() == 0
    assert left_by(tmp_path / "parts") == left_by(tmp_path / "whole")


# The shipped configs


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.toml")), ids=lambda p: p.stem)
def test_every_shipped_config_runs_when_shrunk(path, shared, minilm, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    small = ["budget.labels=24", "budget.start=16", "budget.round=8", "evaluation.every=8"]
    small += ["evaluation.batch=64", "train.min_steps=2", "train.epochs=1", "budget.steps=3"]
    settings = configs.load(path, small)
    if settings.task.name != "messages":  # a slice of the files, with the task's own name
        cut_task(settings.task.name, shared / "glue", tmp_path)
        settings = configs.load(path, [*small, f"task.data={tmp_path}"])
    summary = run(settings, tmp_path / "out")
    assert summary["task"] == settings.task.name
    assert 8 <= summary["labels_bought"] <= 24
    assert np.isfinite(summary["score"])
    load_classifier(tmp_path / "out" / "model")


def cut_task(name: str, source: Path, target: Path, rows: int = 200) -> None:
    """The first rows of the files of a task."""
    from enn_finetune.data.tasks import find_task

    task = find_task(name)
    (target / task.folder).mkdir()
    for split in task.splits:
        with open(source / task.folder / split.file, "rb") as file:
            lines = [file.readline() for _ in range(rows)]
        (target / task.folder / split.file).write_bytes(b"".join(lines))


def test_the_model_card_has_no_path_of_this_machine(closed, world, tmp_path):
    run(closed(), tmp_path)
    for name in ("model/README.md", "summary.json", "records.jsonl", "model/head.json"):
        assert str(world) not in (tmp_path / name).read_text()

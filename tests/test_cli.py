"""The command line: quick help, typed overrides, and errors that are one sentence."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_bench
import tiny_runs

from enn_finetune import cli
from enn_finetune.cli import commands
from enn_finetune.data import tasks
from enn_finetune.records import version

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = ("demo", "train", "bench", "testbed", "intended", "report", "score", "tasks")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return tiny_runs.write_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def config(world, tmp_path):
    settings = tiny_runs.config_of(world, **tiny_runs.REGIMES["pool, closed form"])
    return str(tiny_runs.toml(tmp_path / "c.toml", settings))


@pytest.fixture(autouse=True)
def no_cache(monkeypatch):
    """Commands run inside the tests leave jax's settings as they are."""
    monkeypatch.setattr(commands, "_set_up_jax", lambda: None)


def ask(*arguments: object) -> int:
    """The exit status of a command, argparse's own included."""
    try:
        return cli.main([str(argument) for argument in arguments])
    except SystemExit as left:
        return int(left.code or 0)


# Help


@pytest.mark.parametrize("command", [(), *((c,) for c in COMMANDS)], ids=lambda c: c or "top")
def test_help_imports_nothing_heavy(command):
    program = (
        "import sys, enn_finetune.cli as cli\n"
        "try:\n    cli.main([*sys.argv[1:], '--help'])\nexcept SystemExit as left:\n"
        "    assert left.code == 0\n"
        "heavy = {'jax', 'flax', 'optax', 'transformers', 'torch', 'numpy', 'rich', 'pydantic'}\n"
        "print('heavy:', sorted(heavy & sys.modules.keys()))"
    )
    found = subprocess.run(
        [sys.executable, "-c", program, *command], capture_output=True, text=True, check=True
    )
    assert "usage: enn-finetune" in found.stdout
    assert found.stdout.endswith("heavy: []\n")
    for name in COMMANDS if not command else ():
        assert name in found.stdout


def test_as_a_module(tmp_path):
    def module(*arguments):
        command = [sys.executable, "-m", "enn_finetune", *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert module("--version").stdout.strip() == version()
    found = module("train", tmp_path / "none.toml", "--out", tmp_path / "out")
    assert found.returncode == cli.FAULT
    assert found.stdout == ""
    assert found.stderr.startswith("enn-finetune train: ")
    assert "no such config file" in found.stderr
    assert "Traceback" not in found.stderr


def test_no_command_is_a_fault_with_help(capsys):
    assert ask() == cli.FAULT
    assert "usage: enn-finetune" in capsys.readouterr().out


# train


def test_train_with_overrides_on_both_sides_of_the_options(config, tmp_path, capsys):
    out = tmp_path / "out"
    assert ask("train", config, "seed=3", "--out", out, "acquisition.rule=margin") == 0
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["seed"], summary["rule"]) == (3, "margin")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "test accuracy" in captured.err.replace("\n", " ")
    assert ask("train", config, "seed=3", "acquisition.rule=margin", "--out", out) == cli.FAULT
    assert "holds a run already" in capsys.readouterr().err
    again = ("train", config, "seed=3", "acquisition.rule=margin", "--out", out, "--resume")
    assert ask(*again) == 0


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["task.name=mrcp"], "no task 'mrcp': the nearest is mrpc"),
        (["acquisiton.rule=bald"], "the nearest is acquisition.rule"),
        (["budget.labels=many"], "budget.labels: got 'many'"),
        (["seed"], "override 'seed' has no '='"),
        (["task.train=none.jsonl"], "none.jsonl: no such file"),
        (["backbone.path=./none"], "backbone.path: found no encoder in this place"),
        (["backbone.path=some-one/some-bert"], "check the name and the connection"),
        (["backbone.path=EMPTY"], "without config.json"),
        (["backbone.path=PICKLE"], "pytorch_model.bin"),
        (["task.name=cola", "task.data=hub"], "cola"),
    ],
)
def test_faults_are_told_on_stderr(config, tmp_path, capsys, monkeypatch, overrides, message):
    monkeypatch.setenv("COLUMNS", "1000")
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "PICKLE").mkdir()
    (tmp_path / "PICKLE" / "config.json").write_text(json.dumps(tiny_runs.tiny_bert.CONFIG))
    (tmp_path / "PICKLE" / "pytorch_model.bin").write_bytes(b"\x80\x04")
    monkeypatch.chdir(tmp_path)
    assert ask("train", config, *overrides, "--out", tmp_path / "out") == cli.FAULT
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("enn-finetune train: ")
    assert message in captured.err
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_made(config, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    assert ask("train", config, "--out", tmp_path / "file" / "out") == cli.FAULT
    assert "Not a directory" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ("train", "c.toml"),
        ("train", "c.toml", "--out", "x", "--seed", "1"),
        ("score", "m", "--input", "a", "--output", "b", "--indices", "0"),
        ("score", "m", "--input", "a", "--output", "b", "--batch", "-1"),
        ("score", "m", "--input", "a", "--output", "b", "extra"),
        ("demo", "--seeds", "0"),
        ("tasks", "cola"),
        ("bench", "c.toml"),
        ("report", "--out", "x.html"),
        ("nothing",),
    ],
    ids=" ".join,
)
def test_arguments_that_make_no_sense(arguments, capsys):
    assert ask(*arguments) == cli.FAULT
    captured = capsys.readouterr()
    assert "usage: enn-finetune" in captured.err
    assert "Traceback" not in captured.err


def test_a_stopped_run_says_how_to_go_on(config, tmp_path, capsys, monkeypatch):
    from enn_finetune import pool

    def strike():
        signal.raise_signal(signal.SIGINT)

    with tiny_runs.before_call(monkeypatch, pool, "choose", 1, strike):
        assert ask("train", config, "--out", tmp_path / "out") == cli.INTERRUPTED
    assert "--resume" in capsys.readouterr().err
    assert ask("train", config, "--out", tmp_path / "out", "--resume") == 0


def test_an_interrupt_before_the_run_began(config, tmp_path, capsys, monkeypatch):
    from enn_finetune import experiment

    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(experiment, "prepare", interrupted)
    assert ask("train", config, "--out", tmp_path / "out") == cli.INTERRUPTED
    assert capsys.readouterr().err == "interrupted\n"


def test_train_on_files_of_one_s_own(config, world, tmp_path, capsys):
    files = (f"task.train={world}/train.jsonl", f"task.test={world}/test.jsonl")
    path = tmp_path / "other.toml"
    lines = Path(config).read_text().replace('name = "custom"', 'name = "sst2"').splitlines()
    path.write_text("\n".join(x for x in lines if not x.startswith(("train =", "test ="))))
    assert ask("train", path, *files, "task.text=text", "--out", tmp_path / "out") == 0
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["task"] == "train"


# bench and report


def test_bench_and_report(world, tmp_path, capsys):
    config, out = tiny_bench.write_config(tmp_path, world), tmp_path / "out"
    command = ("bench", config, "--out", out, "bench.seeds=2", "budget.labels=11")
    assert ask(*command) == 0
    printed = capsys.readouterr().out
    assert "letters" in printed
    assert "epinet/bald" in printed
    arms = json.loads((out / "summary.json").read_text())["tasks"]["letters"]
    assert arms.keys() == {"linear/random", "epinet/bald"}
    assert arms["epinet/bald"]["seeds"] == 2
    (study,) = json.loads((out / "studies.json").read_text())
    assert study["command"].endswith(f"bench.toml bench.seeds=2 budget.labels=11 --out {out}")
    assert ask(*command) == cli.FAULT
    assert "enn-finetune bench: " in capsys.readouterr().err
    assert ask(*command, "--resume") == 0
    assert ask("report", out, "--out", tmp_path / "again" / "page.html") == 0
    assert (tmp_path / "again" / "page.html").exists()
    again = json.loads((tmp_path / "again" / "summary.json").read_text())["tasks"]["letters"]
    assert again == arms
    assert ask("report", tmp_path / "nowhere", "--out", tmp_path / "x.html") == cli.FAULT
    assert "enn-finetune report: " in capsys.readouterr().err


def test_a_benchmark_with_a_failing_cell_says_so(world, tmp_path, capsys, monkeypatch):
    from enn_finetune.bench import cells

    def failing(*arguments):
        raise FloatingPointError("no figures")

    config = tiny_bench.write_config(tmp_path, world)
    monkeypatch.setattr(cells, "frozen", failing)
    assert ask("bench", config, "--out", tmp_path / "out") == commands.FAILED
    printed = capsys.readouterr().err
    assert "failed: letters · bert · frozen · linear/random · 2 seeds: FloatingPoint" in printed
    assert "--resume" in printed


def test_a_stopped_benchmark_says_how_to_go_on(world, tmp_path, capsys, monkeypatch):
    from enn_finetune.bench import cells

    def interrupted(*arguments):
        raise KeyboardInterrupt

    config = tiny_bench.write_config(tmp_path, world)
    monkeypatch.setattr(cells, "frozen", interrupted)
    assert ask("bench", config, "--out", tmp_path / "out") == cli.INTERRUPTED
    assert f"enn-finetune bench {config} --out {tmp_path}/out --resume" in capsys.readouterr().err


# score


def test_score(config, world, tmp_path, capsys):
    assert ask("train", config, "--out", tmp_path / "run") == 0
    model, scored = tmp_path / "run" / "model", tmp_path / "scored.jsonl"
    rows = world / "test.jsonl"
    assert ask("score", model, "--input", rows, "--output", scored, "--indices", 5) == 0
    assert len(scored.read_text().splitlines()) == tiny_runs.TEST_ROWS
    capsys.readouterr()
    assert ask("score", model, "--input", tmp_path / "no.csv", "--output", scored) == cli.FAULT
    assert "enn-finetune score: " in capsys.readouterr().err
    bert = world / "bert"
    assert ask("score", bert, "--input", rows, "--output", scored) == cli.FAULT
    assert "an encoder, not a saved classifier" in capsys.readouterr().err
    (model / "model.safetensors").write_bytes(b"cut")
    assert ask("score", model, "--input", rows, "--output", scored) == cli.FAULT
    assert "truncated or damaged" in capsys.readouterr().err
    assert len(scored.read_text().splitlines()) == tiny_runs.TEST_ROWS


# tasks


def test_tasks_lists_every_task_and_its_place(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")  # narrow: paths are folded, not cut
    place = tmp_path / "some folder of tasks"
    (place / "CoLA").mkdir(parents=True)
    (place / "CoLA" / "train.tsv").write_text("")
    assert ask("tasks", "--data", place, "--data", "nowhere") == 0
    printed = capsys.readouterr().out
    for name in tasks.NAMES:
        assert name in printed
    assert "not found" in " ".join(printed.split())
    assert "…" not in printed


def test_tasks_in_full(shared, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    assert ask("tasks", "--data", shared / "glue") == 0
    lines = capsys.readouterr().out.splitlines()
    for task in tasks.GLUE:
        (line,) = [line for line in lines if line.startswith(f"│ {task.name} ")]
        expected = shared / "glue" / task.folder / "train.tsv"
        assert (str(expected) in line) == expected.exists()

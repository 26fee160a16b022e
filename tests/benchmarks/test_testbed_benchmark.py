"""benchmarks/testbed.py at a toy size: all sides choose alike, and the script's last line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOY = (
    "--runs",
    "4",
    "--chunk",
    "2",
    "--few",
    "1",
    "--repeats",
    "1",
    "--candidates",
    "8",
    "--batch",
    "3",
)


def given(monkeypatch, *more):
    import testbed

    monkeypatch.setattr(sys, "argv", ["testbed.py", "--threads", "2", *TOY, *more])
    return testbed.options()


@pytest.mark.parametrize("updates", ["1", pytest.param("3", marks=pytest.mark.slow)])
def test_all_sides_take_the_same_steps(monkeypatch, updates):
    import testbed

    found = testbed.compare("small", given(monkeypatch, "--updates", updates))
    assert found["agree"] == 1
    assert found["rule"] == "entropy"
    assert found["ratio"] == pytest.approx(
        found["steps_per_second"] / found["one_at_a_time"], rel=0.01
    )
    assert len(found["all_turns"]) == 1


@pytest.mark.slow
def test_agents_that_ask_by_variance_agree_too(monkeypatch):
    import testbed

    assert testbed.compare("epinet", given(monkeypatch))["agree"] == 1


def test_runs_come_in_whole_chunks(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        given(monkeypatch, "--runs", "5")
    assert "no multiple of --chunk 2" in capsys.readouterr().err


@pytest.mark.slow
def test_the_script_ends_with_one_json_object(tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "testbed.py", "--quick", "--threads", "1", *TOY],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": "", "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "HOME": str(tmp_path)},
    )
    figures = json.loads(done.stdout.splitlines()[-1])
    assert {"steps_per_second", "one_at_a_time", "ratio", "agents", "commit"} <= figures.keys()
    assert figures["agree"] == 1

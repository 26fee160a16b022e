"""benchmarks/tuning.py at a toy size: every mode and each peer that is there, in one table."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_both_sides_mean_the_same_by_lora():
    import tuning
    import tuning_peers

    for name in ("RANK", "ALPHA", "CLASSES"):
        assert getattr(tuning, name) == getattr(tuning_peers, name)
    assert tuning.PAIRS.keys() == tuning_peers.SIDES.keys()


def test_the_best_samples_are_compared():
    import tuning

    times = iter([5.0, 2.0, 3.0, 4.0, 1.0, 6.0, 7.0, 8.0])

    def timer(side: str, work: str) -> tuning.Sample:
        return tuning.Sample(next(times), 9.0)

    taken = tuning.take_samples(["ours"], ["theirs"], timer, timer, repeats=2)
    assert {side: {w: s.cpu_ms for w, s in one.items()} for side, one in taken.items()} == {
        "ours": {"train": 1.0, "score": 3.0},
        "theirs": {"train": 2.0, "score": 4.0},
    }
    sides = {"full": tuning.Side(10, 2.0, 1.0), "torch, full": tuning.Side(10, 3.0)}
    ours = {"train": tuning.Sample(10, 20), "score": tuning.Sample(5, 10)}
    theirs = {"train": tuning.Sample(20, 40), "score": tuning.Sample(20, 40)}
    found = tuning.report(
        sides,
        {"full": ours, "torch, full": theirs},
        {"peft, lora": "No module named 'peft'"},
        rows=4,
    )
    assert found["rows_per_second"]["full"] == {"train": 400, "score": 800}
    assert found["ratios"]["torch, full"] == {"train": 0.5, "score": 0.25}
    assert found["against"] == {"torch, full": {"train": 2, "score": 4}}
    assert found["missing"].keys() == {"peft, lora"}
    assert found["score_mib"] == {"full": 1.0}
    assert found["had_the_cores"] == 0.5


@pytest.mark.slow
def test_the_script_ends_with_one_json_object(tiny_encoder):
    pytest.importorskip("torch", reason="compares with PyTorch, which is not installed")
    from enn_finetune.models.tuning import MODES

    command = [sys.executable, ROOT / "benchmarks" / "tuning.py", "--encoder", tiny_encoder]
    done = subprocess.run(
        [*command, "--quick", "--rows", "4", "--tokens", "8"],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": "", "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
    )
    figures = json.loads(done.stdout.splitlines()[-1])
    peers = {"torch, full"} | ({"peft, lora"} if find_spec("peft") else set())
    assert figures["against"].keys() == peers
    assert figures["missing"].keys() == {"torch, full", "peft, lora"} - peers
    assert figures["rows_per_second"].keys() == {*MODES, "probe"} | peers
    assert figures["ratios"]["full"] == {"train": 1.0, "score": 1.0}
    speeds = [speed for one in figures["rows_per_second"].values() for speed in one.values()]
    assert np.all(np.asarray(speeds) > 0)
    trained = figures["trained"]
    # What is left of the word table in both: the same encoder, as either side counts it.
    assert trained["full"] == trained["torch, full"]
    assert trained["frozen"] == 0 < trained["ia3"] < trained["lora"] < trained["full"]
    assert {"commit", "machine", "had_the_cores"} <= figures.keys()

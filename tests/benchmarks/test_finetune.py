"""benchmarks/finetune.py at a tiny size: both sides take the same steps, and the script runs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STEPS = 20


@pytest.fixture(scope="module", autouse=True)
def _torch():
    pytest.importorskip("torch", reason="compares with PyTorch, which is not installed")


def overrides(encoder: Path) -> list[str]:
    return ["task.name=messages", f"backbone.path={encoder}", "backbone.max_tokens=16"]


@pytest.mark.slow
def test_without_dropout_our_steps_are_pytorchs(tiny_encoder):
    """Rates so high that a slip in schedule, clipping, L2, Adam or averaging would show."""
    import finetune

    from enn_finetune.problem import prepare
    from enn_finetune.progress import Display

    rates = ["train.lr=1e-2", "train.head_lr=3e-2", "train.warmup=5", "train.l2=10"]
    settings = finetune.recipe(Path("absent"), 8 * STEPS, [*overrides(tiny_encoder), *rates])
    problem = prepare(settings, Display(quiet=True))
    texts = finetune.Texts(problem, settings)
    pair = finetune.paired(problem, settings, texts, STEPS)
    losses, log_probs = pair.gaps()
    assert pair.losses.shape == (2, STEPS)
    assert losses < 1e-4
    assert log_probs < 1e-4


def test_the_recipe_refuses_what_pytorchs_side_does_not_do():
    import finetune

    with pytest.raises(SystemExit, match=r"train\.schedule: found 'linear'"):
        finetune.recipe(Path("absent"), 16, ["train.schedule=linear", "budget.steps=9"])


@pytest.mark.slow
def test_the_script_ends_with_one_json_object(tiny_encoder):
    command = [sys.executable, ROOT / "benchmarks" / "finetune.py", *overrides(tiny_encoder)]
    done = subprocess.run(
        [*command, "--seeds", "2", "--labels", "60"],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": "", "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
    )
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["seeds"] == [0, 1]
    assert len(figures["runs"]) == 2
    for run in figures["runs"]:
        assert run.keys() == {"ours", "torch", "epinet"}
    gap = 100 * (figures["ours"] - figures["torch"])
    assert figures["difference_points"] == pytest.approx(gap, abs=0.01)
    assert figures["without_dropout"]["losses"] < 1e-4
    assert {"config_hash", "commit", "data_fingerprint", "machine"} <= figures.keys()

"""Whole runs under every tuning mode: both regimes, stopped and resumed, saved and scored."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).resolve().parents[1]))
import tiny_bert
import tiny_runs

from enn_finetune import fitting, scoring, session, train
from enn_finetune.config import Config, ConfigError
from enn_finetune.evaluating import predict
from enn_finetune.experiment import MODEL
from enn_finetune.models.tuning import MODES
from enn_finetune.models.weights import export_bert, load_bert
from enn_finetune.problem import new_classifier

KEYS: dict[str, object] = {
    "head.kind": "linear",
    "head.form": "mlp",
    "acquisition.rule": "random",
    "backbone.lora_on": "all",
    "train.lr": 1e-2,
    "budget.labels": 16,
    "evaluation.every": 50,
}
QUICK = {("online", "lora"), ("pool", "ia3")}
"""Compiled in every run of the tests; the others when the slow ones are asked for."""

runs = pytest.mark.parametrize(
    ("regime", "mode"),
    [
        pytest.param(regime, mode, marks=() if (regime, mode) in QUICK else pytest.mark.slow)
        for regime in ("online", "pool")
        for mode in MODES
    ],
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_runs.write_world(tmp_path_factory.mktemp("world"))


def config_of(world: Path, regime: str, mode: str, **keys: object) -> Config:
    chosen = {"regime": regime, "backbone.tune": mode}
    return tiny_runs.config_of(world, **KEYS | chosen | keys)


@runs
def test_a_run_stopped_and_resumed_is_the_run_that_was_not(
    world, tmp_path, monkeypatch, regime, mode
):
    config = config_of(world, regime, mode, **{"train.probe_steps": int(mode == "lora")})
    tiny_runs.run(config, tmp_path / "whole")
    # Before the fourth step, or the third round, which is then done again.
    owner, name, number = (
        (train, "train_step", 4) if regime == "online" else (session.Session, "evaluate", 2)
    )
    with (
        tiny_runs.before_call(monkeypatch, owner, name, number, tiny_runs.crash),
        pytest.raises(tiny_runs.Crash),
    ):
        tiny_runs.run(config, tmp_path / "parts")
    tiny_runs.run(config, tmp_path / "parts", resume=True)
    assert tiny_runs.left_by(tmp_path / "parts") == tiny_runs.left_by(tmp_path / "whole")
    # What is saved is a folder like the one it began with, and only what the mode trains moved.
    saved = export_bert(load_bert(tmp_path / "whole" / MODEL))
    given = export_bert(load_bert(world / "bert", pooler=False))
    moved = {name for name in given if saved[name].tobytes() != given[name].tobytes()}
    assert saved.keys() == given.keys()
    assert bool(moved) == (mode != "frozen")
    assert "embeddings.word_embeddings.weight" not in moved
    output = tmp_path / "scored.jsonl"
    counts = scoring.run(tmp_path / "whole" / MODEL, world / "test.jsonl", output, quiet=True)
    assert counts == (tiny_runs.TEST_ROWS, 0)
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    likelihood = [np.log(row["probabilities"][row["label"]]) for row in rows]
    assert np.isfinite(likelihood).all()


def test_every_mode_is_run():
    assert {mode for _, mode in QUICK} <= {*MODES}


def test_the_saved_model_predicts_what_the_run_evaluated(world, tmp_path):
    """Trained with additions, evaluated and saved with them folded."""
    config = config_of(world, "pool", "ia3")
    problem = tiny_runs.prepared(config)
    problem.oracle.buy(np.arange(12))
    parts = fitting.by_gradient(problem, config, 0)
    split = problem.evaluations[0]
    rows = np.arange(len(split.rows))
    expected = predict(parts, split.rows, rows, config)
    folded = predict(train.split(train.merge(parts), "frozen"), split.rows, rows, config)
    for one, other in zip(folded, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_seeds_share_a_head_over_modes_and_differ_in_additions(world):
    def made(mode: str, seed: int) -> train.Parts:
        config = config_of(world, "online", mode, seed=seed)
        return train.split(new_classifier(tiny_runs.prepared(config), config), "frozen")

    one, other, full = made("lora", 0), made("lora", 1), made("full", 0)
    pairs = zip(*(tiny_runs.leaves(p.params["head"]) for p in (one, full)), strict=True)
    assert all((a == b).all() for a, b in pairs)
    added = zip(*(tiny_runs.leaves(p.params["backbone"]) for p in (one, other)), strict=True)
    assert any((a != b).any() for a, b in added)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"backbone.tune_layers": 2},
            r"backbone\.tune_layers: 2 is more than the 1 layers of .*bert",
        ),
        ({"backbone.rank": tiny_bert.CONFIG["hidden_size"] + 1}, r"backbone\.rank: 9 is more than"),
    ],
)
def test_a_run_that_the_encoder_is_too_small_for_does_not_begin(world, tmp_path, keys, message):
    mode = "last" if "backbone.tune_layers" in keys else "lora"
    with pytest.raises(ConfigError, match=message):
        tiny_runs.run(config_of(world, "online", mode, **keys), tmp_path / "out")
    assert not (tmp_path / "out").exists()

"""The demo on made-up features: its arms, files and sums, without an encoder."""

import json

import numpy as np
import pytest

from enn_finetune import demo
from enn_finetune.data.inputs import FeatureRows
from enn_finetune.data.oracle import Oracle
from enn_finetune.data.tasks import find_task, load_split
from enn_finetune.errors import InputError
from enn_finetune.problem import Evaluation, Problem
from enn_finetune.records import read

SEEDS, LABELS = 2, 60


def made_up(config, display):
    """The bundled messages with features that tell their class, and noise."""
    del display
    task, rng = find_task("messages"), np.random.default_rng(0)
    train, test = (load_split(task, name) for name in ("train", "test"))

    def rows(split):
        noise = rng.normal(size=split.targets.shape).astype(np.float32)
        return FeatureRows(split.targets.astype(np.float32) + 0.3 * noise, 64)

    return Problem(
        task=task,
        pool=rows(train),
        oracle=Oracle(train.targets, config.budget.labels),
        evaluations=(Evaluation("test", rows(test), test.targets),),
        encoder=None,
        folder=None,
        fingerprint="made up",
    )


@pytest.mark.slow
def test_every_arm_is_run_with_every_seed_and_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "prepare", made_up)
    settings = {"budget.start": 40, "budget.round": 20, "budget.labels": LABELS}
    monkeypatch.setattr(demo, "SETTINGS", {**demo.SETTINGS, **settings, "evaluation.indices": 8})
    summary = demo.run(tmp_path / "out", seeds=SEEDS)
    lines = read(tmp_path / "out" / "records.jsonl")
    arms = {"epinet/random", "linear/random", "epinet/margin", "epinet/bald"}
    assert {line["arm"] for line in lines} == arms
    assert len(lines) == 2 * len(arms) * SEEDS
    assert {line["labels_bought"] for line in lines} == {40, LABELS}
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["task"] == "messages"
    assert summary["task"] == "messages"
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(demo.FILES)
    demo.claim(tmp_path / "out")  # its own folder may be written again


def test_an_interval_needs_two_seeds(tmp_path):
    with pytest.raises(InputError, match="at least 2"):
        demo.run(tmp_path, seeds=1)


def test_other_peoples_folders_are_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(InputError, match=r"thesis\.tex"):
        demo.claim(tmp_path)
    with pytest.raises(InputError, match="a file is there"):
        demo.claim(tmp_path / "thesis.tex")

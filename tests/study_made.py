"""Small problems for tests of studies: features of a few numbers, two or three classes."""

from pathlib import Path

import numpy as np

from enn_finetune.config import Config, build
from enn_finetune.data.inputs import FeatureRows
from enn_finetune.data.oracle import Oracle
from enn_finetune.data.tasks import find_task
from enn_finetune.problem import Evaluation, Problem

POOL, TEST, WIDTH = 70, 24, 5


def config(**keys: object) -> Config:
    """Two rounds after the first labels unless told."""
    base = {"start": 6, "round": 4, "labels": 14} | keys
    settings = {f"budget.{name}": value for name, value in base.items()}
    return build(
        {"task.name": "sst2", "acquisition.indices": 4, "evaluation.indices": 6, **settings}
    )


def problem(*, one_class_first: bool = False, copies: int = 1, budget: int = 70) -> Problem:
    """A pool and a test split of Gaussian features; labels go by the first feature, mostly."""
    rng = np.random.default_rng(0)

    def rows(count: int) -> tuple[FeatureRows, np.ndarray]:
        features = rng.normal(size=(count, WIDTH)).astype(np.float32)
        labels = (features[:, 0] + 0.5 * rng.normal(size=count) > 0).astype(int)
        if one_class_first:
            labels[: count // 2] = 0
        features = np.repeat(features, copies, axis=0)
        return FeatureRows(features, 16), np.eye(2, dtype=np.float32)[np.repeat(labels, copies)]

    (pool, targets), (test, test_targets) = rows(POOL // copies), rows(TEST // copies)
    return Problem(
        task=find_task("sst2"),
        pool=pool,
        oracle=Oracle(targets, budget),
        evaluations=(Evaluation("dev", test, test_targets),),
        encoder=None,  # type: ignore[arg-type]
        folder=Path(),
        fingerprint="made up",
        classes=np.array([[-1], [1]]) * np.eye(WIDTH)[:1],  # whose words name the right direction
    )

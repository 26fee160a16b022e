"""Scores of a classifier on evaluation splits: the task's own, proper and joint ones.

Groups of rows that are predicted together are those of the pretrained encoder's features, the same
for every head, rule and round. Thresholds of MCC and F1 are chosen on unlabelled rows of the pool.
"""

import functools

import jax
import numpy as np

from enn_finetune import decisions, metrics, train
from enn_finetune.config import Config
from enn_finetune.data.inputs import FeatureRows, Rows
from enn_finetune.joint import Groups, joint_groups, joint_scores
from enn_finetune.models.backbone import encode
from enn_finetune.problem import Evaluation, Problem

DECIDING = 2048
"""Rows of the pool, at most, that a decision threshold is chosen on."""

_joint = jax.jit(joint_scores)


class Evaluator:
    """How the classifiers of a run are scored; what does not change between rounds is kept."""

    def __init__(self, problem: Problem, config: Config) -> None:
        self.problem, self._config = problem, config

    def __call__(self, parts: train.Parts) -> dict[str, dict[str, float]]:
        """For each split: the task's metrics, NLL, Brier and ECE of the mean prediction, and the
        joint log-losses (`joint.py`).
        """
        thresholds = self._thresholds(parts)
        return {
            split.name: self._of(parts, split, thresholds) for split in self.problem.evaluations
        }

    def _of(
        self, parts: train.Parts, split: Evaluation, thresholds: dict[str, float]
    ) -> dict[str, float]:
        task = self.problem.task
        mean, every = predict(parts, split.rows, np.arange(len(split.rows)), self._config)
        alone = metrics.evaluate(mean, split.targets, task.metrics, task.values, thresholds)
        joint = _joint(every, split.targets, self.groups[split.name])
        return alone | {name: float(loss) for name, loss in joint.items()}

    @functools.cached_property
    def groups(self) -> dict[str, Groups]:
        """Rows that are predicted together, by split; made once, with the pretrained encoder."""
        return {
            split.name: joint_groups(self._features(split.rows))
            for split in self.problem.evaluations
        }

    def _features(self, rows: Rows) -> np.ndarray:
        if isinstance(rows, FeatureRows):
            return rows.features
        return encode(self.problem.encoder, rows.batches(np.arange(len(rows))), len(rows))

    def _thresholds(self, parts: train.Parts) -> dict[str, float]:
        task, pool = self.problem.task, self.problem.pool
        if len(task.classes) != 2 or not set(task.metrics) & set(decisions.SCORES):
            return {}
        sample = np.arange(0, len(pool), -(-len(pool) // DECIDING))
        mean, _ = predict(parts, pool, sample, self._config)
        return decisions.thresholds(np.exp(mean), task.metrics)


def predict(
    parts: train.Parts, pool: Rows, rows: np.ndarray, config: Config
) -> tuple[np.ndarray, np.ndarray]:
    """Log of the mean prediction (n, C) of these rows (n,), and log-probabilities (K, n, C)."""
    key = jax.random.fold_in(jax.random.key(config.seed), 2)
    mean: np.ndarray | None = None
    every: np.ndarray | None = None
    for places, inputs in pool.batches(rows):
        found = train.predictions(parts, inputs, key, indices=config.evaluation.indices)
        if mean is None or every is None:
            mean = np.empty((len(rows), found[0].shape[1]), np.float32)
            every = np.empty((len(found[1]), *mean.shape), np.float32)
        mean[places] = np.asarray(found[0])[: len(places)]
        every[:, places] = np.asarray(found[1])[:, : len(places)]
    if mean is None or every is None:
        raise ValueError("expected at least one row to predict, got none")
    return mean, every

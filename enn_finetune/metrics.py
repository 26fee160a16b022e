"""Task scores and proper scores, from predicted distributions (N, C) and targets (N, C).

A target is a distribution over the classes: one-hot for classification, two neighbouring grid
points for a similarity score (STS-B). All functions are numpy, exact, and have no state; a file
larger than memory is scored by adding `Tally`s.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

Floats = np.ndarray

CALIBRATION_BINS = 15


def confusion(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Counts (C, C): rows are true classes, columns predicted ones."""
    return np.bincount(labels * classes + predicted, minlength=classes * classes).reshape(
        classes, classes
    )


def accuracy(counts: np.ndarray) -> float:
    """Share of rows on the diagonal of the confusion matrix (C, C)."""
    return float(np.trace(counts) / counts.sum())


def matthews(counts: np.ndarray) -> float:
    """Matthews correlation coefficient for any C (Gorodkin 2004); 0 where it is undefined."""
    counts = counts.astype(np.float64)
    true, predicted, total = counts.sum(1), counts.sum(0), counts.sum()
    covariance = np.trace(counts) * total - true @ predicted
    spread = (total**2 - true @ true) * (total**2 - predicted @ predicted)
    return float(covariance / np.sqrt(spread)) if spread > 0 else 0.0


def f1_scores(counts: np.ndarray) -> np.ndarray:
    """F1 of each class (C,); 0 for a class that is neither present nor predicted."""
    support = counts.sum(0) + counts.sum(1)
    return 2 * np.diag(counts) / np.maximum(support, 1)


class Tally(NamedTuple):
    """Sums that the streaming scores need; two tallies add up field by field."""

    rows: int
    nll: float
    brier: float
    counts: np.ndarray  # (C, C)
    bin_rows: np.ndarray  # (bins,)
    bin_confidence: np.ndarray  # (bins,)
    bin_correct: np.ndarray  # (bins,)

    def __add__(self, other: "Tally") -> "Tally":  # type: ignore[override]
        return Tally(
            rows=self.rows + other.rows,
            nll=self.nll + other.nll,
            brier=self.brier + other.brier,
            counts=self.counts + other.counts,
            bin_rows=self.bin_rows + other.bin_rows,
            bin_confidence=self.bin_confidence + other.bin_confidence,
            bin_correct=self.bin_correct + other.bin_correct,
        )


def tally(log_probs: Floats, targets: Floats) -> Tally:
    """Sums over the rows of predicted log-probabilities (N, C) against targets (N, C)."""
    log_probs, targets = np.asarray(log_probs, np.float64), np.asarray(targets, np.float64)
    probs = np.exp(log_probs)
    predicted, labels = probs.argmax(1), targets.argmax(1)
    confidence, correct = probs.max(1), predicted == labels
    bins = np.clip((confidence * CALIBRATION_BINS).astype(int), 0, CALIBRATION_BINS - 1)

    def by_bin(weights: np.ndarray) -> np.ndarray:
        return np.bincount(bins, weights, CALIBRATION_BINS)

    return Tally(
        rows=len(probs),
        nll=float(-np.sum(targets * np.where(targets > 0, log_probs, 0))),
        brier=float(np.sum((probs - targets) ** 2)),
        counts=confusion(labels, predicted, probs.shape[1]),
        bin_rows=by_bin(np.ones(len(probs))),
        bin_confidence=by_bin(confidence),
        bin_correct=by_bin(correct.astype(float)),
    )


def proper_scores(total: Tally) -> dict[str, float]:
    """NLL (nats a row), Brier score (sum over classes, mean over rows) and ECE (15 equal bins)."""
    gap = np.abs(total.bin_correct - total.bin_confidence).sum()
    return {
        "nll": total.nll / total.rows,
        "brier": total.brier / total.rows,
        "ece": float(gap / total.rows),
    }


def class_scores(counts: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    """The named scores among accuracy, mcc, f1 (of class 1) and macro_f1."""
    known = {
        "accuracy": lambda: accuracy(counts),
        "mcc": lambda: matthews(counts),
        "f1": lambda: float(f1_scores(counts)[1]),
        "macro_f1": lambda: float(f1_scores(counts).mean()),
    }
    return {name: known[name]() for name in names if name in known}


def correlation_scores(
    log_probs: Floats, targets: Floats, values: Sequence[float]
) -> dict[str, float]:
    """Pearson and Spearman correlation of expected grid values; 0 where one side is constant."""
    from scipy import stats  # noqa: PLC0415, a third of the start of every command; STS-B's alone

    grid = np.asarray(values, np.float64)
    predicted, true = np.exp(np.asarray(log_probs, np.float64)) @ grid, targets @ grid
    noise = 1e-6 * np.ptp(grid)  # what float32 log-probabilities leave of a constant
    if np.ptp(predicted) <= noise or np.ptp(true) <= noise:
        return {"pearson": 0.0, "spearman": 0.0}
    return {
        "pearson": float(stats.pearsonr(predicted, true).statistic),
        "spearman": float(stats.spearmanr(predicted, true).statistic),
    }


def evaluate(
    log_probs: Floats,
    targets: Floats,
    metrics: Sequence[str],
    values: Sequence[float] | None = None,
    thresholds: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """All that a record reports of one split: the task's metrics, then NLL, Brier and ECE.

    Args:
      log_probs: (N, C) log of the mean prediction.
      targets: (N, C) class distributions.
      metrics: among accuracy, mcc, f1, macro_f1, pearson, spearman.
      values: the grid (C,) that pearson and spearman take expectations over.
      thresholds: of two classes, by metric: the probability from which on class 1 is predicted
        (`decisions.py`); the likeliest class for a metric that is not among them.

    Raises:
      ValueError: no rows, a metric that is not known, or a correlation asked for without a grid.
    """
    if len(log_probs) == 0:
        raise ValueError("expected at least one row to evaluate, got none: the split is empty")
    total = tally(log_probs, targets)
    scores = class_scores(total.counts, metrics)
    for name, at in (thresholds or {}).items():
        decided = np.asarray(log_probs)[:, 1] >= np.log(max(at, 1e-30))
        labels = np.asarray(targets).argmax(1)
        scores |= class_scores(confusion(labels, decided.astype(int), 2), [name])
    if values is not None:
        scores |= correlation_scores(log_probs, targets, values)
    missing = [name for name in metrics if name not in scores]
    if missing:
        raise ValueError(
            f"metrics {missing} cannot be computed: pearson and spearman need a grid of values "
            "(a similarity task); the others known are accuracy, mcc, f1, macro_f1"
        )
    return {name: scores[name] for name in metrics} | proper_scores(total)

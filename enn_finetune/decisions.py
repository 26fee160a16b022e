"""From probabilities to classes, where the score is not accuracy: a threshold for two classes.

The likeliest class maximises accuracy. Under MCC or F1 it may be the one class that is never right
to predict: a regression that knows little says "acceptable" for all of CoLA, and has an MCC of 0.
The threshold here maximises the score that the model itself *expects* on unlabelled rows, its own
probabilities taken at their word (plug-in rule: Ye et al. 2012, arXiv 1206.4625, section 3; Koyejo
et al. 2014, NeurIPS 27). It reads no label, so it costs none, and it is the same for every head.
"""

from collections.abc import Iterable

import numpy as np

SCORES = ("mcc", "f1", "macro_f1")
"""The scores whose best threshold is not one half."""


def threshold(probs: np.ndarray, score: str) -> float:
    """The probability from which on class 1 is predicted, for the largest expected score.

    Args:
      probs: (N,) probabilities of class 1 of unlabelled rows, N at least 2.
      score: mcc, f1 (of class 1), macro_f1; for any other one it is 1/2.

    Returns:
      A number in [0, 1], half-way between two neighbouring probabilities; 1/2 where all are equal.
    """
    if score not in SCORES:
        return 0.5
    ordered = np.sort(np.asarray(probs, np.float64))[::-1]
    cuts = np.flatnonzero(np.diff(ordered)) + 1  # rows that are predicted as class 1
    if not len(cuts):
        return 0.5
    expected = _expected(np.cumsum(ordered)[cuts - 1], cuts, ordered.sum(), len(ordered), score)
    cut = cuts[int(np.argmax(expected))]
    return float((ordered[cut - 1] + ordered[cut]) / 2)


def _expected(
    hits: np.ndarray, cuts: np.ndarray, positives: float, rows: int, score: str
) -> np.ndarray:
    """The score of the expected confusion matrix where `cuts` rows are predicted as class 1."""
    negatives, rest = rows - positives, rows - cuts
    correct_rest = negatives - (cuts - hits)
    f1 = 2 * hits / (cuts + positives)
    if score == "f1":
        return f1
    if score == "macro_f1":
        return (f1 + 2 * correct_rest / (rest + negatives)) / 2
    spread = np.sqrt(np.maximum(positives * negatives, 1e-30) * cuts * rest)
    return (hits * rows - positives * cuts) / spread


def thresholds(probs: np.ndarray, scores: Iterable[str]) -> dict[str, float]:
    """`threshold` for each of some scores that has one; nothing for probabilities (N, C), C > 2."""
    if probs.shape[1] != 2:
        return {}
    return {name: threshold(probs[:, 1], name) for name in scores if name in SCORES}

"""Joint information of labels by enumerating every outcome, in float64, from the definition."""

import itertools

import numpy as np


def probabilities(lp: np.ndarray) -> np.ndarray:
    """Log-probabilities (K, N, C) -> probabilities in float64 that add up to 1."""
    probs = np.exp(lp.astype(np.float64))
    return probs / probs.sum(-1, keepdims=True)


def entropy(p: np.ndarray) -> float:
    return float(-np.sum(p * np.log(np.where(p > 0, p, 1))))


def joint(probs: np.ndarray, rows: list[int]) -> np.ndarray:
    """Probability of each outcome of the rows' labels under each index: (K, C^b)."""
    found = np.ones((probs.shape[0], 1))
    for row in rows:
        found = (found[:, :, None] * probs[:, row, None, :]).reshape(probs.shape[0], -1)
    return found


def about_index(lp: np.ndarray, rows: list[int]) -> float:
    """I(y_1, ..., y_b; z)."""
    outcomes = joint(probabilities(lp), rows)
    return entropy(outcomes.mean(0)) - np.mean([entropy(of_index) for of_index in outcomes])


def about_targets(lp: np.ndarray, rows: list[int], targets: np.ndarray) -> float:
    """Mean over targets (K, M, C) of I(y_1, ..., y_b; d)."""
    outcomes, others = joint(probabilities(lp), rows), probabilities(targets)
    found = []
    for target in range(others.shape[1]):
        both = outcomes[:, :, None] * others[:, target, None, :]
        apart = entropy(outcomes.mean(0)) + entropy(others[:, target].mean(0))
        found.append(apart - entropy(both.mean(0)))
    return float(np.mean(found))


def best_gain(score, lp: np.ndarray, batch: list[int]) -> float:
    """The most that a row adds to a batch, rows much like one in the batch left out."""
    probs = probabilities(lp)
    gains = [
        score(lp, [*batch, row]) - (score(lp, batch) if batch else 0)
        for row in range(lp.shape[1])
        if not any(np.abs(probs[:, row] - probs[:, one]).max() < 1e-4 for one in batch)
    ]
    return max(gains, default=0)


def is_greedy(score, lp: np.ndarray, rows: list[int], gains: np.ndarray) -> None:
    """Assert that gains are what rows add, and each row the best there was, to float32.

    Until the gains are some 1,000th of the first, where a batch rule goes on by other means.
    """
    for size, gain in itertools.takewhile(lambda one: one[1] > 2e-3 * gains[0], enumerate(gains)):
        before = score(lp, rows[:size]) if size else 0
        np.testing.assert_allclose(gain, score(lp, rows[: size + 1]) - before, atol=5e-6)
        assert gain >= best_gain(score, lp, rows[:size]) - 5e-6

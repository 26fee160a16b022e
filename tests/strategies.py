"""Hypothesis strategies that several test files share."""

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

K, N, C = 4, 3, 3
"""One shape for all drawn examples: each function is compiled once."""

FEW = settings(max_examples=60, deadline=None)

LOGITS = st.one_of(
    st.floats(-8, 8, width=32), st.sampled_from([0.0, 1e4, -1e4, 30.0, -30.0, -np.inf])
)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Float32 log-probabilities over the last axis; a row of -inf only becomes uniform."""
    hopeless = np.isneginf(logits).all(-1, keepdims=True)
    logits = np.where(hopeless, 0, logits).astype(np.float64)
    shifted = logits - logits.max(-1, keepdims=True)
    return (shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))).astype(np.float32)


def log_probs(*shape: int, logits: st.SearchStrategy[float] = LOGITS) -> st.SearchStrategy:
    """Log-probabilities (..., C), (K, N, C) unless told: mild, saturated and impossible mixed."""
    drawn = hnp.arrays(np.float32, shape or (K, N, C), elements=logits)
    return drawn.map(log_softmax)


def seeded_log_probs(seed: int, *shape: int, scale: float = 2.0) -> np.ndarray:
    """Log-probabilities of Gaussian logits, for tests that need no search."""
    return log_softmax(scale * np.random.default_rng(seed).normal(size=shape))

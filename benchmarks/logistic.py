"""scikit-learn's LogisticRegressionCV as its users call it.

In a module of its own, so that worker processes need not import jax.
"""

import warnings
from typing import NamedTuple

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegressionCV

MAX_ITERATIONS = 20_000
_TINY = 1e-300


class Fitted(NamedTuple):
    """One fit, asked about the test rows."""

    log_probs: np.ndarray  # (N, C)
    strength: float  # the chosen C
    converged: bool


def fit(features: np.ndarray, labels: np.ndarray, test: np.ndarray) -> Fitted:
    """Defaults, but for iterations enough to converge.

    Args:
      features: (n, D).
      labels: (n,), of at least 2 classes.
      test: (N, D).
    """
    model = LogisticRegressionCV(max_iter=MAX_ITERATIONS)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(features, labels)
    with np.errstate(divide="ignore"):
        log_probs = np.log(np.maximum(model.predict_proba(test), _TINY))
    stopped = any(issubclass(one.category, ConvergenceWarning) for one in caught)
    return Fitted(log_probs, float(np.mean(model.C_)), not stopped)

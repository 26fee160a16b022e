"""How linearly separable an attribute is in features: the mechanism that the paper proposes."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from enn_finetune.models.shaped_features import pool_shapes
from enn_finetune.models.solvers import SOLVERS

FOLDS = 5


class Probe(NamedTuple):
    """Cross-validated accuracy of a linear probe, and the standard error over its rows."""

    accuracy: float
    error: float


def probe(
    features: np.ndarray, classes: np.ndarray, strata: np.ndarray, *, views: int = 1
) -> Probe:
    """How well a linear classifier tells classes of rows it was not fitted to.

    The probe is the study's plain head: L2 logistic regression whose strength cross-validation
    chooses, within the four fifths that it is fitted to. Features are centred by all rows' mean,
    which reads no label.

    Args:
      features: (N, V * D).
      classes: (N,) what is to be told, from 0.
      strata: (N,) groups that every fold has its share of.
      views: V.
    """
    folds = stratified(strata, FOLDS)
    targets = np.eye(int(classes.max()) + 1, dtype=np.float32)[classes]
    shapes = pool_shapes(jnp.asarray(features), views=views)
    solving, told = SOLVERS["linear"], np.zeros(len(classes), bool)
    fit = jax.jit(solving.fit)
    for number in range(FOLDS):
        weights = (folds != number).astype(np.float32)
        key = jax.random.fold_in(jax.random.key(0), number)
        found = fit(features, targets * weights[:, None], weights, shapes, key=key)
        head = solving.make(found)
        logits = head.many(jnp.asarray(features), head.sample_index(key, 1))[0]
        here = folds == number
        told[here] = np.asarray(logits).argmax(1)[here] == classes[here]
    accuracy = float(told.mean())
    return Probe(accuracy, float(np.sqrt(accuracy * (1 - accuracy) / len(told))))


def stratified(strata: np.ndarray, folds: int) -> np.ndarray:
    """The fold (N,) of each row, every stratum spread over all of them."""
    order = np.argsort(np.random.Philox(0).random_raw(len(strata)), kind="stable")
    order = order[np.argsort(strata[order], kind="stable")]
    found = np.empty(len(strata), np.int64)
    found[order] = np.arange(len(strata)) % folds
    return found

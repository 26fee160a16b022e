"""The linear epinet behind scikit-learn's conventions, for people with their own embeddings.

    model = EpinetClassifier().fit(embeddings, labels, X_pool=all_embeddings)
    model.predict_proba(new)            # (N, C): the mean prediction
    model.joint_log_proba(new, 100)     # (100, N, C): what 100 functions say of all rows together
    model.uncertainty(new).epistemic    # (N,): what more labels could remove, in nats

Needs scikit-learn (extra `sklearn`).
"""

import numbers
from collections.abc import Hashable, Mapping, Sequence
from typing import Self, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from enn_finetune import predictive
from enn_finetune.models.linear_epinet import (
    LinearEpinet,
    LinearEpinetFit,
    ShapedLinear,
    ShapedPool,
    bucket,
    fit_linear_epinet,
    pool_shapes,
)
from enn_finetune.models.row_chunks import map_rows
from enn_finetune.models.shaped_features import EXPONENTS
from enn_finetune.predictive import Uncertainty

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.utils import check_random_state
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
except ModuleNotFoundError as error:
    raise ImportError(
        f"enn_finetune.sklearn needs scikit-learn 1.6 or later, and {error.name} is not installed: "
        "pip install 'enn-finetune[sklearn]'"
    ) from error

INDICES = 100


class EpinetClassifier(ClassifierMixin, BaseEstimator):
    """Regularised logistic regression on shaped features, with an epinet around its mean.

    The prior's strength and shape (how far it trusts the directions in which unlabelled rows vary
    most) have the largest Laplace evidence on the labels given: there is nothing to tune. See
    `enn_finetune.models.linear_epinet`.

    It is made for embeddings: a row counts by its direction from the mean of `X_pool`, not by its
    distance from it, so one or two features say little. A fit depends on the set of weighted rows
    only: their order does not matter, and a row of weight 2 is the row twice.

    Args:
      index_dim: dim z, the number of random directions the posterior is drawn along, at least 1.
      exponents: powers of the pool's covariance to choose the prior's shape from; 0 is isotropic.
      random_state: of the epinet's draws, which the mean prediction does not depend on.

    Attributes:
      classes_: (C,) the labels, sorted.
      n_features_in_: D.
      feature_names_in_: (D,), where X has string column names.
      exponent_: the chosen power.
      l2_: the chosen penalty lambda, beside the summed loss over rows of mean square norm 1.
      described_: whether the prior begins with what `class_embeddings` say.
      log_evidence_: (E, L) in nats, of each exponent and each lambda of the grid; with
        `class_embeddings` (2 E, L), those that begin with what they say last.
    """

    def __init__(
        self,
        index_dim: int = 32,
        exponents: Sequence[float] = EXPONENTS,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.index_dim = index_dim
        self.exponents = exponents
        self.random_state = random_state

    def fit(
        self,
        X: np.ndarray,
        y: np.ndarray,
        sample_weight: np.ndarray | None = None,
        X_pool: np.ndarray | None = None,
        class_embeddings: Mapping[Hashable, np.ndarray] | None = None,
    ) -> Self:
        """Choose the prior, fit the regression, draw the epinet.

        Args:
          X: (N, D) finite.
          y: (N,) labels of any kind, of at least 2 classes, those of `class_embeddings` counted.
          sample_weight: (N,) at least 0: how often each row counts, by default once.
          X_pool: (N', D) rows without labels that shape the prior, by default X.
          class_embeddings: of each label the embedding (D,) of a sentence that says what the class
            is, or several (S, D), whose mean counts; `y` may lack some of these labels. The prior
            begins with what they say (`enn_finetune.models.class_prior`). Needs `X_pool`.

        Raises:
          ValueError: rows, labels, weights or arguments that cannot be used, and why.
        """
        if not isinstance(self.index_dim, int | np.integer) or self.index_dim < 1:
            raise ValueError(f"index_dim: expected an integer from 1 up, found {self.index_dim!r}")
        X, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        weights = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        X, y, weights = X[weights > 0], y[weights > 0], weights[weights > 0]
        if class_embeddings is not None and X_pool is None:
            raise ValueError("class_embeddings: give X_pool too, rows without labels")
        self.classes_, words = _described(y, class_embeddings, X.shape[1])
        codes = np.searchsorted(self.classes_, y)
        classes = len(self.classes_)
        if classes < 2:
            raise ValueError(
                f"{type(self).__name__} needs rows of at least 2 classes, found {classes} class: "
                f"{self.classes_.tolist()} in {len(y)} rows of positive weight"
            )
        X, codes, weights = _distinct(X, codes, weights)
        if X_pool is None:
            pool, pool_weights = X, weights
        else:
            pool = validate_data(self, X_pool, dtype=np.float64, reset=False)
            pool_weights = np.ones(len(pool))
        # The head works in float32: offset and unit are taken off before they can cost digits.
        self._offset = np.average(pool, axis=0, weights=pool_weights)
        self._unit = float(np.max(np.abs(pool - self._offset))) or 1.0
        draws = check_random_state(self.random_state)
        self._seed = int(draws.randint(np.iinfo(np.int32).max))

        size = bucket(len(X))
        targets = np.zeros((size, classes), np.float32)
        targets[np.arange(len(X)), codes] = 1
        fit = _fit(
            self._rows(X, size),
            targets,
            np.pad(weights, (0, size - len(X))).astype(np.float32),
            _shapes(
                self._rows(pool, len(pool)),
                pool_weights,
                tuple(self.exponents),
                None if words is None else self._rows(words, classes),
            ),
            key=jax.random.key(self._seed),
            index_dim=int(self.index_dim),
            described=words is not None,
        )
        # Plain arrays, so that a fitted classifier is copied and saved like any other.
        self._epinet: LinearEpinetFit = jax.tree.map(np.asarray, fit)
        self.exponent_, self.l2_ = float(fit.exponent), float(fit.l2)
        self.described_ = bool(fit.described) and words is not None and bool(np.ptp(words, 0).max())
        self.log_evidence_ = np.asarray(fit.evidence)
        return self

    def decision_function(self, X: np.ndarray) -> np.ndarray:
        """Logits of the mean prediction: (N, C), for C = 2 the second class's over the first (N,).

        Computed in float64, so that a row's logits do not depend on the rows beside it.
        """
        logits = self._logits(X)
        return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits

    def predict(self, X: np.ndarray) -> np.ndarray:
        """The most probable label of each row (N,)."""
        logits = self._logits(X)  # first: it says so if nothing is fitted
        return self.classes_[logits.argmax(axis=1)]

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """The mean prediction (N, C); classes as in `classes_`."""
        return np.exp(self.predict_log_proba(X))

    def predict_log_proba(self, X: np.ndarray) -> np.ndarray:
        """Log of the mean prediction (N, C)."""
        logits = self._logits(X)
        shifted = logits - logits.max(axis=1, keepdims=True)
        return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))

    def joint_log_proba(self, X: np.ndarray, n_indices: int = INDICES) -> np.ndarray:
        """Log-probabilities (K, N, C) of K functions drawn from the posterior, float32.

        Each function is one opinion of all rows: the probability that rows have certain labels
        *together* is the mean over functions of the product over rows. Calls with the same K draw
        the same functions. Their mean over K is `predict_proba` up to sampling.
        """
        rows = self._checked(X)
        size = bucket(len(rows))
        found = _joint(self._epinet, self._rows(rows, size), self._key(), _count(n_indices))
        return np.asarray(found)[:, : len(rows)]

    def uncertainty(self, X: np.ndarray, n_indices: int = INDICES) -> Uncertainty:
        """Total, aleatoric and epistemic uncertainty, (N,) each in nats, under K functions."""
        rows = self._checked(X)
        size = bucket(len(rows))
        found = _uncertainty(self._epinet, self._rows(rows, size), self._key(), _count(n_indices))
        return Uncertainty(*(np.asarray(part)[: len(rows)] for part in found))  # type: ignore[arg-type]

    def _checked(self, X: np.ndarray) -> np.ndarray:
        check_is_fitted(self)
        return cast(np.ndarray, validate_data(self, X, dtype=np.float64, reset=False))

    def _rows(self, X: np.ndarray, size: int, dtype: type = np.float32) -> np.ndarray:
        """Offset and unit taken off, padded with zeros to `size` rows."""
        return np.pad((X - self._offset) / self._unit, ((0, size - len(X)), (0, 0))).astype(dtype)

    def _logits(self, X: np.ndarray) -> np.ndarray:
        rows = self._checked(X)
        padded = self._rows(rows, bucket(len(rows)), np.float64)
        with jax.enable_x64(True):
            fit = jax.tree.map(lambda part: np.asarray(part, np.float64), self._epinet)
            return np.asarray(_mean_logits(fit, padded))[: len(rows)]

    def _key(self) -> Array:
        return jax.random.fold_in(jax.random.key(self._seed), 1)


def _count(n_indices: int) -> int:
    if not isinstance(n_indices, numbers.Integral) or n_indices < 1:
        raise ValueError(f"n_indices: expected a whole number from 1, found {n_indices!r}")
    return int(n_indices)


def _described(
    y: np.ndarray, given: Mapping[Hashable, np.ndarray] | None, width: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """All classes (C,), sorted, and what describes each (C, D), if anything does."""
    if given is None:
        return np.unique(y), None
    if not isinstance(given, Mapping):
        raise ValueError("class_embeddings: give a mapping of labels to embeddings")
    rows = {name: np.atleast_2d(np.asarray(row, np.float64)) for name, row in given.items()}
    for name, row in rows.items():
        if row.ndim != 2 or row.shape[1] != width or not len(row) or not np.isfinite(row).all():
            raise ValueError(
                f"class_embeddings of {name!r}: got {row.shape}, expected finite ({width},) or rows"
            )
    known = dict.fromkeys(np.unique(y).tolist())
    if absent := [name for name in known if name not in rows]:
        raise ValueError(f"class_embeddings: found none of the class {absent[0]!r}")
    try:
        classes = sorted([*known, *(name for name in rows if name not in known)])
    except TypeError:
        raise ValueError(f"class_embeddings: labels of several kinds, {list(given)}") from None
    kind = y.dtype if y.dtype.kind not in "US" else None  # words may be longer than y's
    return np.array(classes, dtype=kind), np.stack([rows[name].mean(axis=0) for name in classes])


def _distinct(
    X: np.ndarray, codes: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distinct labelled rows in an order of their own, each with the sum of its weights."""
    rows = np.ascontiguousarray(np.column_stack([X, codes]) + 0.0)  # -0.0 is 0.0
    whole = rows.view(np.dtype((np.void, rows.itemsize * rows.shape[1])))[:, 0]
    _, first, place = np.unique(whole, return_index=True, return_inverse=True)
    return X[first], codes[first], np.bincount(place, weights)


def _shapes(
    rows: np.ndarray,
    weights: np.ndarray,
    exponents: tuple[float, ...],
    classes: np.ndarray | None = None,
) -> ShapedPool:
    """The shapes of weighted rows whose mean is 0."""
    if np.ptp(weights) > 0:  # rows of the same mean and covariance, all of weight 1
        scaled = np.sqrt(weights / weights.mean())[:, None].astype(np.float32) * rows
        rows = np.concatenate([scaled, -scaled])
    words = None if classes is None else jnp.asarray(classes)
    return pool_shapes(jnp.asarray(rows), exponents, classes=words)


_fit = jax.jit(fit_linear_epinet, static_argnames=("index_dim", "described"))


@jax.jit
def _mean_logits(fit: LinearEpinetFit, rows: Array) -> Array:
    return ShapedLinear(fit)(rows)


def _log_probs(fit: LinearEpinetFit, rows: Array, key: Array, indices: int) -> Array:
    head = LinearEpinet(fit)
    return jax.nn.log_softmax(head.many(rows, head.sample_index(key, indices)), axis=-1)


_joint = jax.jit(_log_probs, static_argnums=3)


def _split(fit: LinearEpinetFit, rows: Array, key: Array, indices: int) -> Uncertainty:
    def chunk(part: Array) -> Array:
        found = predictive.uncertainty(_log_probs(fit, part, key, indices))
        return jnp.stack(found, axis=-1)[None]

    floats = 4 * indices * fit.coefficients.shape[1]
    return Uncertainty(*jnp.moveaxis(map_rows(chunk, rows, floats_per_row=floats)[0], -1, 0))


_uncertainty = jax.jit(_split, static_argnums=3)

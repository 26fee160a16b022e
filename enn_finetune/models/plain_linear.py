"""The strong baseline: L2 logistic regression whose lambda cross-validation chooses.

Rows are centred by the pool's mean and brought to a mean square norm of 1 over the pool, so that
one grid of lambdas suits every encoder, and keep what their lengths tell (`shaped_features.py`);
the prior on the weights is isotropic and leaves the bias all but free. Lambda has the least 5-fold
cross-validated NLL on the bought labels (folds stratified by class), and the regression is fitted
again to all of them. Where features hold several layers, the reading of them is chosen by the same
cross-validation.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax

from enn_finetune.models.folds import held_out_loss, stratified_folds, training_weights
from enn_finetune.models.laplace import peak
from enn_finetune.models.linear_epinet import Fitted
from enn_finetune.models.regressions import fit_regressions
from enn_finetune.models.shaped_features import ShapedPool, bounded, read
from enn_finetune.models.softmax_regression import (
    fit_softmax_regression,
    rotate,
    with_bias,
)

L2_GRID = tuple(2.0 ** (1.5 * power) for power in range(6, -5, -1))  # 512 to 1/64
BIAS_HEIGHT = 8.0  # the bias is all but free, and finite where all labels are of one class
PATH_TOLERANCE = 1e-3


class PlainFit(NamedTuple):
    """What `PlainLinear` is built from, and what was chosen on the way."""

    mean: Array  # (V * D,): subtracted from the features
    reading: Array  # (V,): weights of the layers
    coefficients: Array  # (D + 1, C): the bias last; rows sum to 0
    l2: Array  # ()
    losses: Array  # (R, L): cross-validated NLL in nats a row, of each reading and grid lambda

    def rows(self, features: Array) -> Array:
        """Features (N, V * D) -> the rows (N, D + 1) that the regression reads."""
        return plain_rows(features, self.mean, self.reading)


def plain_rows(features: Array, mean: Array, reading: Array) -> Array:
    """Features (N, V * D) -> rows (N, D + 1): read, centred and bounded, then the bias column."""
    return with_bias(bounded(read(features, mean, reading)), BIAS_HEIGHT)


def fit_plain_linear(
    features: Array, targets: Array, weights: Array, pool: ShapedPool, *, key: Array
) -> PlainFit:
    """Choose lambda by cross-validation, fit to all rows.

    Args:
      features: (N, V * D).
      targets: (N, C) class distributions.
      weights: (N,) at least 0; padding has 0.
      pool: its mean and readings are used; its shapes are not.
      key: of the folds.
    """
    features = jnp.where(weights[:, None] > 0, features, 0)
    total = jnp.maximum(jnp.sum(weights), 1e-12)
    fold = stratified_folds(targets, weights, key)
    training = training_weights(fold, weights)
    grid = jnp.asarray(L2_GRID, jnp.float32)

    def path(reading: Array) -> Array:
        rotated = rotate(plain_rows(features, pool.mean, reading), weights)

        def one(start: Array, l2: Array) -> tuple[Array, Array]:
            fits = fit_regressions(
                rotated, targets, training, l2, start=start, tolerance=PATH_TOLERANCE
            )
            logits = jnp.einsum("nr,rfc->nfc", rotated.rows, fits)
            log_probs = jax.nn.log_softmax(logits, axis=-1)
            return fits, held_out_loss(log_probs, targets, weights, fold) / total

        start = jnp.zeros((rotated.rows.shape[1], training.shape[1], targets.shape[1]))
        return lax.scan(one, start, grid)[1]

    with jax.default_matmul_precision("highest"):
        losses = lax.map(path, pool.readings)
        best, level = jnp.unravel_index(jnp.argmin(losses), losses.shape)
        l2, reading = peak(grid, -losses[best], level), pool.readings[best]
        rows = plain_rows(features, pool.mean, reading)
        fit = fit_softmax_regression(rows, targets, weights, l2)
        return PlainFit(pool.mean, reading, fit.coefficients, l2, losses)


class PlainLinear(nnx.Module):
    """Logits [c (phi - mean), bias] W, the same for every index.

    Args:
      fit: one fit (index a vmapped one first), or `blank_plain_fit` where a checkpoint follows.
    """

    epistemic = False

    def __init__(self, fit: PlainFit) -> None:
        self.features, self.classes = fit.mean.shape[0], fit.coefficients.shape[1]
        self.views = fit.reading.shape[0]
        self.reading = Fitted(fit.reading)
        self.mean, self.coefficients = Fitted(fit.mean), Fitted(fit.coefficients)

    @property
    def config(self) -> dict[str, object]:
        """What `make_head` needs to build this head again, as JSON."""
        return {
            "kind": "plain_linear",
            "features": self.features,
            "classes": self.classes,
            "views": self.views,
        }

    def sample_index(self, key: Array, count: int) -> Array:
        """Indices without content: (K, 0)."""
        del key
        return jnp.zeros((count, 0))

    def rows(self, features: Array) -> Array:
        """Features (N, V * D) -> the rows (N, D + 1) that the regression reads."""
        return plain_rows(features, self.mean[...], self.reading[...])

    def from_rows(self, x: Array, z: Array) -> Array:
        """Logits (K, N, C) for rows x (N, D + 1)."""
        logits = jnp.matmul(x, self.coefficients[...], precision="highest")
        return jnp.broadcast_to(logits[None], (z.shape[0], *logits.shape))

    def __call__(self, features: Array, z: Array | None = None) -> Array:
        """Logits (N, C) for features (N, V * D), whatever the index."""
        del z
        return jnp.matmul(self.rows(features), self.coefficients[...], precision="highest")

    def many(self, features: Array, z: Array) -> Array:
        """The same logits for each index: (K, N, C)."""
        return self.from_rows(self.rows(features), z)


def blank_plain_fit(features: int, classes: int, *, views: int = 1) -> PlainFit:
    """A fit of nothing, all zeros: its shapes are what a checkpoint fills; `features` is V * D."""
    return PlainFit(
        mean=jnp.zeros(features),
        reading=jnp.zeros(views),
        coefficients=jnp.zeros((features // views + 1, classes)),
        l2=jnp.ones(()),
        losses=jnp.zeros((1, len(L2_GRID))),
    )

"""MC-dropout (Gal & Ghahramani 2016, arXiv 1506.02142) on a linear softmax head.

    f(x, z) = ((x B') * z) B W,   z_j = 0 with probability `rate`, else 1 / (1 - rate)

B is the orthonormal cosine basis, the bias apart, which is never dropped. Shaped rows stand in the
pool's eigenbasis, where a few columns carry most of a row: dropping those was so harmful that the
tuned rate fell to nothing. In the basis B all columns carry like shares, as an encoder's do.

W is trained under dropout to convergence: a convex problem once the masks are drawn, so every row
enters with MASKS masks of its own, as a regression on MASKS N rows of weight 1 / MASKS, by Newton
steps. The rate is the one with the least 5-fold cross-validated NLL of the *mean* prediction on
the bought labels; shape and strength of the prior are the shaped regression's.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array, lax

from enn_finetune.models.folds import held_out_loss, stratified_folds, training_weights
from enn_finetune.models.laplace import LinearEpinetFit, fit_linear_epinet
from enn_finetune.models.linear_epinet import Fitted, ShapedLinear
from enn_finetune.models.members import sizes
from enn_finetune.models.regressions import fit_regressions
from enn_finetune.models.row_chunks import map_rows
from enn_finetune.models.shaped_features import ShapedPool
from enn_finetune.models.softmax_regression import Rotated

RATES = (0.05, 0.15, 0.3, 0.5, 0.65)
MASKS = 4  # of each training row, in two pairs whose dropped columns differ
JUDGES = 16  # masks whose mean prediction is cross-validated
TOLERANCE = 1e-4


class DropoutFit(NamedTuple):
    """What `DropoutHead` is made of, and what was chosen on the way."""

    shaped: LinearEpinetFit
    coefficients: Array  # (D + 1, C): W, trained under dropout
    rate: Array  # ()
    losses: Array  # (R,): cross-validated NLL in nats a row, of each rate


def fit_dropout(
    features: Array, targets: Array, weights: Array, pool: ShapedPool, *, key: Array
) -> DropoutFit:
    """Choose the rate, train under dropout (arguments as `fit_linear_epinet`'s)."""
    shaped_key, fold_key, mask_key, judge_key = jax.random.split(key, 4)
    shaped = fit_linear_epinet(features, targets, weights, pool, key=shaped_key, index_dim=1)
    used = weights > 0
    x = jnp.where(used[:, None], shaped.rows(jnp.where(used[:, None], features, 0)), 0)
    targets = jnp.where(used[:, None], targets, 0)
    uniform = row_uniforms(mask_key, *x.shape)  # (N, MASKS, D + 1)
    judges = jax.random.uniform(judge_key, (JUDGES, x.shape[1]))
    fold = stratified_folds(targets, weights, fold_key)
    training = training_weights(fold, weights)
    total = jnp.maximum(jnp.sum(weights), 1e-12)

    def train(rate: Array, row_weights: Array, start: Array) -> Array:
        return fit_dropped(x, uniform, rate, targets, row_weights, shaped.l2, start)

    def one(start: Array, rate: Array) -> tuple[Array, Array]:
        found = train(rate, training, start)  # (D + 1, folds, C)
        masked = dropped_weights(found.reshape(x.shape[1], -1), masks(judges, rate))
        logits = jnp.matmul(x[None], masked, precision="highest")
        logits = logits.reshape(JUDGES, x.shape[0], *found.shape[1:])
        mean = jax.nn.logsumexp(jax.nn.log_softmax(logits, axis=-1), axis=0) - jnp.log(JUDGES)
        return found, held_out_loss(mean, targets, weights, fold) / total

    rates = jnp.asarray(RATES, x.dtype)
    start = jnp.broadcast_to(
        shaped.coefficients[:, None], (x.shape[1], training.shape[1], targets.shape[1])
    )
    _, losses = lax.scan(one, start, rates)
    rate = rates[jnp.argmin(losses)]
    coefficients = train(rate, weights[:, None], shaped.coefficients[:, None])[:, 0]
    return DropoutFit(shaped, coefficients, rate, losses)


def masks(uniform: Array, rate: Array) -> Array:
    """Factors (..., D + 1) from uniform numbers: 0 or 1 / (1 - rate), and 1 for the bias."""
    kept = jnp.where(uniform >= rate, 1 / (1 - rate), 0)
    return kept.at[..., -1].set(1)


def cosine_basis(width: int) -> Array:
    """B (D + 1, D + 1): rows are the orthonormal cosine transform's, and the bias's own."""
    size = width - 1
    order, place = np.arange(size)[:, None], np.arange(size)[None]
    cosines = np.cos(np.pi * order * (place + 0.5) / size) * np.sqrt(2 / size)
    cosines[0] /= np.sqrt(2)
    basis = np.eye(width)
    basis[:size, :size] = cosines
    return jnp.asarray(basis, jnp.float32)


def dropped_weights(coefficients: Array, z: Array) -> Array:
    """B' diag(z_k) B W for masks z (K, D + 1) and W (D + 1, C) -> (K, D + 1, C)."""
    basis = cosine_basis(z.shape[1])
    mixed = z[..., None] * jnp.matmul(basis, coefficients, precision="highest")[None]
    return jnp.matmul(basis.T[None], mixed, precision="highest")


def row_uniforms(key: Array, rows: int, width: int) -> Array:
    """(N, MASKS, width) numbers that depend on a row's place only; u comes with 1 - u."""
    uniform = jax.vmap(
        lambda i: jax.random.uniform(jax.random.fold_in(key, i), (MASKS // 2, width))
    )(jnp.arange(rows))
    return jnp.concatenate([uniform, 1 - uniform], axis=1)


def fit_dropped(
    x: Array,
    uniform: Array,
    rate: Array,
    targets: Array,
    weights: Array,
    l2: Array,
    start: Array,
) -> Array:
    """B regressions trained under dropout -> (D + 1, B, C).

    Args:
      x: (N, D + 1) rows.
      uniform: (N, MASKS, D + 1) from `row_uniforms`.
      rate: of dropout.
      targets: (N, C).
      weights: (N, B).
      l2: lambda.
      start: (D + 1, B, C).
    """
    count, width = uniform.shape[1], x.shape[1]
    basis = cosine_basis(width)
    mixed = jnp.matmul(x, basis.T, precision="highest")
    dropped = (mixed[:, None] * masks(uniform, rate)).reshape(-1, width)
    rows = jnp.matmul(dropped, basis, precision="highest")
    spread = jnp.repeat(weights / count, count, axis=0)
    # The pool's own eigenbasis: near enough to diagonal for a preconditioner.
    squares = jnp.mean(spread, axis=1) @ rows**2
    rotated = Rotated(rows, jnp.zeros((0, 0)), squares)
    return fit_regressions(
        rotated, jnp.repeat(targets, count, axis=0), spread, l2, start=start, tolerance=TOLERANCE
    )


class DropoutHead(nnx.Module):
    """A linear head with one dropout mask an index, shared by all rows.

    Args:
      fit: one fit (index a vmapped one first).
    """

    epistemic = True

    def __init__(self, fit: DropoutFit) -> None:
        self.base = ShapedLinear(fit.shaped)
        self.features, self.classes = self.base.features, self.base.classes
        self.coefficients, self.rate = Fitted(fit.coefficients), Fitted(fit.rate)

    @property
    def config(self) -> dict[str, object]:
        """What `make_head` needs to build this head again, as JSON."""
        return {"kind": "mc_dropout", **sizes(self.base)}

    def rows(self, features: Array) -> Array:
        """Features (N, V * D) -> the rows (N, D + 1) whose columns are dropped."""
        return self.base.rows(features)

    def sample_index(self, key: Array, count: int) -> Array:
        """Masks (K, D + 1): each column's factor, 0 or 1 / (1 - rate); the bias's is 1."""
        width = self.coefficients[...].shape[0]
        return masks(jax.random.uniform(key, (count, width)), self.rate[...])

    def from_rows(self, x: Array, z: Array) -> Array:
        """Logits (K, N, C) for rows x (N, D + 1) and masks z (K, D + 1)."""
        weights = jnp.moveaxis(dropped_weights(self.coefficients[...], z), 0, 1)
        logits = jnp.matmul(x, weights.reshape(x.shape[1], -1), precision="highest")
        return jnp.moveaxis(logits.reshape(x.shape[0], z.shape[0], -1), 1, 0)

    def __call__(self, features: Array, z: Array) -> Array:
        """Logits (N, C) for features (N, V * D) and one mask z (D + 1,)."""
        return self.many(features, z[None])[0]

    def many(self, features: Array, z: Array) -> Array:
        """Logits (K, N, C) for features (N, V * D) and masks z (K, D + 1)."""
        width = 2 * self.features + z.shape[0] * self.classes
        return map_rows(
            lambda rows: self.from_rows(self.rows(rows), z), features, floats_per_row=width
        )

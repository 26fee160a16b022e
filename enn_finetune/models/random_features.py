"""A Gaussian process by random features on the shaped rows, as in SNGP (arXiv 2006.10108).

The kernel exp(-|u - u'|^2 / (2 length^2)) of the rows u, their bias aside, is approximated by

    phi(u) = [cos(Omega u / length), sin(Omega u / length)] sqrt(1 / R),   Omega ~ N(0, I)

(Rahimi & Recht 2007), with R frequencies; a constant column is added for the bias. On phi stands a
softmax regression with its Laplace posterior; length and lambda are those of the largest evidence
on the bought labels. A function is a draw of the weights, fixed by the fit's key; draws come in
mirrored pairs, and the mean prediction is the mean of their softmax.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax

from enn_finetune.models.laplace import (
    L2_GRID,
    PATH_TOLERANCE,
    LinearEpinetFit,
    fit_linear_epinet,
    peak,
)
from enn_finetune.models.laplace_head import mirrored
from enn_finetune.models.linear_epinet import Fitted, ShapedLinear
from enn_finetune.models.members import apply_members, draw_members, sizes
from enn_finetune.models.posterior import log_det_hessian, posterior_draws
from enn_finetune.models.row_chunks import map_rows
from enn_finetune.models.shaped_features import ShapedPool
from enn_finetune.models.softmax_regression import fit_rotated, rotate, with_bias

FREQUENCIES = 256  # R: 512 features
LENGTHS = (0.5, 1.0, 2.0, 4.0)  # typical rows are sqrt 2 apart where unrelated
DRAWS = 32  # and as many mirrored


class GPFit(NamedTuple):
    """What `RandomFeatureGP` is made of, and what was chosen on the way."""

    shaped: LinearEpinetFit
    frequencies: Array  # (D, R): Omega / length
    weights: Array  # (2 S, 2 R + 1, C): draws of the posterior, mirrored
    length: Array  # ()
    l2: Array  # ()
    evidence: Array  # (lengths, L): log evidence in nats


def random_features(x: Array, frequencies: Array) -> Array:
    """Rows (N, D + 1), whose bias is left aside -> features (N, 2 R + 1), a constant 1 last."""
    phase = jnp.matmul(x[:, :-1], frequencies, precision="highest")
    waves = jnp.concatenate([jnp.cos(phase), jnp.sin(phase)], axis=-1)
    return with_bias(waves * frequencies.shape[1] ** -0.5)


def fit_gp(
    features: Array, targets: Array, weights: Array, pool: ShapedPool, *, key: Array
) -> GPFit:
    """Choose length and lambda by evidence, draw functions (arguments as `fit_linear_epinet`'s)."""
    shaped_key, frequency_key, draw_key = jax.random.split(key, 3)
    shaped = fit_linear_epinet(features, targets, weights, pool, key=shaped_key, index_dim=1)
    x = shaped.rows(jnp.where(weights[:, None] > 0, features, 0))
    omega = jax.random.normal(frequency_key, (x.shape[1] - 1, FREQUENCIES))
    grid, lengths = jnp.asarray(L2_GRID, x.dtype), jnp.asarray(LENGTHS, x.dtype)

    def path(length: Array) -> tuple[Array, Array]:
        rotated = rotate(random_features(x, omega / length), weights)

        def one(start: Array, l2: Array) -> tuple[Array, tuple[Array, Array]]:
            fit = fit_rotated(rotated, targets, weights, l2, start, tolerance=PATH_TOLERANCE)
            probs = jax.nn.softmax(rotated.rows @ fit.coefficients, axis=-1)
            log_det = log_det_hessian(rotated, probs, weights, l2)
            return fit.coefficients, (fit.coefficients, -fit.objective - 0.5 * log_det)

        zero = jnp.zeros((rotated.rows.shape[1], targets.shape[1]), x.dtype)
        _, (coefficients, evidence) = lax.scan(one, zero, grid)
        return coefficients, evidence

    with jax.default_matmul_precision("highest"):
        coefficients, evidence = lax.map(path, lengths)
        best, level = jnp.unravel_index(jnp.argmax(evidence), evidence.shape)
        l2 = peak(grid, evidence[best], level)
        rotated = rotate(random_features(x, omega / lengths[best]), weights)
        fit = fit_rotated(rotated, targets, weights, l2, coefficients[best, level])
        probs = jax.nn.softmax(rotated.rows @ fit.coefficients, axis=-1)
        draws = posterior_draws(rotated, probs, weights, l2, key=draw_key, index_dim=DRAWS)
        functions = mirrored(
            rotated.basis @ fit.coefficients, draws * jnp.sqrt(jnp.asarray(DRAWS, x.dtype))
        )
    return GPFit(shaped, omega / lengths[best], functions, lengths[best], l2, evidence)


class RandomFeatureGP(nnx.Module):
    """Logits phi(u) W_m of the posterior draw m that an index names.

    Args:
      fit: one fit (index a vmapped one first).
    """

    epistemic = True

    def __init__(self, fit: GPFit) -> None:
        self.base = ShapedLinear(fit.shaped)
        self.features, self.classes = self.base.features, self.base.classes
        self.frequencies, self.weights = Fitted(fit.frequencies), Fitted(fit.weights)

    @property
    def config(self) -> dict[str, object]:
        """What `make_head` needs to build this head again, as JSON."""
        return {"kind": "gp", **sizes(self.base)}

    def rows(self, features: Array) -> Array:
        """Features (N, V * D) -> the rows (N, D + 1) that the kernel compares, but for the bias."""
        return self.base.rows(features)

    def sample_index(self, key: Array, count: int) -> Array:
        """Draws' numbers (K, 1), each equally often, mirror images side by side."""
        return draw_members(key, count, self.weights[...].shape[0], together=2)

    def from_rows(self, x: Array, z: Array) -> Array:
        """Logits (K, N, C) for rows x (N, D + 1) and draws z (K, 1)."""
        return apply_members(random_features(x, self.frequencies[...]), self.weights[...], z)

    def __call__(self, features: Array, z: Array) -> Array:
        """Logits (N, C) for features (N, V * D) and one index z (1,)."""
        return self.many(features, z[None])[0]

    def many(self, features: Array, z: Array) -> Array:
        """Logits (K, N, C) for features (N, V * D) and draws z (K, 1)."""
        width = 2 * self.features + 4 * FREQUENCIES + z.shape[0] * self.classes
        return map_rows(
            lambda rows: self.from_rows(self.rows(rows), z), features, floats_per_row=width
        )

"""The linear epinet in closed form: a regression, its Laplace posterior, and the choice of a prior.

For features shaped by the pool (`shaped_features.py`) and an L2 penalty lambda, the regression's
coefficients W* (D + 1, C) are the mode of a posterior whose Laplace approximation is N(W*, H^-1), H
the Hessian of the summed loss. The epinet's function of index z is x (W* + sum_d z_d A_d) with z ~
N(0, I): the A_d are draws from N(0, s^2 H_+^-1 / dim z), so that over z the weights' covariance,
sum_d A_d A_d', has mean s^2 H_+^-1. The mean prediction has no part in it.

H_+ is H with lambda_+ = max(lambda, lambda_e, 1/2) in lambda's place, lambda_e that of the largest
evidence alone; Laplace's own posterior has lambda. Where there is little to be learnt, evidence
alone asks for a far larger lambda than with its prior, which guards the mean; where few labels are
separated with ease, for a tiny one, a logit's prior deviation then being up to 8. In both cases H
spreads the epinet further than neighbours err together: of 42 cells (two encoders, seven tasks of
two classes, 50 to 1,000 labels, 3 seeds, rows carved from train) the joint loss of ten near
neighbours falls below the regression's in 33 with H_+ and s = 1 (`SPREAD`), and rises by .02 nats
at most in the others; with H and s = 1.4 it fell in 57 % of 56 such cells and rose by up to .17. On
15 classes it falls by .84, .22 and .07 nats at 60, 150 and 300 labels (H: .89, .09, .02).

Reading, exponent and lambda are those of the largest Laplace evidence on the bought labels alone
(MacKay 1992, Neural Computation 4:448):

    log evidence = -NLL_sum - 1/2 lambda |W*|^2 - 1/2 log det(H / lambda)

plus the log of a weak prior on lambda and the reading (`_log_prior`).

For C = 2 the determinant is exact. For more classes it is that of H's diagonal blocks, one a class:
(C-1)/C sum_c log det(I + C/(C-1) X' diag(w p_c (1 - p_c)) X / lambda). The Kronecker form
(sum_i x_i x_i' tr H_i) (x) mean H_i is cheaper, but takes every row to be torn between the same
classes: on 15 classes, 300 labels and the isotropic prior it asked for a lambda 5.6 times that of
the exact evidence, for an NLL of 1.38 in place of 1.19 (two seeds).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from enn_finetune.models.shaped_features import ShapedPool, shape_matrix, shaped_rows
from enn_finetune.models.softmax_regression import (
    Rotated,
    conjugate_gradients,
    fit_rotated,
    hessian,
    mean_curvature,
    rotate,
)

L2_GRID = (64.0, 16.0, 4.0, 1.0, 0.25, 0.0625, 0.015625)  # prior sd of a logit, 1/8 to 8
L2_CENTRE, L2_SPREAD = 0.5, 1.386  # median of lambda's prior, deviation of its logarithm
INDEX_DIM = 32
SPREAD = 1.0
BLOCK_WIDTH = 128  # leading directions whose curvature is taken in full when C > 2
PATH_TOLERANCE = 3e-3  # of 1 + J, as the last step's decrement: enough to compare evidences
DRAW_TOLERANCE = 1e-2  # of a draw's residual


class LinearEpinetFit(NamedTuple):
    """What `LinearEpinet` is built from, and what was chosen on the way."""

    mean: Array  # (V * D,): subtracted from the features
    matrix: Array  # (V * D, D): then multiplied by
    coefficients: Array  # (D + 1, C): W*, the bias last; rows sum to 0
    factor: Array  # (dim z, D + 1, C): A
    exponent: Array  # ()
    l2: Array  # ()
    reading: Array  # () int32: a row of the pool's readings
    evidence: Array  # (candidates, L): log evidence and log prior in nats, see `_tried`

    def rows(self, features: Array) -> Array:
        """Features (N, V * D) -> the rows (N, D + 1) that the regression reads."""
        return shaped_rows(features, self.mean, self.matrix)


def bucket(rows: int) -> int:
    """The size to pad a round's bought rows to, so that few programs are ever compiled.

    At least 32, then steps of a power of two and the half-way point: 32, 48, 64, 96, 128, ...
    """
    size = 32
    while size < rows:
        size = size * 3 // 2 if size & (size - 1) == 0 else size * 4 // 3
    return size


def fit_linear_epinet(
    features: Array,
    targets: Array,
    weights: Array,
    pool: ShapedPool,
    *,
    key: Array,
    index_dim: int = INDEX_DIM,
    l2_grid: tuple[float, ...] = L2_GRID,
    spread: float = SPREAD,
    narrow: bool = True,
) -> LinearEpinetFit:
    """Choose reading, exponent and lambda by evidence, fit the regression, draw the epinet.

    Jit it with `index_dim` and `l2_grid` static, vmap it over seeds; pad rows to `bucket(N)` so
    that rounds share one program.

    Args:
      features: (N, V * D), as the backbone gives them.
      targets: (N, C) class distributions.
      weights: (N,) at least 0; padding has 0, and what such a row holds does not matter.
      pool: from `pool_shapes` (which knows V); with the one exponent 0 the prior is isotropic.
      key: of the draws.
      index_dim: dim z.
      l2_grid: lambdas, geometric, from strong to weak. Between grid points the chosen lambda is
        the vertex of the parabola through the best three.
      spread: s, the weights' standard deviation over z in units of the posterior's.
      narrow: H_+ in the posterior; otherwise H, which is Laplace's own.
    """
    features = jnp.where(weights[:, None] > 0, features, 0)
    grid = jnp.asarray(l2_grid, jnp.float32)

    def path(shape: tuple[Array, Array]) -> tuple[Rotated, Array, Array]:
        reading, exponent = shape
        rows = shaped_rows(features, pool.mean, shape_matrix(pool, exponent, reading))
        rotated = rotate(rows, weights)

        def one(start: Array, l2: Array) -> tuple[Array, tuple[Array, Array]]:
            fit = fit_rotated(rotated, targets, weights, l2, start, tolerance=PATH_TOLERANCE)
            log_det = log_det_hessian(rotated, fit.coefficients, weights, l2)
            return fit.coefficients, (fit.coefficients, -fit.objective - 0.5 * log_det)

        zero = jnp.zeros((rotated.rows.shape[1], targets.shape[1]), rows.dtype)
        _, (coefficients, evidence) = lax.scan(one, zero, grid)
        return rotated, coefficients, evidence

    with jax.default_matmul_precision("highest"):
        readings, exponents, paths = _tried(pool, path)
        rotated, coefficients, likely = paths
        evidence = likely + _log_prior(len(pool.readings), grid)[readings]
        best, level = jnp.unravel_index(jnp.argmax(evidence), evidence.shape)
        l2 = peak(grid, evidence[best], level)
        evident = peak(grid, likely[best], jnp.argmax(likely[best]))
        posterior_l2 = jnp.maximum(jnp.maximum(l2, evident), L2_CENTRE) if narrow else l2
        chosen = Rotated(*(part[best] for part in rotated))
        fit = fit_rotated(chosen, targets, weights, l2, coefficients[best, level])
        factor = posterior_draws(
            chosen,
            fit.coefficients,
            weights,
            posterior_l2,
            key=key,
            index_dim=index_dim,
        )
        return LinearEpinetFit(
            pool.mean,
            shape_matrix(pool, exponents[best], readings[best]),
            chosen.basis @ fit.coefficients,
            spread * factor,
            exponents[best],
            l2,
            readings[best],
            evidence,
        )


Paths = tuple[Rotated, Array, Array]


def _tried(
    pool: ShapedPool, path: Callable[[tuple[Array, Array]], Paths]
) -> tuple[Array, Array, Paths]:
    """Readings, exponents and paths of all candidates.

    These are the last layer and the mean of layers with every exponent (the mean asks for a smaller
    one), and the first layer with the exponent that suits them.
    """
    count = len(pool.exponents)
    readings = jnp.repeat(jnp.arange(min(len(pool.readings), 2), dtype=jnp.int32), count)
    exponents = jnp.tile(pool.exponents, len(readings) // count)
    paths = lax.map(path, (readings, exponents))
    if len(pool.readings) > 2:
        suited = exponents[jnp.argmax(jnp.max(paths[2], axis=1))]
        more = path((jnp.int32(2), suited))
        paths = jax.tree.map(lambda all_, one: jnp.concatenate([all_, one[None]]), paths, more)
        readings = jnp.append(readings, 2)
        exponents = jnp.append(exponents, suited)
    return readings, exponents, paths


def _log_prior(readings: int, grid: Array) -> Array:
    """Log prior (R, L) of readings (.45 the last layer, .45 the mean, .1 the first) and lambdas.

    Log lambda is normal about 1/2 with a deviation of log 4. Without it, labels bought close to the
    decision boundary look like noise, and the largest lambda wins by a fraction of a nat.
    """
    probability = jnp.asarray((0.45, 0.45, 0.1)[:readings])
    size = jnp.log(grid / L2_CENTRE) / L2_SPREAD
    return jnp.log(probability)[:, None] - 0.5 * size[None] ** 2


def log_det_hessian(rotated: Rotated, coefficients: Array, weights: Array, l2: Array) -> Array:
    """Log det(H / lambda) by class blocks, in the eigenbasis of X' diag(w) X (largest last)."""
    probs = jax.nn.softmax(rotated.rows @ coefficients, axis=-1)
    classes = probs.shape[1]
    curvature = classes / (classes - 1) * weights[:, None] * probs * (1 - probs) / l2
    if classes == 2:  # both blocks are the same
        return _block_log_det(rotated.rows, curvature[:, 0])
    width = rotated.rows.shape[1]
    tail, leading = jnp.split(rotated.rows, [max(width - BLOCK_WIDTH, 0)], axis=1)
    # The tail's curvature is small beside lambda, where a determinant is as good as its diagonal.
    blocks = lax.map(lambda d: _block_log_det(leading, d), curvature.T)
    rest = jnp.sum(jnp.log1p(curvature.T @ tail**2))
    return (classes - 1) / classes * (jnp.sum(blocks) + rest)


def _block_log_det(rows: Array, curvature: Array) -> Array:
    """Log det(I + rows' diag(curvature) rows)."""
    scaled = jnp.sqrt(curvature)[:, None] * rows
    root = jnp.linalg.cholesky(scaled.T @ scaled + jnp.eye(rows.shape[1], dtype=rows.dtype))
    return 2 * jnp.sum(jnp.log(jnp.diagonal(root)))


def peak(grid: Array, evidence: Array, level: Array) -> Array:
    """Where the parabola through the best grid point and its neighbours peaks, in log lambda."""
    last = grid.shape[0] - 1
    before, after = jnp.maximum(level - 1, 0), jnp.minimum(level + 1, last)
    bend = evidence[before] - 2 * evidence[level] + evidence[after]
    inner = (level > 0) & (level < last) & (bend < 0)
    shift = 0.5 * (evidence[before] - evidence[after]) / jnp.where(inner, bend, 1)
    shift = jnp.where(inner, jnp.clip(shift, -0.5, 0.5), 0)
    log_grid = jnp.log(grid)
    return jnp.exp(log_grid[level] + shift * 0.5 * (log_grid[after] - log_grid[before]))


def posterior_draws(
    rotated: Rotated,
    coefficients: Array,
    weights: Array,
    l2: Array,
    *,
    key: Array,
    index_dim: int,
) -> Array:
    """Draws from N(0, H^-1 / dim z), exact for any C: (dim z, D + 1, C), sums over classes 0.

    Perturb and solve (Papandreou & Yuille 2010): for e, e_0 ~ N(0, I), the covariance of H^-1 u,
    u = sum_i sqrt(w_i) x_i S_i e_i + sqrt(lambda) e_0, is H^-1, as S_i S_i' = diag p_i - p_i p_i'
    with S_i = diag(sqrt p_i) - p_i sqrt(p_i)'. Outside the span of the rows H is lambda I.
    """
    rows, basis, squares = rotated
    n, width, classes = rows.shape[0], basis.shape[0], coefficients.shape[1]
    probs = jax.nn.softmax(rows @ coefficients, axis=-1)
    data_key, prior_key = jax.random.split(key)
    # A row's noise depends on its place only, so that padding changes nothing.
    noise = jax.vmap(
        lambda i: jax.random.normal(jax.random.fold_in(data_key, i), (index_dim, classes))
    )(jnp.arange(n))
    noise = jnp.sqrt(probs)[:, None] * noise
    noise = noise - probs[:, None] * jnp.sum(noise, axis=-1, keepdims=True)
    noise = jnp.sqrt(weights)[:, None, None] * noise  # (N, dim z, C)
    prior = jax.random.normal(prior_key, (width, index_dim, classes))
    prior = prior - jnp.mean(prior, axis=-1, keepdims=True)

    inside = _apply(basis.T, prior)
    solved = conjugate_gradients(
        hessian(rows, probs, weights, l2),
        _apply(rows.T, noise) + jnp.sqrt(l2) * inside,
        mean_curvature(probs, weights) * squares + l2,
        tolerance=DRAW_TOLERANCE,
    )
    outside = lax.rsqrt(l2)
    draws = outside * prior + _apply(basis, solved - outside * inside)
    return jnp.moveaxis(draws, 1, 0) / jnp.sqrt(jnp.asarray(index_dim, draws.dtype))


def _apply(matrix: Array, blocks: Array) -> Array:
    """(a, b) times (b, dim z, C), as one matrix product."""
    return (matrix @ blocks.reshape(blocks.shape[0], -1)).reshape(-1, *blocks.shape[1:])

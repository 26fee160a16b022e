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

plus the log of a weak prior on lambda and the reading (`_log_prior`). Where the classes are
described (`class_prior.py`) every candidate is tried with the prior's mean W_0 too: W* is then the
mode of N(W_0, I / lambda)'s posterior, and |W* - W_0|^2 stands in the evidence. lambda_e has no
part in H_+ then, for beside words that work evidence alone asks for a lambda of 64: with it, the
joint loss of ten near neighbours was higher in 19 of 21 cells (messages, SST-2, kitchen reviews; 10
labels or more, 4 seeds), by up to .34 nats, and lower by .001 in two. Before the first label that
is so in three of four, but the joint loss of ten random rows is lower with it, by .1 to 1.4.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from enn_finetune.models.class_prior import TRUSTED, prior_mean
from enn_finetune.models.posterior import log_det_hessian, posterior_draws
from enn_finetune.models.shaped_features import ShapedPool, shape_matrix, shaped_rows
from enn_finetune.models.softmax_regression import Rotated, fit_rotated, rotate

L2_GRID = (64.0, 16.0, 4.0, 1.0, 0.25, 0.0625, 0.015625)  # prior sd of a logit, 1/8 to 8
L2_CENTRE, L2_SPREAD = 0.5, 1.386  # median of lambda's prior, deviation of its logarithm
INDEX_DIM = 32
SPREAD = 1.0
PATH_TOLERANCE = 3e-3  # of 1 + J, as the last step's decrement: enough to compare evidences


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
    described: Array  # (): 1 where the prior's mean is that of the classes' descriptions, else 0

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
    described: bool = False,
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
      described: try the prior whose mean the pool's `classes` make, too. Then the weights may all
        be 0: the fit is what the descriptions say.

    Raises:
      ValueError: `described`, and the pool has no `classes`, or not as many as the targets.
    """
    _check_described(pool, targets.shape[1], described)
    features = jnp.where(weights[:, None] > 0, features, 0)
    grid = jnp.asarray(l2_grid, jnp.float32)

    def centre(reading: Array, exponent: Array, told: Array) -> Array | None:
        if not described or pool.classes is None:
            return None
        return told * prior_mean(pool, pool.classes, exponent, reading)

    def path(candidate: Candidate) -> Path:
        reading, exponent, told = candidate
        rows = shaped_rows(features, pool.mean, shape_matrix(pool, exponent, reading))
        rotated, mean = rotate(rows, weights), centre(reading, exponent, told)
        offset = None if mean is None else rows @ mean

        def one(start: Array, l2: Array) -> tuple[Array, tuple[Array, Array]]:
            fit = fit_rotated(
                rotated, targets, weights, l2, start, offset=offset, tolerance=PATH_TOLERANCE
            )
            probs = _probabilities(rotated, fit.coefficients, offset)
            log_det = log_det_hessian(rotated, probs, weights, l2)
            return fit.coefficients, (fit.coefficients, -fit.objective - 0.5 * log_det)

        zero = jnp.zeros((rotated.rows.shape[1], targets.shape[1]), rows.dtype)
        _, (coefficients, evidence) = lax.scan(one, zero, grid)
        return Path(rotated, offset, coefficients, evidence)

    with jax.default_matmul_precision("highest"):
        candidates, paths = _tried(pool, path, described=described)
        likely = paths.evidence
        evidence = likely + _log_prior(len(pool.readings), grid)[candidates[0]]
        if described:
            evidence += jnp.log(jnp.where(candidates[2] > 0, TRUSTED, 1 - TRUSTED))[:, None]
        best, level = jnp.unravel_index(jnp.argmax(evidence), evidence.shape)
        l2 = peak(grid, evidence[best], level)
        evident = peak(grid, likely[best], jnp.argmax(likely[best]))
        # Beside words that work evidence asks for no weights at all, and would for no spread.
        evident = jnp.where(candidates[2][best] > 0, l2, evident)
        posterior_l2 = jnp.maximum(jnp.maximum(l2, evident), L2_CENTRE) if narrow else l2
        chosen: Path = jax.tree.map(lambda part: part[best], paths)
        rotated, offset = chosen.rotated, chosen.offset
        start = chosen.coefficients[level]
        fit = fit_rotated(rotated, targets, weights, l2, start, offset=offset)
        factor = posterior_draws(
            rotated,
            _probabilities(rotated, fit.coefficients, offset),
            weights,
            posterior_l2,
            key=key,
            index_dim=index_dim,
        )
        reading, exponent, told = (part[best] for part in candidates)
        coefficients, mean = rotated.basis @ fit.coefficients, centre(reading, exponent, told)
        return LinearEpinetFit(
            pool.mean,
            shape_matrix(pool, exponent, reading),
            coefficients if mean is None else coefficients + mean,
            spread * factor,
            exponent,
            l2,
            reading,
            evidence,
            told,
        )


def fit_described(
    features: Array, targets: Array, weights: Array, pool: ShapedPool, *, key: Array
) -> LinearEpinetFit:
    """`fit_linear_epinet` with what the classes' descriptions say, if that helps."""
    return fit_linear_epinet(features, targets, weights, pool, key=key, described=True)


Candidate = tuple[Array, Array, Array]
"""Number of a reading, exponent, and 1 where the prior's mean is the descriptions', else 0."""


class Path(NamedTuple):
    """A candidate's fits, from strong to weak lambda."""

    rotated: Rotated
    offset: Array | None  # (N, C): logits of the prior's mean
    coefficients: Array  # (L, r, C)
    evidence: Array  # (L,)


def _check_described(pool: ShapedPool, classes: int, described: bool) -> None:
    if not described:
        return
    if pool.classes is None:
        raise ValueError("described: give pool_shapes features of a description of each class")
    if len(pool.classes) != classes:
        raise ValueError(f"described: {len(pool.classes)} descriptions for {classes} classes")


def _probabilities(rotated: Rotated, coefficients: Array, offset: Array | None) -> Array:
    logits = rotated.rows @ coefficients
    return jax.nn.softmax(logits if offset is None else logits + offset, axis=-1)


def _tried(
    pool: ShapedPool, path: Callable[[Candidate], Path], *, described: bool
) -> tuple[Candidate, Path]:
    """All candidates and their paths.

    These are the last layer and the mean of layers with every exponent (the mean asks for a smaller
    one), and the first layer with the exponent that suits them; all this again for `described`.
    """
    count = len(pool.exponents)
    readings = jnp.repeat(jnp.arange(min(len(pool.readings), 2), dtype=jnp.int32), count)
    exponents = jnp.tile(pool.exponents, len(readings) // count)
    found: list[tuple[Candidate, Path]] = []
    for told in (0.0, 1.0) if described else (0.0,):
        candidates = (readings, exponents, jnp.full(len(readings), told))
        paths = lax.map(path, candidates)
        found.append((candidates, paths))
        if len(pool.readings) > 2:
            suited = exponents[jnp.argmax(jnp.max(paths.evidence, axis=1))]
            first = (jnp.int32(2), suited, jnp.float32(told))
            found.append(jax.tree.map(lambda part: part[None], (first, path(first))))
    joined: tuple[Candidate, Path] = jax.tree.map(lambda *parts: jnp.concatenate(parts), *found)
    return joined


def _log_prior(readings: int, grid: Array) -> Array:
    """Log prior (R, L) of readings (.45 the last layer, .45 the mean, .1 the first) and lambdas.

    Log lambda is normal about 1/2 with a deviation of log 4. Without it, labels bought close to the
    decision boundary look like noise, and the largest lambda wins by a fraction of a nat.
    """
    probability = jnp.asarray((0.45, 0.45, 0.1)[:readings])
    size = jnp.log(grid / L2_CENTRE) / L2_SPREAD
    return jnp.log(probability)[:, None] - 0.5 * size[None] ** 2


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

"""Multinomial logistic regression with an L2 penalty, to convergence, in float32 and fixed shapes.

Minimised over W (D, C), for features x_i, target distributions t_i, row weights w_i:

    J(W) = sum_i w_i CE(t_i, softmax(x_i W)) + 1/2 lambda |W|^2

The penalty stands beside the *summed* loss, so one lambda suits every number of labels. All columns
of the features are penalised alike, and all C columns of W are kept: for C = 2 the weights of the
logit difference, W_1 - W_0, carry 1/4 lambda |W_1 - W_0|^2, so scikit-learn's binary `C` is
2 / lambda, and 1 / lambda for more classes. A bias is a constant column put among the features
(`with_bias`): of height h its penalty is lambda / h^2, weak for h > 1 and never nil, so that the
fit is finite when all labels are of one class.

Damped Newton, each step solved by conjugate gradients. Rows are first rotated to the eigenbasis of
X' diag(w) X, where Boehning's bound on the Hessian (1992, Ann. Inst. Stat. Math. 44:197) is
diagonal: a preconditioner that is computed once and serves every lambda and every step. With fewer
rows than columns the basis spans the rows only, which loses nothing: the solution lies there.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

MAX_NEWTON_STEPS = 40
MAX_CG_STEPS = 40
CG_TOLERANCE = 0.1  # of the residual, in the preconditioner's norm
TOLERANCE = 1e-8  # of 1 + J, for the squared Newton decrement of the last step
ROUNDING = 1e-6  # of 1 + J: what float32 cannot tell apart
_STEP_SIZES = tuple(0.5**halvings for halvings in range(10))


class Rotated(NamedTuple):
    """Features in the eigenbasis of X' diag(w) X; r = min(N, D)."""

    rows: Array  # (N, r): X @ basis
    basis: Array  # (D, r): orthonormal columns; zero where X' diag(w) X has no such direction
    squares: Array  # (r,): eigenvalues of X' diag(w) X, at least 0


class RegressionFit(NamedTuple):
    """A converged fit."""

    coefficients: Array  # (D, C), or (r, C) in rotated coordinates; rows sum to 0
    objective: Array  # () J at the coefficients, in nats
    decrement: Array  # () squared Newton decrement at the last step: about twice J's excess
    steps: Array  # () Newton steps taken


def with_bias(features: Array, height: float = 1.0) -> Array:
    """Append a constant column: (N, D) -> (N, D + 1); its weight's penalty is lambda / height^2."""
    column = jnp.full((*features.shape[:-1], 1), height, features.dtype)
    return jnp.concatenate([features, column], axis=-1)


def fit_softmax_regression(
    features: Array, targets: Array, weights: Array, l2: Array | float
) -> RegressionFit:
    """Minimise J from W = 0.

    Args:
      features: (N, D), the bias column included if there is to be one.
      targets: (N, C) class distributions, each row summing to 1.
      weights: (N,), at least 0; a row of weight 0 (padding) does not matter, whatever it holds.
      l2: lambda > 0; a scalar (vmap for a grid, or `fit_rotated` for a warm-started path).

    Returns:
      The fit, coefficients (D, C). Jit and vmap at will: shapes are fixed.
    """
    with jax.default_matmul_precision("highest"):
        rotated = rotate(features, weights)
        start = jnp.zeros((rotated.rows.shape[1], targets.shape[1]), rotated.rows.dtype)
        fit = fit_rotated(rotated, targets, weights, l2, start)
        return fit._replace(coefficients=rotated.basis @ fit.coefficients)


def rotate(features: Array, weights: Array) -> Rotated:
    """The eigenbasis of X' diag(w) X and the rows in it, by the smaller of two Gram matrices."""
    n, width = features.shape
    features = jnp.where(weights[:, None] > 0, features, 0)
    scaled = jnp.sqrt(weights)[:, None] * features
    if width <= n:
        squares, basis = jnp.linalg.eigh(scaled.T @ scaled)
        squares = jnp.maximum(squares, 0)
    else:
        squares, left = jnp.linalg.eigh(scaled @ scaled.T)
        floor = n * jnp.finfo(features.dtype).eps * jnp.maximum(squares[-1], 0)
        kept = squares > floor  # below, eigenvalues are rounding
        squares = jnp.where(kept, squares, 0)
        inverse_root = jnp.where(kept, lax.rsqrt(jnp.where(kept, squares, 1)), 0)
        basis = scaled.T @ (left * inverse_root[None])
    return Rotated(features @ basis, basis, squares)


def fit_rotated(
    rotated: Rotated,
    targets: Array,
    weights: Array,
    l2: Array | float,
    start: Array,
    *,
    offset: Array | None = None,
    tolerance: float = TOLERANCE,
) -> RegressionFit:
    """Minimise J in rotated coordinates from `start` (r, C), whose rows must sum to 0.

    It stops after the step whose squared decrement (twice the fall in J it foretold) is below
    `tolerance` * (1 + J). `offset` (N, C) is added to the logits: those of a prior's mean, from
    which the coefficients are then counted.
    """
    rows, squares = rotated.rows, rotated.squares
    targets = jnp.where(weights[:, None] > 0, targets, 0)

    def objective(logits: Array, square_norm: Array) -> Array:
        losses = jax.nn.logsumexp(logits, axis=-1) - jnp.sum(targets * logits, axis=-1)
        return jnp.sum(weights * losses) + 0.5 * l2 * square_norm

    def newton(carry: tuple[RegressionFit, Array]) -> tuple[RegressionFit, Array]:
        fit, _ = carry
        logits = rows @ fit.coefficients
        logits = logits if offset is None else logits + offset
        probs = jax.nn.softmax(logits, axis=-1)
        gradient = rows.T @ (weights[:, None] * (probs - targets)) + l2 * fit.coefficients

        step = conjugate_gradients(
            hessian(rows, probs, weights, l2),
            -gradient[:, None],
            mean_curvature(probs, weights) * squares + l2,
            tolerance=CG_TOLERANCE,
        )[:, 0]
        decrement = -jnp.sum(gradient * step)

        # Along the step logits are linear, the penalty quadratic: ten sizes for the price of one.
        sizes = jnp.asarray(_STEP_SIZES, rows.dtype)
        moved = rows @ step
        square_norms = (
            jnp.sum(fit.coefficients**2)
            + 2 * sizes * jnp.sum(fit.coefficients * step)
            + sizes**2 * jnp.sum(step**2)
        )
        values = jax.vmap(lambda a, s: objective(logits + a * moved, s))(sizes, square_norms)
        least = jnp.min(values)
        slack = ROUNDING * (1 + least)  # J's own rounding does not refuse a step, or shorten it
        best = jnp.argmax(values <= least + slack)  # the longest of the best
        moved_to = RegressionFit(
            fit.coefficients + sizes[best] * step, values[best], decrement, fit.steps + 1
        )
        better = values[best] <= fit.objective + slack
        new = jax.tree.map(lambda a, b: jnp.where(better, a, b), moved_to, fit)
        return new, better & (decrement > tolerance * (1 + values[best]))

    init = RegressionFit(
        start,
        jnp.asarray(jnp.inf, rows.dtype),
        jnp.asarray(jnp.inf, rows.dtype),
        jnp.asarray(0, jnp.int32),
    )
    final, _ = lax.while_loop(
        lambda carry: carry[1] & (carry[0].steps < MAX_NEWTON_STEPS),
        newton,
        (init, jnp.asarray(True)),
    )
    return final


def hessian(
    rows: Array, probs: Array, weights: Array, l2: Array | float
) -> Callable[[Array], Array]:
    """The product with J's Hessian, sum_i w_i x_i x_i' (x) (diag p_i - p_i p_i') + lambda I.

    It takes and gives (r, B, C): B vectors at once, in one matrix product.
    """
    n, width = rows.shape
    weighted = weights[:, None, None] * probs[:, None]

    def product(v: Array) -> Array:
        u = (rows @ v.reshape(width, -1)).reshape(n, *v.shape[1:])
        u = weighted * (u - jnp.sum(probs[:, None] * u, axis=-1, keepdims=True))
        return (rows.T @ u.reshape(n, -1)).reshape(v.shape) + l2 * v

    return product


def mean_curvature(probs: Array, weights: Array) -> Array:
    """Mean over rows and C - 1 directions of diag p - p p', which Boehning bounds by 1/2."""
    curvature = (1 - jnp.sum(probs**2, axis=-1)) / max(probs.shape[-1] - 1, 1)
    total = jnp.maximum(jnp.sum(weights), jnp.finfo(probs.dtype).tiny)
    return jnp.sum(weights * curvature) / total


def conjugate_gradients(
    operator: Callable[[Array], Array], right: Array, diagonal: Array, *, tolerance: float
) -> Array:
    """Solve operator(x) = right for B right sides at once (r, B, C), preconditioned by (r,) > 0.

    It stops when every residual, in the preconditioner's norm, has fallen by `tolerance`, or after
    MAX_CG_STEPS.
    """
    tiny = jnp.finfo(right.dtype).tiny
    inverse = 1 / diagonal[:, None, None]

    def dot(a: Array, b: Array) -> Array:
        return jnp.sum(a * b, axis=(0, 2), keepdims=True)

    def step(state: _CG) -> _CG:
        image = operator(state.direction)
        curvature = dot(state.direction, image)
        # Rounding can leave a direction without curvature: it is not followed.
        size = jnp.where(curvature > tiny, state.square / jnp.maximum(curvature, tiny), 0)
        residual = state.residual - size * image
        square = dot(residual, inverse * residual)
        ratio = square / jnp.maximum(state.square, tiny)
        direction = inverse * residual + ratio * state.direction
        return _CG(state.x + size * state.direction, residual, direction, square, state.steps + 1)

    first = dot(right, inverse * right)
    start = _CG(jnp.zeros_like(right), right, inverse * right, first, jnp.asarray(0, jnp.int32))
    return lax.while_loop(
        lambda s: jnp.any(s.square > tolerance**2 * first) & (s.steps < MAX_CG_STEPS), step, start
    ).x


class _CG(NamedTuple):
    x: Array
    residual: Array
    direction: Array
    square: Array  # (1, B, 1) of the residuals, in the preconditioner's norm
    steps: Array

"""B softmax regressions on the same rows at once: members of an ensemble, folds of a comparison.

Member b minimises `softmax_regression`'s J with its own row weights and its own centre of the
prior:

    J_b(W) = sum_i w_ib CE(t_i, softmax(x_i W)) + 1/2 lambda |W - centre_b|^2

by damped Newton steps that share every product with the rows: B times the columns, not B times
the passes. A member that has converged stands still until the slowest has.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from enn_finetune.models.softmax_regression import (
    CG_TOLERANCE,
    MAX_NEWTON_STEPS,
    ROUNDING,
    Rotated,
    conjugate_gradients,
    mean_curvature,
)

TOLERANCE = 1e-6  # of 1 + J_b, for the squared Newton decrement of the last step
_STEP_SIZES = tuple(0.5**halvings for halvings in range(8))


class _State(NamedTuple):
    coefficients: Array  # (r, B, C)
    objective: Array  # (B,)
    moving: Array  # (B,) bool
    steps: Array  # ()


def fit_regressions(
    rotated: Rotated,
    targets: Array,
    weights: Array,
    l2: Array | float,
    *,
    start: Array | None = None,
    centre: Array | None = None,
    tolerance: float = TOLERANCE,
) -> Array:
    """Minimise every J_b -> coefficients (r, B, C), in the coordinates of `rotated`.

    Args:
      rotated: rows in a basis in which X' diag(w) X is near diagonal, w the mean weights.
      targets: (N, C) class distributions.
      weights: (N, B) at least 0; a row of weight 0 does not matter, whatever it holds.
      l2: lambda > 0, one for all.
      start: (r, B, C), by default the centre.
      centre: (r, B, C), rows summing to 0 over classes; by default 0.
      tolerance: of the squared decrement, over 1 + J_b.
    """
    rows, squares = rotated.rows, rotated.squares
    shape = (rows.shape[1], weights.shape[1], targets.shape[1])
    used = jnp.any(weights > 0, axis=1)
    rows = jnp.where(used[:, None], rows, 0)
    targets = jnp.where(used[:, None], targets, 0)
    centre = jnp.zeros(shape, rows.dtype) if centre is None else centre
    start = centre if start is None else start

    def apply(matrix: Array, blocks: Array) -> Array:
        flat = matrix @ blocks.reshape(blocks.shape[0], -1)
        return flat.reshape(-1, *blocks.shape[1:])

    def objective(logits: Array, square_norm: Array) -> Array:  # (N, B, C), (B,) -> (B,)
        losses = jax.nn.logsumexp(logits, axis=-1) - jnp.sum(targets[:, None] * logits, axis=-1)
        return jnp.sum(weights * losses, axis=0) + 0.5 * l2 * square_norm

    def newton(state: _State) -> _State:
        logits = apply(rows, state.coefficients)
        probs = jax.nn.softmax(logits, axis=-1)
        offset = state.coefficients - centre
        gradient = apply(rows.T, weights[..., None] * (probs - targets[:, None])) + l2 * offset

        def hessian(v: Array) -> Array:
            u = apply(rows, v)
            u = weights[..., None] * probs * (u - jnp.sum(probs * u, axis=-1, keepdims=True))
            return apply(rows.T, u) + l2 * v

        curvature = mean_curvature(jnp.mean(probs, axis=1), jnp.mean(weights, axis=1))
        right = jnp.where(state.moving[None, :, None], -gradient, 0)
        step = conjugate_gradients(hessian, right, curvature * squares + l2, tolerance=CG_TOLERANCE)
        decrement = -jnp.sum(gradient * step, axis=(0, 2))

        sizes = jnp.asarray(_STEP_SIZES, rows.dtype)
        moved = apply(rows, step)
        square_norms = (
            jnp.sum(offset**2, axis=(0, 2))[None]
            + 2 * sizes[:, None] * jnp.sum(offset * step, axis=(0, 2))[None]
            + sizes[:, None] ** 2 * jnp.sum(step**2, axis=(0, 2))[None]
        )
        values = lax.map(
            lambda one: objective(logits + one[0] * moved, one[1]), (sizes, square_norms)
        )
        least = jnp.min(values, axis=0)
        slack = ROUNDING * (1 + least)
        best = jnp.argmax(values <= (least + slack)[None], axis=0)  # the longest of the best
        value = jnp.take_along_axis(values, best[None], axis=0)[0]
        better = state.moving & (value <= state.objective + slack)
        return _State(
            state.coefficients + jnp.where(better, sizes[best], 0)[None, :, None] * step,
            jnp.where(better, value, state.objective),
            better & (decrement > tolerance * (1 + value)),
            state.steps + 1,
        )

    init = _State(
        start,
        jnp.full(shape[1], jnp.inf, rows.dtype),
        jnp.ones(shape[1], bool),
        jnp.asarray(0, jnp.int32),
    )
    with jax.default_matmul_precision("highest"):
        return lax.while_loop(
            lambda s: jnp.any(s.moving) & (s.steps < MAX_NEWTON_STEPS), newton, init
        ).coefficients

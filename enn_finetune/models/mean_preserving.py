"""Base logits under which an epinet's *mean* prediction is the one wanted.

Averaging softmax over z flattens it, so an epinet put on a well-fitted regression would lose
likelihood. For each row this solves, for l,

    E_z softmax(l + sum_d z_d g_d) = softmax(wanted),   z ~ N(0, I)

by Newton steps from MacKay's probit approximation (1992, Neural Computation 4:720):
l = wanted sqrt(1 + pi v / 8), v the variance of a logit difference. The expectation is a fixed
quadrature, so that l depends on the row alone and an index stays one function of x. For C = 2 it is
Gauss-Hermite in the one logit difference. For more classes the slope is taken as diagonal, and the
points are +-sqrt(dim z) q, q the columns of two orthonormal frames: covariance exact, odd moments
nil.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

STEPS = 4
_HERMITE_NODES, _HERMITE_WEIGHTS = np.polynomial.hermite_e.hermegauss(20)
_TINY = 1e-30


def mean_preserving_logits(wanted: Array, spread: Array) -> Array:
    """Logits (N, C) to which the spread is to be added, centred over classes.

    Args:
      wanted: (N, C) logits of the mean prediction.
      spread: (N, dim z, C), each row's g.
    """
    classes = wanted.shape[1]
    if classes < 2:
        return wanted
    if classes == 2:
        difference = spread[..., 1] - spread[..., 0]
        scale = jnp.sqrt(jnp.sum(difference**2, axis=1))
        half = 0.5 * mean_preserving_difference(wanted[:, 1] - wanted[:, 0], scale)
        return jnp.stack([-half, half], axis=-1)
    target = jax.nn.log_softmax(wanted, axis=-1)
    variance = jnp.sum(jnp.var(spread, axis=-1), axis=1) * 2 * classes / (classes - 1)
    start = _centred(wanted) * jnp.sqrt(1 + jnp.pi / 8 * variance)[:, None]
    points, log_weights = _frame_points(spread)

    def newton(_: Array | int, logits: Array) -> Array:
        log_probs = jax.nn.log_softmax(logits[:, None] + points, axis=-1)  # (N, J, C)
        weighted = log_probs + log_weights[None, :, None]
        mean = jax.nn.logsumexp(weighted, axis=1)
        # d log(q_c / (1 - q_c)) / d l_c = E[p (1 - p)] / (q (1 - q)): 1 without spread, then less.
        curvature = jnp.sum(jnp.exp(weighted) * -jnp.expm1(log_probs), axis=1)
        flat = jnp.exp(mean) * -jnp.expm1(mean)
        slope = jnp.where(flat > 1e-6, curvature / jnp.maximum(flat, _TINY), 1)
        step = (target - mean) / jnp.clip(slope, 0.2, 1)
        return _centred(logits + step)

    return jax.lax.fori_loop(0, STEPS, newton, start)


def _centred(logits: Array) -> Array:
    return logits - jnp.mean(logits, axis=-1, keepdims=True)


def mean_preserving_difference(wanted: Array, scale: Array) -> Array:
    """Logits l (N,) with E_t sigmoid(l + scale t) = sigmoid(wanted), t ~ N(0, 1), both (N,).

    It is solved for the rarer class, whose log-probability keeps its digits.
    """
    nodes = jnp.asarray(_HERMITE_NODES, wanted.dtype)
    weights = jnp.asarray(np.log(_HERMITE_WEIGHTS / _HERMITE_WEIGHTS.sum()), wanted.dtype)
    target = -jnp.abs(wanted)
    start = target * jnp.sqrt(1 + jnp.pi / 8 * scale**2)

    def newton(_: Array | int, logits: Array) -> Array:
        log_probs = jax.nn.log_sigmoid(logits[:, None] + scale[:, None] * nodes[None])
        weighted = log_probs + weights[None]
        mean = jnp.minimum(jax.nn.logsumexp(weighted, axis=1), -1e-6)
        # d log(q / (1 - q)) / d l = E[p (1 - p)] / (q (1 - q)): 1 without spread, then less.
        probs = jnp.exp(log_probs)
        flat = jnp.exp(mean) * -jnp.expm1(mean)
        curvature = jnp.sum(jnp.exp(weighted) * (1 - probs), axis=1)
        slope = jnp.where(flat > 1e-12, curvature / jnp.maximum(flat, _TINY), 1)
        found = mean - jnp.log(-jnp.expm1(mean))
        return logits + (target - found) / jnp.clip(slope, 0.2, 1)

    return jnp.sign(wanted) * -jax.lax.fori_loop(0, STEPS - 1, newton, start)


def _frame_points(spread: Array) -> tuple[Array, Array]:
    """+-sqrt(dim z) spread along two frames, the axes and the cosine basis: J = 4 dim z."""
    index_dim = spread.shape[1]
    order, place = np.arange(index_dim)[:, None], np.arange(index_dim)[None]
    cosines = np.cos(np.pi * order * (place + 0.5) / index_dim)  # DCT-II, orthogonal rows
    cosines *= np.sqrt(2 / index_dim)
    cosines[0] /= np.sqrt(2)
    turned = jnp.einsum("jd,ndc->njc", jnp.asarray(cosines, spread.dtype), spread)
    half = np.sqrt(index_dim) * jnp.concatenate([spread, turned], axis=1)
    points = jnp.concatenate([half, -half], axis=1)
    return points, jnp.full((points.shape[1],), -np.log(points.shape[1]), spread.dtype)

"""Ensembles of shaped regressions, with and without prior functions.

Each member is fitted to its own bootstrap resample of the bought labels: row i counts n_im times,
n_im ~ Poisson(1). The loss is convex, so a random start would add nothing. With prior functions
(Osband et al. 2018, arXiv 1806.03335) member m also has its own centre of the prior,
W0_m ~ scale N(0, I / lambda): of a linear Gaussian model, scale 1 gives draws from the posterior.

What is tuned on the bought labels, beside the prior's shape and strength, which evidence chooses
as for every shaped head: the factor on lambda without prior functions, their scale with them. Both
by the NLL of out-of-bag rows (Breiman 1996) under the mean over the members that did not see them,
of so many members that a row has as many such as the final ensemble has members.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from enn_finetune.models.laplace import LinearEpinetFit, fit_linear_epinet
from enn_finetune.models.members import Members
from enn_finetune.models.regressions import fit_regressions
from enn_finetune.models.shaped_features import ShapedPool
from enn_finetune.models.softmax_regression import rotate

MEMBERS = 10
TRIED = math.ceil(MEMBERS * math.e)  # a member leaves a row out with probability 1 / e
L2_FACTORS = (2.0, 1.0, 0.5, 0.25)
PRIOR_SCALES = (0.0, 0.5, 1.0, 2.0)


class EnsembleFit(NamedTuple):
    """What an ensemble is made of, and what was chosen on the way."""

    shaped: LinearEpinetFit
    members: Array  # (M, D + 1, C)
    chosen: Array  # (): the factor on lambda, or the prior functions' scale
    losses: Array  # (grid,): out-of-bag NLL in nats a row


def fit_ensemble(
    features: Array, targets: Array, weights: Array, pool: ShapedPool, *, key: Array
) -> EnsembleFit:
    """A bootstrap ensemble of shaped regressions (arguments as `fit_linear_epinet`'s)."""
    return _fit(features, targets, weights, pool, key, L2_FACTORS, with_prior=False)


def fit_ensemble_prior(
    features: Array, targets: Array, weights: Array, pool: ShapedPool, *, key: Array
) -> EnsembleFit:
    """A bootstrap ensemble with prior functions (arguments as `fit_linear_epinet`'s)."""
    return _fit(features, targets, weights, pool, key, PRIOR_SCALES, with_prior=True)


def ensemble(fit: EnsembleFit) -> Members:
    """The head of an ensemble's fit."""
    return Members(fit.shaped, fit.members)


def _fit(
    features: Array,
    targets: Array,
    weights: Array,
    pool: ShapedPool,
    key: Array,
    grid: tuple[float, ...],
    *,
    with_prior: bool,
) -> EnsembleFit:
    shaped_key, count_key, prior_key = jax.random.split(key, 3)
    shaped = fit_linear_epinet(features, targets, weights, pool, key=shaped_key, index_dim=1)
    counts = bootstrap_counts(count_key, features.shape[0], TRIED)
    seen = jnp.where(weights[:, None] > 0, weights[:, None] * counts, 0)
    x = shaped.rows(jnp.where(weights[:, None] > 0, features, 0))
    with jax.default_matmul_precision("highest"):
        rotated = rotate(x, weights)
        shape = (x.shape[1], TRIED, targets.shape[1])
        prior = jax.random.normal(prior_key, shape)
        prior = prior - jnp.mean(prior, axis=-1, keepdims=True)
        inside = _apply(rotated.basis.T, prior)
        outside = prior - _apply(rotated.basis, inside)  # where the data say nothing
        start = jnp.broadcast_to(
            (rotated.basis.T @ shaped.coefficients)[:, None], (inside.shape[0], *shape[1:])
        )

        def one(start: Array, value: Array) -> tuple[Array, tuple[Array, Array]]:
            l2 = shaped.l2 if with_prior else shaped.l2 * value
            scale = value * lax.rsqrt(l2) if with_prior else jnp.zeros(())
            found = fit_regressions(rotated, targets, seen, l2, start=start, centre=scale * inside)
            loss = out_of_bag_loss(_apply(rotated.rows, found), targets, weights, counts)
            members = _apply(rotated.basis, found) + scale * outside
            return found, (loss, members[:, :MEMBERS])

        values = jnp.asarray(grid, x.dtype)
        _, (losses, members) = lax.scan(one, start, values)
    best = jnp.argmin(losses)
    return EnsembleFit(shaped, jnp.moveaxis(members[best], 1, 0), values[best], losses)


def bootstrap_counts(key: Array, rows: int, members: int) -> Array:
    """Poisson(1) counts (N, M), a row's a function of its place: padding changes nothing."""
    uniform = jax.vmap(lambda i: jax.random.uniform(jax.random.fold_in(key, i), (members,)))(
        jnp.arange(rows)
    )
    masses = [math.exp(-1) / math.factorial(k) for k in range(9)]
    edges = jnp.cumsum(jnp.asarray(masses, jnp.float32))
    return jnp.sum(uniform[..., None] > edges[None, None], axis=-1).astype(jnp.float32)


def out_of_bag_loss(logits: Array, targets: Array, weights: Array, counts: Array) -> Array:
    """NLL a row under the mean of the members that did not see it; others' rows are left out.

    Args:
      logits: (N, M, C).
      targets: (N, C).
      weights: (N,).
      counts: (N, M).
    """
    left_out = counts == 0
    log_probs = jnp.where(left_out[..., None], jax.nn.log_softmax(logits, axis=-1), -jnp.inf)
    voters = jnp.sum(left_out, axis=1)
    judged = (voters > 0) & (weights > 0)
    log_probs = jnp.where(judged[:, None, None], log_probs, 0)
    mean = jax.nn.logsumexp(log_probs, axis=1) - jnp.log(jnp.maximum(voters, 1))[:, None]
    losses = -jnp.sum(jnp.where(judged[:, None], targets, 0) * mean, axis=-1)
    share = jnp.where(judged, weights, 0)
    return jnp.sum(share * losses) / jnp.maximum(jnp.sum(share), 1e-12)


def _apply(matrix: Array, blocks: Array) -> Array:
    """(a, b) times (b, M, C), as one matrix product."""
    return (matrix @ blocks.reshape(blocks.shape[0], -1)).reshape(-1, *blocks.shape[1:])

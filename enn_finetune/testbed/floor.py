"""The best that could be known from the labels: the posterior of the generator itself.

Particles are generators drawn from the prior that made the problem, weighted by the likelihood of
the labels (importance sampling with the prior as the proposal):

    log w_j = sum_i weight_i log p_j(y_i | x_i) - log sum_j' (...)

As the number of particles grows, the weighted mixture becomes the exact posterior predictive, whose
expected KL no agent can go below. How far to trust it says the effective sample size, ESS =
1 / sum_j w_j^2: a predicted probability has a relative error of about 1 / sqrt(ESS), and a KL is
too high by about v / (2 ESS), v as in `scores`: some .005 nats for one row at an ESS of 100.
For tau rows together v is far larger, and the figure too high by more: `scores.joint_kl` estimates
by how much from the effective size that a group's own labels leave. Below 10 the mixture is a few
lucky draws, and the figure is a noisy upper bound and no floor.

ESS falls exponentially in the nats that the labels tell. Of 20,000 particles (median and least of
16 problems): d = 2 at temperature .1, 2 labels 8,800 and 5,200, 20 labels 160 and 9; at .5, 20
labels 2,900 and 1,200; d = 10 at temperature .1, 10 labels 400 and 120. A hundred labels in 10
dimensions at temperature .1 are beyond it.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from enn_finetune.testbed.networks import hide
from enn_finetune.testbed.problems import Problem, sample_problem, true_log_probs
from enn_finetune.testbed.types import Data, Spec

CHUNK = 500
TRUSTED = 100.0
"""An effective sample size from which on a floor is reported as one."""


class Posterior(NamedTuple):
    """Some particles, weighted so that their mixture is on average that of all."""

    problems: Problem  # stacked (K, ...): generators
    log_weights: Array  # (K,), whose exponentials sum to 1
    size: Array  # (): effective sample size of all particles
    log_evidence: Array  # (): log-probability of the labels, in nats


def posterior(
    key: Array,
    spec: Spec,
    data: Data,
    weight: Array,
    *,
    particles: int = 100_000,
    keep: int = 1000,
    chunk: int = CHUNK,
) -> Posterior:
    """Weigh many generators by the labels, and keep a weighted sample of them.

    Only `chunk` networks are in memory at a time: a particle is its key, drawn again if it is kept.
    Keeping the heaviest instead would favour generators that fit the labels too well.

    Args:
      key: of the particles.
      spec: the problem's numbers; the prior.
      data: N rows.
      weight: (N,) at least 0; rows of weight 0 change nothing.
      particles: P, a multiple of `chunk`; static, as all that follow.
      keep: K, at most P; all that count where the effective sample size is well below K.
      chunk: particles at a time.

    Raises:
      ValueError: P is no multiple of the chunk, or fewer than are to be kept.
    """
    if particles % chunk or keep > particles:
        raise ValueError(f"expected chunks that divide {particles=} and {keep=} at most, {chunk=}")
    x, y = hide(data.x, data.y, weight)

    def weigh(chosen: Array) -> Array:
        problem = sample_problem(jax.random.fold_in(key, chosen), spec)
        picked = jnp.take_along_axis(true_log_probs(problem, x), y[:, None], axis=1)[:, 0]
        return jnp.sum(jnp.where(weight > 0, weight * picked, 0))

    numbers = jnp.arange(particles).reshape(-1, chunk)
    log_likelihoods = lax.map(jax.vmap(weigh), numbers).reshape(-1)
    total = jax.nn.logsumexp(log_likelihoods)
    log_weights = log_likelihoods - total
    chosen, kept = _thin(jax.random.fold_in(key, particles), log_weights, keep)
    problems = jax.vmap(lambda j: sample_problem(jax.random.fold_in(key, j), spec))(chosen)
    return Posterior(
        problems,
        kept,
        jnp.exp(-jax.nn.logsumexp(2 * log_weights)),
        total - jnp.log(particles),
    )


def _thin(key: Array, log_weights: Array, keep: int) -> tuple[Array, Array]:
    """Keep K of P weighted particles: numbers (K,) and log-weights (K,).

    Optimal resampling (Fearnhead & Clifford 2003): those above a threshold c keep their weight, the
    others are drawn systematically with chances w / c and then weigh c. A mixture of what is kept
    is that of all on average, with the least variance of the weights.
    """
    weights = jnp.exp(log_weights - jnp.max(log_weights))

    def narrow(bounds: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
        low, high = bounds
        middle = (low + high) / 2
        enough = jnp.sum(jnp.minimum(jnp.exp(jnp.log(weights) - middle), 1)) >= keep
        return (jnp.where(enough, middle, low), jnp.where(enough, high, middle)), None

    ends = (jnp.float32(-80.0), jnp.log(jnp.sum(weights)))  # of log c
    (log_c, _), _ = lax.scan(narrow, ends, None, length=40)
    chances = jnp.minimum(jnp.exp(jnp.log(weights) - log_c), 1)
    edges = jnp.cumsum(chances)
    points = (jax.random.uniform(key) + jnp.arange(keep)) * (edges[-1] / keep)
    chosen = jnp.minimum(jnp.searchsorted(edges, points), weights.shape[0] - 1)
    kept = jnp.log(weights[chosen] / jnp.maximum(chances[chosen], 1e-30))
    return chosen, kept - jax.nn.logsumexp(kept)


def log_probs(found: Posterior, x: Array) -> Array:
    """Log-probabilities (K, N, C) of the particles at rows (N, d), to be weighted."""
    return jax.vmap(true_log_probs, (0, None))(found.problems, x)

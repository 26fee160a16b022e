"""How far an agent's predictions are from the generator's own, one row and many rows at a time.

The score of the testbed (arXiv 2110.04629, section 2.3; 2202.13509): for the labels y of tau rows
predicted together,

    KL_tau = E_x E_y [ log P(y | generator, x) - log (1/K) sum_k prod_t p_k(y_t | x_t) ]

in nats a *group* of tau rows. As nothing but the generator knows the generator, it is above 0 for
any agent, and least in expectation for the posterior predictive (`floor.py`).

The estimator, and where it is off:
* anchors are sampled; `KL.error` is the standard error over groups for this problem and fit;
* labels are summed over exactly where `problems.sample_exam` listed all tables, else sampled (both
  without bias); the error counts both;
* an agent that draws its functions is scored through the log of a mean of K of them, too low in
  expectation (Jensen), so that its KL is too high: by about v / (2 K), v the squared coefficient of
  variation over functions of a group's likelihood, where that is small; and never by more than what
  K functions lose against one. `KL.bias` estimates the excess by halves, KL(K / 2) - KL(K): exact
  where the excess is c / K. `KL.corrected` takes it off. Where the estimate is not small beside the
  KL (tau = 100 and a diverse agent), v is large, the excess falls slower than 1 / K, the correction
  may be too small or too large, and more functions are needed. An agent that shows *all* its
  functions (MLP, ensembles) is its K-mixture and has no excess: give `finite=True`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from enn_finetune import predictive
from enn_finetune.metrics import CALIBRATION_BINS
from enn_finetune.testbed.problems import Exam, Tables

LEAST = -1e9  # in place of a log-probability of -inf: nil times it is nil, not NaN
GROUPS_AT_ONCE = 8


class KL(NamedTuple):
    """An estimate in nats a group."""

    value: Array  # ()
    error: Array  # (): standard error over groups
    bias: Array  # (): estimate of the excess, at least 0; 0, unknown, under weights (a floor)

    @property
    def corrected(self) -> Array:
        """The value less the estimated excess."""
        return self.value - self.bias


def marginal_kl(log_probs: Array, log_true: Array) -> Array:
    """KL of the generator from the mean prediction, by row: (K, N, C), (N, C) -> (N,) in nats."""
    mean = jnp.maximum(predictive.mixture(log_probs), LEAST)
    return -predictive.entropy(log_true) + predictive.cross_entropy(mean, jnp.exp(log_true))


def joint_kl(
    log_probs: Array,
    log_true: Array,
    tables: Tables,
    *,
    log_weights: Array | None = None,
    finite: bool = False,
) -> KL:
    """KL of tau rows predicted together.

    Args:
      log_probs: (K, G * kappa, C) of the agent at the anchors of an `Exam`.
      log_true: (G * kappa, C) of the generator.
      tables: of the exam, for one tau.
      log_weights: (K,) of the functions, whose exponentials sum to 1; equal if left out.
      finite: the K functions are all that the agent has (or weighted): no excess is estimated.
    """
    groups = tables.weights.shape[0]
    count, _, classes = log_probs.shape
    weights = jnp.full(count, -jnp.log(count)) if log_weights is None else log_weights
    by_group = log_probs.reshape(count, groups, -1, classes).swapaxes(0, 1)  # (G, K, kappa, C)
    listed = tables.counts
    halves = count // 2 if not finite and log_weights is None else 0

    def likelihoods(probs: Array, counts: Array) -> Array:
        flat = jnp.maximum(probs, LEAST).reshape(*probs.shape[:-2], -1)
        return jnp.matmul(flat, counts.reshape(counts.shape[0], -1).T, precision="highest")

    def one(group: tuple[Array, Array, Array, Array]) -> tuple[Array, Array]:
        probs, truth, counts, table_weights = group
        ours = likelihoods(probs, counts)  # (K, R)
        together = jax.nn.logsumexp(ours + weights[:, None], axis=0)
        gap = jnp.sum(table_weights * (likelihoods(truth[None], counts)[0] - together))
        if not halves:
            return gap, jnp.zeros_like(gap)
        split = ours[: 2 * halves].reshape(2, halves, -1)
        half = jnp.mean(jax.nn.logsumexp(split, axis=1) - jnp.log(halves), axis=0)
        return gap, jnp.sum(table_weights * (together - half))

    truth = log_true.reshape(groups, -1, classes)
    counts = jnp.broadcast_to(listed, (groups, *listed.shape[1:]))
    gaps, excess = lax.map(
        one, (by_group, truth, counts, tables.weights), batch_size=min(GROUPS_AT_ONCE, groups)
    )
    error = jnp.std(gaps) / jnp.sqrt(max(groups - 1, 1))
    return KL(jnp.mean(gaps), error, jnp.maximum(jnp.mean(excess), 0))


def accuracy(log_probs: Array, log_true: Array) -> Array:
    """Expected share of right guesses (), over the generator's labels: no labels are drawn."""
    guess = jnp.argmax(predictive.mixture(log_probs), axis=-1)
    return jnp.mean(jnp.take_along_axis(jnp.exp(log_true), guess[:, None], axis=1))


def calibration_error(log_probs: Array, log_true: Array) -> Array:
    """ECE () in 15 bins of equal width, as `metrics.proper_scores`, over the generator's labels.

    A row counts as right with its true probability, which leaves out the noise of labels: a
    perfect agent has an error of 0, not that of finitely many coin tosses.
    """
    mean = jnp.exp(predictive.mixture(log_probs))
    confidence, guess = jnp.max(mean, axis=-1), jnp.argmax(mean, axis=-1)
    right = jnp.take_along_axis(jnp.exp(log_true), guess[:, None], axis=1)[:, 0]
    bins = jnp.clip((confidence * CALIBRATION_BINS).astype(jnp.int32), 0, CALIBRATION_BINS - 1)
    gaps = jnp.zeros(CALIBRATION_BINS).at[bins].add(right - confidence)
    return jnp.sum(jnp.abs(gaps)) / confidence.shape[0]


def grade(
    log_probs: Array, exam: Exam, *, log_weights: Array | None = None, finite: bool = False
) -> tuple[dict[str, Array], tuple[KL, ...]]:
    """All scores of one fit: named numbers, and the joint KLs in the order of the exam's tables.

    Args:
      log_probs: (K, A, C) at the exam's rows.
      exam: from `sample_exam`.
      log_weights: as in `joint_kl`; the mean prediction is weighted too.
      finite: as in `joint_kl`.

    Returns:
      kl (marginal, nats a row), accuracy, ece; and a `KL` for each tau.
    """
    weighted = log_probs
    if log_weights is not None:  # so that the mean over K is the weighted mean
        weighted = log_probs + (log_weights + jnp.log(log_weights.shape[0]))[:, None, None]
    numbers = {
        "kl": jnp.mean(marginal_kl(weighted, exam.log_true)),
        "accuracy": accuracy(weighted, exam.log_true),
        "ece": calibration_error(weighted, exam.log_true),
    }
    joint = tuple(
        joint_kl(log_probs, exam.log_true, table, log_weights=log_weights, finite=finite)
        for table in exam.tables
    )
    return numbers, joint


def selection_regret(kl: Array, reference: Array) -> Array:
    """What asking in this order has cost so far: the running sum of KL above a reference.

    Args:
      kl: (..., T) marginal KL after each label, in nats a row.
      reference: (...), the KL that all labels together would give.

    Returns:
      (..., T) in nats a row times labels; it may fall where an agent does better with fewer.
    """
    return jnp.cumsum(kl - reference[..., None], axis=-1)


def reward_regret(log_true: Array, chosen: Array, arm: int = 1) -> Array:
    """The testbed's own regret of each choice: how much likelier the best candidate's label was.

    Args:
      log_true: (N, C) of the generator at the candidates.
      chosen: (T,) candidates in the order they were asked.
      arm: the class that is a reward.

    Returns:
      (T,) max_i P(arm | x_i) - P(arm | x_chosen), at least 0.
    """
    reward = jnp.exp(log_true[:, arm])
    return jnp.max(reward) - reward[chosen]

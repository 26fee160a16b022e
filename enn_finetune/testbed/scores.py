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
  functions (MLP, ensembles) is its K-mixture and has no excess: give `finite=True`. The marginal KL
  is the same with tau = 1: `marginal_excess`, by halves too;
* the floor's particles are weighted by the labels known, and its mixture is a ratio of two means,
  sum_j w_j L_j / sum_j w_j, L_j a group's likelihood. To second order (the delta method) the KL is
  too high by 1/2 (1 / ESS_L - 1 / ESS), ESS = (sum_j w_j)^2 / sum_j w_j^2 of the particles and
  ESS_L the same of w_j L_j, of those that remain once the group's labels are known too. `KL.bias`
  is its mean and `KL.size` the harmonic mean of ESS_L. It is below 1/2 by its form: where ESS_L is
  a few particles (tau = 100), it says that the figure is a noisy bound, and not by how much.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from enn_finetune import predictive
from enn_finetune.metrics import CALIBRATION_BINS
from enn_finetune.testbed.problems import Exam, Tables

LEAST = -1e9  # in place of a log-probability of -inf: nil times it is nil, not NaN
GROUPS_AT_ONCE = 8


class KL(NamedTuple):
    """An estimate in nats a group."""

    value: Array  # ()
    error: Array  # (): standard error over groups
    bias: Array  # (): estimate of the excess, at least 0; 0 where there is none
    size: Array  # (): effective number of functions that a group's labels leave, harmonic mean

    @property
    def corrected(self) -> Array:
        """The value less the estimated excess."""
        return self.value - self.bias


def marginal_kl(log_probs: Array, log_true: Array) -> Array:
    """KL of the generator from the mean prediction, by row: (K, N, C), (N, C) -> (N,) in nats."""
    mean = jnp.maximum(predictive.mixture(log_probs), LEAST)
    return -predictive.entropy(log_true) + predictive.cross_entropy(mean, jnp.exp(log_true))


def marginal_excess(
    log_probs: Array,
    log_true: Array,
    *,
    log_weights: Array | None = None,
    finite: bool = False,
) -> Array:
    """How much too high the mean of `marginal_kl` is for drawing K functions: () at least 0.

    By halves, KL(K / 2) - KL(K), each half scored apart: exact in expectation where the excess is
    c / K, as it is for K well above v (see above). Under weights by effective sizes, as `KL.bias`
    of one row.

    Args:
      log_probs: (K, N, C).
      log_true: (N, C) of the generator.
      log_weights: (K,) of the functions, whose exponentials sum to 1; equal if left out.
      finite: the K functions are all that the agent has: no excess.
    """
    halves = log_probs.shape[0] // 2
    if finite or (log_weights is None and not halves):
        return jnp.zeros(())
    if log_weights is not None:
        weighted = log_probs + log_weights[:, None, None]
        shares = jax.nn.softmax(jnp.maximum(weighted, LEAST), axis=0)
        left = jnp.mean(jnp.sum(jnp.exp(log_true)[None] * shares**2, axis=(0, 2)))
        return jnp.maximum((left - jnp.sum(jnp.exp(2 * log_weights))) / 2, 0)
    split = log_probs[: 2 * halves].reshape(2, halves, *log_probs.shape[1:])
    apart = jnp.mean(jax.vmap(marginal_kl, (0, None))(split, log_true))
    together = jnp.mean(marginal_kl(log_probs[: 2 * halves], log_true))
    return jnp.maximum(apart - together, 0)


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
      finite: the K functions are all that the agent has: no excess is estimated. Else by halves,
        or under weights by effective sizes.
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

    def one(group: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array]:
        probs, truth, counts, table_weights = group
        ours = likelihoods(probs, counts)  # (K, R)
        posterior = ours + weights[:, None]
        together = jax.nn.logsumexp(posterior, axis=0)
        gap = jnp.sum(table_weights * (likelihoods(truth[None], counts)[0] - together))
        squares = jnp.exp(jax.nn.logsumexp(2 * (posterior - together[None]), axis=0))
        share = jnp.sum(table_weights * squares)  # mean of 1 / ESS_L
        if halves:
            split = ours[: 2 * halves].reshape(2, halves, -1)
            half = jnp.mean(jax.nn.logsumexp(split, axis=1) - jnp.log(halves), axis=0)
            return gap, jnp.sum(table_weights * (together - half)), share
        if finite:
            return gap, jnp.zeros_like(gap), share
        return gap, (share - jnp.sum(jnp.exp(2 * weights))) / 2, share

    truth = log_true.reshape(groups, -1, classes)
    counts = jnp.broadcast_to(listed, (groups, *listed.shape[1:]))
    gaps, excess, shares = lax.map(
        one, (by_group, truth, counts, tables.weights), batch_size=min(GROUPS_AT_ONCE, groups)
    )
    error = jnp.std(gaps) / jnp.sqrt(max(groups - 1, 1))
    bias = jnp.maximum(jnp.mean(excess), 0)
    return KL(jnp.mean(gaps), error, bias, 1 / jnp.mean(shares))


def accuracy(log_probs: Array, log_true: Array) -> Array:
    """Expected share of right guesses (), over the generator's labels: no labels are drawn."""
    guess = jnp.argmax(predictive.mixture(log_probs), axis=-1)
    return jnp.mean(jnp.take_along_axis(jnp.exp(log_true), guess[:, None], axis=1))


def calibration_error(log_probs: Array, log_true: Array) -> Array:
    """ECE () in 15 bins of equal width, as `metrics.proper_scores`, over the generator's labels.

    A row counts as right with its true probability, which leaves out the noise of labels: the
    generator itself has an error of 0, not that of finitely many coin tosses. Two biases remain.
    Up, for finitely many rows: a bin's mean gap is off by chance, and its absolute value is too
    large. By the triangle inequality and Cauchy-Schwarz this is at most sqrt(B v / N), B the bins
    that rows fall into (8 with two classes) and v <= 1/4 the variance, given the confidence, of the
    true probability of the guess: at most .10 for the 200 rows of the default study's supervised
    part and .082 for the 300 of its active one. An agent that is calibrated and otherwise as wrong
    as can be (confidence uniform on .5 to 1, every label certain) has .062 at 200 rows, .052 at
    300 and .002 at 100,000 (`tests/testbed/test_biases.py`). Down, by binning: gaps of opposite
    signs within a bin cancel. Agents on the same rows share much of both: compare, do not read off.
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
      kl (marginal, nats a row), kl_bias (`marginal_excess`), accuracy, ece; a `KL` for each tau.
    """
    weighted = log_probs
    if log_weights is not None:  # so that the mean over K is the weighted mean
        weighted = log_probs + (log_weights + jnp.log(log_weights.shape[0]))[:, None, None]
    numbers = {
        "kl": jnp.mean(marginal_kl(weighted, exam.log_true)),
        "kl_bias": marginal_excess(
            log_probs, exam.log_true, log_weights=log_weights, finite=finite
        ),
        "accuracy": accuracy(weighted, exam.log_true),
        "ece": calibration_error(weighted, exam.log_true),
    }
    joint = tuple(
        joint_kl(log_probs, exam.log_true, table, log_weights=log_weights, finite=finite)
        for table in exam.tables
    )
    return numbers, joint


def selection_regret(kl: ArrayLike, reference: ArrayLike = 0.0) -> Array:
    """What asking in this order has cost so far: the running sum of KL above a reference.

    Args:
      kl: (..., T) marginal KL after each label, in nats a row.
      reference: (...), of a predictor to be compared with: 0, the generator itself (the regret of
        predicting one row after each label), or the KL that all labels together would give.

    Returns:
      (..., T) in nats a row times labels; it may fall where an agent does better than the
      reference.
    """
    return jnp.cumsum(jnp.asarray(kl) - jnp.asarray(reference)[..., None], axis=-1)

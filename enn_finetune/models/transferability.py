"""How well features suit labels, without training an encoder: LogME, and PED's evolution.

LogME (You et al. 2021, arXiv 2102.11005) is the log evidence of a Bayesian linear regression from
the features F (N, D) to each class's 0/1 column y, maximised over the precisions alpha of the
weights and beta of the noise, per row and averaged over classes. It is maximised exactly here: with
t = alpha / beta, s_k the squared singular values of F, x = U'y and Q(t) = y'(I + F F'/t)^-1 y,

    log evidence(t) = N/2 log(N / (2 pi Q)) - N/2 + 1/2 sum_k log(t / (t + s_k))

once beta = N / Q is put in, and t is one number. The evidence is of all D weights; directions in
which F has nothing cancel. (The paper's own fixed point on a truncated SVD leaves them out.)

PED (Li et al., ICCV 2023, arXiv 2308.15074) lets the classes push one another apart before such a
score is taken, as fine-tuning would. In features standardised by a reference, class c is a ball of
radius r_c about its mean, r_c = n_sigma * (sum of its columns' variances)^(1/2). Two balls that
overlap by o = r_a + r_b - |mean_a - mean_b| > 0 hold the energy k o^2 / 2 and push each other with
the force k o; in one step of length dt from rest a mean moves by min(k o dt^2 / 2, o) along the
line between the two, and its rows with it. Steps end after `steps`, or where one would move the
means by `exit_ratio` of what the first did, or less. Constants are those of the public code of the
paper; it sums up movement by columns (L1), we by length.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

GRID = 65
DECADES = (-6.0, 8.0)  # of t over the mean squared singular value
HALVINGS = 40  # golden sections of the grid's best interval
GOLDEN = (5**0.5 - 1) / 2
SMALL = 1e-30


Moving = tuple[Array, Array, Array, Array]
"""Means (C, D), what the first step moved, whether it goes on, steps taken."""


class Evolved(NamedTuple):
    """What PED leaves."""

    features: Array  # (N, D): each row moved with its class
    shifts: Array  # (C, D): of the classes, in the units of the features
    before: Array  # (): potential energy of the standardised classes, and after
    after: Array
    steps: Array  # () int32: steps taken


def log_maximum_evidence(
    features: Array, labels: Array, classes: int, weights: Array | None = None
) -> Array:
    """LogME () in nats a row: larger where a linear map tells more of the labels.

    It does not change with a rotation or a scale of the features. Classes without a row in `labels`
    are left out of the mean. Jit it with `classes` static.

    Args:
      features: (N, D).
      labels: (N,) int32, from 0 to C - 1.
      classes: C.
      weights: (N,) 1 for a row, 0 for padding, of which nothing is read.
    """
    used = jnp.ones(len(labels)) if weights is None else weights
    count = jnp.sum(used)
    rows = jnp.where(used[:, None] > 0, features, 0).astype(jnp.float32)
    targets = jax.nn.one_hot(labels, classes) * used[:, None]  # (N, C)
    with jax.default_matmul_precision("highest"):
        left, values, _ = jnp.linalg.svd(rows, full_matrices=False)
        seen = (left.T @ targets) ** 2  # (k, C)
    squares = values**2
    squares = jnp.where(squares > 1e-10 * jnp.max(squares), squares, 0)
    total = jnp.sum(targets**2, axis=0)
    seen = jnp.where(squares[:, None] > 0, seen, 0)
    rest = jnp.maximum(total - jnp.sum(seen, axis=0), 0)
    scale = jnp.maximum(jnp.sum(squares) / squares.shape[0], SMALL)

    def evidence(log_t: Array, seen: Array, rest: Array) -> Array:
        share = 1 / (1 + squares / (jnp.exp(log_t) * scale))  # t / (t + s)
        loss = jnp.maximum(jnp.sum(seen * share) + rest, SMALL)
        fit = 0.5 * count * (jnp.log(count / (2 * jnp.pi * loss)) - 1)
        return fit + 0.5 * jnp.sum(jnp.log(share))

    low, high = (decade * jnp.log(10.0) for decade in DECADES)
    grid = jnp.linspace(low, high, GRID)

    def maximum(seen: Array, rest: Array) -> Array:
        best = jnp.argmax(jax.vmap(lambda log_t: evidence(log_t, seen, rest))(grid))
        step = grid[1] - grid[0]

        def halve(ends: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
            first, last = ends
            inner = last - GOLDEN * (last - first), first + GOLDEN * (last - first)
            left_is_better = evidence(inner[0], seen, rest) > evidence(inner[1], seen, rest)
            return (
                jnp.where(left_is_better, first, inner[0]),
                jnp.where(left_is_better, inner[1], last),
            ), None

        (first, last), _ = lax.scan(halve, (grid[best] - step, grid[best] + step), length=HALVINGS)
        return evidence((first + last) / 2, seen, rest)

    each = jax.vmap(maximum, in_axes=(1, 0))(seen, rest) / count
    there = total > 0
    return jnp.sum(jnp.where(there, each, 0)) / jnp.sum(there)


def evolve(
    features: Array,
    labels: Array,
    classes: int,
    reference: tuple[Array, Array],
    weights: Array | None = None,
    *,
    n_sigma: float = 0.6,
    dt: float = 0.1,
    force: float = 1.0,
    exit_ratio: float = 0.5,
    steps: int = 6,
) -> Evolved:
    """Let the classes push one another apart (PED); see the module's text.

    It does not change with the order of rows or the names of classes, and follows a translation of
    the features (with their reference). Jit it with `classes` and the constants static.

    Args:
      features: (N, D).
      labels: (N,) int32; classes without rows neither push nor are pushed.
      classes: C.
      reference: mean and standard deviation (D,) of the features at large: the unlabelled pool's.
      weights: (N,) 1 for a row, 0 for padding.
      n_sigma: radius of a class over its spread.
      dt: length of a step.
      force: k.
      exit_ratio: see above.
      steps: at most.
    """
    used = jnp.ones(len(labels)) if weights is None else weights
    middle, spread = reference
    spread = jnp.maximum(spread, 1e-3)
    rows = jnp.where(used[:, None] > 0, (features - middle[None]) / spread[None], 0)
    member = jax.nn.one_hot(labels, classes) * used[:, None]  # (N, C)
    counts = jnp.sum(member, axis=0)
    there = counts > 0
    with jax.default_matmul_precision("highest"):
        means = (member.T @ rows) / jnp.maximum(counts, 1)[:, None]
        apart = jnp.where(used[:, None] > 0, rows - means[labels], 0)
        variance = (member.T @ jnp.sum(apart**2, axis=1)[:, None])[:, 0] / jnp.maximum(counts, 1)
    radius = n_sigma * jnp.sqrt(variance)
    pairs = there[:, None] & there[None, :] & ~jnp.eye(classes, dtype=bool)

    def overlaps(means: Array) -> tuple[Array, Array]:
        """Overlap (C, C) and the unit vectors (C, C, D) that push the first class of a pair."""
        line = means[:, None, :] - means[None, :, :]
        length = jnp.sqrt(jnp.sum(line**2, axis=2))
        overlap = jnp.maximum(radius[:, None] + radius[None, :] - length, 0)
        return jnp.where(pairs, overlap, 0), line / jnp.maximum(length, 1e-12)[:, :, None]

    def energy(means: Array) -> Array:
        return 0.25 * force * jnp.sum(overlaps(means)[0] ** 2)  # each pair stands there twice

    def one(carry: Moving, _: None) -> tuple[Moving, None]:
        moved, first, going, taken = carry
        overlap, unit = overlaps(moved)
        size = jnp.minimum(0.5 * dt**2 * force * overlap, overlap)
        shift = jnp.sum(size[:, :, None] * unit, axis=1)
        change = jnp.sum(jnp.sqrt(jnp.sum(shift**2, axis=1)))
        first = jnp.where(taken == 0, change, first)
        going = going & (change > exit_ratio * first)
        moved = jnp.where(going, moved + shift, moved)
        return (moved, first, going, taken + going), None

    begin = (means, jnp.zeros(()), jnp.array(True), jnp.int32(0))
    (moved, _, _, taken), _ = lax.scan(one, begin, length=steps)
    shifts = (moved - means) * spread[None]
    return Evolved(
        features=features + shifts[labels],
        shifts=shifts,
        before=energy(means),
        after=energy(moved),
        steps=taken,
    )


def logme_ped(
    features: Array,
    labels: Array,
    classes: int,
    reference: tuple[Array, Array],
    weights: Array | None = None,
) -> tuple[Array, Array]:
    """LogME of the features as they are, and of what PED makes of them: () and ()."""
    evolved = evolve(features, labels, classes, reference, weights)
    return (
        log_maximum_evidence(features, labels, classes, weights),
        log_maximum_evidence(evolved.features, labels, classes, weights),
    )

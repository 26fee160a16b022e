"""Joint log-loss three ways: is what a head does not know the same thing for related rows?

The labels of M rows are predicted *together*: under index k the rows are independent, and the
joint likelihood is the mean over k of the products (arXiv 2107.08924, section 2). A head whose
indices agree (a plain head) has the sum of its marginal losses. What lowers a joint loss below that
sum depends on which rows stand together:

*dyadic*: two random rows, ten draws of one of them with its observed label (tau = 10, kappa = 2;
arXiv 2110.04629). Rewards variance over indices without limit, right or wrong: the label of a row
is drawn once and then repeated, so that a head is paid for "some index is certain of it" however
unlikely that index is. For comparison with the literature; nothing is ever tuned on it.

*near*: a row and its nine nearest neighbours by cosine, all distinct, with their own labels.
Rewards indices that err together where rows are alike, and charges for variance that the labels of
the neighbours do not share. The honest one.

*random*: ten distinct random rows. Rewards only what is uncertain about all rows at once, as the
shape of the decision boundary is at few labels; for a well-fitted head it is ten marginal losses.

All are in nats a *group* of ten rows, not a row.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from enn_finetune import predictive

SIZE = 10
"""Rows of a group (tau), of which a dyadic one has at most two distinct."""

GROUPS = 1000
"""Groups of each kind at most: standard errors are then some 3 % of a loss's spread."""

CHUNK = 2**25
"""Cosines held in memory at a time."""


class Groups(NamedTuple):
    """Row numbers (G, M) of the rows predicted together, M = min(10, N); made once a split."""

    dyadic: np.ndarray
    near: np.ndarray
    random: np.ndarray


def joint_groups(features: np.ndarray, seed: int = 0) -> Groups:
    """Groups of evaluation rows, from their features (N, D); the same for every head and round.

    The first row of each group is an anchor, and all kinds share the anchors: min(N, 1000) rows
    drawn without replacement.

    Raises:
      ValueError: no rows.
    """
    features = np.asarray(features, np.float32)
    rows = len(features)
    if rows == 0:
        raise ValueError("expected at least one row to group, got none: the split is empty")
    size = min(SIZE, rows)
    rng = np.random.Generator(np.random.Philox(key=seed))
    anchors = rng.permutation(rows)[:GROUPS]
    others = (anchors + rng.integers(1, max(rows, 2), len(anchors))) % rows
    second = rng.random((len(anchors), size)) < 0.5
    second[:, 0] = False
    # Distinct rows: the anchor, then others at distinct shifts from it.
    shifts = np.array([rng.choice(rows - 1, size - 1, replace=False) + 1 for _ in anchors])
    spread = (anchors[:, None] + shifts.reshape(len(anchors), size - 1).astype(np.int64)) % rows
    return Groups(
        dyadic=np.where(second, others[:, None], anchors[:, None]).astype(np.int32),
        near=_nearest(features, anchors, size).astype(np.int32),
        random=np.concatenate([anchors[:, None], spread], axis=1).astype(np.int32),
    )


def _nearest(features: np.ndarray, anchors: np.ndarray, size: int) -> np.ndarray:
    """Each anchor (G,) and the rows of largest cosine with it: (G, size), the nearest first."""
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    unit = features / np.where(norms > 0, norms, 1)
    step = max(1, CHUNK // len(features))
    found = []
    for start in range(0, len(anchors), step):
        some = anchors[start : start + step]
        cosines = unit[some] @ unit.T
        cosines[np.arange(len(some)), some] = np.inf  # itself first, before any duplicate of it
        best = np.argpartition(-cosines, size - 1, axis=1)[:, :size]
        order = np.argsort(-np.take_along_axis(cosines, best, axis=1), axis=1, kind="stable")
        found.append(np.take_along_axis(best, order, axis=1))
    return np.concatenate(found)


def joint_scores(log_probs: Array, targets: Array, groups: Groups) -> dict[str, Array]:
    """Joint log-losses in nats a group, as a record names them; jittable and vmappable.

    Args:
      log_probs: (K, N, C) under K indices; K = 1 gives sums of marginal losses.
      targets: (N, C) class distributions; of one that is not one-hot, the expected log-likelihood.
      groups: of the same N rows.

    Each is the mean over groups of -log mean_k exp(sum over rows of the log-likelihood). Over
    finitely many indices its expectation is too large (Jensen), by about v / (2 K) with v the
    squared coefficient of variation over indices of a group's likelihood, and never by more than
    the gap to the mean loss of a single index. For groups whose likelihood varies mildly (v < 1)
    K = 32 costs under .02 nats; for dyadic ones v is exponential in ten times the variance of a
    logit, and the loss keeps falling beyond K = 1,000. Compare heads at the same K.
    """
    likelihoods = -predictive.cross_entropy(log_probs, targets[None])  # (K, N)
    return {
        f"joint_nll_{name}": jnp.mean(_group_losses(likelihoods, jnp.asarray(rows)))
        for name, rows in groups._asdict().items()
    }


def _group_losses(likelihoods: Array, rows: Array) -> Array:
    """Losses (G,) from log-likelihoods (K, N) and row numbers (G, M)."""
    together = jnp.sum(likelihoods[:, rows], axis=-1)  # (K, G)
    return jnp.log(likelihoods.shape[0]) - jax.nn.logsumexp(together, axis=0)

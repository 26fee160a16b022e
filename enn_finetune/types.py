"""The contract: the shapes and the few types that cross module borders.

Shape letters, used everywhere (code, docs, errors):

====== =========================================================
N      rows scored: a candidate batch or a pool
M      target rows, or rows predicted jointly
K      epistemic index samples
C      classes
D      feature width
T      tokens
R, L   rows and length of a packed token array
z      epistemic index, drawn from the head's reference distribution
====== =========================================================

The path data takes: text -> tokens -> features -> logits over indices -> joint predictive ->
priority -> batch (labels bought from the oracle) -> train step -> metrics -> records -> report.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, NamedTuple, Protocol, TypeVar

import numpy as np

if TYPE_CHECKING:  # reading data needs no jax
    from jax import Array


class TokenBatch(NamedTuple):
    """N examples packed into R rows of L tokens; padding to a bucket is the case R = N.

    Several examples share a row when they fit; attention never crosses from one to another.
    """

    ids: Array | np.ndarray  # (R, L) int32 token ids; the pad id where nothing is
    types: Array | np.ndarray  # (R, L) int32 segment types: 0 for text, 1 for its pair
    positions: Array | np.ndarray  # (R, L) int32, counted from 0 inside each example
    owner: Array | np.ndarray  # (R, L) int32: the example 0..N-1 a token belongs to, N for padding
    first: Array | np.ndarray  # (N,) int32: r * L + l of each example's first token


class Head(Protocol):
    """What turns features into logits, one function of the features for each epistemic index."""

    @property
    def classes(self) -> int:
        """C."""
        ...

    @property
    def epistemic(self) -> bool:
        """False for a plain head, whose logits do not depend on the index: one sample is enough."""
        ...

    def sample_index(self, key: Array, count: int) -> Array:
        """Draw `count` epistemic indices -> (K, dim z)."""
        ...

    def __call__(self, features: Array, z: Array) -> Array:
        """Logits (N, C) of the one function that index z (dim z,) names, for features (N, D)."""
        ...

    def many(self, features: Array, z: Array) -> Array:
        """Logits (K, N, C) for features (N, D) and indices (K, dim z), by the fast path."""
        ...


class Rule(Protocol):
    """An acquisition rule: which rows to buy. It is shown predictions, never labels."""

    def __call__(self, log_probs: Array, key: Array) -> Array:
        """Priorities (N,), finite, larger first, for log-probabilities (K, N, C)."""
        ...


class Targets(NamedTuple):
    """Rows that predictions should become better for: the user's own, or some of the pool."""

    log_probs: Array  # (K, M, C): under the same indices as the pool's
    features: Array  # (M, D)


class Shown(NamedTuple):
    """What a rule is shown of the rows it may buy: predictions and features, never labels."""

    log_probs: Array  # (K, N, C)
    features: Array  # (N, D): the rows that the head reads
    free: Array  # (N,) bool: not bought yet; the others' labels are known
    targets: Targets | None = None  # None: the pool itself is what matters


class Axis(NamedTuple):
    """A mesh axis that rows are spread over, the last of them padding."""

    name: str
    rows: int
    """N, of all devices: row numbers from N on are padding, which is never free."""


Spread = Axis | str | None
"""How rows are spread: an axis, its name where no row is padding, None for one device."""

Kept = TypeVar("Kept")  # a pytree of arrays, rows first
Kept_contra = TypeVar("Kept_contra", contravariant=True)


class Pick(Protocol[Kept_contra]):
    """The second half of a batch rule: rows chosen together from what was kept of all of them."""

    def __call__(
        self,
        kept: Kept_contra,
        free: Array,
        count: int,
        key: Array,
        *,
        targets: Kept_contra | None = None,
        axis: Spread = None,
    ) -> Array:
        """Row numbers (count,) int32, distinct and free, best first.

        Args:
          kept: of the rows here, leaves (n, ...).
          free: (n,) bool.
          count: static, at most the number of free rows (of all devices).
          key: of the rule's randomness.
          targets: kept of the M target rows, leaves (M, ...), the same on every device.
          axis: how rows are spread; None where one device has them all.
        """
        ...


@dataclass(frozen=True)
class BatchRule(Generic[Kept]):
    """An acquisition rule that chooses rows together, each knowing those before it.

    In two halves, so that a pool larger than memory is read once: `read` says what is kept of each
    row by itself, `pick` chooses by what was kept.
    """

    read: Callable[[Array, Array], Kept]
    """Log-probabilities (K, n, C) and features (n, D) of any rows -> what is kept of them."""
    pick: Pick[Kept]
    epistemic: bool = True
    """It reads the spread over indices: a plain head tells it nothing."""

    def __call__(self, shown: Shown, count: int, key: Array) -> Array:
        """Row numbers (count,) int32 of the rows shown, distinct and free, best first."""
        targets = None if shown.targets is None else self.read(*shown.targets)
        kept = self.read(shown.log_probs, shown.features)
        return self.pick(kept, shown.free, count, key, targets=targets)

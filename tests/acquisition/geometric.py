"""What the tests of geometric rules share: pools, and greedy choices written out in numpy."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from strategies import log_probs, seeded_log_probs

from enn_finetune.types import BatchRule, Shown

K, N, C, D, COUNT = 3, 12, 3, 4, 5
KEY = jax.random.key(0)
SOME = settings(max_examples=40, deadline=None)
TIE = 1e-4
"""Float32 may decide otherwise where scores are as close as that."""

Scores = Callable[[list[int], list[int]], np.ndarray]
"""Scores (n,) in float64, given the rows bought before and those chosen so far."""


def shown(seed: int, free: np.ndarray | None = None, rows: int = N, width: int = D) -> Shown:
    features = np.random.default_rng(seed).normal(size=(rows, width)).astype(np.float32)
    mask = np.ones(rows, bool) if free is None else np.asarray(free)
    lp = seeded_log_probs(seed, K, rows, C)
    return Shown(jnp.asarray(lp), jnp.asarray(features), jnp.asarray(mask))


@st.composite
def pools(draw: st.DrawFn) -> Shown:
    """Pools of N rows on a grid, so that distances are whole and often equal; COUNT are free."""
    features = draw(hnp.arrays(np.float32, (N, D), elements=st.integers(-3, 3)))
    free = draw(hnp.arrays(np.bool_, N))
    free[np.flatnonzero(~free)[: max(0, COUNT - free.sum())]] = True
    lp = draw(log_probs(K, N, C))
    return Shown(jnp.asarray(lp), jnp.asarray(features), jnp.asarray(free))


def distances(features: np.ndarray) -> np.ndarray:
    """Squared distances (n, n) in float64."""
    wide = np.asarray(features, np.float64)
    return ((wide[:, None] - wide[None]) ** 2).sum(-1)


def nearest(features: np.ndarray, centres: list[int]) -> np.ndarray:
    """Squared distances (n,) from the nearest centre, or from the origin if there is none."""
    if not centres:
        return (np.asarray(features, np.float64) ** 2).sum(-1)
    return distances(features)[:, centres].min(1)


def assert_greedy(rule: BatchRule, seen: Shown, count: int, scores: Scores) -> None:
    """Each row bought has the highest score there is, given those before it."""
    rows = np.asarray(chosen(rule, seen, count)).tolist()
    free = np.asarray(seen.free).copy()
    bought = np.flatnonzero(~free).tolist()
    for place, row in enumerate(rows):
        found = np.where(free, scores(bought, rows[:place]), -np.inf)
        assert free[row]
        assert found[row] >= found.max() - TIE * abs(found.max()), (place, row, found)
        free[row] = False


_compiled: dict[tuple[int, int], Callable] = {}


def chosen(rule: BatchRule, seen: Shown, count: int, key: jax.Array = KEY) -> jax.Array:
    """What the rule picks, compiled once for each rule and count."""
    if (id(rule), count) not in _compiled:
        _compiled[id(rule), count] = jax.jit(lambda seen, key: rule(seen, count, key))
    return _compiled[id(rule), count](seen, key)


def chosen_anew(rule: BatchRule, seen: Shown, count: int) -> np.ndarray:
    """What the rule picks under the constants as they are now."""
    return np.asarray(jax.jit(lambda seen: rule(seen, count, KEY))(seen))

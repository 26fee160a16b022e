"""What all arms of a study stand on: features on the device, and the rows that heads make of them.

Heads that are linear in shaped rows share these over rounds, seeds and arms: a pool is shaped once
for each prior shape that evidence ever chooses, not once a fit.
"""

import functools
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from enn_finetune.data.inputs import FeatureRows, Rows
from enn_finetune.joint import Groups, joint_groups
from enn_finetune.models.row_chunks import map_rows
from enn_finetune.models.shaped_features import ShapedPool, pool_shapes
from enn_finetune.predicting import linear
from enn_finetune.problem import Problem
from enn_finetune.study.programs import Program
from enn_finetune.types import Head

CACHE_BYTES = 2**30
PROBES = 16
POOL = 0
"""The place of the pool among a ground's sets; evaluation splits follow, then targets if named."""

Make = Callable[[Any], Head]


class Marking(NamedTuple):
    """What predictions of a split are scored against, on the device."""

    targets: Array  # (N, C)
    groups: Groups  # of rows predicted together, the same for every head and round


class Ground:
    """A problem's features, for all courses on it.

    Memory: the features, as much again for the problem's own copy, and at most CACHE_BYTES of
    shaped rows (one set at least); SST-2's pool of 67,349 rows of 384 numbers is 104 MB.

    Raises:
      TypeError: the problem has tokens.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.pool = _features(problem.pool)
        splits = [_features(evaluation.rows) for evaluation in problem.evaluations]
        self.sets = [jnp.asarray(rows.features) for rows in (self.pool, *splits)]
        self.targets: int | None = None
        if problem.targets is not None:
            self.targets = len(self.sets)
            self.sets.append(jnp.asarray(_features(problem.targets).features))
        self.probe = self.sets[POOL][:PROBES]
        self._cache: OrderedDict[tuple[bytes, int], Array] = OrderedDict()

    @property
    def splits(self) -> list[Array]:
        """Features of the evaluation splits."""
        return self.sets[POOL + 1 : POOL + 1 + len(self.problem.evaluations)]

    @functools.cached_property
    def markings(self) -> list[Marking]:
        """What each evaluation split is scored against."""
        return [
            Marking(
                jnp.asarray(split.targets, jnp.float32),
                jax.device_put(joint_groups(np.asarray(features))),
            )
            for split, features in zip(self.problem.evaluations, self.splits, strict=True)
        ]

    @functools.cached_property
    def shapes(self) -> ShapedPool:
        """The pool's covariance, and what describes the classes."""
        words = self.problem.classes
        return pool_shapes(
            self.sets[POOL],
            views=self.problem.views,
            classes=None if words is None else jnp.asarray(words),
        )

    def groups(
        self, make: Make, fits: Sequence[Any], numbers: Sequence[int]
    ) -> Iterator[tuple[list[int], list[Array]]]:
        """Fits that read the same rows: their places, and the rows of the sets with these numbers.

        Heads that are not functions of shared rows are given the features themselves.
        """
        if not linear(make(fits[0])):
            yield list(range(len(fits))), [self.sets[number] for number in numbers]
            return
        places: dict[bytes, list[int]] = {}
        for place, fit in enumerate(fits):
            places.setdefault(self._signature(make, fit), []).append(place)
        for signature, together in places.items():
            fit = fits[together[0]]
            yield together, [self._rows(signature, make, fit, number) for number in numbers]

    def _signature(self, make: Make, fit: object) -> bytes:
        """What tells apart two fits that read different rows: a few of these."""
        compiled, _ = shaping(make).compiled(fit, self.probe)
        return np.asarray(compiled(fit, self.probe)).tobytes()

    def _rows(self, signature: bytes, make: Make, fit: object, number: int) -> Array:
        key = (signature, number)
        if key not in self._cache:
            features = self.sets[number]
            self._make_room(features.size * features.dtype.itemsize)
            compiled, _ = shaping(make).compiled(fit, features)
            self._cache[key] = compiled(fit, features)
        self._cache.move_to_end(key)
        return self._cache[key]

    def _make_room(self, wanted: int) -> None:
        while self._cache and wanted + sum(a.nbytes for a in self._cache.values()) > CACHE_BYTES:
            self._cache.popitem(last=False)


@functools.cache
def shaping(make: Make) -> Program:
    """Fit and features (N, D) -> the rows (N, D') that a linear head reads."""

    def rows(fit: object, features: Array) -> Array:
        head = cast(Any, make(fit))
        shaped = map_rows(
            lambda chunk: head.rows(chunk)[None], features, floats_per_row=4 * features.shape[1]
        )
        return shaped[0]

    return Program(rows)


def _features(rows: Rows) -> FeatureRows:
    if not isinstance(rows, FeatureRows):
        raise TypeError("a study runs on features; prepare it with backbone.tune = frozen")
    return rows

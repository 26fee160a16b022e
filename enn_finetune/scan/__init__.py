"""Pools larger than memory: one pass over mapped features, then the choice.

    features = np.load("pool.npy", mmap_mode="r")          # (N, V * D) float16 or float32
    rows = choose_from(head, features, "bald", free, 1000, key)

A pass applies the head and the first half of a rule to one block of rows after another, while the
next is being read. Log-probabilities (K, N, C) of the pool never stand in memory. What does, beside
three blocks of features for each device, is what the rule keeps of a row; in bytes, on the device
that has the row:

=====================================  =====================================================
a rule                                 bytes a row
=====================================  =====================================================
random                                 0
that looks at one row at a time        4, and 9 more for every row on every device to rank them
badge                                  4 (C + D + 1), D the width of the rows the head reads
other batch rules                      what `BatchRule.read` returns, see `bytes_per_row`
batchbald, epig and their like         4 (K C + 1), of two classes 4 (K + 1)
logdet, condvar, itl, vtl, ctl         4 (K + 1)
=====================================  =====================================================

With several devices, in one process or in many, the rows are spread over all of them and the picks
are the same (see `sharding.py`).
"""

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh

from enn_finetune import sharding
from enn_finetune.acquisition.halves import batch_rule, score_of
from enn_finetune.scan.passing import bytes_per_row, read_pool, read_targets
from enn_finetune.scan.shards import Shards, Source
from enn_finetune.types import Head

__all__ = ["Shards", "Source", "bytes_per_row", "choose_from", "score_all"]


def choose_from(
    head: Head,
    features: Source,
    rule: str,
    free: np.ndarray,
    count: int,
    key: Array,
    *,
    indices: int = 100,
    targets: Source | None = None,
    mesh: Mesh | None = None,
) -> np.ndarray:
    """The rows (count,) int32 that a rule buys next: distinct, free, best first.

    They are those of `acquisition.choose` with `fold_in(key, 2)`, shown what the head says under
    `fold_in(key, 1)` and the rows it reads, where that fits in memory. In a cluster every process
    calls this, with equal arguments, and gets the same rows.

    Args:
      head: an nnx module; a new fit of equal shapes is not compiled again.
      features: of the pool, (N, V * D).
      rule: a name from `acquisition.choose.NAMES`.
      free: (N,) bool: not bought yet.
      count: at most the number of free rows.
      key: of the indices and the rule's randomness.
      indices: K; one suffices for a head that is not epistemic.
      targets: features (M, V * D) of rows that predictions should become better for.
      mesh: from `sharding.rows_mesh`; None is all devices of all processes.

    Raises:
      InputError: features that are cut off, of another type or width, or not finite.
      ValueError: no such rule, or `free` and `count` do not fit the pool.
    """
    mesh = sharding.rows_mesh() if mesh is None else mesh
    pool = Shards.of(features)
    asked = batch_rule(rule)
    if np.shape(free) != (pool.rows,):
        raise ValueError(f"expected free ({pool.rows},), one flag a row; got {np.shape(free)}")
    left = int(np.count_nonzero(free))
    if not 1 <= count <= left:
        raise ValueError(f"expected 1 <= count <= free rows, got {count=}; {left} are free")
    pool.check(head)
    about = None
    if targets is not None:
        wanted = Shards.of(targets, "targets")
        wanted.check(head, "targets")
        about = read_targets(head, wanted, asked, key, indices=indices, mesh=mesh)
    kept = read_pool(head, pool, asked, key, indices=indices, mesh=mesh)
    rule_key = jax.random.fold_in(key, 2)
    return sharding.pick(asked.pick, kept, free, count, rule_key, mesh=mesh, targets=about)


def score_all(
    head: Head,
    features: Source,
    rule: str,
    key: Array,
    *,
    indices: int = 100,
    mesh: Mesh | None = None,
) -> np.ndarray:
    """The scores (N,) float32 of a rule that looks at each row alone, such as bald or variance.

    Raises:
      InputError: as for `choose_from`.
      ValueError: the rule is of another kind.
    """
    if score_of(rule) is None:
        raise ValueError(f"rule {rule!r} does not look at each row alone")
    mesh = sharding.rows_mesh() if mesh is None else mesh
    pool = Shards.of(features)
    pool.check(head)
    kept = read_pool(head, pool, batch_rule(rule), key, indices=indices, mesh=mesh)
    return sharding.collect(kept, mesh, pool.rows)

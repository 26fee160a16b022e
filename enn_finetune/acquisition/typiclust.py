"""TypiClust: typical rows of clusters that nothing was bought of (arXiv 2202.02794)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from enn_finetune.acquisition.coreset import read_features
from enn_finetune.acquisition.distances import (
    CENTRES,
    Nearest,
    Points,
    between,
    distances_from,
    nearer,
    no_centres,
    points,
)
from enn_finetune.acquisition.rows import (
    EXACT,
    bought,
    everywhere,
    gather,
    gumbel,
    map_blocks,
    take,
    top_k,
    total,
)
from enn_finetune.types import Axis, BatchRule, Spread

CLUSTERS = 500
"""Most clusters, as in the authors' program."""

SMALL = 5
"""Clusters of at most so many rows wait until no other has a free row."""

NEIGHBOURS = 20
"""Most neighbours that make a row typical."""

SAMPLE = 8192
"""Rows that clusters are found from and rows are bought from; all rows of pools up to that."""

ROUNDS = 10
"""Iterations of Lloyd's algorithm."""


class Sample(NamedTuple):
    """Rows drawn of the pool, on every device."""

    points: Points  # leaves (S, ...)
    rows: Array  # (S,) int32 row numbers, rising
    free: Array  # (S,) bool
    live: Array  # (S,) bool: a row of the pool


def draw(kept: Points, free: Array, count: int, key: Array, axis: Spread) -> Sample:
    """SAMPLE rows, or 8 * count if that is more: free ones at random, then bought ones."""
    n = free.shape[0]
    every = axis.rows if isinstance(axis, Axis) else everywhere(n, axis)
    size = min(every, max(SAMPLE, 8 * count))
    noise = gumbel(key, n, axis)
    owned = bought(free, axis)
    order = jnp.where(free, noise, jnp.where(owned, noise - 1e3, -jnp.inf))
    rows = jnp.sort(top_k(order, size, axis))
    some, is_free, is_owned = take((kept, free, owned), rows, axis)
    return Sample(some, rows, is_free, is_free | is_owned)


def seeds(sample: Sample, clusters: Array, most: int, key: Array) -> Array:
    """Places (most,) in the sample of the first `clusters` centres, by k-means++ seeding.

    Arthur & Vassilvitskii 2007: each is drawn with probability proportional to its squared distance
    from the nearest before it, the first one uniformly. Places after the first `clusters` are 0.
    """
    tiny, distances = jnp.finfo(jnp.float32).tiny, distances_from(sample.points)

    def add(number: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        nearest, places = state
        noise = jax.random.gumbel(jax.random.fold_in(key, number), nearest.shape)
        odds = jnp.log(jnp.maximum(nearest, tiny)) + noise
        place = jnp.argmax(jnp.where(sample.live, odds, -jnp.inf)).astype(jnp.int32)
        found = distances(take(sample.points, place, None))
        return jnp.minimum(nearest, found), places.at[number].set(place)

    far = jnp.full(sample.live.shape, jnp.finfo(jnp.float32).max)  # from all: the first is uniform
    return lax.fori_loop(0, clusters, add, (far, jnp.zeros(most, jnp.int32)))[1]


def centroids(sample: Sample, places: Array, clusters: Array) -> Points:
    """Centres (most, D) after ROUNDS of Lloyd's algorithm from the seeds; empty clusters stay."""
    (features,) = sample.points.factors
    active = jnp.arange(places.shape[0]) < clusters

    def improve(_: Array, centres: Array) -> Array:
        labels = assign(sample.points, points(centres), clusters)
        member = jax.nn.one_hot(labels, centres.shape[0]) * (sample.live & active[labels])[:, None]
        size = jnp.sum(member, axis=0)[:, None]
        sums = jnp.matmul(member.T, features, precision=EXACT)
        return jnp.where(size > 0, sums / jnp.maximum(size, 1), centres)

    return points(lax.fori_loop(0, ROUNDS, improve, features[places]))


def assign(rows: Points, centres: Points, clusters: Array) -> Array:
    """The nearest (n,) int32 of the first `clusters` centres, the first of equals."""
    most = centres.norms.shape[0]
    few = min(CENTRES, most)

    def compare(block: Array, nearest: Nearest) -> Nearest:
        first = jnp.minimum(block * few, most - few)
        some = jax.tree.map(lambda leaf: lax.dynamic_slice_in_dim(leaf, first, few), centres)
        names = jnp.arange(few, dtype=jnp.int32) + first
        return nearer(rows, nearest, some, names, names < clusters)

    blocks = (clusters + few - 1) // few
    return lax.fori_loop(0, blocks, compare, no_centres(rows)).centres


def looseness(sample: Sample, labels: Array) -> Array:
    """Mean distance (S,) of each row from its nearest neighbours in its cluster: 1 / typicality.

    There are NEIGHBOURS of them, or half the cluster if that is fewer, and at least one; a row
    alone in its cluster has 0.
    """
    size = jax.ops.segment_sum(sample.live.astype(jnp.int32), labels, labels.shape[0])
    most = min(NEIGHBOURS, labels.shape[0])
    wanted = jnp.clip(size // 2, 1, most)[labels]

    def block(some: tuple[Points, Array, Array, Array]) -> Array:
        one, row, label, wanted = some
        distances = between(one, sample.points)
        near = sample.live[None] & (labels[None] == label[:, None])
        near &= sample.rows[None] != row[:, None]
        distances = -lax.top_k(jnp.where(near, -distances, -jnp.inf), most)[0]
        counted = (jnp.arange(most)[None] < wanted[:, None]) & jnp.isfinite(distances)
        sums = jnp.sum(jnp.where(counted, jnp.sqrt(distances), 0), axis=1)
        return sums / jnp.maximum(jnp.sum(counted, axis=1), 1)

    return map_blocks(block, (sample.points, sample.rows, labels, wanted), block=256)


class Clusters(NamedTuple):
    """What is known of each cluster, over the whole pool."""

    size: Array  # (most,) int32 rows
    bought: Array  # (most,) int32 rows bought


def pick_of_clusters(sample: Sample, labels: Array, known: Clusters, count: int) -> Array:
    """Rows (count,): the most typical free row of the cluster to buy from, one cluster at a time.

    That is the cluster with the fewest rows bought, of these the largest; small ones wait.
    """
    loose = looseness(sample, labels)
    most = known.size.shape[0]

    def choose(state: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], Array]:
        free, have = state
        open_ = jax.ops.segment_sum(free.astype(jnp.int32), labels, most) > 0
        large = open_ & (known.size > SMALL)
        best = jnp.where(jnp.any(large), large, open_)
        best &= have == jnp.min(jnp.where(best, have, jnp.iinfo(jnp.int32).max))
        best &= known.size == jnp.max(jnp.where(best, known.size, -1))
        cluster = jnp.argmax(best)
        place = jnp.argmin(jnp.where(free & (labels == cluster), loose, jnp.inf))
        return (free.at[place].set(False), have.at[cluster].add(1)), sample.rows[place]

    return lax.scan(choose, (sample.free, known.bought), length=count)[1]


def pick_typical(
    kept: Points,
    free: Array,
    count: int,
    key: Array,
    *,
    targets: Points | None = None,
    axis: Spread = None,
) -> Array:
    """Rows (count,) by typicality in clusters, in order of choice; made for the cold start.

    TypiClust, Hacohen, Dekel & Weinshall 2022, arXiv 2202.02794, in its variant with k-means: the
    pool, bought rows too, falls into min(bought + count, CLUSTERS) clusters; of the largest with
    no bought row, the most typical row is bought, whose nearest neighbours in the cluster are at
    the smallest mean distance. How many clusters there are is traced, so that all rounds share one
    program.

    It differs from the authors' program in four ways:

    - Of a pool larger than SAMPLE (or 8 * count) rows, clusters and typicality come from so many
      random free rows, which the batch is then bought from; all rows are counted to their clusters.
      The program clusters large pools by mini-batches, and asks for neighbours among all rows.
    - Neighbours are rows of the cluster, bought or not; the program leaves out those bought, which
      changes only what is bought of a cluster again.
    - After each row the cluster with the fewest bought rows is next; the program goes through the
      clusters in turn, in the order of before. That is the same while clusters without bought rows
      last.
    - Clusters of at most SMALL rows are bought from last, not never.

    Time is bought + count clusters * (N + 10 S) * D for S rows sampled, and S * S * D for
    typicality; memory is a few arrays of all N rows on every device, S * (D + CLUSTERS) floats, and
    what is kept. Targets change nothing.
    """
    del targets
    to_draw, to_seed = jax.random.split(key)
    owned = bought(free, axis)
    sample = draw(kept, free, count, to_draw, axis)
    most = min(CLUSTERS, sample.rows.shape[0])
    clusters = total(owned.astype(jnp.int32), axis) + count
    clusters = jnp.minimum(clusters, jnp.minimum(most, jnp.sum(sample.live)))
    centres = centroids(sample, seeds(sample, clusters, most, to_seed), clusters)
    every, all_owned, all_free = gather((assign(kept, centres, clusters), owned, free), axis)

    def tally(flags: Array) -> Array:
        return jax.ops.segment_sum(flags.astype(jnp.int32), every, most)

    known = Clusters(tally(all_owned | all_free), tally(all_owned))
    labels = assign(sample.points, centres, clusters)
    return pick_of_clusters(sample, labels, known, count)


typiclust = BatchRule(read_features, pick_typical, epistemic=False)
"""The rule: see `pick_typical`."""

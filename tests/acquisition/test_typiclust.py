"""TypiClust against k-means, typicality and the choice of clusters in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from geometric import COUNT, KEY, SOME, assert_greedy, chosen, chosen_anew, distances, pools, shown
from hypothesis import given

from enn_finetune.acquisition import typiclust as module
from enn_finetune.acquisition.distances import points
from enn_finetune.acquisition.typiclust import (
    NEIGHBOURS,
    ROUNDS,
    SMALL,
    assign,
    centroids,
    draw,
    looseness,
    seeds,
    typiclust,
)
from enn_finetune.types import Shown


def blobs(sizes: list[int], seed: int = 0, spread: float = 0.1) -> tuple[Shown, np.ndarray]:
    """Groups of rows far from one another, in mixed order, and the group of each row."""
    rng = np.random.default_rng(seed)
    middles = 20 * np.eye(len(sizes), len(sizes) + 2)
    groups = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    features = middles[groups] + spread * rng.normal(size=(len(groups), len(sizes) + 2))
    seen = shown(seed, rows=len(groups), width=len(sizes) + 2)
    return seen._replace(features=jnp.asarray(features, jnp.float32)), groups


def sample_of(seen: Shown) -> module.Sample:
    return draw(points(seen.features), seen.free, COUNT, KEY, None)


def loosenesses(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Mean distance to the nearest neighbours in the cluster, in float64."""
    far = np.sqrt(distances(features))
    found = np.zeros(len(labels))
    for row, label in enumerate(labels):
        others = np.flatnonzero((labels == label) & (np.arange(len(labels)) != row))
        wanted = min(NEIGHBOURS, max((len(others) + 1) // 2, 1), len(others))
        found[row] = np.sort(far[row, others])[:wanted].mean() if wanted else 0
    return found


def test_clusters_are_those_of_lloyds_algorithm_from_the_same_seeds():
    seen = shown(0, rows=150)
    sample = sample_of(seen)
    places = seeds(sample, jnp.int32(7), 20, KEY)
    features = np.float64(seen.features)
    centres = features[np.asarray(places[:7])]
    for _ in range(ROUNDS):
        labels = ((features[:, None] - centres[None]) ** 2).sum(-1).argmin(1)
        centres = np.stack([features[labels == c].mean(0) for c in range(7)])
    labels = ((features[:, None] - centres[None]) ** 2).sum(-1).argmin(1)
    found = centroids(sample, places, jnp.int32(7))
    np.testing.assert_allclose(found.factors[0][:7], centres, atol=1e-4)
    np.testing.assert_array_equal(assign(sample.points, found, jnp.int32(7)), labels)


def test_more_clusters_than_fit_one_product_are_compared():
    seen = shown(1, rows=300, width=2)
    rows = points(seen.features)
    centres = points(seen.features[:170])
    expected = distances(seen.features)[:, :150].argmin(1)
    np.testing.assert_array_equal(assign(rows, centres, jnp.int32(150)), expected)


@pytest.mark.parametrize("seed", range(3))
def test_seeds_are_distinct_while_there_are_distinct_rows(seed):
    seen = shown(seed, rows=8)
    seen = seen._replace(features=jnp.tile(seen.features, (5, 1)), free=jnp.ones(40, bool))
    places = np.asarray(seeds(sample_of(seen), jnp.int32(8), 12, jax.random.key(seed)))
    assert set(places[:8] % 8) == set(range(8))


def test_seeds_are_drawn_by_squared_distance():
    seen = shown(2, rows=6)
    sample = sample_of(seen)
    draws = jax.vmap(lambda key: seeds(sample, jnp.int32(2), 2, key))
    found = np.asarray(draws(jax.random.split(KEY, 12000)))
    counts = np.bincount(found[:, 0], minlength=6)
    assert (np.abs(counts - 2000) < 220).all()
    second = np.bincount(found[found[:, 0] == 3, 1], minlength=6)
    far = distances(seen.features)[3]
    expected = far / far.sum() * second.sum()
    assert (np.abs(second - expected) < 5 * np.sqrt(expected + 1)).all()


@SOME
@given(seen=pools())
def test_typicality_is_the_mean_distance_to_neighbours_in_the_cluster(seen):
    sample = sample_of(seen)
    labels = jnp.asarray(np.arange(12) % 3)
    expected = loosenesses(seen.features, np.asarray(labels))
    np.testing.assert_allclose(looseness(sample, labels), expected, rtol=1e-4, atol=1e-4)


def test_typicality_in_large_clusters_and_in_clusters_of_one():
    seen = shown(3, rows=400)
    sample = sample_of(seen)
    labels = np.where(np.arange(400) < 3, np.arange(400), 3)
    expected = loosenesses(seen.features, labels)
    np.testing.assert_allclose(looseness(sample, jnp.asarray(labels)), expected, rtol=1e-4)


@pytest.mark.parametrize("bought", [0, 2, 5])
@pytest.mark.parametrize("seed", range(3))
def test_the_most_typical_row_of_the_largest_cluster_without_bought_rows(bought, seed):
    """The choice, given the clusters that were found."""
    seen = shown(seed, np.arange(60) >= bought, rows=60)
    sample = sample_of(seen)
    _, to_seed = jax.random.split(KEY)
    clusters = jnp.int32(bought + COUNT)
    places = seeds(sample, clusters, 60, to_seed)
    labels = np.asarray(assign(sample.points, centroids(sample, places, clusters), clusters))
    loose, size = loosenesses(seen.features, labels), np.bincount(labels, minlength=60)

    def scores(before, since):
        have = np.bincount(labels[before + since], minlength=60)
        free = np.setdiff1d(np.arange(60), before + since)
        best = max(set(labels[free]), key=lambda c: (size[c] > SMALL, -have[c], size[c], -c))
        return np.where(labels == best, 1 / (loose + 1e-9), 0)

    assert_greedy(typiclust, seen, COUNT, scores)


@pytest.mark.parametrize("seed", range(3))
def test_a_cold_start_buys_the_middle_of_every_blob_the_largest_first(seed):
    sizes = [40, 30, 20, 10]
    seen, groups = blobs(sizes, seed)
    rows = np.asarray(chosen(typiclust, seen, 4, jax.random.key(seed)))
    assert groups[rows].tolist() == [0, 1, 2, 3]
    off = np.linalg.norm(seen.features - 20 * np.eye(4, 6)[groups], axis=1)
    for row, group in zip(rows, groups[rows], strict=True):
        assert off[row] < np.median(off[groups == group])


def test_blobs_with_bought_rows_wait():
    seen, groups = blobs([40, 30, 20, 10])
    free = np.ones(100, bool)
    free[[np.flatnonzero(groups == group)[0] for group in (0, 2)]] = False
    rows = np.asarray(chosen(typiclust, seen._replace(free=jnp.asarray(free)), 2))
    assert groups[rows].tolist() == [1, 3]


def test_small_clusters_are_bought_last(monkeypatch):
    monkeypatch.setattr(module, "CLUSTERS", 4)
    seen, groups = blobs([30, 20, 3, 2])
    every = chosen_anew(typiclust, seen, 55)
    assert sorted(every) == list(range(55))
    assert set(groups[every[-5:]]) == {2, 3}


def test_a_large_pool_is_clustered_from_a_sample(monkeypatch):
    monkeypatch.setattr(module, "SAMPLE", 64)
    seen, groups = blobs([200, 150, 100, 60])
    free = np.random.default_rng(1).random(510) < 0.9
    free[groups == 2] = True
    seen = seen._replace(free=jnp.asarray(free))
    rows = chosen_anew(typiclust, seen, 2)
    assert free[rows].all()
    assert groups[rows[0]] == 2  # the only blob that nothing was bought of
    monkeypatch.setattr(module, "SAMPLE", 8)
    rows = chosen_anew(typiclust, seen, 40)
    assert len(set(rows)) == 40
    assert free[rows].all()


def test_no_more_than_the_cap_of_clusters(monkeypatch):
    monkeypatch.setattr(module, "CLUSTERS", 3)
    seen, groups = blobs([40, 30, 20])
    rows = chosen_anew(typiclust, seen, 9)
    assert np.bincount(groups[rows]).tolist() == [3, 3, 3]

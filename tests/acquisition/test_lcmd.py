"""LCMD against its definition in numpy, and against the authors' program where it is installed."""

import jax.numpy as jnp
import numpy as np
import pytest
from geometric import COUNT, SOME, chosen, distances, nearest, pools, shown
from hypothesis import given

from enn_finetune.acquisition.badge import gradient_embeddings
from enn_finetune.acquisition.coreset import kcenter
from enn_finetune.acquisition.lcmd import lcmd, lcmd_gradients


def expected_rows(features: np.ndarray, free: np.ndarray, count: int) -> list[int]:
    """Largest cluster maximum distance, in float64; ties go to the first row."""
    free = np.asarray(free).copy()
    centres, rows = np.flatnonzero(~free).tolist(), []
    for _ in range(count):
        far = np.where(free, nearest(features, centres), 0)
        clusters = np.zeros(len(free), int)
        if centres:
            clusters = distances(features)[:, centres].argmin(1)
        sums = np.bincount(clusters, far)
        largest = sums[clusters] == sums.max() if sums.max() else np.ones(len(free), bool)
        rows.append(int(np.argmax(np.where(free & largest, far, -1))))
        centres.append(rows[-1])
        free[rows[-1]] = False
    return rows


@SOME
@given(seen=pools())
def test_each_row_is_the_farthest_in_the_cluster_of_largest_sum(seen):
    expected = expected_rows(seen.features, seen.free, COUNT)
    assert chosen(lcmd, seen, COUNT).tolist() == expected


@pytest.mark.parametrize("bought", [0, 1, 9])
def test_many_rows_of_any_features(bought):
    seen = shown(1, np.arange(200) >= bought, rows=200)
    rows = chosen(lcmd, seen, 30).tolist()
    assert rows == expected_rows(seen.features, seen.free, 30)
    assert rows != chosen(kcenter, seen, 30).tolist()


@pytest.mark.parametrize("bought", [0, 4])
def test_with_gradients_it_is_the_same_on_the_embeddings_written_out(bought):
    seen = shown(2, np.arange(60) >= bought, rows=60)
    residuals, features = gradient_embeddings(seen.log_probs, seen.features).factors
    outer = np.einsum("nc,nd->ncd", np.float64(residuals), np.float64(features)).reshape(60, -1)
    assert chosen(lcmd_gradients, seen, 12).tolist() == expected_rows(outer, seen.free, 12)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_the_unit_of_features_does_not_matter(scale):
    seen = shown(3, rows=50)
    scaled = seen._replace(features=seen.features * np.float32(scale))
    assert chosen(lcmd, scaled, 9).tolist() == chosen(lcmd, seen, 9).tolist()


def test_a_cluster_of_many_comes_before_a_lone_row_farther_off():
    """What tells it from k-center."""
    many = np.random.default_rng(0).normal(size=(40, 2)) / 2 + [6, 0]
    features = np.concatenate([[[6, 0], [-8, 0]], many, [[-12, 0]]])
    seen = shown(0, np.arange(43) >= 2, rows=43, width=2)
    seen = seen._replace(features=jnp.asarray(features, jnp.float32))
    assert chosen(kcenter, seen, 1).tolist() == [42]
    assert 2 <= chosen(lcmd, seen, 1)[0] < 42


@pytest.mark.parametrize("bought", [0, 6])
def test_it_picks_what_the_authors_program_picks(bought):
    pytest.importorskip("bmdal_reg", reason="needs the package bmdal-reg")
    torch = pytest.importorskip("torch")
    from bmdal_reg.bmdal.feature_data import TensorFeatureData
    from bmdal_reg.bmdal.feature_maps import IdentityFeatureMap
    from bmdal_reg.bmdal.features import Features
    from bmdal_reg.bmdal.selection import LargestClusterMaxDistSelectionMethod

    seen = shown(4, np.arange(80) >= bought, rows=80)
    wide = torch.tensor(np.asarray(seen.features, np.float64))
    pool, train = (
        Features(IdentityFeatureMap(n_features=wide.shape[1]), TensorFeatureData(part))
        for part in (wide[bought:], wide[:bought])
    )
    method = LargestClusterMaxDistSelectionMethod(pool, train, sel_with_train=bought > 0)
    expected = method.select(20).numpy() + bought
    assert chosen(lcmd, seen, 20).tolist() == expected.tolist()

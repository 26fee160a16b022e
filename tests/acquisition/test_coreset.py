"""Coresets against the greedy k-center algorithm in numpy."""

import numpy as np
import pytest
from geometric import COUNT, SOME, assert_greedy, chosen, distances, nearest, pools, shown
from hypothesis import given

from enn_finetune.acquisition.coreset import confident_coreset, confident_coreset_bald, kcenter


def entropy(probs: np.ndarray) -> np.ndarray:
    return -(probs * np.log(np.where(probs > 0, probs, 1))).sum(-1)


def uncertainty(log_probs: np.ndarray, epistemic: bool) -> np.ndarray:
    probs = np.exp(np.asarray(log_probs, np.float64))
    aleatoric = entropy(probs).mean(0) if epistemic else 0
    return np.maximum(entropy(probs.mean(0)) - aleatoric, 1e-6)


@SOME
@given(seen=pools())
def test_each_row_is_the_farthest_from_those_before_it_and_those_bought(seen):
    free = np.asarray(seen.free).copy()
    centres, expected = np.flatnonzero(~free).tolist(), []
    for _ in range(COUNT):  # distances are whole numbers: ties go to the first row
        expected.append(int(np.argmax(np.where(free, nearest(seen.features, centres), -1))))
        centres.append(expected[-1])
        free[expected[-1]] = False
    assert chosen(kcenter, seen, COUNT).tolist() == expected


@pytest.mark.parametrize(
    ("rule", "epistemic"), [(confident_coreset, False), (confident_coreset_bald, True)]
)
@pytest.mark.parametrize("bought", [0, 3])
@pytest.mark.parametrize("seed", range(5))
def test_each_row_has_the_largest_product_of_uncertainty_and_distance(
    rule, epistemic, bought, seed
):
    seen = shown(seed, np.arange(12) >= bought)
    weights = uncertainty(seen.log_probs, epistemic)

    def scores(bought, before):
        return weights * np.sqrt(nearest(seen.features, bought + before))

    assert_greedy(rule, seen, COUNT, scores)


@SOME
@given(seen=pools())
def test_the_product_decides_whatever_the_predictions(seen):
    weights = uncertainty(seen.log_probs, False)

    def scores(bought, before):
        return weights * np.sqrt(nearest(seen.features, bought + before))

    assert_greedy(confident_coreset, seen, COUNT, scores)


@pytest.mark.parametrize("seed", range(5))
def test_no_row_is_farther_than_twice_the_smallest_radius_there_is(seed):
    """The guarantee of the greedy algorithm, against all centres of 8 rows."""
    seen = shown(seed, rows=8)
    far = distances(seen.features) ** 0.5
    rows = np.asarray(chosen(kcenter, seen, 3))
    every = np.stack(np.meshgrid(*[np.arange(8)] * 3), -1).reshape(-1, 3)
    best = far[:, every].min(-1).max(0).min()
    assert far[:, rows].min(1).max() <= 2 * best


def test_many_rows_bought_are_all_centres():
    """More than fit one product."""
    seen = shown(0, np.arange(400) >= 300, rows=400, width=2)
    expected = np.where(seen.free, nearest(seen.features, list(range(300))), -1)
    assert chosen(kcenter, seen, 1).tolist() == [expected.argmax()]

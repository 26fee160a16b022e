"""The maths on log-probabilities: identities, bounds and brute force, saturated inputs included."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import FEW, C, K, N, log_probs, log_softmax, seeded_log_probs

from enn_finetune import predictive

entropy = jax.jit(predictive.entropy)
mixture = jax.jit(predictive.mixture)
uncertainty = jax.jit(predictive.uncertainty)
variance = jax.jit(predictive.probability_variance)
joint = jax.jit(predictive.joint_log_likelihood)
cross_entropy = jax.jit(predictive.cross_entropy)

ROUNDING = 2e-6

labels = st.lists(st.integers(0, C - 1), min_size=N, max_size=N).map(np.array)


def plain_entropy(probs: np.ndarray) -> float:
    return -sum(p * np.log(p) for p in probs if p > 0)


@FEW
@given(log_probs())
def test_mixture_is_the_mean_probability(lp):
    np.testing.assert_allclose(np.exp(mixture(lp)), np.exp(lp).mean(0), atol=1e-6)


@FEW
@given(log_probs())
def test_entropy_is_the_plain_sum_and_within_its_bounds(lp):
    found = np.asarray(entropy(lp))
    expected = [[plain_entropy(row) for row in np.exp(index.astype(np.float64))] for index in lp]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert (found >= -ROUNDING).all()
    assert (found <= np.log(C) + ROUNDING).all()


@FEW
@given(log_probs())
def test_total_is_aleatoric_plus_epistemic_and_no_part_is_negative(lp):
    found = uncertainty(lp)
    np.testing.assert_allclose(found.total, found.aleatoric + found.epistemic, atol=ROUNDING)
    assert (found.epistemic >= 0).all()
    assert (found.aleatoric >= -ROUNDING).all()
    assert (found.total <= np.log(C) + ROUNDING).all()


@FEW
@given(log_probs())
def test_epistemic_is_the_mutual_information_of_label_and_index(lp):
    probs = np.exp(lp.astype(np.float64))
    for row, found in enumerate(np.asarray(uncertainty(lp).epistemic)):
        table = probs[:, row] / K  # p(index, label)
        independent = table.sum(1, keepdims=True) * table.sum(0, keepdims=True)
        terms = [p * np.log(p / q) for p, q in zip(table.flat, independent.flat, strict=True) if p]
        assert found == pytest.approx(sum(terms), abs=1e-5)


@FEW
@given(log_probs())
def test_epistemic_lies_between_half_the_variance_and_the_entropy_of_the_index(lp):
    """From below by Pinsker (norm 2 <= norm 1); from above, I(label; index) <= H(index)."""
    epistemic = np.asarray(uncertainty(lp).epistemic)
    assert (epistemic >= np.asarray(variance(lp)) / 2 - 1e-5).all()
    assert (epistemic <= np.log(K) + ROUNDING).all()


@FEW
@given(log_probs(1, N, C))
def test_one_index_or_equal_indices_have_no_epistemic_part(lp):
    for same in (lp, np.repeat(lp, K, axis=0)):
        np.testing.assert_allclose(uncertainty(same).epistemic, 0, atol=ROUNDING)
        np.testing.assert_allclose(variance(same), 0, atol=ROUNDING)


def test_rounding_does_not_take_the_epistemic_part_of_equal_indices_below_zero():
    lp = np.repeat(seeded_log_probs(0, 1, 500, 3), 7, axis=0)
    rounded = mixture(lp)
    assert (np.asarray(entropy(rounded)) < np.asarray(entropy(lp)).mean(0)).any()
    assert (uncertainty(lp).epistemic >= 0).all()


@FEW
@given(log_probs(), st.permutations(range(K)), st.permutations(range(N)), st.permutations(range(C)))
def test_order_of_indices_and_classes_is_immaterial_and_rows_keep_theirs(lp, ks, ns, cs):
    shuffled = lp[ks][:, ns][:, :, cs]
    for before, after in zip(uncertainty(lp), uncertainty(shuffled), strict=True):
        np.testing.assert_allclose(np.asarray(before)[ns], after, atol=ROUNDING)
    np.testing.assert_allclose(np.asarray(variance(lp))[ns], variance(shuffled), atol=ROUNDING)


@FEW
@given(log_probs())
def test_variance_is_numpys_and_within_its_bound(lp):
    expected = np.exp(lp.astype(np.float64)).var(0).sum(-1)
    np.testing.assert_allclose(variance(lp), expected, atol=1e-6)
    assert (expected <= 1 - 1 / C + ROUNDING).all()


def test_disagreeing_certain_indices_are_all_epistemic():
    lp = log_softmax(np.where(np.eye(2)[:, None, :] > 0, 1e4, -1e4))  # index k is sure of class k
    found = uncertainty(lp)
    np.testing.assert_allclose(found.total, np.log(2), rtol=1e-6)
    np.testing.assert_allclose(found.aleatoric, 0, atol=ROUNDING)


@FEW
@given(log_probs(), labels)
def test_joint_of_one_row_is_its_marginal(lp, ys):
    for row, label in enumerate(ys):
        found = joint(lp[:, row : row + 1], ys[row : row + 1])
        marginal = np.asarray(mixture(lp))[row, label]
        np.testing.assert_allclose(found, marginal, rtol=1e-5, atol=1e-5)


@FEW
@given(log_probs(1, N, C), labels)
def test_joint_under_one_index_is_the_sum_of_marginals(lp, ys):
    marginals = np.take_along_axis(lp[0].astype(np.float64), ys[:, None], -1).sum()
    np.testing.assert_allclose(joint(lp, ys), marginals, rtol=1e-5, atol=1e-5)


@FEW
@given(log_probs(), labels)
def test_joint_is_log_mean_exp_of_sums_and_obeys_its_inequalities(lp, ys):
    found = float(joint(lp, ys))
    sums = lp[:, np.arange(N), ys].astype(np.float64).sum(1)
    best = sums.max()
    slack = 1e-5 * (1 + (abs(best) if np.isfinite(best) else 0))
    if np.isneginf(best):
        assert np.isneginf(found)
        return
    expected = best + np.log(np.mean(np.exp(sums - best)))
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-5)
    assert found >= np.mean(sums) - slack  # Jensen: log of a mean >= mean of logs
    assert best - np.log(K) - slack <= found <= best + slack
    marginals = np.asarray(mixture(lp))[np.arange(N), ys]
    assert found <= marginals.min() + slack  # a conjunction is no likelier than its parts


@FEW
@given(log_probs())
def test_joint_probabilities_of_all_labellings_sum_to_one(lp):
    labellings = np.array(list(itertools.product(range(C), repeat=N)))
    rows = np.broadcast_to(lp[:, None], (K, len(labellings), N, C))
    assert np.exp(joint(rows, labellings)).sum() == pytest.approx(1, abs=1e-5)


def test_joint_of_correlated_rows_differs_from_the_product_of_marginals():
    """Two copies of a row that each index is sure of: both labels follow from one."""
    lp = log_softmax(np.where(np.eye(2)[:, None, :] > 0, 1e4, -1e4)).repeat(2, axis=1)
    assert float(joint(lp, np.array([0, 0]))) == pytest.approx(np.log(1 / 2))
    assert float(joint(lp, np.array([0, 1]))) < -1e3


@FEW
@given(log_probs(N, C), st.lists(st.integers(0, C - 1), min_size=N, max_size=N))
def test_cross_entropy_of_one_hot_targets_is_the_negative_log_probability(lp, ys):
    found = cross_entropy(lp, np.eye(C, dtype=np.float32)[ys])
    np.testing.assert_allclose(found, -lp[np.arange(N), ys], rtol=1e-6)


def test_cross_entropy_of_a_distribution_with_itself_is_its_entropy():
    lp = seeded_log_probs(0, N, C)
    lp[0] = [0, -np.inf, -np.inf]
    np.testing.assert_allclose(cross_entropy(lp, np.exp(lp)), entropy(lp), atol=ROUNDING)


def test_cross_entropy_has_a_finite_gradient_where_an_impossible_class_is_no_target():
    lp = jnp.array([[0.0, -jnp.inf], [-0.5, -1.0]])
    grads = jax.grad(lambda x: cross_entropy(x, jnp.array([[1.0, 0.0], [0.5, 0.5]])).sum())(lp)
    np.testing.assert_allclose(grads, [[-1, 0], [-0.5, -0.5]])

"""Joint log-losses: identities, brute force, and what finitely many indices cost."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import FEW, C, K, log_probs, seeded_log_probs

from enn_finetune import predictive
from enn_finetune.joint import Groups, joint_groups, joint_scores

N = 6
NAMES = ["joint_nll_dyadic", "joint_nll_near", "joint_nll_random"]
scores = jax.jit(joint_scores)
labels = st.lists(st.integers(0, C - 1), min_size=N, max_size=N).map(np.array)
KINDS = Groups._fields


def one_hot(ys: np.ndarray) -> np.ndarray:
    return np.eye(C, dtype=np.float32)[ys]


def gaussian(seed: int, rows: int = 40, width: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, width)).astype(np.float32)


def three(rows: np.ndarray) -> Groups:
    return Groups(rows, rows, rows)


# ---- groups


@pytest.mark.parametrize("rows", [1, 2, 9, 10, 40, 1500])
def test_groups_are_what_they_are_called(rows):
    features = gaussian(0, rows)
    groups = joint_groups(features)
    size, count = min(10, rows), min(rows, 1000)
    for found in groups:
        assert found.shape == (count, size)
        assert found.dtype == np.int32
        assert ((found >= 0) & (found < rows)).all()
    anchors = groups.near[:, 0]
    assert len(set(anchors)) == count
    np.testing.assert_array_equal(groups.dyadic[:, 0], anchors)
    np.testing.assert_array_equal(groups.random[:, 0], anchors)
    for distinct in (groups.near, groups.random):
        assert all(len(set(group)) == size for group in distinct)
    kinds = [len(set(group)) for group in groups.dyadic]
    assert max(kinds) <= 2
    if rows >= 40:
        assert np.mean(kinds) > 1.9
        assert abs((groups.dyadic == anchors[:, None]).mean() - 0.55) < 0.1


def test_near_groups_are_the_nearest_by_cosine_whatever_the_lengths():
    features = gaussian(1, 60)
    stretched = features * np.random.default_rng(0).uniform(0.1, 9, (60, 1)).astype(np.float32)
    unit = features.astype(np.float64) / np.linalg.norm(features, axis=1, keepdims=True)
    for group in joint_groups(stretched).near:
        expected = np.argsort(-(unit @ unit[group[0]]))[:10]
        np.testing.assert_array_equal(group, expected)


def test_groups_depend_on_the_seed_and_the_rows_alone():
    features = gaussian(2)
    features[3] = 0  # no direction, and no NaN for it
    features[5:8] = features[4]
    first, again, other = joint_groups(features), joint_groups(features), joint_groups(features, 1)
    for kind in KINDS:
        np.testing.assert_array_equal(getattr(first, kind), getattr(again, kind))
        assert (getattr(first, kind) != getattr(other, kind)).any()


def test_random_rows_are_uniform():
    groups = joint_groups(gaussian(3, 1000)).random
    counts = np.bincount(groups[:, 1:].ravel(), minlength=1000)
    assert counts.mean() == 9
    assert counts.var() < 1.3 * 9  # Poisson


def test_an_empty_split_is_refused():
    with pytest.raises(ValueError, match="the split is empty"):
        joint_groups(np.zeros((0, 4), np.float32))


# ---- losses


@FEW
@given(log_probs(K, N, C), labels)
def test_a_group_of_one_row_has_the_marginal_loss(lp, ys):
    found = scores(lp, one_hot(ys), three(np.arange(N)[:, None]))
    expected = predictive.cross_entropy(predictive.mixture(lp), one_hot(ys)).mean()
    for name in NAMES:
        np.testing.assert_allclose(found[name], expected, rtol=1e-5, atol=1e-5)


@FEW
@given(log_probs(1, N, C), labels)
def test_under_one_index_a_group_has_the_sum_of_the_marginal_losses(lp, ys):
    groups = joint_groups(gaussian(4, N))
    marginal = -lp[0, np.arange(N), ys].astype(np.float64)
    found = scores(lp, one_hot(ys), groups)
    for kind in KINDS:
        expected = marginal[getattr(groups, kind)].sum(1).mean()
        np.testing.assert_allclose(found[f"joint_nll_{kind}"], expected, rtol=1e-5, atol=1e-5)


@FEW
@given(log_probs(K, N, C), labels, st.permutations(range(N)), st.permutations(range(K)))
def test_order_of_rows_groups_and_indices_is_immaterial(lp, ys, order, indices):
    groups = joint_groups(gaussian(5, N))
    place = np.argsort(order)
    moved = Groups(*(place[rows][::-1, ::-1] for rows in groups))
    found = scores(lp, one_hot(ys), groups)
    after = scores(lp[indices][:, order], one_hot(ys[list(order)]), moved)
    for name in NAMES:
        np.testing.assert_allclose(found[name], after[name], rtol=1e-5, atol=1e-5)


@FEW
@given(log_probs(K, N, C), labels)
def test_a_loss_is_the_mean_over_groups_of_predictives_joint_likelihood(lp, ys):
    groups = joint_groups(gaussian(6, N))
    found = scores(lp, one_hot(ys), groups)
    for kind in KINDS:
        rows = getattr(groups, kind)
        expected = -np.asarray(predictive.joint_log_likelihood(lp[:, rows], ys[rows])).mean()
        np.testing.assert_allclose(found[f"joint_nll_{kind}"], expected, rtol=1e-5, atol=1e-5)


def test_joint_probabilities_of_all_labellings_of_a_group_sum_to_one():
    lp, rows = seeded_log_probs(7, K, 3, 2), np.array([[0, 1, 2]])
    total = sum(
        np.exp(-scores(lp, np.eye(2)[list(ys)], three(rows))["joint_nll_near"])
        for ys in itertools.product(range(2), repeat=3)
    )
    assert total == pytest.approx(1, abs=1e-5)


def test_a_target_between_two_classes_has_its_expected_likelihood():
    lp = seeded_log_probs(8, 1, 1, C)
    targets = np.array([[0.25, 0.75, 0]], np.float32)
    expected = -(targets * lp[0]).sum()
    found = scores(lp, targets, three(np.zeros((1, 1), np.int32)))["joint_nll_random"]
    assert float(found) == pytest.approx(expected, rel=1e-6)


def test_seeds_scored_together_get_what_each_gets_alone():
    groups, ys = joint_groups(gaussian(9, N)), np.arange(N) % C
    lp = seeded_log_probs(9, 3, K, N, C)
    together = jax.vmap(joint_scores, (0, None, None))(lp, jnp.asarray(one_hot(ys)), groups)
    for seed in range(3):
        for name, value in scores(lp[seed], one_hot(ys), groups).items():
            np.testing.assert_allclose(together[name][seed], value, rtol=1e-6)


# ---- what the three reward


def binary(logits: np.ndarray) -> np.ndarray:
    """Log-probabilities (K, N, 2) of logits (K, N)."""
    return np.asarray(jax.nn.log_softmax(jnp.stack([-logits, logits], axis=-1) / 2, axis=-1))


def test_dyadic_pays_for_variance_without_limit_and_the_other_two_do_not():
    """Labels are coin flips, and no index knows anything about any of them."""
    rng = np.random.default_rng(0)
    targets = np.eye(2)[rng.integers(2, size=300)]
    groups = joint_groups(gaussian(10, 300))
    noise = rng.normal(size=(500, 300))
    found = [scores(binary(scale * noise), targets, groups) for scale in (0.0, 2.0, 8.0)]
    assert found[0]["joint_nll_dyadic"] == pytest.approx(10 * np.log(2), rel=1e-5)
    assert found[2]["joint_nll_dyadic"] < found[1]["joint_nll_dyadic"] - 0.3
    assert found[1]["joint_nll_dyadic"] < found[0]["joint_nll_dyadic"] - 1
    for name in ("joint_nll_near", "joint_nll_random"):
        assert found[0][name] <= found[1][name] + 0.02 <= found[2][name]


def test_near_pays_for_indices_that_err_together_where_rows_are_alike():
    """Thirty clusters, each with a label of its own that nobody knows."""
    rng = np.random.default_rng(1)
    cluster = np.repeat(np.arange(30), 10)
    features = 10 * gaussian(11, 30)[cluster] + gaussian(12, 300)
    targets = np.eye(2)[rng.integers(2, size=30)[cluster]]
    groups = joint_groups(features)
    shared = binary(6 * rng.normal(size=(500, 30))[:, cluster])
    found, ignorant = scores(shared, targets, groups), 10 * np.log(2)
    assert found["joint_nll_near"] < 0.4 * ignorant
    assert found["joint_nll_random"] > 0.85 * ignorant  # some of whose rows share a cluster


# ---- finitely many indices


def test_few_indices_overstate_the_loss_by_about_v_over_2k():
    """Mild variance: K = 32 against 2,048, 64 draws of the former in one of the latter."""
    rng = np.random.default_rng(2)
    targets = jnp.asarray(np.eye(2)[rng.integers(2, size=30)])
    groups = joint_groups(gaussian(13, 30))
    logits = 0.5 * rng.normal(size=(2048, 4)) @ rng.normal(size=(4, 30)) / 2
    lp = binary(logits)
    many = scores(lp, targets, groups)
    few = jax.vmap(joint_scores, (0, None, None))(lp.reshape(64, 32, 30, 2), targets, groups)
    likelihoods = (np.asarray(lp) * np.asarray(targets)).sum(-1)
    for kind in ("near", "random"):
        bias = float(few[f"joint_nll_{kind}"].mean() - many[f"joint_nll_{kind}"])
        weights = np.exp(likelihoods[:, getattr(groups, kind)].sum(-1))
        spread = (weights.var(0) / weights.mean(0) ** 2).mean()
        assert 0 < bias < 0.05
        assert bias == pytest.approx(spread / 64, rel=0.5)

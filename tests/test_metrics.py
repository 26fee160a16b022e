"""Task scores against scikit-learn and scipy, proper scores against plain loops."""

import functools
import itertools
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as reference
from strategies import FEW, log_probs, log_softmax, seeded_log_probs

from enn_finetune import metrics

N, C = 12, 3
label_pairs = st.lists(
    st.tuples(st.integers(0, C - 1), st.integers(0, C - 1)), min_size=1, max_size=30
).map(lambda pairs: np.array(pairs).T)


def sample(seed: int, rows: int = 200, classes: int = C) -> tuple[np.ndarray, np.ndarray]:
    """Predictions (N, C) that know something, and labels (N,)."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=rows)
    return log_softmax(rng.normal(size=(rows, classes)) + np.eye(classes)[labels]), labels


@FEW
@given(label_pairs)
def test_class_scores_are_scikit_learns(pair):
    true, predicted = pair
    counts = metrics.confusion(true, predicted, C)
    np.testing.assert_array_equal(
        counts, reference.confusion_matrix(true, predicted, labels=range(C))
    )
    f1 = reference.f1_score(true, predicted, labels=range(C), average=None, zero_division=0)
    found = metrics.class_scores(counts, ["accuracy", "mcc", "f1", "macro_f1"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn remarks on a single label
        mcc = reference.matthews_corrcoef(true, predicted)
    expected = {
        "accuracy": reference.accuracy_score(true, predicted),
        "mcc": mcc,
        "f1": f1[1],
        "macro_f1": f1.mean(),
    }
    assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("truth", [[0, 1, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]])
def test_a_single_predicted_class_has_no_correlation_and_a_finite_score(truth):
    scores = metrics.class_scores(
        metrics.confusion(np.array(truth), np.zeros(4, int), 2),
        ["accuracy", "mcc", "f1", "macro_f1"],
    )
    assert scores["mcc"] == 0
    assert scores["f1"] == 0
    assert np.isfinite(list(scores.values())).all()


def test_matthews_does_not_overflow_at_millions_of_rows():
    counts = np.array([[40_000_000, 10_000_000], [10_000_000, 40_000_000]])
    assert metrics.matthews(counts) == pytest.approx(0.6)


def test_proper_scores_are_scikit_learns():
    lp, labels = sample(0)
    found = metrics.evaluate(lp, np.eye(C)[labels], ["accuracy"])
    probs = np.exp(lp.astype(np.float64))
    probs /= probs.sum(1, keepdims=True)
    assert found["nll"] == pytest.approx(reference.log_loss(labels, probs), abs=1e-6)
    brier = sum(
        reference.brier_score_loss(labels == c, probs[:, c], pos_label=True) for c in range(C)
    )
    assert found["brier"] == pytest.approx(brier, abs=1e-6)


def plain_ece(probs: np.ndarray, labels: np.ndarray, bins: int) -> float:
    inside = [[] for _ in range(bins)]
    for row, label in zip(probs, labels, strict=True):
        confidence = max(row)
        inside[min(int(confidence * bins), bins - 1)].append((confidence, row.argmax() == label))
    return sum(
        len(rows) / len(labels) * abs(np.mean([r[0] for r in rows]) - np.mean([r[1] for r in rows]))
        for rows in inside
        if rows
    )


@FEW
@given(log_probs(N, C), st.lists(st.integers(0, C - 1), min_size=N, max_size=N).map(np.array))
def test_calibration_error_is_that_of_a_plain_loop(lp, labels):
    found = metrics.proper_scores(metrics.tally(lp, np.eye(C)[labels]))["ece"]
    expected = plain_ece(np.exp(lp.astype(np.float64)), labels, metrics.CALIBRATION_BINS)
    assert found == pytest.approx(expected, abs=1e-9)
    assert 0 <= found <= 1


def test_calibration_error_of_known_predictions():
    """Four rows at confidence 0.8, three of them right: |0.75 - 0.8|."""
    lp = np.log(np.array([[0.8, 0.2]] * 4))
    found = metrics.evaluate(lp, np.eye(2)[[0, 0, 0, 1]], [])
    assert found["ece"] == pytest.approx(0.05)


@FEW
@given(st.integers(0, 100), st.lists(st.integers(0, 50), max_size=4))
def test_tallies_of_parts_add_up_to_the_tally_of_the_whole(seed, cuts):
    lp, labels = sample(seed, rows=50)
    targets = np.eye(C, dtype=np.float32)[labels]
    edges = [0, *sorted(cuts), 50]
    parts = [metrics.tally(lp[a:b], targets[a:b]) for a, b in itertools.pairwise(edges)]
    whole = metrics.tally(lp, targets)
    for one, other in zip(functools.reduce(lambda a, b: a + b, parts), whole, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)


def test_a_certain_and_right_prediction_scores_perfectly_without_a_warning():
    lp = np.log(np.eye(2), where=np.eye(2) > 0, out=np.full((2, 2), -np.inf)).astype(np.float32)
    found = metrics.evaluate(lp, np.eye(2, dtype=np.float32), ["accuracy"])
    assert found == {"accuracy": 1, "nll": 0, "brier": 0, "ece": 0}


def test_a_certain_and_wrong_prediction_costs_an_infinite_log_loss():
    lp = np.array([[0, -np.inf]])
    found = metrics.evaluate(lp, np.array([[0.0, 1.0]]), ["accuracy"])
    assert found == {"accuracy": 0, "nll": np.inf, "brier": 2, "ece": 1}


def grid_problem(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    values = np.linspace(0, 5, 6)
    lp = seeded_log_probs(seed, 40, 6)
    targets = np.zeros((40, 6))
    score = np.random.default_rng(seed).uniform(0, 4.99, 40)
    low = score.astype(int)
    targets[np.arange(40), low] = 1 - (score - low)
    targets[np.arange(40), low + 1] = score - low
    return lp, targets, values


def test_correlations_are_scipys_over_expected_values():
    lp, targets, values = grid_problem(0)
    found = metrics.evaluate(lp, targets, ["pearson", "spearman"], values)
    predicted, true = np.exp(lp) @ values, targets @ values
    assert found["pearson"] == pytest.approx(stats.pearsonr(predicted, true).statistic, abs=1e-6)
    assert found["spearman"] == pytest.approx(stats.spearmanr(predicted, true).statistic, abs=1e-6)


def test_a_constant_side_has_correlation_0_even_where_float32_wobbles():
    lp, targets, values = grid_problem(1)
    constant = np.repeat(lp[:1], len(lp), axis=0)
    constant *= 1 + 1e-7 * (np.arange(len(lp)) % 2).astype(np.float32)[:, None]
    for predictions, truth in ((constant, targets), (lp, np.repeat(targets[:1], len(lp), axis=0))):
        found = metrics.evaluate(predictions, truth, ["pearson", "spearman"], values)
        assert (found["pearson"], found["spearman"]) == (0, 0)


def test_one_row_is_enough():
    lp, targets, values = grid_problem(2)
    found = metrics.evaluate(lp[:1], targets[:1], ["pearson", "accuracy"], values)
    assert found["pearson"] == 0
    assert list(found) == ["pearson", "accuracy", "nll", "brier", "ece"]


@pytest.mark.parametrize(
    ("asked", "rows", "message"),
    [
        (["accuracy", "bleu"], 4, r"\['bleu'\] cannot be computed"),
        (["pearson"], 4, "need a grid of values"),
        (["accuracy"], 0, "at least one row"),
    ],
)
def test_what_cannot_be_scored_is_refused(asked, rows, message):
    lp, labels = sample(0, rows=4)
    with pytest.raises(ValueError, match=message):
        metrics.evaluate(lp[:rows], np.eye(C)[labels][:rows], asked)

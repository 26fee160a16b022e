"""Thresholds that maximise the expected score, against every cut by brute force; their limits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enn_finetune.decisions import SCORES, threshold, thresholds
from enn_finetune.metrics import class_scores, evaluate

PROBS = st.lists(st.floats(0.01, 0.99), min_size=2, max_size=12).map(np.array)


def expected(probs: np.ndarray, decided: np.ndarray, score: str) -> float:
    """The score of the expected confusion matrix (true, predicted), by the library's own metric."""
    counts = np.array(
        [
            [np.sum((1 - probs)[decided == p]) for p in (0, 1)],
            [np.sum(probs[decided == p]) for p in (0, 1)],
        ]
    )
    return class_scores(counts, [score])[score]


@pytest.mark.parametrize("score", SCORES)
@settings(deadline=None, max_examples=60)
@given(probs=PROBS)
def test_no_cut_is_expected_to_score_more(score, probs):
    at = threshold(probs, score)
    found = expected(probs, (probs >= at).astype(int), score)
    cuts = [(probs >= cut).astype(int) for cut in np.unique(probs)[1:]]
    best = max((expected(probs, cut, score) for cut in cuts), default=found)
    assert found >= best - 1e-9


def test_other_scores_and_equal_probabilities_are_cut_in_half():
    assert threshold(np.array([0.1, 0.9]), "accuracy") == 0.5
    assert threshold(np.array([0.3, 0.3, 0.3]), "f1") == 0.5


def test_a_rare_class_is_found_below_one_half_and_a_ubiquitous_one_above():
    rare = np.concatenate([np.full(95, 0.01), np.linspace(0.2, 0.4, 5)])
    assert 0.01 < threshold(rare, "f1") < 0.4
    assert threshold(1 - rare, "mcc") > 0.5


def test_only_two_classes_and_scores_that_need_it_have_thresholds():
    probs = np.array([[0.3, 0.7], [0.9, 0.1], [0.6, 0.4]])
    assert thresholds(probs, ("mcc", "accuracy")).keys() == {"mcc"}
    assert thresholds(np.full((3, 4), 0.25), ("macro_f1",)) == {}


def test_a_threshold_decides_its_own_metric_alone():
    log_probs = np.log(np.array([[0.7, 0.3], [0.8, 0.2], [0.9, 0.1]]))
    targets = np.eye(2)[[1, 0, 0]]
    plain = evaluate(log_probs, targets, ("f1", "accuracy"))
    decided = evaluate(log_probs, targets, ("f1", "accuracy"), thresholds={"f1": 0.25})
    assert (plain["f1"], decided["f1"]) == (0.0, 1.0)
    assert decided["accuracy"] == plain["accuracy"]
    assert decided["nll"] == plain["nll"]

"""The prioritised loader: what is drawn, and what is bought. Saved states: test_loader_state.py."""

import math

import numpy as np
import pytest
from hypothesis import given
from loaders import (
    every_loader,
    priorities,
    revisited_rows,
    run,
    salts,
    settings_of_loaders,
    step,
    uniform_rows,
)
from strategies import FEW

from enn_finetune.loader import PrioritisedLoader

# ---- what is drawn


def test_the_first_ten_candidates_of_a_seed_never_change():
    loader = PrioritisedLoader(1000, batch=4, candidates=10, seed=3)
    assert loader.candidates().tolist() == [758, 268, 346, 499, 381, 926, 854, 797, 78, 373]
    loader.choose(loader.candidates())
    assert loader.candidates().tolist() == [146, 783, 693, 873, 721, 939, 17, 227, 129, 681]


def test_the_first_ten_candidates_of_an_epoch_never_change():
    loader = PrioritisedLoader(1000, batch=4, candidates=10, seed=3, source="epoch")
    loader.choose(loader.candidates())
    assert loader.candidates().tolist() == [146, 784, 694, 873, 721, 939, 17, 226, 129, 681]


@FEW
@given(every_loader, salts)
def test_every_step_offers_distinct_rows_and_trains_on_the_best_it_can_afford(given_, salt):
    loader = PrioritisedLoader(**given_)
    while not loader.finished:
        before, left, ranked = set(loader.bought), loader.labels_left, loader.reads_priorities
        first = uniform_rows(given_, loader.step)
        candidates = loader.candidates()
        assert len(set(candidates.tolist())) == len(candidates) <= given_["candidates"]
        assert len(candidates) <= loader.offered or not ranked
        np.testing.assert_array_equal(candidates, loader.candidates())
        scores = priorities(loader, candidates, salt)
        best = first + np.argsort(-scores[first:], kind="stable")
        wanted = candidates[[*range(len(scores) - len(best)), *best] if ranked else slice(None)]
        revisited = revisited_rows(given_, loader.step, len(before))
        rows = loader.choose(candidates, scores).tolist()
        again, expected = rows[len(rows) - revisited :], []
        assert set(again) <= before
        for row in wanted.tolist():  # the definition, one row at a time
            room = len(expected) < given_["batch"] - revisited
            if room and row not in again and (row in before or left > 0):
                expected.append(row)
                left -= row not in before
        assert rows == expected + again
        assert rows
        assert len(set(rows)) == len(rows)
        assert loader.labels_left == left
        assert set(loader.bought.tolist()) == before | set(expected)


@FEW
@given(every_loader, salts)
def test_labels_are_never_overspent_and_a_bought_row_is_free(given_, salt):
    loader = PrioritisedLoader(**given_)
    chosen = [row for _, rows in run(loader, salt) for row in rows]
    assert loader.bought.tolist() == list(dict.fromkeys(chosen))  # distinct, in order of purchase
    assert len(loader.bought) <= (given_["labels"] or given_["rows"])


@FEW
@given(settings_of_loaders(source="whole"), salts, salts)
def test_within_the_budget_candidates_do_not_depend_on_the_priorities(given_, salt, other):
    one, two = PrioritisedLoader(**given_), PrioritisedLoader(**given_)
    while not (one.finished or two.finished) and one.labels_left and two.labels_left:
        assert step(one, salt)[0] == step(two, other)[0]


@FEW
@given(every_loader, salts)
def test_the_initial_labels_are_the_same_under_every_priority(given_, salt):
    one, two = PrioritisedLoader(**given_), PrioritisedLoader(**given_)
    while not (one.reads_priorities or one.finished):
        candidates = two.candidates()
        assert step(one, salt)[1] == two.choose(candidates).tolist()
    np.testing.assert_array_equal(one.bought, two.bought)
    assert two.reads_priorities == one.reads_priorities


def test_seeds_differ_and_so_do_steps():
    offers = {
        tuple(PrioritisedLoader(50, batch=1, candidates=9, seed=s).candidates()) for s in range(20)
    }
    loader = PrioritisedLoader(50, batch=1, candidates=9)
    offers |= {tuple(step(loader, 1)[0]) for _ in range(20)}
    assert len(offers) == 39  # seed 0 at step 0 is in both


def test_uniform_candidates_are_uniform_in_every_place():
    places = np.zeros((6, 3))
    for seed in range(3000):
        offer = PrioritisedLoader(6, batch=1, candidates=3, seed=seed).candidates()
        places[offer, np.arange(3)] += 1
    assert np.abs(places - 500).max() < 5 * np.sqrt(500)


# ---- epochs


@FEW
@given(settings_of_loaders(source="epoch", labels=None, start=0, steps=25), salts)
def test_an_epoch_repeats_no_row_and_leaves_out_less_than_a_batch(given_, salt):
    loader = PrioritisedLoader(**given_)
    rows, batch = given_["rows"], given_["batch"]
    trace = [chosen for _, chosen in run(loader, salt)]
    length = rows // batch
    for first in range(0, len(trace), length):
        epoch = [row for chosen in trace[first : first + length] for row in chosen]
        assert len(set(epoch)) == len(epoch)
        if first + length <= len(trace):
            assert len(epoch) == length * batch


def test_epochs_go_on_after_the_budget_over_the_rows_bought():
    loader = PrioritisedLoader(20, batch=2, candidates=4, labels=6, steps=12, source="epoch")
    trace = [chosen for _, chosen in run(loader, 1)]
    bought = set(loader.bought.tolist())
    assert len(bought) == 6
    for first in range(3, 12, 3):
        assert {row for chosen in trace[first : first + 3] for row in chosen} == bought


def test_an_epoch_whose_batches_fit_buys_every_row_in_one_pass():
    loader = PrioritisedLoader(12, batch=3, candidates=6, source="epoch")
    assert len(run(loader, 1)) == 4
    assert loader.finished
    assert sorted(loader.bought) == list(range(12))


# ---- budgets


@FEW
@given(settings_of_loaders(steps=None), salts)
def test_a_run_without_a_step_budget_ends(given_, salt):
    loader = PrioritisedLoader(**given_)
    run(loader, salt)
    budget = given_["labels"] or given_["rows"]
    passes = 10 * math.ceil(budget / (given_["batch"] * (1 - given_["revisit"])))
    assert loader.labels_left == 0 or loader.step == passes


@pytest.mark.parametrize("source", ["whole", "epoch"])
def test_steps_go_on_after_the_labels_are_spent_and_cost_nothing(source):
    loader = PrioritisedLoader(
        30, batch=4, candidates=8, labels=10, start=10, steps=20, source=source
    )
    trace = run(loader, 1)
    assert len(trace) == 20
    assert len(loader.bought) == 10
    assert set(trace[-1][0]) <= set(loader.bought.tolist())


def test_a_pool_of_one_row():
    for source in ("whole", "epoch"):
        loader = PrioritisedLoader(1, batch=1, candidates=1, steps=3, source=source)
        assert run(loader, 1) == [([0], [0])] * 3


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"batch": 0}, "1 <= batch <= candidates <= rows, got batch=0 candidates=6 rows=12"),
        ({"batch": 7}, "got batch=7 candidates=6"),
        ({"candidates": 13}, "candidates=13 rows=12"),
        ({"labels": 0}, "1 <= labels <= rows, got labels=0"),
        ({"labels": 13}, "got labels=13 rows=12"),
        ({"start": 5, "labels": 4}, "0 <= start <= labels, got start=5 labels=4"),
        ({"start": -1}, "got start=-1"),
        ({"source": "pool"}, "whole or epoch, got source='pool'"),
        ({"uniform": 1.5}, "0 <= uniform <= 1, got uniform=1.5"),
        ({"uniform": -0.1}, "got uniform=-0.1"),
        ({"anneal": True}, "annealing ends at the last step: give steps"),
        ({"revisit": 1}, "0 <= revisit < 1, got revisit=1"),
        ({"revisit": -0.5}, "got revisit=-0.5"),
        ({"revisit": 0.5, "source": "epoch"}, "an epoch trains on no row twice"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        PrioritisedLoader(**({"rows": 12, "batch": 3, "candidates": 6} | wrong))


# ---- priorities


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_priority_that_is_not_finite_is_refused_and_costs_nothing(bad):
    loader = PrioritisedLoader(12, batch=3, candidates=6)
    candidates = loader.candidates()
    scores = np.zeros(6)
    scores[2] = bad
    with pytest.raises(ValueError, match=rf"rows \[{candidates[2]}\] are not finite"):
        loader.choose(candidates, scores)
    assert (loader.step, len(loader.bought)) == (0, 0)


def test_rows_that_are_not_wanted_are_left_out():
    loader = PrioritisedLoader(12, batch=4, candidates=6)
    candidates = loader.candidates()
    wanted = np.array([0, 1, 0, 1, 1, 0], bool)
    assert (
        loader.choose(candidates, np.arange(6.0), wanted).tolist() == candidates[[4, 3, 1]].tolist()
    )
    assert len(loader.choose(loader.candidates(), None, np.zeros(6, bool))) == 0
    assert (loader.step, len(loader.bought)) == (2, 3)


def test_the_uniform_share_and_the_first_labels_are_taken_wanted_or_not():
    loader = PrioritisedLoader(12, batch=4, candidates=6, start=4, uniform=0.5)
    nothing = np.zeros(6, bool)
    first = loader.candidates()
    assert loader.choose(first, np.zeros(6), nothing).tolist() == first[:4].tolist()
    second = loader.candidates()
    assert loader.choose(second, np.zeros(6), nothing).tolist() == second[:2].tolist()


@pytest.mark.parametrize("shape", [(5,), (6, 1), ()])
def test_one_priority_a_candidate_is_expected(shape):
    loader = PrioritisedLoader(12, batch=3, candidates=6)
    with pytest.raises(ValueError, match="one priority for each of 6 candidates"):
        loader.choose(loader.candidates(), np.zeros(shape))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.int8, np.uint8, bool])
def test_priorities_of_any_number_type_rank_alike_and_ties_keep_the_order_of_candidates(dtype):
    loader = PrioritisedLoader(12, batch=4, candidates=6)
    candidates = loader.candidates()
    rows = loader.choose(candidates, np.array([0, 1, 0, 0, 1, 0], dtype))
    assert rows.tolist() == candidates[[1, 4, 0, 2]].tolist()


# ---- any source, any scoring function


@pytest.mark.parametrize("source", ["whole", "epoch"])
def test_batches_serve_a_plain_array_and_score_only_candidates(source):
    data = np.arange(40.0)[:, None] * [1, -1]
    offered = []

    def score(inputs: np.ndarray) -> np.ndarray:
        offered.append(inputs)
        return inputs[:, 0]

    loader = PrioritisedLoader(40, batch=4, candidates=8, labels=20, start=4, source=source)
    steps = list(loader.batches(data, score))
    assert len(steps) == loader.step
    assert len(offered) == len(steps) - 1  # the first batch is uniform: nothing to score
    for rows, inputs in steps:
        np.testing.assert_array_equal(inputs, data[rows])
    for (rows, _), inputs in zip(steps[1:], offered, strict=True):
        assert len(inputs) == 8
        assert len(rows) <= 4
        assert set(rows) <= set(inputs[:, 0])
    best = np.sort(offered[0][:, 0])[::-1][:4]
    np.testing.assert_array_equal(steps[1][1][:, 0], best)

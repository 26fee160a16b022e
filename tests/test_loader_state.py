"""The saved state of a loader: a run restored at any step goes on the same."""

import json

import pytest
from hypothesis import given
from loaders import every_loader, run, salts, step
from strategies import FEW

from enn_finetune.loader import PrioritisedLoader


@FEW
@given(every_loader, salts)
def test_restored_at_any_step_the_rest_of_the_run_is_identical(given_, salt):
    loader = PrioritisedLoader(**given_)
    states, trace = [loader.state()], []
    while not loader.finished:
        trace.append(step(loader, salt))
        states.append(loader.state())
    for k, state in enumerate(states):
        resumed = PrioritisedLoader(**given_)
        resumed.restore(json.loads(json.dumps(state)))
        assert resumed.state() == state
        assert run(resumed, salt) == trace[k:]
        assert resumed.state() == states[-1]


def test_a_state_is_not_changed_by_going_on():
    loader = PrioritisedLoader(12, batch=3, candidates=6, source="epoch")
    step(loader, 1)
    state = loader.state()
    saved = json.dumps(state)
    step(loader, 1)
    assert json.dumps(state) == saved
    loader.restore(state)
    step(loader, 1)
    assert json.dumps(state) == saved


def test_a_used_loader_can_be_restored_to_an_earlier_step():
    loader = PrioritisedLoader(12, batch=3, candidates=6, steps=8, source="epoch")
    start = loader.state()
    first = run(loader, 1)
    loader.restore(start)
    assert run(loader, 1) == first


def test_a_budget_can_grow_between_saving_and_restoring_and_a_smaller_one_is_spent():
    short = PrioritisedLoader(40, batch=4, candidates=8, labels=16)
    run(short, 1)
    for labels, left in ((24, 8), (8, 0)):
        other = PrioritisedLoader(40, batch=4, candidates=8, labels=labels)
        other.restore(short.state())
        assert other.labels_left == left
        assert other.finished == (left == 0)


def test_a_smaller_budget_leaves_no_empty_step_in_an_epoch():
    long = PrioritisedLoader(12, batch=3, candidates=6, steps=8, source="epoch")
    step(long, 1)
    short = PrioritisedLoader(12, batch=3, candidates=6, labels=3, steps=8, source="epoch")
    short.restore(long.state())
    assert all(sorted(rows) == sorted(long.bought) for _, rows in run(short, 1))


def test_a_state_from_before_rows_were_revisited_goes_on():
    loader = PrioritisedLoader(12, batch=3, candidates=6)
    step(loader, 1)
    state = loader.state()
    other = PrioritisedLoader(12, batch=3, candidates=6)
    other.restore({name: value for name, value in state.items() if name != "revisit"})
    assert other.state() == state


def test_the_state_of_another_loader_is_refused_with_every_difference():
    saved = PrioritisedLoader(40, batch=4, candidates=8, seed=1, revisit=0.25).state()
    loader = PrioritisedLoader(
        50, batch=4, candidates=10, source="epoch", uniform=0.5, anneal=True, steps=9
    )
    with pytest.raises(ValueError, match="another loader") as caught:
        loader.restore(saved)
    for part in (
        "rows: saved 40, here 50",
        "candidates: saved 8",
        "source: saved 'whole'",
        "seed",
        "uniform: saved 0.0, here 0.5",
        "anneal: saved False",
        "revisit: saved 0.25, here 0.0",
    ):
        assert part in str(caught.value)
    assert "batch" not in str(caught.value)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"bought": [3, 3]}, "bought does not list distinct rows below 12"),
        ({"bought": [12]}, "bought does not list"),
        ({"epoch": [-1]}, "epoch does not list"),
        ({"step": None}, "lacks step"),
    ],
)
def test_a_damaged_state_is_refused_and_the_loader_left_as_it_was(damage, message):
    loader = PrioritisedLoader(12, batch=3, candidates=6, source="epoch")
    step(loader, 1)
    before = loader.state()
    broken = {key: value for key, value in (before | damage).items() if value is not None}
    with pytest.raises(ValueError, match=message):
        loader.restore(broken)
    assert loader.state() == before

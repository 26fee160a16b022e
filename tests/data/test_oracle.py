import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enn_finetune.data.oracle import BudgetError, Oracle, carve

N, C = 12, 3
TARGETS = np.random.default_rng(0).dirichlet(np.ones(C), N).astype(np.float32)

purchases = st.lists(st.lists(st.integers(0, N - 1), max_size=6), max_size=8)


@settings(max_examples=100, deadline=None)
@given(purchases=purchases, budget=st.integers(0, N + 2))
def test_ledger_laws(purchases: list[list[int]], budget: int) -> None:
    oracle = Oracle(TARGETS, budget)
    order: list[int] = []
    for rows in purchases:
        after = list(dict.fromkeys([*order, *rows]))
        assert oracle.cost(rows) == len(after) - len(order)
        if len(after) > budget:
            with pytest.raises(BudgetError):
                oracle.buy(rows)
        else:
            np.testing.assert_array_equal(oracle.buy(rows), TARGETS[np.array(rows, int)])
            order = after
        assert oracle.bought.tolist() == order
        assert oracle.remaining == budget - len(order)
        assert np.flatnonzero(oracle.owned).tolist() == sorted(order)


@settings(max_examples=50, deadline=None)
@given(purchases=purchases, at=st.integers(0, 8))
def test_restored_oracle_goes_on_exactly(purchases: list[list[int]], at: int) -> None:
    oracle = Oracle(TARGETS, N)
    for rows in purchases[:at]:
        oracle.buy(rows)
    other = Oracle(TARGETS, N)
    other.buy([N - 1])  # forgotten on restore
    other.restore(json.loads(json.dumps(oracle.state())))
    for rows in purchases[at:]:
        np.testing.assert_array_equal(oracle.buy(rows), other.buy(rows))
    assert oracle.state() == other.state()
    np.testing.assert_array_equal(oracle.owned, other.owned)


def test_over_budget_says_the_numbers_and_reveals_nothing() -> None:
    oracle = Oracle(TARGETS, 3)
    oracle.buy([5, 1])
    with pytest.raises(BudgetError, match=r"asked for 2 new labels with 2 of 3 bought"):
        oracle.buy([1, 2, 3])
    assert oracle.bought.tolist() == [5, 1]
    oracle.buy([1, 5, 2, 2])


@pytest.mark.parametrize("rows", [[-1], [N], [0, 99], np.array([2**63], np.uint64)])
def test_rows_out_of_range(rows) -> None:
    oracle = Oracle(TARGETS, N)
    with pytest.raises(IndexError, match="is not among the rows 0 to 11"):
        oracle.buy(rows)
    assert oracle.remaining == N


@pytest.mark.parametrize("rows", [[0.0], [True], np.ones(N, bool), 3, [[0, 1]], ["a"]])
def test_rows_that_are_no_ids(rows) -> None:
    with pytest.raises(TypeError, match="row ids are integers"):
        Oracle(TARGETS, N).buy(rows)


def test_nobody_else_can_change_the_ledger_or_the_labels() -> None:
    targets = TARGETS.copy()
    oracle = Oracle(targets, N)
    oracle.buy([3])[:] = 0
    oracle.owned[:] = True
    oracle.bought[:] = 7
    oracle.state()["bought"].append(4)
    targets[:] = 0
    assert oracle.bought.tolist() == [3]
    np.testing.assert_array_equal(oracle.buy([3, 4]), TARGETS[[3, 4]])


def test_bad_states() -> None:
    oracle = Oracle(TARGETS, 2)
    oracle.buy([4])
    with pytest.raises(ValueError, match="counts 5 training rows and the data 12"):
        oracle.restore({"rows": 5, "bought": []})
    with pytest.raises(ValueError, match="twice"):
        oracle.restore({"rows": N, "bought": [1, 1]})
    with pytest.raises(BudgetError, match="above the budget of 2"):
        oracle.restore({"rows": N, "bought": [1, 2, 3]})
    with pytest.raises(IndexError):
        oracle.restore({"rows": N, "bought": [N]})
    assert oracle.bought.tolist() == [4]


@pytest.mark.parametrize("budget", [-1, True])
def test_bad_budget(budget: int) -> None:
    with pytest.raises(ValueError, match="a budget is"):
        Oracle(TARGETS, budget)
    with pytest.raises(ValueError, match="shape"):
        Oracle(TARGETS[0], 3)


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 20), max_size=3),
    left=st.integers(1, 30),
    seed=st.integers(0, 2**64),
)
def test_carved_parts_are_all_the_rows_once(sizes: list[int], left: int, seed: int) -> None:
    rows = sum(sizes) + left
    carved = carve(rows, sizes, seed)
    assert [len(part) for part in carved.held] == sizes
    parts = [carved.pool, *carved.held]
    assert all((np.diff(part) > 0).all() for part in parts)
    assert sorted(np.concatenate(parts).tolist()) == list(range(rows))
    again = carve(rows, sizes, seed)
    np.testing.assert_array_equal(np.concatenate([again.pool, *again.held]), np.concatenate(parts))


PINNED = [293, 617, 652, 693, 707]


def test_carve_depends_on_the_seed_and_is_pinned() -> None:
    assert carve(1000, [5], 0).held[0].tolist() == PINNED
    assert carve(1000, [5], 1).held[0].tolist() != PINNED


@pytest.mark.parametrize("sizes", [[10], [5, 5], [-1], [11]])
def test_carve_leaves_a_pool(sizes: list[int]) -> None:
    with pytest.raises(ValueError, match="cannot hold out"):
        carve(10, sizes, 0)

"""Pools as people have them: parts carved off, a rare class, rows that stand several times."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import FEW

from enn_finetune.data.faults import DataError
from enn_finetune.data.pools import held_size, rare, repeated, select
from enn_finetune.data.splits import Split, one_hot

LABELS = st.lists(st.integers(0, 1), min_size=4, max_size=200).filter(lambda x: 0 < sum(x) < len(x))


def split(name: str, labels: list[int], classes: int = 2) -> Split:
    return Split(
        name=name,
        text=[f"{name} {row}" for row in range(len(labels))],
        pair=None,
        targets=one_hot(np.asarray(labels), classes),
        classes=tuple("abcd"[:classes]),
        lines=np.arange(len(labels)) + 1,
    )


def halves(rows: int) -> list[int]:
    return [row % 2 for row in range(rows)]


@pytest.fixture
def splits():
    return [split("train", halves(400)), split("dev", halves(100))]


def test_a_plain_pool_is_the_training_file(splits):
    found = select(splits)
    assert found.pool.tolist() == list(range(400))
    assert [(part.name, part.split, len(part.rows)) for part in found.parts] == [("dev", 1, 100)]


def test_carved_rows_leave_the_pool_and_are_scored_beside_dev(splits):
    found = select(splits, carved="auto")
    (dev, held) = found.parts
    assert (dev.name, held.name, held.split, len(held.rows)) == ("dev", "held", 0, 100)
    assert sorted([*found.pool, *held.rows]) == list(range(400))
    assert len(select(splits, carved=30).parts[1].rows) == 30


def test_the_size_of_what_is_carved():
    assert held_size(67349, [872]) == 5000
    assert held_size(2490, [277]) == 622
    assert held_size(363846, [40430]) == 0
    assert held_size(392702, [9815, 9832]) == 0


def test_development_reads_no_evaluation_row(splits):
    held = select(splits, carved="auto").parts[1].rows
    found = select(splits, carved="auto", develop=True)
    assert [(part.name, part.split) for part in found.parts] == [("develop", 0)]
    scored = found.parts[0].rows
    assert len(scored) == 75
    assert not {*scored} & {*held}
    assert sorted([*found.pool, *held, *scored]) == list(range(400))


def test_carving_everything_is_refused(splits):
    with pytest.raises(DataError, match="leave no pool"):
        select(splits, carved=400)


@FEW
@given(st.integers(1, 400), st.integers(1, 400))
def test_a_smaller_pool_is_part_of_a_larger_one(one, other):
    splits = [split("train", halves(400)), split("dev", halves(100))]
    small, large = (
        select(splits, carved=30, rows=rows) for rows in sorted((min(one, other), max(one, other)))
    )
    assert {*small.pool} <= {*large.pool}
    assert len(small.pool) == min(one, other, 370)
    assert small.pool.tolist() == sorted({*small.pool.tolist()} - {*small.parts[1].rows.tolist()})
    assert all(
        np.array_equal(a.rows, b.rows)
        for a, b in zip(small.parts, select(splits, carved=30).parts, strict=True)
    )


def test_rows_are_left_out_before_they_are_thinned_or_repeated(splits):
    plain = select(splits, rows=50).pool
    found = select(splits, "rare", share=0.1, rows=50).pool
    assert {*found} < {*plain}
    labels = splits[0].targets[found].argmax(1)
    assert labels.sum() == max(1, round(0.1 / 0.9 * (labels == 0).sum())), "the share holds"
    repeated = select(splits, "repeated", rows=50, repeats=3).pool
    assert (len(repeated), {*repeated}) == (150, {*plain})


@FEW
@given(LABELS, st.floats(0.01, 0.6))
def test_the_rare_class_has_its_share_and_the_other_stays_whole(labels, share):
    targets = one_hot(np.asarray(labels), 2)
    rows = rare(targets, share)
    kept = np.asarray(labels)[rows]
    assert rows.tolist() == sorted(set(rows.tolist()))
    assert (kept == 0).sum() == labels.count(0)
    wanted = share / (1 - share) * labels.count(0)
    assert kept.sum() >= 1
    assert kept.sum() == labels.count(1) or abs(kept.sum() - wanted) <= max(0.5, 1 - wanted)


def test_every_part_of_a_rare_pool_is_thinned(splits):
    found = select(splits, "rare", carved="auto", share=0.1)
    for part in (found.parts[0], found.parts[1], ("pool", 0, found.pool)):
        labels = splits[part[1]].targets[part[2]].argmax(1)
        assert 0.07 < labels.mean() < 0.13
    assert select(splits, "rare").pool.tolist() == select(splits, "rare").pool.tolist()


def test_a_rare_pool_has_two_classes():
    three = [split("train", [0, 1, 2] * 9, 3), split("dev", [0, 1, 2], 3)]
    with pytest.raises(DataError, match=r"task\.pool: .* has 3"):
        select(three, "rare")
    with pytest.raises(DataError, match="rows of one class only"):
        select([split("train", halves(20)), split("dev", [0, 0])], "rare")


@FEW
@given(st.integers(1, 30), st.integers(2, 6))
def test_repeated_rows_have_places_of_their_own(rows, times):
    found = repeated(np.arange(rows), times)
    numbers, counts = np.unique(found, return_counts=True)
    assert numbers.tolist() == list(range(rows))
    assert counts.tolist() == [times] * rows


def test_only_the_pool_is_repeated(splits):
    found = select(splits, "repeated", carved="auto", repeats=3)
    assert len(found.pool) == 900
    assert [len(part.rows) for part in found.parts] == [100, 100]


GOLDEN = [*range(0, 40, 2), 1, 11, 19, 21, 27]
GOLDEN_HELD = [0, 8, 19, 26, 31]


def test_the_draws_are_the_same_everywhere():
    """Golden ids: another numpy or machine must not have other pools."""
    assert rare(one_hot(np.asarray(halves(40)), 2), 0.2).tolist() == sorted(GOLDEN)
    small = [split("train", halves(40)), split("dev", halves(4))]
    assert select(small, carved=5).parts[1].rows.tolist() == GOLDEN_HELD

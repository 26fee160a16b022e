"""The split builder: stated agreements, balanced groups, no row twice, and what is too little."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from enn_finetune.data.faults import DataError
from enn_finetune.data.spurious import Sizes, SpuriousSplit, build_split, draw_start, group_counts

NAMES = (("bad", "good", "so-so"), ("books", "kitchen", "dvd"))


def rows_of(counts: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels and attributes (N,) of rows with so many of each group, shuffled."""
    pairs = np.array([place for place in np.ndindex(*counts.shape) for _ in range(counts[place])])
    pairs = pairs.reshape(-1, 2)[np.random.default_rng(seed).permutation(len(pairs))]
    return pairs[:, 0], pairs[:, 1]


def counted(labels: np.ndarray, attributes: np.ndarray, rows: np.ndarray, classes: int):
    found = np.zeros((classes, classes), int)
    np.add.at(found, (labels[rows], attributes[rows]), 1)
    return found


def built(
    counts: np.ndarray, sizes: Sizes, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, SpuriousSplit]:
    classes = len(counts)
    labels, attributes = rows_of(counts)
    names = (NAMES[0][:classes], NAMES[1][:classes])
    return labels, attributes, build_split(labels, attributes, sizes, names=names, seed=seed)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 500),
    st.floats(0, 1),
    st.integers(2, 4),
)
def test_group_counts_have_the_agreement_to_rounding(rows: int, agreement: float, classes: int):
    counts = group_counts(rows, agreement, classes)
    agrees = np.eye(classes, dtype=bool)
    assert counts.sum() == rows
    assert abs(counts[~agrees].sum() - rows * (1 - agreement)) <= 0.5 + 1e-9
    for part in (counts[agrees], counts[~agrees]):
        assert part.max() - part.min() <= 1


@settings(deadline=None, max_examples=60)
@given(
    classes=st.integers(2, 3),
    start=st.integers(1, 20),
    pool=st.integers(1, 80),
    test=st.integers(1, 12),
    agreements=st.tuples(st.floats(0.5, 1), st.floats(0, 1)),
    spare=st.integers(0, 9),
    seed=st.integers(0, 2**32 - 1),
)
def test_parts_are_as_stated_and_disjoint(classes, start, pool, test, agreements, spare, seed):
    sizes = Sizes(start, pool, test, *agreements)
    begins = group_counts(start, agreements[0], classes)
    wanted = group_counts(pool, agreements[1], classes)
    assume(agreements[1] == 1 or np.trace(wanted) < pool)
    labels, attributes, split = built(begins + wanted + test + spare, sizes, seed)
    assert len(np.unique(np.concatenate([split.rows, split.test]))) == start + pool + test * (
        classes**2
    )
    assert (counted(labels, attributes, split.test, classes) == test).all()
    for draw in (seed, seed // 2 + 1):
        first = draw_start(labels, attributes, split, draw)
        left = np.delete(split.rows, first)
        assert len(np.unique(first)) == start
        assert (counted(labels, attributes, split.rows[first], classes) == begins).all()
        assert (counted(labels, attributes, left, classes) == wanted).all()
    assert split.disagreeing == pytest.approx(1 - np.trace(wanted) / pool)
    assert abs(split.disagreeing - (1 - agreements[1])) <= 0.5 / pool + 1e-9


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.integers(8, 90), min_size=4, max_size=4),
    st.sampled_from([0.0, 0.5, 0.8, 0.9, 0.95]),
)
def test_the_largest_pool_leaves_no_room_for_more(found, agreement):
    counts, sizes = np.reshape(found, (2, 2)), Sizes(4, 0, 3, 1.0, agreement)
    try:
        *_, split = built(counts, sizes)
    except DataError:  # too few of a group, or no row that disagrees: tested below
        assume(False)
    size, left = int(split.pool.sum()), counts - 3 - split.start
    assert (split.pool <= left).all()
    assert (split.pool == group_counts(size, agreement, 2)).all()
    for more in range(size + 1, size + 20):
        assert (group_counts(more, agreement, 2) > left).any()


def test_seeds_draw_other_rows_and_the_same_seed_the_same_ones():
    counts, sizes = np.full((2, 2), 60), Sizes(10, 40, 5)
    labels, attributes, split = built(counts, sizes)
    again = built(counts, sizes)[2]
    other = built(counts, sizes, seed=1)[2]
    assert all((a == b).all() for a, b in zip(split, again, strict=True))
    assert set(split.test) != set(other.test)
    draws = [draw_start(labels, attributes, split, seed).tolist() for seed in (0, 0, 1)]
    assert draws[0] == draws[1]
    assert set(draws[0]) != set(draws[2])


def test_too_few_rows_name_the_group_and_both_numbers():
    with pytest.raises(DataError) as raised:
        built(np.array([[60, 11], [60, 60]]), Sizes(10, 100, 10, 1.0, 0.9))
    assert "label bad, attribute kitchen: found 11 rows, needed 15" in str(raised.value)
    assert "attribute books" not in str(raised.value)
    with pytest.raises(DataError, match="label good, attribute books: found 10 rows, needed 11"):
        built(np.array([[60, 60], [10, 60]]), Sizes(10, 0, 10))


@pytest.mark.parametrize(
    ("sizes", "told"),
    [
        (Sizes(0, 10, 5), "one row at least"),
        (Sizes(4, 10, 0), "one row at least"),
        (Sizes(4, 10, 5, 1.2), "share from 0 to 1"),
        (Sizes(4, 8, 5, 1.0, 0.95), "no row that disagrees"),
    ],
)
def test_sizes_that_make_no_split(sizes: Sizes, told: str):
    with pytest.raises(DataError, match=told):
        built(np.full((2, 2), 30), sizes)


def test_labels_and_attributes_come_in_pairs():
    labels, attributes = rows_of(np.full((2, 2), 30))
    with pytest.raises(DataError, match=r"2 labels \(bad, good\) and 3 attribute values"):
        build_split(labels, attributes, Sizes(4, 10, 5), names=(NAMES[0][:2], NAMES[1]))
    with pytest.raises(DataError, match="one of each a row"):
        build_split(labels, attributes[1:], Sizes(4, 10, 5), names=(NAMES[0][:2], NAMES[1][:2]))
    with pytest.raises(DataError, match="from 0 to 1"):
        build_split(labels, attributes + 1, Sizes(4, 10, 5), names=(NAMES[0][:2], NAMES[1][:2]))

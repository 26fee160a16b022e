"""Inputs of rows: every row once, in few shapes, as it is in the data."""

import numpy as np
import pytest

from enn_finetune.data.inputs import FeatureRows, TokenRows, one_by_one, subset
from enn_finetune.data.tokens import Ragged


def ragged(lengths) -> Ragged:
    """Example i is the token 10 + i, as often as its length says."""
    lengths = np.asarray(lengths, np.int64)
    ids = np.repeat(np.arange(len(lengths), dtype=np.int32) + 10, lengths)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return Ragged(ids, np.zeros(len(ids), np.uint8), offsets)


LENGTHS = np.random.default_rng(0).integers(2, 30, 37)


def seen(batch, example: int) -> list[int]:
    """The tokens of an example of a batch."""
    return batch.ids[batch.owner == example].tolist()


@pytest.mark.parametrize("batch", [1, 4, 256])
@pytest.mark.parametrize("count", [0, 1, 20])
def test_batches_of_tokens_have_every_row_once(batch, count):
    rows = TokenRows.of(ragged(LENGTHS), batch)
    wanted = np.random.default_rng(1).permutation(len(LENGTHS))[:count]
    places = []
    for found, inputs in rows.batches(wanted):
        assert len(found) <= len(inputs.first) == 2 * batch
        for example, place in enumerate(found):
            row = wanted[place]
            assert seen(inputs, example) == [row + 10] * LENGTHS[row]
        places += found.tolist()
    assert sorted(places) == list(range(count))


def test_training_batches_differ_in_one_dimension_only():
    rows = TokenRows.of(ragged(LENGTHS), 8)
    rng = np.random.default_rng(2)
    shapes = set()
    for _ in range(50):
        wanted = rng.choice(len(LENGTHS), rng.integers(1, 9), replace=False)
        batch = rows.take(wanted, 8)
        assert len(batch.first) == 8
        for example, row in enumerate(wanted):
            assert seen(batch, example) == [row + 10] * LENGTHS[row]
        shapes.add(batch.ids.shape)
    assert {L for _, L in shapes} == {64}
    assert len(shapes) <= rows.shapes.bound(8)


def test_one_long_text_sets_the_length_of_all_training_batches():
    rows = TokenRows.of(ragged([3, 3, 200, 3]), 8)
    assert rows.take(np.asarray([0, 1]), 2).ids.shape[1] == 256


def test_no_rows_at_all():
    assert len(TokenRows.of(ragged([]), 4)) == 0
    assert list(TokenRows.of(ragged([]), 4).batches(np.arange(0))) == []


# Two texts a row, apart


@pytest.mark.parametrize("batch", [1, 4, 256])
@pytest.mark.parametrize("longest", [30, 512])
def test_both_texts_of_a_row_are_side_by_side_in_one_batch(batch, longest):
    lengths = np.random.default_rng(3).integers(2, longest, 34)
    lengths[6:8] = longest
    rows = TokenRows.of(ragged(lengths), batch, apart=True)
    assert len(rows) == 17
    wanted = np.random.default_rng(4).permutation(17)[:11]
    for kept, ids in ((rows, wanted), (subset(rows, wanted), np.arange(11))):
        places = []
        for found, inputs in kept.batches(ids):
            assert len(found) <= 2 * batch
            assert len(inputs.first) == 4 * batch
            assert inputs.ids.size <= max(8 * batch, 1024)
            for example, place in enumerate(found):
                for half in (0, 1):
                    text = 2 * wanted[place] + half
                    where = inputs.owner == 2 * example + half
                    assert inputs.ids[where].tolist() == [text + 10] * lengths[text]
                    assert inputs.positions[where].tolist() == list(range(lengths[text]))
                    assert where.reshape(-1)[inputs.first[2 * example + half]]
            assert (inputs.owner[inputs.owner >= 2 * len(found)] == 4 * batch).all()
            places += found.tolist()
        assert sorted(places) == list(range(11))
    taken = rows.take(wanted[:3], 5)
    assert len(taken.first) == 10
    texts = [2 * row + half for row in wanted[:3] for half in (0, 1)]
    assert [seen(taken, n) for n in range(6)] == [[t + 10] * lengths[t] for t in texts]


def test_texts_of_pairs_in_turn():
    assert one_by_one(["a", "b"], ["x", "y"]) == ["a", "x", "b", "y"]
    with pytest.raises(ValueError, match="found 1 texts but 2 second ones"):
        one_by_one(["a"], ["x", "y"])


def test_features_are_padded_to_one_shape():
    features = np.arange(22, dtype=np.float32).reshape(11, 2) + 1
    rows = FeatureRows(features, 4)
    assert len(rows) == 11
    wanted = np.asarray([10, 3, 5, 0, 7])
    parts = list(rows.batches(wanted))
    assert [inputs.shape for _, inputs in parts] == [(4, 2), (4, 2)]
    assert np.concatenate([places for places, _ in parts]).tolist() == [0, 1, 2, 3, 4]
    found = np.concatenate([inputs[: len(places)] for places, inputs in parts])
    assert (found == features[wanted]).all()
    assert (parts[-1][1][1:] == 0).all()
    assert (rows.take(wanted[:2], 3) == [[21, 22], [7, 8], [0, 0]]).all()
    assert list(rows.batches(np.arange(0))) == []

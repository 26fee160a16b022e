import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enn_finetune.data.tokens import (
    PackShapes,
    Ragged,
    batches,
    efficiency,
    layout,
    pack,
    shapes_needed,
    tokenise,
)

SHAPES = PackShapes(lengths=(8, 16, 32))
lengths_of_examples = st.lists(st.integers(1, 32), max_size=40)
few = settings(deadline=None, max_examples=60)


def ragged_of(lengths, seed=0) -> Ragged:
    rng = np.random.default_rng(seed)
    total = int(np.sum(lengths, dtype=int))
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    ids = rng.integers(1, 1000, total).astype(np.int32)
    return Ragged(ids, rng.integers(0, 2, total).astype(np.uint8), offsets)


def assert_holds(batch, ragged: Ragged) -> None:
    """Every token of every example once, in one row, in order; padding everywhere else."""
    N = len(batch.first)
    R, L = batch.ids.shape
    ids, types, positions, owner = (np.asarray(a).reshape(-1) for a in batch[:4])
    assert all(np.asarray(a).dtype == np.int32 for a in batch)
    for i in range(len(ragged)):
        (slots,) = np.nonzero(owner == i)
        part = slice(ragged.offsets[i], ragged.offsets[i + 1])
        assert len(set(slots // L)) == 1
        np.testing.assert_array_equal(slots, batch.first[i] + np.arange(len(slots)))
        np.testing.assert_array_equal(ids[slots], ragged.ids[part])
        np.testing.assert_array_equal(types[slots], ragged.types[part])
        np.testing.assert_array_equal(positions[slots], np.arange(len(slots)))
    empty = owner == N
    assert empty.sum() == R * L - len(ragged.ids)
    for array in (ids, types, positions):
        np.testing.assert_array_equal(array[empty], 0)
    np.testing.assert_array_equal(batch.first[len(ragged) :], 0)


@few
@given(lengths_of_examples, st.integers(0, 3))
def test_pack_places_every_token_once(lengths, extra):
    ragged = ragged_of(lengths)
    N = max(len(lengths) + extra, 1)
    batch = pack(ragged, examples=N, shapes=SHAPES)
    assert batch.first.shape == (N,)
    assert batch.ids.shape[0] in SHAPES.rows_upto(N)
    assert batch.ids.shape[1] in SHAPES.lengths
    assert_holds(batch, ragged)
    again = pack(ragged, examples=N, shapes=SHAPES)
    for a, b in zip(batch, again, strict=True):
        np.testing.assert_array_equal(a, b)


@few
@given(lengths_of_examples, st.integers(1, 12), st.sampled_from([8, 64, 200]))
def test_batches_hold_every_example_once(lengths, examples, tokens):
    ragged = ragged_of(lengths)
    seen, shapes = [], set()
    for places, batch in batches(ragged, tokens=tokens, examples=examples, shapes=SHAPES):
        assert batch.first.shape == (examples,)
        assert 0 < len(places) <= examples
        assert batch.ids.size <= max(tokens, batch.ids.shape[1])
        assert_holds(batch, ragged.take(places))
        seen += places.tolist()
        shapes.add(batch.ids.shape)
    assert sorted(seen) == list(range(len(ragged)))
    assert len(shapes) <= len(SHAPES.lengths)


@few
@given(st.lists(lengths_of_examples.filter(len), min_size=1, max_size=8))
def test_number_of_shapes_is_bounded(sets):
    N = max(len(s) for s in sets)
    shapes = {layout(np.asarray(s), N, SHAPES).shape for s in sets}
    assert all(SHAPES.rows_upto(N)[-1] >= R and L in SHAPES.lengths for R, L in shapes)
    assert len(shapes) <= SHAPES.bound(N)


def test_rows_grow_geometrically():
    assert PackShapes().rows_upto(33) == [
        1,
        2,
        3,
        4,
        5,
        6,
        7,
        8,
        10,
        12,
        14,
        16,
        20,
        24,
        28,
        32,
        40,
    ]
    assert PackShapes(steps=1).rows_upto(33) == [1, 2, 4, 8, 16, 32, 64]
    assert PackShapes().bound(32) == 80


def test_the_cheapest_shape_is_chosen():
    assert layout(np.full(8, 8), 8, PackShapes(lengths=(32, 64))).shape == (2, 32)
    assert layout(np.full(3, 20), 3, PackShapes(lengths=(32, 64))).shape == (1, 64)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.data())
@few
def test_take_selects_and_reorders(lengths, data):
    ragged = ragged_of(lengths)
    rows = data.draw(st.lists(st.integers(0, len(lengths) - 1), max_size=15))
    part = ragged.take(rows)
    assert len(part) == len(rows)
    np.testing.assert_array_equal(part.lengths, ragged.lengths[np.asarray(rows, int)])
    pieces = [ragged.ids[ragged.offsets[r] : ragged.offsets[r + 1]] for r in rows]
    np.testing.assert_array_equal(part.ids, np.concatenate([np.zeros(0, int), *pieces]))


def test_a_too_long_example_is_an_error_that_says_what_to_do():
    ragged = ragged_of([3, 40, 2])
    for run in (
        lambda: pack(ragged, examples=3, shapes=SHAPES),
        lambda: list(batches(ragged, shapes=SHAPES)),
    ):
        with pytest.raises(ValueError, match=r"example 1 has 40 tokens.*max_tokens=32"):
            run()


def test_too_many_examples_and_bad_shapes_are_errors():
    with pytest.raises(ValueError, match="3 examples for a batch of 2"):
        pack(ragged_of([1, 2, 3]), examples=2, shapes=SHAPES)
    with pytest.raises(ValueError, match="rising"):
        PackShapes(lengths=(64, 32))
    with pytest.raises(ValueError, match="steps"):
        PackShapes(steps=3)


def test_an_empty_pool_has_no_batches():
    assert list(batches(ragged_of([]), shapes=SHAPES)) == []


def test_import_needs_no_transformers():
    code = (
        "import sys, enn_finetune.data.tokens.sequences as s; "
        "assert 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture(scope="module")
def tokenizer(minilm):
    transformers = pytest.importorskip("transformers")
    return transformers.AutoTokenizer.from_pretrained(minilm)


def test_tokenise_adds_special_tokens_types_and_cuts(tokenizer):
    long = "word " * 50
    ragged = tokenise(tokenizer, ["a film", long], ["good?", "yes"], 16)
    expected = tokenizer("a film", "good?")
    n = ragged.offsets[1]
    assert ragged.ids[:n].tolist() == expected["input_ids"]
    assert ragged.types[:n].tolist() == expected["token_type_ids"]
    assert ragged.lengths.tolist() == [n, 16]
    assert ragged.types[n:].tolist() == [0] * 14 + [1] * 2  # the longer text is cut first
    assert (ragged.ids.dtype, ragged.types.dtype) == (np.int32, np.uint8)


def test_tokenise_in_chunks_is_tokenise_at_once(tokenizer, monkeypatch):
    text = ["one", "two words", "three short words", "", "five"]
    whole = tokenise(tokenizer, text, None, 8)
    monkeypatch.setattr("enn_finetune.data.tokens.sequences.CHUNK", 2)
    parts = tokenise(tokenizer, text, None, 8)
    np.testing.assert_array_equal(whole.ids, parts.ids)
    np.testing.assert_array_equal(whole.offsets, parts.offsets)
    assert len(tokenise(tokenizer, [], None, 8)) == 0


def test_tokenise_refuses_texts_without_a_pair(tokenizer):
    with pytest.raises(ValueError, match="2 texts but 1 pair"):
        tokenise(tokenizer, ["a", "b"], ["c"], 8)


@pytest.mark.parametrize(("task", "columns"), [("SST-2", (0, None)), ("RTE", (1, 2))])
def test_real_pools_waste_little(shared, tokenizer, task, columns):
    lines = (shared / "glue" / task / "train.tsv").read_text(encoding="utf-8").splitlines()[1:3001]
    rows = [line.split("\t") for line in lines]
    text, pair = ([r[c] for r in rows] if c is not None else None for c in columns)
    ragged = tokenise(tokenizer, text, pair, 512)
    made = [batch for _, batch in batches(ragged, shapes=PackShapes())]
    assert len(ragged.ids) / sum(batch.ids.size for batch in made) > 0.85
    assert max(efficiency(batch) for batch in made) <= 1
    needed = shapes_needed(ragged.lengths, 32, PackShapes(), draws=50)
    assert sum(needed.values()) == 50
    assert len(needed) <= 15

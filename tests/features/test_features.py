"""The feature cache: never another number than without it, never an encoding done twice."""

import json
from pathlib import Path

import numpy as np
import pytest
import tiny_runs
from cached_texts import SHARD, TEXTS, Told, reader, shards
from flax import nnx
from tiny_runs import tiny_bert

from enn_finetune.errors import InputError
from enn_finetune.features import TextFeatures, cache_folder
from enn_finetune.features import shards as cut
from enn_finetune.features.shards import distinct
from enn_finetune.models.backbone import load_backbone

# The same numbers


def test_a_cache_changes_no_bit(bert, tmp_path, encoded):
    plain = reader(bert, None)(TEXTS)
    built = reader(bert, tmp_path / "cache")(TEXTS)
    assert encoded == [8, 8, 8, 6] * 2
    read = reader(bert, tmp_path / "cache")(TEXTS)
    assert len(encoded) == 8
    assert plain.dtype == np.float32
    assert plain.shape == (30, 8)
    assert np.ptp(plain, axis=0).min() > 0
    np.testing.assert_array_equal(built, plain)
    np.testing.assert_array_equal(read, plain)
    alone = np.concatenate([reader(bert, None)([text]) for text in TEXTS[:3]])
    np.testing.assert_allclose(alone, plain[:3], atol=1e-5)


def test_pairs_and_views(bert, tmp_path):
    second = TEXTS[::-1]
    plain = reader(bert, None, layers="auto")(TEXTS, second)
    for _ in range(2):
        found = reader(bert, tmp_path / "cache", layers="auto")(TEXTS, second)
        np.testing.assert_array_equal(found, plain)
    assert plain.shape == (30, 16)
    last = reader(bert, tmp_path / "cache")(TEXTS, second)
    np.testing.assert_allclose(plain[:, 8:], last, atol=1e-5)
    assert not np.allclose(reader(bert, None)(TEXTS), last)
    with pytest.raises(ValueError, match="30 texts but 2 second ones"):
        reader(bert, None)(TEXTS, second[:2])


def test_no_rows(bert, tmp_path):
    assert reader(bert, tmp_path / "cache")([]).shape == (0, 8)
    assert shards(tmp_path / "cache") == []


# What is encoded


def test_repeated_rows_are_encoded_once(bert, tmp_path, encoded):
    order = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 5))
    found = reader(bert, tmp_path / "cache")([TEXTS[i] for i in order])
    assert encoded == [8, 2]
    rows, where = distinct([TEXTS[i] for i in order], None)
    assert len(rows) == 10
    expected = reader(bert, None)([text for text, _ in rows])
    np.testing.assert_array_equal(found, expected[where])
    encoded.clear()
    reader(bert, tmp_path / "cache")([text for text, _ in rows])  # the pool without its copies
    assert encoded == []


def test_a_second_text_or_none_are_different_rows():
    rows, where = distinct(["a", "a", "b", "a"], ["x", "y", "x", "x"])
    assert rows == [("a", "x"), ("a", "y"), ("b", "x")]
    assert where.tolist() == [0, 1, 2, 0]
    assert distinct(["a", "a"], None)[0] == [("a", None)]


def test_only_shards_that_changed_are_encoded_again(bert, tmp_path, encoded):
    cache = tmp_path / "cache"
    reader(bert, cache)(TEXTS[:20])
    encoded.clear()
    reader(bert, cache)(TEXTS)  # appended to: the last shard was cut short before
    assert encoded == [8, 6]
    encoded.clear()
    edited = [*TEXTS[:10], "hello world", *TEXTS[11:]]
    found = reader(bert, cache)(edited)
    assert encoded == [8]
    np.testing.assert_array_equal(found, reader(bert, None)(edited))


def other_weights(bert: Path) -> None:
    tensors = tiny_bert.random_tensors()
    tensors["encoder.layer.1.output.dense.bias"][3] += 0.01
    tiny_bert.write(bert, tensors)


def other_tokenizer(bert: Path) -> None:
    swapped = {"a": "b", "b": "a"}
    path = bert / "tokenizer.json"
    values = json.loads(path.read_text())
    vocabulary = values["model"]["vocab"]
    values["model"]["vocab"] = {swapped.get(w, w): i for w, i in vocabulary.items()}
    path.write_text(json.dumps(values))
    words = (bert / "vocab.txt").read_text().split()
    (bert / "vocab.txt").write_text("".join(f"{swapped.get(w, w)}\n" for w in words))


def other_sizes(bert: Path) -> None:
    tiny_bert.write(bert, layer_norm_eps=1e-6)


@pytest.mark.parametrize(
    "change",
    [
        other_weights,
        other_tokenizer,
        other_sizes,
        {"most": 9},
        {"pooling": "cls"},
        {"layers": [1]},
        {"layers": [1, 2]},
        {"dtype": "bfloat16"},
    ],
    ids=lambda change: getattr(change, "__name__", str(change)),
)
def test_whatever_changes_a_number_has_another_place(bert, tmp_path, encoded, change):
    cache, texts = tmp_path / "cache", TEXTS[:SHARD]
    reader(bert, cache)(texts)
    encoded.clear()
    options = change if isinstance(change, dict) else {}
    if not options:
        change(bert)
    found = reader(bert, cache, **options)(texts)
    assert encoded == [SHARD]
    assert len(list(cache.iterdir())) == 2
    np.testing.assert_array_equal(found, reader(bert, None, **options)(texts))


def test_weights_count_as_they_are_in_memory(bert, tmp_path, encoded):
    cache, texts = tmp_path / "cache", TEXTS[:SHARD]
    before = reader(bert, cache)(texts)
    encoder = load_backbone(bert)
    scale = encoder.bert.layers[0].output_norm.scale
    nnx.update(scale, scale[...] * 1.5)  # trained further; the folder does not know
    found = TextFeatures(encoder, bert, 16, cache=cache, display=Told())(texts)
    assert encoded == [SHARD, SHARD]
    assert not np.allclose(found, before)


# Where it is


def test_where_the_cache_is(monkeypatch, tmp_path, cache_home):
    assert cache_folder("") == cache_home / "enn_finetune" / "features"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder("") == tmp_path / ".cache" / "enn_finetune" / "features"
    assert cache_folder("~/there") == tmp_path / "there"
    assert cache_folder("none") is None


@pytest.mark.parametrize(("cache", "kept"), [("here", 2), ("none", 0)])
def test_a_run_keeps_its_features_where_the_config_says(
    tmp_path, encoded, monkeypatch, cache, kept
):
    monkeypatch.setattr(cut, "SHARD", 100)
    world = tiny_runs.write_world(tmp_path)
    where = cache if cache == "none" else str(tmp_path / cache)
    config = tiny_runs.config_of(world, **{"backbone.cache": where})
    first = tiny_runs.prepared(config)
    again = tiny_runs.prepared(config)
    assert len(shards(tmp_path / cache)) == kept
    assert len(encoded) == 4 - kept
    np.testing.assert_array_equal(first.pool.features, again.pool.features)
    assert first.pool.features.shape == (tiny_runs.TRAIN_ROWS, 8)


def test_a_run_reads_the_layers_that_the_config_says(tmp_path):
    tiny_bert.write(tmp_path / "two")
    world = tiny_runs.write_world(tmp_path)
    options = {"backbone.path": str(tmp_path / "two"), "backbone.layers": "auto"}
    found = tiny_runs.prepared(tiny_runs.config_of(world, **options))
    assert found.encoder.layers == (1, 2)
    assert found.pool.features.shape == (tiny_runs.TRAIN_ROWS, 16)
    with pytest.raises(InputError, match=r"backbone\.layers: found \[1, 7\]"):
        tiny_runs.prepared(tiny_runs.config_of(world, **options | {"backbone.layers": "1,7"}))

"""From inputs to features: pooling as the folder says, whole pools in few compilations."""

import json
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_bert

from enn_finetune.errors import InputError
from enn_finetune.models import backbone
from enn_finetune.models.backbone import (
    BertBackbone,
    Identity,
    default_pooling,
    encode,
    load_backbone,
)
from enn_finetune.models.weights import load_bert

LENGTHS = (5, 3, 7, 2, 6, 4, 7)


def one(batch, n: int):
    """Example n of a padded batch, alone and without its padding."""
    length = int((np.asarray(batch.owner[n]) == n).sum())
    row = [np.asarray(field[n : n + 1, :length]) for field in batch[:3]]
    return backbone.TokenBatch(
        *row, owner=np.zeros((1, length), np.int32), first=np.zeros(1, np.int32)
    )


def write_pooling(folder: Path, **modes: bool) -> None:
    (folder / "1_Pooling").mkdir(exist_ok=True)
    config = {"word_embedding_dimension": 8} | {f"pooling_mode_{k}": v for k, v in modes.items()}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(config))


def test_the_identity_passes_features_through():
    features = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(Identity(3)(features), features)
    np.testing.assert_array_equal(Identity(3)(features, key=jax.random.key(0)), features)
    with pytest.raises(ValueError, match=r"found inputs \(2, 3\), expected \(N, 4\)"):
        Identity(4)(features)
    with pytest.raises(TypeError, match="found tokens"):
        Identity(3)(tiny_bert.batch(2))


@pytest.mark.parametrize("pooling", ["mean", "cls", "pooler"])
def test_features_are_those_of_each_example_alone(tmp_path, pooling):
    tiny_bert.write(tmp_path)
    encoder = load_backbone(tmp_path, pooling=pooling)
    batch = tiny_bert.batch(4, 2, 4)
    features = encoder(batch)
    assert features.shape == (3, encoder.width) == (3, 8)
    assert features.dtype == jnp.float32
    for n in range(3):
        alone = one(batch, n)
        hidden = np.asarray(encoder.bert(alone))[0]
        expected = {"mean": hidden.mean(0), "cls": hidden[0]}.get(pooling)
        if expected is None:
            pooler = encoder.bert.pooler
            expected = np.tanh(hidden[0] @ pooler.kernel[...] + pooler.bias[...])
        np.testing.assert_allclose(features[n], expected, atol=1e-5)


def test_dropout_is_on_with_a_key_only(tmp_path):
    tiny_bert.write(tmp_path)
    encoder, batch = load_backbone(tmp_path), tiny_bert.batch(*LENGTHS)
    plain = encoder(batch)
    np.testing.assert_array_equal(encoder(batch), plain)
    dropped = encoder(batch, key=jax.random.key(0))
    assert not np.allclose(dropped, plain)
    np.testing.assert_array_equal(encoder(batch, key=jax.random.key(0)), dropped)


def test_the_compute_type_is_apart_from_the_parameters_type(tmp_path):
    tiny_bert.write(tmp_path)
    batch = tiny_bert.batch(*LENGTHS)
    exact, narrow = load_backbone(tmp_path), load_backbone(tmp_path, dtype="bfloat16")
    assert narrow.bert.word[...].dtype == jnp.float32
    assert narrow.bert(batch).dtype == jnp.bfloat16
    assert narrow(batch).dtype == jnp.float32
    assert not np.array_equal(narrow(batch), exact(batch))
    np.testing.assert_allclose(narrow(batch), exact(batch), atol=0.1)


def test_pooling_is_what_the_folder_says(tmp_path):
    tiny_bert.write(tmp_path)
    assert default_pooling(tmp_path) == "mean"
    write_pooling(tmp_path, cls_token=True, mean_tokens=False, max_tokens=False)
    assert default_pooling(tmp_path) == "cls"
    assert load_backbone(tmp_path).pooling == "cls"
    assert load_backbone(tmp_path, pooling="mean").pooling == "mean"
    write_pooling(tmp_path, cls_token=False, mean_tokens=True)
    assert default_pooling(tmp_path) == "mean"


@pytest.mark.parametrize(
    ("modes", "found"),
    [
        ({"max_tokens": True}, "pooling_mode_max_tokens"),
        ({"mean_tokens": True, "cls_token": True}, "pooling_mode_mean_tokens, pooling_mode_cls"),
        ({}, "no pooling mode"),
    ],
)
def test_other_poolings_are_refused(tmp_path, modes, found):
    tiny_bert.write(tmp_path)
    write_pooling(tmp_path, **modes)
    with pytest.raises(InputError, match=rf"1_Pooling/config\.json: found {found}.*set backbone"):
        load_backbone(tmp_path)


def test_a_pooling_that_cannot_be_is_refused(tmp_path):
    tiny_bert.write(tmp_path, tiny_bert.random_tensors(pooler=False))
    with pytest.raises(InputError, match="found 'max'; use auto, mean, cls, pooler"):
        load_backbone(tmp_path, pooling="max")
    with pytest.raises(InputError, match="found no pooler weights"):
        load_backbone(tmp_path, pooling="pooler")
    bert = load_bert(tmp_path)
    with pytest.raises(ValueError, match="the encoder has none"):
        BertBackbone(bert, "pooler")
    with pytest.raises(ValueError, match="found 'max'"):
        BertBackbone(bert, "max")
    with pytest.raises(TypeError, match="expected a TokenBatch"):
        BertBackbone(bert)(np.zeros((2, 8)))


def test_a_pooler_that_is_not_used_is_not_kept(tmp_path):
    tiny_bert.write(tmp_path)
    assert load_backbone(tmp_path, pooling="mean").bert.pooler is None
    assert load_backbone(tmp_path, pooling="pooler").bert.pooler is not None


def whole_pool(batch, size: int):
    """The examples of a padded batch in shuffled order, `size` a batch, all of one shape."""
    order = np.random.default_rng(0).permutation(len(batch.first))
    for start in range(0, len(order), size):
        places = order[start : start + size]
        rows = np.concatenate([places, np.zeros(size - len(places), int)])
        owner = np.where(
            (batch.owner[rows] == rows[:, None]) & (np.arange(size) < len(places))[:, None],
            np.arange(size)[:, None],
            size,
        )
        yield (
            places,
            backbone.TokenBatch(
                *(field[rows] for field in batch[:3]),
                owner=owner.astype(np.int32),
                first=np.arange(size, dtype=np.int32) * batch.ids.shape[1],
            ),
        )


def test_encode_computes_every_row_once_and_says_how_far_it_is(tmp_path):
    tiny_bert.write(tmp_path)
    encoder, batch = load_backbone(tmp_path), tiny_bert.batch(*LENGTHS)
    done: list[int] = []
    features = encode(encoder, whole_pool(batch, 3), 7, done.append)
    assert isinstance(features, np.ndarray)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, encoder(batch), atol=1e-5)
    assert done == [3, 6, 7]


def test_encode_compiles_once_for_a_shape_over_all_calls(tmp_path, monkeypatch):
    tiny_bert.write(tmp_path)
    encoder, batch = load_backbone(tmp_path), tiny_bert.batch(*LENGTHS)
    traced = jax.jit(chex.assert_max_traces(backbone._features.__wrapped__, n=1), static_argnums=0)
    monkeypatch.setattr(backbone, "_features", traced)
    first = encode(encoder, whole_pool(batch, 3), 7)
    np.testing.assert_array_equal(encode(encoder, whole_pool(batch, 3), 7), first)


def test_encode_refuses_batches_that_miss_or_repeat_a_row(tmp_path):
    tiny_bert.write(tmp_path)
    encoder, batch = load_backbone(tmp_path), tiny_bert.batch(*LENGTHS)
    batches = list(whole_pool(batch, 3))
    with pytest.raises(ValueError, match="in 0 batches"):
        encode(encoder, batches[:-1], 7)
    with pytest.raises(ValueError, match="in 2 batches"):
        encode(encoder, [*batches, batches[0]], 7)


def test_encode_of_no_rows(tmp_path):
    tiny_bert.write(tmp_path)
    assert encode(load_backbone(tmp_path), [], 0).shape == (0, 8)

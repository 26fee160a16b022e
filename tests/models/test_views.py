"""Several encoder layers, side by side, as views of each example."""

import json

import jax
import numpy as np
import pytest
import tiny_bert
from flax import nnx
from make_golden import GOLDEN, SENTENCES, TINY, arrays
from test_bert import padded, write_folder

from enn_finetune.errors import InputError
from enn_finetune.models.backbone import VIEWS, BertBackbone, auto_layers, load_backbone
from enn_finetune.models.card import Card
from enn_finetune.models.classifier import Classifier, load_classifier
from enn_finetune.models.heads import make_head
from enn_finetune.models.places import load_tokenizer
from enn_finetune.models.weights import load_bert

LENGTHS = (5, 3, 7, 2)


@nnx.jit
def features(backbone, batch):
    return backbone(batch)


def mean(hidden: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return (hidden * mask[:, :, None]).sum(1) / mask.sum(1, keepdims=True)


# Layers against PyTorch


@pytest.mark.parametrize("layers", [(1,), (2,), (1, 2)])
def test_each_view_is_its_layers_golden_state(tmp_path, layers):
    golden = np.load(GOLDEN, allow_pickle=False)
    start = "tiny/weight/"
    tensors = {k.removeprefix(start): golden[k] for k in golden.files if k.startswith(start)}
    bert = load_bert(write_folder(tmp_path, TINY, tensors))
    ids, types, mask = (golden[f"tiny/{name}"] for name in ("ids", "types", "mask"))
    for pooling in ("mean", "cls"):
        backbone = BertBackbone(bert, pooling, layers)
        found = features(backbone, padded(ids, types, mask))
        assert found.shape == (len(ids), backbone.width) == (4, len(layers) * 16)
        states = [golden["tiny/hidden"][layer] for layer in layers]
        expected = [mean(h, mask) if pooling == "mean" else h[:, 0] for h in states]
        np.testing.assert_allclose(found, np.concatenate(expected, axis=1), atol=1e-4)


def test_every_layer_of_minilm_is_torchs(minilm):
    torch = pytest.importorskip("torch", reason="compares with PyTorch transformers")
    from transformers import BertModel

    ids, types, mask = arrays(load_tokenizer(minilm))
    with torch.no_grad():
        theirs = BertModel.from_pretrained(minilm).eval()(
            *(torch.tensor(a).long() for a in (ids, mask, types)), output_hidden_states=True
        )
    backbone = load_backbone(minilm, layers=range(1, 7))
    found = features(backbone, padded(ids, types, mask)).reshape(len(SENTENCES), 6, 384)
    for layer in range(1, 7):
        expected = mean(theirs.hidden_states[layer].numpy(), mask)
        np.testing.assert_allclose(found[:, layer - 1], expected, atol=1e-4)


def test_the_last_layer_alone_is_the_default_bit_for_bit(tmp_path):
    tiny_bert.write(tmp_path)
    batch = tiny_bert.batch(*LENGTHS)
    plain, named = load_backbone(tmp_path), load_backbone(tmp_path, layers=[2])
    assert plain.layers == named.layers == (2,)
    assert (plain.views, plain.width) == (1, 8)
    hidden = plain.bert(batch)
    np.testing.assert_array_equal(plain(batch), plain.bert.pool(hidden, batch, "mean"))
    np.testing.assert_array_equal(named(batch), plain(batch))
    assert nnx.graphdef(named) == nnx.graphdef(plain)


def test_layers_above_the_last_one_read_change_nothing(tmp_path):
    tensors = tiny_bert.random_tensors()
    tiny_bert.write(tmp_path / "a", tensors)
    changed = {k: v + 1 if "layer.1" in k else v for k, v in tensors.items()}
    tiny_bert.write(tmp_path / "b", changed)
    batch = tiny_bert.batch(*LENGTHS)
    a, b = (features(load_backbone(tmp_path / n, layers=[1, 2]), batch) for n in "ab")
    np.testing.assert_array_equal(a[:, :8], b[:, :8])
    assert not np.allclose(a[:, 8:], b[:, 8:])


# Which layers


def test_auto_takes_about_four_from_the_middle_to_the_last():
    assert [auto_layers(n) for n in (1, 2, 3)] == [(1,), (1, 2), (1, 2, 3)]
    assert auto_layers(6) == (3, 4, 5, 6)
    assert auto_layers(12) == (6, 8, 10, 12)
    assert auto_layers(24) == (12, 16, 20, 24)
    for count in range(1, 50):
        layers = auto_layers(count)
        assert list(layers) == sorted(set(layers))
        assert layers[-1] == count
        assert layers[0] == max(count // 2, 1)
        assert len(layers) == min(VIEWS, count - layers[0] + 1)


def test_layers_by_word_or_number(tmp_path):
    tiny_bert.write(tmp_path)
    assert load_backbone(tmp_path, layers="last").layers == (2,)
    auto = load_backbone(tmp_path, layers="auto")
    assert (auto.layers, auto.views, auto.width) == ((1, 2), 2, 16)
    assert load_backbone(tmp_path, layers=[1]).width == 8


@pytest.mark.parametrize("layers", [(), (0,), (3,), (1, 3), (2, 1), (1, 1)])
def test_layers_that_are_not_there_are_refused(tmp_path, layers):
    tiny_bert.write(tmp_path)
    with pytest.raises(InputError, match=r"backbone\.layers: found .*from 1 to 2"):
        load_backbone(tmp_path, layers=layers)
    with pytest.raises(ValueError, match="rising order"):
        BertBackbone(load_bert(tmp_path), "mean", layers)


def test_the_pooler_is_for_the_last_layer(tmp_path):
    tiny_bert.write(tmp_path)
    assert load_backbone(tmp_path, pooling="pooler", layers=[2]).layers == (2,)
    with pytest.raises(InputError, match=r"'pooler', which is made for the last layer \(2\) alone"):
        load_backbone(tmp_path, pooling="pooler", layers="auto")


# Saved classifiers


def saved(tmp_path, layers):
    tiny_bert.write(tmp_path / "encoder")
    backbone = load_backbone(tmp_path / "encoder", layers=layers)
    head = make_head({"kind": "epinet", "features": backbone.width, "classes": 3}, rngs=nnx.Rngs(1))
    classifier = Classifier(backbone, head)
    classifier.save_pretrained(
        tmp_path / "saved",
        tokenizer=tmp_path / "encoder",
        labels=("a", "b", "c"),
        max_tokens=16,
        card=Card(tuned="frozen"),
    )
    return classifier, tmp_path / "saved"


@pytest.mark.parametrize(("layers", "said"), [("auto", "mean of layers 1, 2 of 2"), ([1], "of 2")])
def test_a_saved_classifier_reads_the_same_layers(tmp_path, layers, said):
    classifier, folder = saved(tmp_path, layers)
    loaded = load_classifier(folder).classifier
    assert nnx.graphdef(loaded) == nnx.graphdef(classifier)
    batch, z = tiny_bert.batch(*LENGTHS), classifier.head.sample_index(jax.random.key(0), 3)
    np.testing.assert_array_equal(loaded.logits(batch, z), classifier.logits(batch, z))
    assert said in (folder / "README.md").read_text(encoding="utf-8")


def test_a_classifier_of_the_last_layer_says_nothing_of_layers(tmp_path):
    folder = saved(tmp_path, "last")[1]
    assert "| pooling | mean |" in (folder / "README.md").read_text(encoding="utf-8")


def test_a_head_file_from_before_layers_means_the_last_one(tmp_path):
    folder = saved(tmp_path, "last")[1]
    path = folder / "head.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    assert values.pop("layers") == [2]
    path.write_text(json.dumps(values))
    assert load_classifier(folder).classifier.backbone.layers == (2,)
    path.write_text(json.dumps(values | {"layers": [1, 5]}))
    with pytest.raises(InputError, match=r"head\.json: layers: found \[1, 5\].*save the"):
        load_classifier(folder)

"""Tuning modes: what moves and what does not, where it begins, and that folding changes nothing."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_bert
from flax import nnx
from tuning_made import EXAMPLES, D, classifier, every_mode, fit, settings, tensors, written

from enn_finetune import train
from enn_finetune.config.tuning import LEARNING_RATES
from enn_finetune.models.backbone import BertBackbone, load_backbone
from enn_finetune.models.classifier import Classifier, load_classifier
from enn_finetune.models.epinet import Prior
from enn_finetune.models.tuning import MODES, adapted, plain
from enn_finetune.models.weights import export_bert

# By mode: the tensors that move, as a folder in Hugging Face layout has them; no others do.
MOVE = {
    "frozen": r"(?!)",
    "last": r"encoder\.layer\.1\..*",
    "bitfit": r".*\.bias",
    "lora": r".*\.(query|value)\.weight",
    "ia3": r".*\.(key|value)\.(weight|bias)|.*\.\d\.output\.dense\.weight",
    "full": r"(?!embeddings\.word).*",
}
SIZES = {  # trained numbers, of 2 layers of width 8 with an inner width of 12, and 16 positions
    "frozen": 0,
    "last": 4 * (D * D + D) + 2 * D * 12 + 12 + D + 4 * D,
    "bitfit": D + 2 * (3 * D + D + D + 12 + D + D),
    "lora": 2 * 2 * 2 * D * 3,
    "ia3": 2 * (2 * D + 12),
    "full": 18 * D + 2 * D + 2 * (4 * (D * D + D) + 2 * D * 12 + 12 + D + 4 * D),
}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> BertBackbone:
    return written(tmp_path_factory.mktemp("encoder"), dropout=0.0)  # compiles quicker


@pytest.fixture(scope="module")
def tuned(encoder: BertBackbone) -> dict[str, tuple[train.Parts, list[train.TrainState]]]:
    """Every mode: its parts, and the states of three steps. Compiled once."""
    found = {}
    for mode in MODES:
        parts = train.split(classifier(encoder, settings(mode)), "frozen")
        found[mode] = parts, fit(parts)
    return found


def after(tuned: dict, mode: str) -> Classifier:
    """The trained classifier as it is, nothing folded."""
    parts, states = tuned[mode]
    return nnx.merge(*train.view(parts, states[-1], averaged=False))


def changed(before: dict[str, np.ndarray], now: dict[str, np.ndarray]) -> set[str]:
    assert before.keys() == now.keys()
    return {name for name, tensor in before.items() if tensor.tobytes() != now[name].tobytes()}


def features(backbone: BertBackbone) -> np.ndarray:
    return np.asarray(backbone(EXAMPLES))  # not compiled: few shapes, shared by all modes


# What moves


def test_every_mode_is_described_here():
    assert MOVE.keys() == SIZES.keys() == MODES.keys() == LEARNING_RATES.keys()


@every_mode
def test_exactly_what_a_mode_trains_moves(encoder, tuned, mode):
    before = export_bert(encoder.bert)
    moved = changed(before, export_bert(after(tuned, mode).backbone.bert))
    expected = {name for name in before if re.fullmatch(MOVE[mode], name)}
    # Softmax does not see a bias of the keys: its gradient is 0 but for rounding.
    deaf = {name for name in before if name.endswith("key.bias") and mode != "ia3"}
    assert moved - deaf == expected - deaf
    assert moved <= expected


@every_mode
def test_only_what_moves_is_trained_averaged_and_saved(tuned, mode):
    parts, states = tuned[mode]
    for tree in (parts.params, states[-1].params, states[-1].average):
        encoder = tree.get("backbone", {})
        assert sum(leaf.size for leaf in jax.tree.leaves(encoder)) == SIZES[mode]
    moments = jax.tree.leaves(states[-1].optimizer.inner_states["encoder"])
    assert sum(leaf.size for leaf in moments if leaf.ndim) == 2 * SIZES[mode]


@every_mode
def test_the_head_moves_and_its_prior_and_the_given_encoder_never(encoder, tuned, mode):
    _, (first, *_, last) = tuned[mode]
    for one, other in zip(
        jax.tree.leaves(first.params["head"]), jax.tree.leaves(last.params["head"]), strict=True
    ):
        assert (one != other).any()
    prior = jax.tree.leaves(nnx.state(after(tuned, mode).head, Prior))
    fresh = jax.tree.leaves(nnx.state(classifier(encoder, settings(mode)).head, Prior))
    assert prior
    assert all((a == b).all() for a, b in zip(prior, fresh, strict=True))
    given = tensors()
    exported = export_bert(encoder.bert)
    assert not changed({name: given[name] for name in exported}, exported)


def test_more_layers_of_last_and_more_matrices_of_lora(encoder):
    def trained(mode: str, **keys: object) -> set[str]:
        params = nnx.state(adapted(encoder, settings(mode, **keys), 0).bert, nnx.Param)
        return {".".join(map(str, path)) for path, _ in nnx.to_flat_state(params)}

    both = trained("last", tune_layers=2)
    assert {name.split(".")[1] for name in both} == {"0", "1"}
    assert {name.split(".")[0] for name in both} == {"layers"}
    thin = {name.rsplit(".", 1)[0] for name in trained("lora", lora_on="all")}
    assert thin == {f"layers.{i}.{name}" for i in (0, 1) for name in ("qkv", "out", "up", "down")}


def test_a_pooler_is_trained_with_the_last_layers(tmp_path):
    tiny_bert.write(tmp_path)
    encoder = load_backbone(tmp_path, pooling="pooler")
    params = nnx.state(adapted(encoder, settings("last"), 0), nnx.Param)
    tops = {path[1] for path, _ in nnx.to_flat_state(params)}
    assert tops == {"layers", "pooler"}


# Where it begins, and what is left of it


@every_mode
def test_a_mode_begins_with_the_encoder_as_pretrained(encoder, mode):
    start = adapted(encoder, settings(mode, lora_on="all"), 0)
    np.testing.assert_allclose(features(start), features(encoder), atol=1e-6)
    assert not changed(export_bert(encoder.bert), export_bert(start.bert))


def test_lora_begins_with_b_zero_and_a_not_the_same_under_another_seed(encoder):
    added = [adapted(encoder, settings("lora"), seed).bert.layers[0].qkv for seed in (0, 0, 1)]
    assert (added[0].up[...] == 0).all()
    assert (added[0].down[...] == added[1].down[...]).all()
    assert (added[0].down[...] != added[2].down[...]).all()


@every_mode
def test_folding_keeps_every_prediction(encoder, tuned, mode):
    found = after(tuned, mode)
    folded = Classifier(with_bert(found.backbone, plain(found.backbone.bert)), found.head)
    np.testing.assert_allclose(features(folded.backbone), features(found.backbone), atol=1e-5)
    if mode != "frozen":
        assert np.abs(features(found.backbone) - features(encoder)).max() > 1e-3
    # Everything is an `nnx.Param` in its usual place again: what weights.py reads and writes.
    assert nnx.split(folded.backbone.bert)[0] == nnx.split(encoder.bert)[0]
    parts, states = tuned[mode]
    merged = train.merge(train.view(parts, states[-1], averaged=False))
    assert nnx.split(merged.backbone)[0] == nnx.split(encoder)[0]
    np.testing.assert_array_equal(features(merged.backbone), features(folded.backbone))


def with_bert(backbone: BertBackbone, bert: object) -> BertBackbone:
    return BertBackbone(bert, backbone.pooling, backbone.layers, backbone.pairs)


def test_lora_on_every_matrix_folds_too(encoder):
    start = adapted(encoder, settings("lora", lora_on="all"), 0)
    rng = np.random.default_rng(0)
    for layer in start.bert.layers:
        for added in (layer.qkv, layer.out, layer.up, layer.down):
            added.up[...] = jnp.asarray(rng.normal(0, 0.1, added.up.shape), jnp.float32)
    folded = with_bert(start, plain(start.bert))
    np.testing.assert_allclose(features(folded), features(start), atol=1e-5)
    assert np.abs(features(start) - features(encoder)).max() > 1e-2


def test_a_plain_encoder_is_left_as_it_is(encoder):
    assert plain(encoder.bert) is encoder.bert


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "frozen"])
def test_the_saved_folder_is_read_by_us_and_by_transformers(encoder, tuned, tmp_path, mode):
    tiny_bert.write(tmp_path / "encoder")
    found = after(tuned, mode)
    found.save_pretrained(
        tmp_path / "saved", tokenizer=tmp_path / "encoder", labels=list("abc"), max_tokens=16
    )
    ours = load_classifier(tmp_path / "saved").classifier
    expected = np.asarray(found.backbone.bert(EXAMPLES))
    np.testing.assert_allclose(ours.backbone.bert(EXAMPLES), expected, atol=1e-5)
    torch = pytest.importorskip("torch", reason="compares with PyTorch transformers")
    import transformers

    model = transformers.BertModel.from_pretrained(tmp_path / "saved", add_pooling_layer=False)
    real = np.asarray(EXAMPLES.owner) < len(EXAMPLES.first)
    with torch.no_grad():
        theirs = model.eval()(
            input_ids=torch.tensor(np.asarray(EXAMPLES.ids)).long(),
            token_type_ids=torch.tensor(np.asarray(EXAMPLES.types)).long(),
            attention_mask=torch.tensor(real).long(),
        )
    np.testing.assert_allclose(theirs.last_hidden_state.numpy()[real], expected[real], atol=1e-5)

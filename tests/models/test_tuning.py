"""Tuning modes: what moves and what does not, where it begins, and that folding changes nothing."""

import dataclasses
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_bert
from flax import nnx

from enn_finetune import train
from enn_finetune.config import ConfigError, build
from enn_finetune.config.schema import BackboneConfig, TrainConfig
from enn_finetune.config.tuning import LEARNING_RATES
from enn_finetune.models.backbone import BertBackbone, load_backbone
from enn_finetune.models.bert import Dense
from enn_finetune.models.classifier import Classifier, load_classifier
from enn_finetune.models.epinet import Prior
from enn_finetune.models.heads import make_head
from enn_finetune.models.tuning import MODES, adapted, check, plain
from enn_finetune.models.tuning.ia3 import ScaledInputs, ScaledOutputs
from enn_finetune.models.tuning.lora import LoraDense
from enn_finetune.models.weights import export_bert

D, C, KEY = 8, 3, jax.random.key(5)
EXAMPLES = jax.tree.map(jnp.asarray, tiny_bert.batch(5, 3, 7, 4))
RECIPE = TrainConfig(batch=4, lr=3e-2, head_lr=3e-2, warmup=0, weight_decay=0.1, indices=2)

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
every_mode = pytest.mark.parametrize("mode", MODES)


def settings(mode: str, **keys: object) -> BackboneConfig:
    return BackboneConfig(tune=mode, rank=3, **keys)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> BertBackbone:
    return written(tmp_path_factory.mktemp("encoder"), dropout=0.0)  # compiles quicker


def written(folder: Path, *, dropout: float) -> BertBackbone:
    rates = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    tiny_bert.write(folder, tensors(), **rates)
    return load_backbone(folder, pooling="mean")


def tensors() -> dict[str, np.ndarray]:
    made = tiny_bert.random_tensors()
    return {k: 0.5 * v if "weight" in k else v for k, v in made.items()}


def classifier(encoder: BertBackbone, how: BackboneConfig) -> Classifier:
    head = {"kind": "epinet", "features": D, "classes": C, "hidden": [4], "index_dim": 3}
    return Classifier(adapted(encoder, how, seed=0), make_head(head, rngs=nnx.Rngs(1)))


def batch() -> train.Batch:
    targets = jnp.eye(C)[jnp.arange(4) % C]
    return train.Batch(EXAMPLES, targets, jnp.ones(4), jnp.arange(4), jnp.float32(9))


def fit(parts: train.Parts, recipe: TrainConfig = RECIPE, count: int = 3) -> list[train.TrainState]:
    """The states after each step, as numpy, the one before the first included."""
    state = train.begin(parts, recipe, "frozen")
    states = [jax.tree.map(np.asarray, state)]
    for step in range(count):
        state, _ = train.train_step(
            parts.graph,
            parts.fixed,
            state,
            batch(),
            KEY,
            config=recipe,
            total=jnp.float32(count),
            probe=step < recipe.probe_steps,
        )
        states.append(jax.tree.map(np.asarray, state))
    return states


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


# The definitions


def dense(width: int, out: int) -> Dense:
    made = Dense(width, out, dtype=jnp.float32, param_dtype=jnp.float32, rngs=nnx.Rngs(2))
    made.bias[...] = jnp.arange(out) / 10
    return made


def test_lora_adds_scaled_products_to_its_parts_of_the_columns():
    rng = np.random.default_rng(0)
    inner, x = dense(4, 9), rng.normal(size=(5, 4)).astype(np.float32)
    added = LoraDense(inner, 2, 6.0, parts=(0, 2), of=3, rngs=nnx.Rngs(0))
    a, b = rng.normal(size=(2, 4, 2)), rng.normal(size=(2, 2, 3))
    added.down[...] = jnp.asarray(np.concatenate(a, axis=1), jnp.float32)
    added.up[...] = jnp.asarray(b, jnp.float32)
    expected = x @ np.asarray(inner.kernel[...]) + np.asarray(inner.bias[...])
    expected[:, :3] += 3 * x @ a[0] @ b[0]
    expected[:, 6:] += 3 * x @ a[1] @ b[1]
    np.testing.assert_allclose(added(x), expected, atol=1e-5)
    np.testing.assert_allclose(added.activated(x, "relu"), np.maximum(expected, 0), atol=1e-5)
    np.testing.assert_allclose(added.fold()(x), expected, atol=1e-5)


def test_ia3_scales_keys_values_and_inner_activations():
    x = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    outputs, inputs = ScaledOutputs(dense(4, 9), unscaled=3), ScaledInputs(dense(4, 6))
    outputs.scale[...], inputs.scale[...] = jnp.arange(6.0), jnp.asarray([2.0, 0, 1, -1])
    whole = np.asarray(dense(4, 9)(x))
    scaled = np.concatenate([whole[:, :3], whole[:, 3:] * np.arange(6)], axis=1)
    expected = x * [2, 0, 1, -1] @ np.asarray(dense(4, 6).kernel[...]) + np.arange(6) / 10
    for found, true in ((outputs, scaled), (inputs, expected)):
        np.testing.assert_allclose(found(x), true, atol=1e-5)
        np.testing.assert_allclose(found.fold()(x), true, atol=1e-5)


# A probe first (LP-FT)


def test_a_probe_trains_the_head_alone_and_all_begins_anew_after_it(encoder):
    parts = train.split(classifier(encoder, settings("lora")), "frozen")
    recipe = dataclasses.replace(RECIPE, probe_steps=2, average=0.9)
    states = fit(parts, recipe, 4)
    for state in states[1:3]:
        for tree in (state.params, state.average):
            assert not differing(tree["backbone"], states[0].params["backbone"])
        assert not differing(
            state.optimizer.inner_states["encoder"], states[0].optimizer.inner_states["encoder"]
        )
    assert all(
        (a != b).any()
        for a, b in zip(
            jax.tree.leaves(states[1].params["head"]),
            jax.tree.leaves(states[0].params["head"]),
            strict=True,
        )
    )
    assert differing(states[3].params["backbone"], states[0].params["backbone"])
    # The average begins with the first step after the probe.
    for one, other in zip(
        jax.tree.leaves(states[3].average), jax.tree.leaves(states[3].params), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_a_probe_is_without_dropout_and_a_step_is_not(tmp_path):
    encoder = written(tmp_path, dropout=0.5)

    def losses(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        head = make_head({"kind": "linear", "features": D, "classes": C}, rngs=nnx.Rngs(1))
        both = Classifier(encoder, head)  # which draws no indices
        return tuple(train.loss(both, batch(), key, RECIPE, probe=p) for p in (True, False))

    one, other = losses(jax.random.key(1)), losses(jax.random.key(2))
    assert one[0] == other[0]
    assert one[1] != other[1]


def differing(one: object, other: object) -> bool:
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return any((np.asarray(a) != np.asarray(b)).any() for a, b in pairs)


# The config


@every_mode
def test_a_mode_has_its_own_rate_unless_one_is_given(mode):
    config = build({"backbone.tune": mode})
    assert config.train.lr is None
    assert config.training.peak == LEARNING_RATES[mode]
    given = build({"backbone.tune": mode, "train.lr": "2e-5"})
    assert given.training == given.train
    assert given.training.peak == 2e-5


def test_a_recipe_without_a_rate_trains_nothing():
    with pytest.raises(ValueError, match=r"train\.lr: found none; take Config\.training"):
        train.optimizer(TrainConfig())


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode not in ("frozen", "full")])
def test_words_are_not_trained_by_modes_that_leave_them_alone(mode):
    with pytest.raises(ConfigError, match=r"backbone\.embeddings: got 'touched'; .*= full"):
        build({"backbone.tune": mode, "backbone.embeddings": "touched"})
    assert build({"backbone.tune": mode, "backbone.embeddings": "frozen"})


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"tune": "last", "tune_layers": 3}, r"backbone\.tune_layers: 3 is more than the 2 layers"),
        ({"tune": "lora", "rank": 9}, r"backbone\.rank: 9 is more than the width 8"),
    ],
)
def test_what_the_encoder_is_too_small_for_is_named_by_key(encoder, keys, message):
    with pytest.raises(ConfigError, match=message):
        check(BackboneConfig(**keys), encoder.bert.config, Path("folder"))
    fits = {name: value - 1 if isinstance(value, int) else value for name, value in keys.items()}
    check(BackboneConfig(**fits), encoder.bert.config, Path("folder"))


@pytest.mark.parametrize(
    ("key", "value"),
    [("rank", 0), ("tune_layers", 0), ("lora_alpha", 0), ("lora_on", "keys"), ("tune", "adapter")],
)
def test_bad_values_are_named_by_key(key, value):
    with pytest.raises(ConfigError, match=rf"backbone\.{key}: got "):
        build({f"backbone.{key}": value})

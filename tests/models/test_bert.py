import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from make_golden import GOLDEN, TINY
from safetensors.numpy import save_file

from enn_finetune.data.tokens import PackShapes, Ragged, pack
from enn_finetune.models.bert import ACTIVATIONS, Bert, BertConfig
from enn_finetune.models.weights import load_bert
from enn_finetune.types import TokenBatch

CONFIG = BertConfig(**TINY)


def padded(ids, types, mask) -> TokenBatch:
    """One example a row, as PyTorch takes it."""
    B, T = ids.shape
    positions = np.broadcast_to(np.arange(T), (B, T)) * mask
    owner = np.where(mask == 1, np.arange(B)[:, None], B)
    arrays = (ids * mask, types * mask, positions, owner, np.arange(B) * T)
    return TokenBatch(*(np.asarray(a, np.int32) for a in arrays))


def random_inputs(rng, lengths, T, vocab):
    mask = (np.arange(T)[None] < np.asarray(lengths)[:, None]).astype(np.int32)
    ids = rng.integers(1, vocab, mask.shape) * mask
    types = (np.arange(T)[None] >= np.asarray(lengths)[:, None] // 2) * mask
    return ids, types, mask


def ragged_of(ids, types, mask) -> Ragged:
    offsets = np.concatenate([[0], np.cumsum(mask.sum(1))]).astype(np.int64)
    live = mask == 1
    return Ragged(ids[live].astype(np.int32), types[live].astype(np.uint8), offsets)


def perturbed(model: Bert, scale: float = 0.1) -> Bert:
    """Every parameter moved, so that no bias is zero and no scale is one."""
    graph, state = nnx.split(model)
    keys = iter(jax.random.split(jax.random.key(7), 200))
    noisy = jax.tree.map(lambda x: x + scale * jax.random.normal(next(keys), x.shape), state)
    return nnx.merge(graph, noisy)


@pytest.fixture(scope="module")
def tiny() -> Bert:
    return perturbed(Bert(CONFIG, pooler=True, rngs=nnx.Rngs(0)))


@pytest.fixture(scope="module")
def inputs():
    return random_inputs(np.random.default_rng(1), [9, 3, 12, 5, 2, 7], 12, 40)


def write_folder(folder: Path, config: dict, tensors: dict[str, np.ndarray]) -> Path:
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", **config}))
    save_file(tensors, folder / "model.safetensors")
    return folder


def run(model: Bert, batch: TokenBatch, key=None) -> jax.Array:
    return nnx.jit(lambda model, batch, key: model(batch, key=key))(model, batch, key)


# Against PyTorch transformers


def assert_golden(model: Bert, golden, name: str) -> None:
    batch = padded(*(golden[f"{name}/{key}"] for key in ("ids", "types", "mask")))
    hidden = nnx.jit(lambda model, batch: model.all_layers(batch))(model, batch)
    live = golden[f"{name}/mask"][None, :, :, None]
    found = np.stack(hidden) * live
    part = golden[f"{name}/hidden"]
    np.testing.assert_allclose(found[:, :, : part.shape[2], : part.shape[3]], part, atol=1e-4)
    for how in ("mean", "pooler"):
        pooled = model.pool(hidden[-1], batch, how)
        np.testing.assert_allclose(pooled, golden[f"{name}/{how}"], atol=1e-4)


def test_tiny_matches_golden_activations(tmp_path):
    golden = np.load(GOLDEN, allow_pickle=False)
    start = "tiny/weight/"
    tensors = {k.removeprefix(start): golden[k] for k in golden.files if k.startswith(start)}
    assert_golden(load_bert(write_folder(tmp_path, TINY, tensors)), golden, "tiny")


def test_minilm_matches_golden_activations(minilm):
    assert_golden(load_bert(minilm), np.load(GOLDEN, allow_pickle=False), "minilm")


def test_golden_file_is_small():
    assert GOLDEN.stat().st_size < 100_000


def assert_matches_torch(model: Bert, reference, ids, types, mask) -> None:
    torch = pytest.importorskip("torch")
    with torch.no_grad():
        out = reference.eval()(
            *(torch.tensor(a).long() for a in (ids, mask, types)), output_hidden_states=True
        )
    batch = padded(ids, types, mask)
    found = nnx.jit(lambda model, batch: model.all_layers(batch))(model, batch)
    for ours, theirs in zip(found, out.hidden_states, strict=True):
        live = mask == 1
        np.testing.assert_allclose(np.asarray(ours)[live], theirs.numpy()[live], atol=1e-4)
    pooled = model.pool(found[-1], batch, "pooler")
    np.testing.assert_allclose(pooled, out.pooler_output.numpy(), atol=1e-4)


def test_minilm_matches_torch_with_padding_and_pairs(minilm):
    pytest.importorskip("torch")
    from transformers import BertModel

    inputs = random_inputs(np.random.default_rng(2), [30, 3, 17, 24], 30, 30_000)
    assert_matches_torch(load_bert(minilm), BertModel.from_pretrained(minilm), *inputs)


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_tiny_matches_torch_for_every_activation(activation, inputs, tmp_path):
    torch = pytest.importorskip("torch")
    from transformers import BertConfig as TheirConfig
    from transformers import BertModel

    torch.manual_seed(0)
    config = {**TINY, "hidden_act": activation}
    theirs = BertModel(TheirConfig(**config, initializer_range=0.4))
    tensors = {k: v.numpy() for k, v in theirs.state_dict().items() if v.is_floating_point()}
    assert_matches_torch(load_bert(write_folder(tmp_path, config, tensors)), theirs, *inputs)


# Packing, pooling, padding


@pytest.mark.parametrize("how", ["mean", "cls", "pooler"])
def test_packed_equals_padded(tiny, inputs, how):
    plain = padded(*inputs)
    packed = pack(ragged_of(*inputs), examples=8, shapes=PackShapes(lengths=(16, 24)))
    assert packed.ids.shape[0] < 6
    expected = tiny.pool(run(tiny, plain), plain, how)
    found = tiny.pool(run(tiny, packed), packed, how)
    np.testing.assert_allclose(found[:6], expected, atol=1e-5)
    np.testing.assert_array_equal(found[6:], 0)


def test_minilm_packed_equals_padded(minilm):
    model = load_bert(minilm)
    inputs = random_inputs(np.random.default_rng(3), [30, 3, 17, 24, 9], 30, 30_000)
    plain = padded(*inputs)
    packed = pack(ragged_of(*inputs), examples=5, shapes=PackShapes(lengths=(32, 64, 128)))
    expected = model.pool(run(model, plain), plain, "mean")
    np.testing.assert_allclose(model.pool(run(model, packed), packed, "mean"), expected, atol=1e-5)


def test_other_examples_in_a_row_have_no_gradient(tiny, inputs):
    packed = pack(ragged_of(*inputs), examples=6, shapes=PackShapes(lengths=(64,)))
    assert packed.ids.shape == (1, 64)

    def first_feature(rows):
        inverse = jnp.arange(64, dtype=jnp.int32)[None]
        return tiny.pool(tiny(packed, word_rows=(rows, inverse)), packed, "mean")[0].sum()

    grad = jax.jit(jax.grad(first_feature))(tiny.word[...][packed.ids[0]])
    mine = packed.owner[0] == 0
    assert np.abs(np.asarray(grad)[mine]).min(0).max() > 0
    np.testing.assert_array_equal(np.asarray(grad)[~mine], 0)


def test_a_batch_of_padding_alone_is_finite(tiny):
    empty = TokenBatch(*(np.full((2, 8), v, np.int32) for v in (0, 0, 0, 3)), np.zeros(3, np.int32))
    hidden = run(tiny, empty, jax.random.key(0))
    assert np.isfinite(np.asarray(hidden)).all()
    for how in ("mean", "cls", "pooler"):
        np.testing.assert_array_equal(tiny.pool(hidden, empty, how), 0)


def test_unknown_pooling_and_missing_pooler_are_errors(inputs):
    model = Bert(CONFIG, pooler=False, rngs=nnx.Rngs(0))
    batch = padded(*inputs)
    hidden = model(batch)
    with pytest.raises(ValueError, match="no pooler"):
        model.pool(hidden, batch, "pooler")
    with pytest.raises(ValueError, match="'max'"):
        model.pool(hidden, batch, "max")


def test_bfloat16_compute_keeps_float32_parameters(tiny, inputs):
    low = Bert(CONFIG, pooler=True, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    nnx.update(low, nnx.state(tiny))
    batch = padded(*inputs)
    hidden = run(low, batch)
    assert hidden.dtype == jnp.bfloat16
    assert low.layers[0].qkv.kernel[...].dtype == jnp.float32
    pooled = low.pool(hidden, batch, "mean")
    assert pooled.dtype == jnp.float32
    np.testing.assert_allclose(pooled, tiny.pool(run(tiny, batch), batch, "mean"), atol=0.1)

    def loss(model):
        return low.pool(model(batch, key=jax.random.key(0)), batch, "mean").sum()

    for leaf in jax.tree.leaves(nnx.jit(nnx.grad(loss))(low)):
        assert leaf.dtype == jnp.float32
        assert np.isfinite(np.asarray(leaf)).all()


# Dropout


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg", "unsafe_rbg"])
def test_dropout_replays_by_key_and_differs_between_keys(tiny, inputs, impl):
    batch = padded(*inputs)
    a, b, c = (np.asarray(run(tiny, batch, jax.random.key(s, impl=impl))) for s in (0, 0, 1))
    np.testing.assert_array_equal(a, b)
    assert np.abs(a - c).max() > 0.1
    assert np.abs(a - np.asarray(run(tiny, batch))).max() > 0.1


def test_dropout_is_off_without_key_and_at_rate_zero(inputs):
    config = BertConfig(**TINY, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    model = Bert(config, pooler=False, rngs=nnx.Rngs(0))
    batch = padded(*inputs)
    np.testing.assert_array_equal(run(model, batch), run(model, batch, jax.random.key(0)))


# Configuration


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("position_embedding_type", "relative_key", "absolute"),
        ("hidden_act", "swish", "swish"),
        ("is_decoder", True, "decoder"),
        ("num_attention_heads", 3, "not divisible"),
        ("vocab_size", None, "vocab_size"),
    ],
)
def test_config_says_what_it_cannot_do(key, value, message):
    with pytest.raises(ValueError, match=message) as error:
        BertConfig.from_dict({**TINY, key: value})
    assert key in str(error.value)


def test_config_ignores_what_it_does_not_need():
    extra = {"architectures": ["BertModel"], "torch_dtype": "float32", "use_cache": True}
    assert BertConfig.from_dict({**TINY, **extra}) == CONFIG


def test_parameter_tree_is_the_documented_one(tiny):
    found = {path[2:] for path, _ in nnx.to_flat_state(nnx.state(tiny)) if path[0] == "layers"}
    denses = {(n, p) for n in ("qkv", "out", "up", "down") for p in ("kernel", "bias")}
    norms = {(n, p) for n in ("attention_norm", "output_norm") for p in ("scale", "bias")}
    assert found == denses | norms
    assert tiny.layers[0].qkv.kernel[...].shape == (16, 48)
    assert tiny.layers[0].up.kernel[...].shape == (16, 32)

"""Reading and writing BERT weights in Hugging Face layout; every refusal says what would work."""

import json
import logging
import pickle
from pathlib import Path

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import tiny_bert
from flax import nnx
from safetensors.numpy import save_file

from enn_finetune.errors import InputError
from enn_finetune.models.weights import export_bert, load_bert, plain_name

EXAMPLES = tiny_bert.batch(5, 3, 7)


def hidden(folder: Path, **options: object) -> np.ndarray:
    return np.asarray(load_bert(folder, **options)(EXAMPLES))


def shard(folder: Path, tensors: dict[str, np.ndarray]) -> None:
    names = list(tensors)
    parts = {f"model-0000{i}-of-00003.safetensors": names[i - 1 :: 3] for i in (1, 2, 3)}
    for file, held in parts.items():
        save_file({name: tensors[name] for name in held}, folder / file)
    weight_map = {name: file for file, held in parts.items() for name in held}
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").unlink()


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64, ml_dtypes.bfloat16])
def test_export_gives_back_the_tensors_of_the_file(tmp_path, dtype):
    tensors = tiny_bert.write(tmp_path, tiny_bert.random_tensors(dtype=dtype))
    exported = export_bert(load_bert(tmp_path))
    assert exported.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert exported[name].dtype == np.float32
        np.testing.assert_array_equal(exported[name], tensor.astype(np.float32))


def test_parameters_keep_a_narrow_type_bit_for_bit(tmp_path):
    tensors = tiny_bert.write(tmp_path, tiny_bert.random_tensors(dtype=ml_dtypes.bfloat16))
    bert = load_bert(tmp_path, dtype=jnp.float32, param_dtype=jnp.bfloat16)
    for name, tensor in export_bert(bert).items():
        assert tensor.dtype == ml_dtypes.bfloat16
        assert tensor.tobytes() == tensors[name].tobytes()
    assert bert(EXAMPLES).dtype == jnp.float32


def test_every_layout_gives_the_same_hidden_states(tmp_path):
    tensors = tiny_bert.write(tmp_path / "plain")
    expected = hidden(tmp_path / "plain")
    assert np.isfinite(expected).all()
    assert np.ptp(expected) > 0.1
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}

    def old_name(name: str) -> str:
        for new, before in old.items():
            name = name.replace(new, before)
        return f"bert.{name}"

    tiny_bert.write(tmp_path / "prefix", {f"bert.{k}": v for k, v in tensors.items()})
    tiny_bert.write(tmp_path / "old", {old_name(k): v for k, v in tensors.items()})
    tiny_bert.write(tmp_path / "unnamed", model_type=None)
    tiny_bert.write(tmp_path / "shards")
    shard(tmp_path / "shards", tensors)
    for layout in ("prefix", "old", "shards", "unnamed"):
        np.testing.assert_array_equal(hidden(tmp_path / layout), expected, err_msg=layout)


def test_heads_and_buffers_are_left_out_and_reported(tmp_path, caplog):
    tensors = tiny_bert.random_tensors()
    extra = {
        "embeddings.position_ids": np.arange(16)[None],
        "cls.predictions.bias": np.zeros(3, np.float32),
        "classifier.weight": np.zeros((2, 8), np.float32),
    }
    prefixed = {f"bert.{name}": tensor for name, tensor in tensors.items()}
    tiny_bert.write(tmp_path, prefixed | extra)
    with caplog.at_level(logging.INFO):
        assert export_bert(load_bert(tmp_path)).keys() == tensors.keys()
    for name in extra:
        assert name in caplog.text


def test_the_pooler_is_read_if_it_is_there_or_as_asked(tmp_path):
    tiny_bert.write(tmp_path / "with")
    tiny_bert.write(tmp_path / "without", tiny_bert.random_tensors(pooler=False))
    assert load_bert(tmp_path / "with").pooler is not None
    assert load_bert(tmp_path / "with", pooler=False).pooler is None
    assert load_bert(tmp_path / "without").pooler is None
    with pytest.raises(InputError, match="no pooler weights; choose the pooling mean or cls"):
        load_bert(tmp_path / "without", pooler=True)


def test_every_parameter_is_read_from_the_file(tmp_path):
    """No parameter keeps its initial value: the abstract model has none to keep."""
    tiny_bert.write(tmp_path)
    for path, leaf in nnx.to_flat_state(nnx.state(load_bert(tmp_path))):
        assert isinstance(leaf[...], jnp.ndarray), path


def test_one_error_lists_all_that_does_not_fit(tmp_path):
    tensors = tiny_bert.random_tensors()
    del tensors["embeddings.LayerNorm.bias"], tensors["encoder.layer.1.output.dense.weight"]
    tensors["encoder.layer.2.output.dense.bias"] = np.zeros(8, np.float32)
    tensors["embeddings.word_embeddings.weight"] = np.zeros((99, 8), np.float32)
    tensors["encoder.layer.0.attention.self.query.weight"] = np.zeros((8, 8), np.int8)
    tiny_bert.write(tmp_path, tensors)
    with pytest.raises(InputError) as error:
        load_bert(tmp_path)
    lines = [line.strip() for line in str(error.value).splitlines()]
    assert lines[0].startswith(f"{tmp_path}: 5 of 40 arrays")
    floats = "float16, 32, 64 or bfloat16"
    assert lines[1:] == [
        "missing: embeddings.LayerNorm.bias, float32 (8,)",
        "missing: encoder.layer.1.output.dense.weight, float32 (8, 12)",
        "unexpected: encoder.layer.2.output.dense.bias, float32 (8,)",
        "shape: embeddings.word_embeddings.weight is float32 (99, 8), expected float32 (59, 8)",
        f"type: encoder.layer.0.attention.self.query.weight is I8 (8, 8), expected {floats} (8, 8)",
    ]


def test_a_tensor_under_two_names_is_refused(tmp_path):
    tensors = tiny_bert.random_tensors()
    tensors["bert.pooler.dense.bias"] = tensors["pooler.dense.bias"]
    tiny_bert.write(tmp_path, tensors)
    with pytest.raises(InputError, match="twice"):
        load_bert(tmp_path)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "tf_model.h5", "x.msgpack"])
def test_pickles_are_refused_unread_with_the_way_to_convert_them(tmp_path, name):
    tiny_bert.write(tmp_path)
    (tmp_path / "model.safetensors").unlink()

    class Bomb:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "exploded",))

    (tmp_path / name).write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(InputError, match=rf"only {name}.*save_pretrained\(out, safe_ser"):
        load_bert(tmp_path)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    ("kind", "instead"),
    [
        ("distilbert", "google-bert/bert-base-uncased"),
        ("roberta", "google-bert/bert-base-cased"),
        ("llama", "google-bert/bert-base-uncased"),
    ],
)
def test_other_architectures_are_refused_with_one_that_works(tmp_path, kind, instead):
    tiny_bert.write(tmp_path, model_type=kind)
    with pytest.raises(InputError, match=rf"config\.json: model_type: found '{kind}'.*{instead}"):
        load_bert(tmp_path)


def test_an_unnamed_model_of_another_class_is_refused(tmp_path):
    tiny_bert.write(tmp_path, model_type=None, architectures=["RobertaModel"])
    with pytest.raises(InputError, match="model_type: found None"):
        load_bert(tmp_path)


@pytest.mark.parametrize(
    "config", [{"hidden_act": "swish"}, {"hidden_size": None}, {"is_decoder": True}]
)
def test_configs_that_cannot_be_run_are_errors_of_the_file_and_key(tmp_path, config):
    tiny_bert.write(tmp_path, **config)
    with pytest.raises(InputError, match=rf"config\.json: {next(iter(config))}"):
        load_bert(tmp_path)


def test_incomplete_folders(tmp_path):
    with pytest.raises(InputError, match="no such file, and no folder"):
        load_bert(tmp_path / "nothing")
    with pytest.raises(InputError, match=r"config\.json: no such file"):
        load_bert(tmp_path)
    tiny_bert.write(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(InputError, match="found neither"):
        load_bert(tmp_path)
    tensors = tiny_bert.write(tmp_path)
    shard(tmp_path, tensors)
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(InputError, match="these are missing: model-00002-of-00003"):
        load_bert(tmp_path)


def test_a_truncated_file_is_named(tmp_path):
    tiny_bert.write(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(InputError, match=r"model\.safetensors: found a truncated"):
        load_bert(tmp_path)


def test_an_index_cannot_point_outside_the_folder(tmp_path):
    tiny_bert.write(tmp_path / "a")
    tiny_bert.write(tmp_path / "b")
    (tmp_path / "a" / "model.safetensors").unlink()
    index = {"weight_map": {"pooler.dense.bias": "../b/model.safetensors"}}
    (tmp_path / "a" / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="outside the folder"):
        load_bert(tmp_path / "a")


def test_plain_names():
    assert plain_name("bert.embeddings.LayerNorm.gamma") == "embeddings.LayerNorm.weight"
    assert plain_name("encoder.layer.1.output.LayerNorm.beta") == (
        "encoder.layer.1.output.LayerNorm.bias"
    )
    assert plain_name("encoder.beta") == "encoder.beta"


def test_transformers_computes_the_same_from_what_is_exported(tmp_path):
    torch = pytest.importorskip("torch", reason="compares with PyTorch transformers")
    import transformers

    tiny_bert.write(tmp_path)
    bert = load_bert(tmp_path)
    save_file(
        {name: np.ascontiguousarray(tensor) for name, tensor in export_bert(bert).items()},
        tmp_path / "model.safetensors",
        {"format": "pt"},
    )
    theirs = transformers.AutoModel.from_pretrained(str(tmp_path)).eval()
    real = np.asarray(EXAMPLES.owner) < len(EXAMPLES.first)
    with torch.no_grad():
        out = theirs(
            input_ids=torch.tensor(EXAMPLES.ids).long(),
            token_type_ids=torch.tensor(EXAMPLES.types).long(),
            attention_mask=torch.tensor(real).long(),
        )
    found = np.asarray(bert(EXAMPLES))
    np.testing.assert_allclose(found[real], out.last_hidden_state.numpy()[real], atol=1e-5)
    pooled = np.asarray(bert.pool(bert(EXAMPLES), EXAMPLES, "pooler"))
    np.testing.assert_allclose(pooled, out.pooler_output.numpy(), atol=1e-5)

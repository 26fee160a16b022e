"""BERT weights in Hugging Face layout: a folder with config.json and safetensors, read and written.

Tensors are found with or without the prefix `bert.`, in one file or in shards, in float16, 32, 64
or bfloat16, and with the LayerNorm names gamma and beta of old checkpoints. Heads beside the
encoder (`cls.*`, `classifier.*`, ...) are left out. Everything that does not fit is reported at
once. Pickles are never opened.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors import safe_open

from enn_finetune.errors import InputError
from enn_finetune.files import Layout, check_layouts, open_arrays, read_json
from enn_finetune.models.bert import Bert, BertConfig
from enn_finetune.models.tuning import plain

log = logging.getLogger(__name__)

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.h5", "*.msgpack", "*.onnx")
CONVERT = (
    "in an environment with torch, convert it: `AutoModel.from_pretrained(folder)"
    ".save_pretrained(out, safe_serialization=True)`"
)

FLOATS = {"F16": "float16", "F32": "float32", "F64": "float64", "BF16": "bfloat16"}
OTHER_HEADS = ("cls.", "classifier.", "qa_outputs.", "lm_head.", "dropout.")
BUFFERS = ("embeddings.position_ids", "embeddings.token_type_ids")

INSTEAD = {
    "distilbert": "google-bert/bert-base-uncased",
    "roberta": "google-bert/bert-base-cased",
    "electra": "google-bert/bert-base-uncased",
    "albert": "google-bert/bert-base-uncased",
    "deberta": "google-bert/bert-base-uncased",
    "deberta-v2": "google-bert/bert-base-uncased",
    "modernbert": "BAAI/bge-base-en-v1.5",
    "mpnet": "sentence-transformers/all-MiniLM-L6-v2",
    "new": "thenlper/gte-base",
    "nomic_bert": "BAAI/bge-base-en-v1.5",
    "xlm-roberta": "google-bert/bert-base-multilingual-cased",
}

Keys = tuple[str | int, ...]


class Parameter(NamedTuple):
    """One of our parameters, as Hugging Face names it."""

    path: Keys  # in the nnx state
    names: tuple[str, ...]  # the tensors it is made of, side by side on its last axis
    transposed: bool  # torch keeps a kernel (in, out) as (out, in)


def parameters(config: BertConfig, *, pooler: bool) -> Iterator[Parameter]:
    """Every parameter of `Bert` with its Hugging Face names."""

    def dense(path: Keys, *names: str) -> Iterator[Parameter]:
        yield Parameter((*path, "kernel"), tuple(f"{name}.weight" for name in names), True)
        yield Parameter((*path, "bias"), tuple(f"{name}.bias" for name in names), False)

    def norm(path: Keys, name: str) -> Iterator[Parameter]:
        yield Parameter((*path, "scale"), (f"{name}.weight",), False)
        yield Parameter((*path, "bias"), (f"{name}.bias",), False)

    for table, name in (("word", "word"), ("position", "position"), ("type", "token_type")):
        yield Parameter((table,), (f"embeddings.{name}_embeddings.weight",), False)
    yield from norm(("norm",), "embeddings.LayerNorm")
    for i in range(config.num_hidden_layers):
        ours, theirs = ("layers", i), f"encoder.layer.{i}"
        attention = f"{theirs}.attention.self"
        projections = (f"{attention}.{name}" for name in ("query", "key", "value"))
        yield from dense((*ours, "qkv"), *projections)
        yield from dense((*ours, "out"), f"{theirs}.attention.output.dense")
        yield from norm((*ours, "attention_norm"), f"{theirs}.attention.output.LayerNorm")
        yield from dense((*ours, "up"), f"{theirs}.intermediate.dense")
        yield from dense((*ours, "down"), f"{theirs}.output.dense")
        yield from norm((*ours, "output_norm"), f"{theirs}.output.LayerNorm")
    if pooler:
        yield from dense(("pooler",), "pooler.dense")


def load_bert(
    folder: Path,
    *,
    dtype: jnp.dtype = jnp.float32,
    param_dtype: jnp.dtype = jnp.float32,
    pooler: bool | None = None,
) -> Bert:
    """Read an encoder, one tensor at a time from the mapped file.

    Args:
      folder: has config.json and the weights.
      dtype: the compute type.
      param_dtype: the type of the parameters, whatever the file's.
      pooler: whether to read the pooler; None reads it if the file has one.

    Raises:
      InputError: no such folder or file; not a BERT; only pickles; a damaged file; no pooler where
        one is asked for; tensors that are missing, unexpected, of another shape or not floats, all
        of them listed.
    """
    config = read_config(folder)
    with ExitStack() as stack:
        tensors = _open_tensors(folder, stack)
        pooled = any(name.startswith("pooler.") for name in tensors)
        if pooler and not pooled:
            raise InputError(f"{folder}: found no pooler weights; choose the pooling mean or cls")
        pooler = pooled if pooler is None else pooler
        model = nnx.eval_shape(
            lambda: Bert(
                config, pooler=pooler, dtype=dtype, param_dtype=param_dtype, rngs=nnx.Rngs(0)
            )
        )
        graph, state = nnx.split(model)
        flat: dict[Keys, nnx.Variable] = dict(nnx.to_flat_state(state))  # type: ignore[arg-type]
        wanted = list(parameters(config, pooler=pooler))
        _check(folder, tensors, wanted, flat, pooler=pooler)
        for parameter in wanted:
            array = _read(tensors, parameter)
            variable = flat[parameter.path]
            flat[parameter.path] = variable.replace(jnp.asarray(array, param_dtype))
    return nnx.merge(graph, nnx.from_flat_state(flat))  # type: ignore[arg-type]


def export_bert(model: Bert) -> dict[str, np.ndarray]:
    """The parameters under Hugging Face names, bit for bit, in their own type.

    What a tuning mode added is folded into them first.
    """
    model = plain(model)
    flat = dict(nnx.to_flat_state(nnx.state(model, nnx.Param)))
    tensors: dict[str, np.ndarray] = {}
    for path, names, transposed in parameters(model.config, pooler=model.pooler is not None):
        array = np.asarray(flat[path][...])
        for name, part in zip(names, np.split(array, len(names), axis=-1), strict=True):
            tensors[name] = part.T if transposed else part
    return tensors


def read_config(folder: Path) -> BertConfig:
    """The sizes in a folder's config.json.

    Raises:
      InputError: no such folder or file, not a BERT, or one that this encoder cannot run.
    """
    path = Path(folder) / CONFIG
    values = read_json(path)
    kind = values.get("model_type")
    if kind is None and all(str(n).startswith("Bert") for n in _listed(values, "architectures")):
        kind = "bert"  # folders from before the key was written
    if kind != "bert":
        instead = INSTEAD.get(str(kind), "google-bert/bert-base-uncased")
        raise InputError(
            f"{path}: model_type: found {kind!r}; only BERT encoders (model_type 'bert': BERT, "
            f"MiniLM, bge, gte, e5, ...) can be read; use {instead!r} instead"
        )
    try:
        return BertConfig.from_dict(values)
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: {error}") from error


def _listed(values: Mapping[str, object], key: str) -> list[object]:
    found = values.get(key)
    return found if isinstance(found, list) else []


# --- tensors of a folder -------------------------------------------------------------------------


class Tensor(NamedTuple):
    """A tensor in an open file."""

    file: safe_open
    name: str  # in the file

    def layout(self) -> Layout:
        """Shape and type; the type in safetensors' words if it is no float."""
        view = self.file.get_slice(self.name)
        kind = str(view.get_dtype())
        return Layout(tuple(view.get_shape()), FLOATS.get(kind, kind))


def _open_tensors(folder: Path, stack: ExitStack) -> dict[str, Tensor]:
    """All tensors of a folder under their plain names; the files are open until `stack` closes."""
    tensors: dict[str, Tensor] = {}
    for path in weight_files(folder):
        file = stack.enter_context(open_arrays(path))
        for name in list(file.keys()):
            plain = plain_name(name)
            if plain in tensors:
                raise InputError(
                    f"{path}: found tensor {name!r} twice ({tensors[plain].name!r} is the same); "
                    "remove one of the two"
                )
            tensors[plain] = Tensor(file, name)
    return tensors


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder: one, or all the shards that the index lists.

    Raises:
      InputError: there are none, and what is there instead; or shards are missing.
    """
    folder = Path(folder)
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if (folder / INDEX).is_file():
        return _shards(folder)
    pickles = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
    if pickles:
        raise InputError(
            f"{folder}: found no {WEIGHTS}, only {', '.join(pickles)}, which is not read because "
            f"it can run code or is of another framework; {CONVERT}"
        )
    names = sorted(path.name for path in folder.iterdir())
    raise InputError(
        f"{folder}: found neither {WEIGHTS} nor {INDEX}; the folder holds {', '.join(names[:10])}. "
        f"Copy or download the weights; if their source has only a pickle, {CONVERT}"
    )


def _shards(folder: Path) -> list[Path]:
    index = folder / INDEX
    weight_map = read_json(index).get("weight_map")
    names = sorted({str(n) for n in weight_map.values()}) if isinstance(weight_map, dict) else []
    outside = [name for name in names if Path(name).name != name]
    if not names or outside:
        found = f"file names outside the folder: {outside}" if outside else "no file names"
        raise InputError(f"{index}: weight_map: found {found}; copy or download it again")
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise InputError(
            f"{index}: lists {len(names)} files of which these are missing: {', '.join(missing)}; "
            "copy or download them"
        )
    return [folder / name for name in names]


def plain_name(name: str) -> str:
    """A tensor's name without the prefix, and with today's LayerNorm names."""
    name = name.removeprefix("bert.")
    for old, new in ((".gamma", ".weight"), (".beta", ".bias")):
        if name.endswith(f"LayerNorm{old}"):
            name = name.removesuffix(old) + new
    return name


def _check(
    folder: Path,
    tensors: Mapping[str, Tensor],
    wanted: list[Parameter],
    abstract: Mapping[Keys, nnx.Variable],
    *,
    pooler: bool,
) -> None:
    """Compare what the file has with what the config asks for; log what is left out."""
    ignored = [
        name
        for name in tensors
        if name.startswith(OTHER_HEADS)
        or name in BUFFERS
        or (not pooler and name.startswith("pooler."))
    ]
    if ignored:
        log.info("%s: left out, not the encoder's: %s", folder, ", ".join(ignored))
    found = {name: t.layout() for name, t in tensors.items() if name not in ignored}
    expected = {}
    for path, names, transposed in wanted:
        *rest, last = abstract[path].shape
        shape = (*rest, last // len(names))
        for name in names:
            kind = found[name].dtype if name in found else "float32"
            kind = kind if kind in FLOATS.values() else "float16, 32, 64 or bfloat16"
            expected[name] = Layout(shape[::-1] if transposed else shape, kind)
    check_layouts(expected, found, str(folder))


def _read(tensors: Mapping[str, Tensor], parameter: Parameter) -> np.ndarray:
    arrays = [tensors[name].file.get_tensor(tensors[name].name) for name in parameter.names]
    array = np.concatenate(arrays, axis=0) if len(arrays) > 1 else arrays[0]
    return array.T if parameter.transposed else array

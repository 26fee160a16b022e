"""A tiny random BERT folder in Hugging Face layout, written without the package's own code."""

import json
import string
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tokenizers.implementations import BertWordPieceTokenizer

from enn_finetune.types import TokenBatch

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [*SPECIAL, "hello", "world", *string.ascii_lowercase]
VOCABULARY = {w: i for i, w in enumerate([*WORDS, *(f"##{c}" for c in string.ascii_lowercase)])}

CONFIG = {
    "architectures": ["BertModel"],
    "model_type": "bert",
    "vocab_size": len(VOCABULARY),
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "hidden_act": "gelu",
    "max_position_embeddings": 16,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
}


def random_tensors(*, pooler: bool = True, dtype: object = np.float32) -> dict[str, np.ndarray]:
    """All tensors of the tiny encoder under their Hugging Face names."""
    D, F = CONFIG["hidden_size"], CONFIG["intermediate_size"]
    shapes = {
        "embeddings.word_embeddings.weight": (CONFIG["vocab_size"], D),
        "embeddings.position_embeddings.weight": (CONFIG["max_position_embeddings"], D),
        "embeddings.token_type_embeddings.weight": (2, D),
        "embeddings.LayerNorm.weight": (D,),
        "embeddings.LayerNorm.bias": (D,),
    }
    for i in range(CONFIG["num_hidden_layers"]):
        layer = f"encoder.layer.{i}"
        dense = {f"attention.self.{name}": (D, D) for name in ("query", "key", "value")}
        dense |= {"attention.output.dense": (D, D)}
        dense |= {"intermediate.dense": (F, D), "output.dense": (D, F)}
        for name, shape in dense.items():
            shapes[f"{layer}.{name}.weight"] = shape
            shapes[f"{layer}.{name}.bias"] = shape[:1]
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes[f"{layer}.{name}.weight"] = shapes[f"{layer}.{name}.bias"] = (D,)
    if pooler:
        shapes |= {"pooler.dense.weight": (D, D), "pooler.dense.bias": (D,)}
    rng = np.random.default_rng(0)
    return {name: rng.normal(0, 0.5, shape).astype(dtype) for name, shape in shapes.items()}


def write(
    folder: Path, tensors: dict[str, np.ndarray] | None = None, **config: object
) -> dict[str, np.ndarray]:
    """Write config, weights and tokenizer; a config key given as None is left out."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = random_tensors() if tensors is None else tensors
    values = {k: v for k, v in (CONFIG | config).items() if v is not None}
    (folder / "config.json").write_text(json.dumps(values))
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in VOCABULARY))
    BertWordPieceTokenizer(VOCABULARY).save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    return tensors


def batch(*lengths: int) -> TokenBatch:
    """Examples of these lengths with random ids, one a row, padded to the longest."""
    N, L = len(lengths), max(lengths)
    rng = np.random.default_rng(1)
    real = np.arange(L)[None] < np.array(lengths)[:, None]
    ids = np.where(real, rng.integers(5, CONFIG["vocab_size"], (N, L)), 0)
    return TokenBatch(
        ids=ids.astype(np.int32),
        types=np.where(real, rng.integers(0, 2, (N, L)), 0).astype(np.int32),
        positions=np.broadcast_to(np.arange(L, dtype=np.int32), (N, L)),
        owner=np.where(real, np.arange(N)[:, None], N).astype(np.int32),
        first=np.arange(N, dtype=np.int32) * L,
    )

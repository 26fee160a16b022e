"""What features depend on: the folder of the cache that they are kept in is named after it."""

import dataclasses
import hashlib
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tokenizers
import transformers
from flax import nnx

from enn_finetune import files
from enn_finetune.features import shards
from enn_finetune.models.backbone import BertBackbone
from enn_finetune.models.places import TOKENIZER_FILES
from enn_finetune.models.tuning import plain
from enn_finetune.records import version

FORMAT = 2  # raise it when the encoder's numbers change for the same weights and tokens


def cache_folder(setting: str) -> Path | None:
    """The folder that `backbone.cache` names: empty is the user's own, none is no folder."""
    if setting == "none":
        return None
    if setting:
        return Path(setting).expanduser()
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "enn_finetune" / "features"


def describe(encoder: BertBackbone, folder: Path, max_tokens: int) -> dict[str, object]:
    """All that the features of a text depend on, in a form that JSON takes."""
    precision = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
    names = [name for name in TOKENIZER_FILES if (folder / name).is_file()]
    return {
        "format": FORMAT,
        "weights": weights_digest(encoder),
        "encoder": dataclasses.asdict(encoder.bert.config),
        "pooling": encoder.pooling,
        "layers": list(encoder.layers),
        "dtype": jnp.dtype(encoder.bert.dtype).name,
        "tokenizer": {name: files.sha256(folder / name) for name in names},
        "max_tokens": max_tokens,
        "shard": [shards.SHARD, tokens_at_once()],
        "platform": [jax.default_backend(), str(precision)],
        "versions": {
            "enn-finetune": version(),
            "jax": jax.__version__,
            "tokenizers": tokenizers.__version__,
            "transformers": transformers.__version__,
        },
    }


def weights_digest(encoder: BertBackbone) -> str:
    """SHA-256 of the weights as they are in memory, which may no longer be those of a file.

    What a tuning mode leaves untrained is among them, and what it added is folded in.
    """
    found = hashlib.sha256()
    for name, array in sorted(files.flatten(nnx.state(plain(encoder.bert), nnx.Param)).items()):
        found.update(f"{name} {array.dtype} {array.shape}\n".encode())
        found.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return found.hexdigest()


def tokens_at_once() -> int:
    """Tokens of a batch: about what the cache of a CPU holds; more keeps an accelerator busy."""
    return 2048 if jax.default_backend() == "cpu" else 32768

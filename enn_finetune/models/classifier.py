"""The whole classifier, encoder and head, and the folder that it is saved as.

The folder: config.json and model.safetensors (the encoder in Hugging Face layout, so transformers
reads it too), head.json and head.safetensors, the tokenizer's files, README.md.
"""

import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from pydantic import ConfigDict, PositiveInt, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from transformers import PreTrainedTokenizerBase

from enn_finetune import files
from enn_finetune.errors import InputError
from enn_finetune.models.backbone import Backbone, BertBackbone, Inputs, Pairs
from enn_finetune.models.bert import BertConfig, Pooling
from enn_finetune.models.card import Card, readme
from enn_finetune.models.heads import make_head
from enn_finetune.models.places import HEAD, TOKENIZER_FILES, load_tokenizer
from enn_finetune.models.weights import CONFIG, WEIGHTS, export_bert, load_bert
from enn_finetune.types import Head

HEAD_WEIGHTS = "head.safetensors"
README = "README.md"
FORMAT: Literal[2] = 2  # of head.json; 1: heads that read rows of unit norm
NOT_RANDOM = nnx.Not(nnx.RngState)  # trained weights, fixed priors, whatever else a head keeps


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class HeadFile:
    """head.json: all that is needed beside the tensors and the encoder's config."""

    format: Literal[2]
    head: dict[str, object]  # `kind` and the arguments that make the head
    labels: tuple[str, ...]
    pooling: Pooling
    max_tokens: PositiveInt
    text: str
    pair: str | None
    task: str
    dtype: str  # compute type
    param_dtype: str  # of the encoder
    layers: tuple[PositiveInt, ...] | None = None  # whose states are pooled; none for the last
    pairs: Pairs = "joint"  # how the two texts of a row are read, see `BertBackbone`


class Loaded(NamedTuple):
    """A saved classifier and what is needed to feed it."""

    classifier: "Classifier"
    tokenizer: PreTrainedTokenizerBase
    labels: tuple[str, ...]  # names of the classes 0..C-1
    max_tokens: int  # longer inputs were cut in training
    text: str  # the column of the text
    pair: str | None  # the column of the second text, if any
    task: str
    pairs: Pairs  # "difference": the two texts of a row are two examples, see `BertBackbone`


class Classifier(nnx.Module):
    """A backbone and a head: inputs of N examples -> logits over C classes, for each index."""

    def __init__(self, backbone: Backbone, head: Head) -> None:
        self.backbone = backbone
        self.head = head

    def logits(self, inputs: Inputs, z: Array, *, key: Array | None = None) -> Array:
        """Logits (K, N, C) for indices z (K, dim z); the encoder's dropout is on with a key."""
        return self.head.many(self.backbone(inputs, key=key), z)

    def log_probs(self, inputs: Inputs, z: Array, *, key: Array | None = None) -> Array:
        """Log-probabilities (K, N, C), normalised over C."""
        return jax.nn.log_softmax(self.logits(inputs, z, key=key), axis=-1)

    def save_pretrained(
        self,
        folder: files.PathLike,
        *,
        tokenizer: Path,
        labels: Sequence[str],
        max_tokens: int,
        text: str = "text",
        pair: str | None = None,
        card: Card | None = None,
    ) -> None:
        """Save everything as a folder, at once: it is there completely or not at all.

        Args:
          folder: its name; a classifier saved there before is replaced, nothing else is.
          tokenizer: a folder whose tokenizer files are copied.
          labels: names of the classes 0..C-1.
          max_tokens: the length at which inputs are cut.
          text: the column of the text.
          pair: the column of the second text, if any.
          card: what README.md says.

        Raises:
          ValueError: the backbone is no encoder, or takes differences of texts of which there is
            one a row; the labels are not C distinct names.
          InputError: no tokenizer files there, or something else under the folder's name.
        """
        backbone = self.backbone
        if not isinstance(backbone, BertBackbone):
            raise ValueError(
                f"save_pretrained: found the backbone {type(backbone).__name__}; save "
                "Classifier(encoder, head) with the encoder that computed the features"
            )
        if backbone.pairs == "difference" and pair is None:
            raise ValueError("pair: found none, but the encoder takes the difference of two texts")
        if len(set(labels)) != self.head.classes or len(labels) != self.head.classes:
            raise ValueError(
                f"labels: found {list(labels)}, expected {self.head.classes} distinct names, one a "
                "class of the head"
            )
        config = getattr(self.head, "config", None)
        if not isinstance(config, dict):
            raise ValueError(
                f"save_pretrained: found no `config` on the head {type(self.head).__name__}; only "
                "the heads that `make_head` makes can be read back"
            )
        load_tokenizer(tokenizer)  # what cannot be read back is not saved
        card = card or Card()
        described = HeadFile(
            format=FORMAT,
            head=config,
            labels=tuple(labels),
            pooling=backbone.pooling,
            max_tokens=max_tokens,
            text=text,
            pair=pair,
            task=card.task,
            dtype=jnp.dtype(backbone.bert.dtype).name,
            param_dtype=str(backbone.bert.word[...].dtype),
            layers=backbone.layers,
            pairs=backbone.pairs,
        )
        kind = str(described.head["kind"])
        about = readme(
            card,
            head=kind,
            labels=described.labels,
            pooling=described.pooling,
            layers=backbone.layers,
            depth=len(backbone.bert.layers),
            pairs="" if pair is None else described.pairs,
        )
        with files.atomic_folder(folder, replace=HEAD) as temporary:
            files.save_arrays(temporary / WEIGHTS, export_bert(backbone.bert), {"format": "pt"})
            files.save_arrays(
                temporary / HEAD_WEIGHTS, files.flatten(nnx.state(self.head, NOT_RANDOM))
            )
            _write_json(temporary / CONFIG, _bert_config(backbone.bert.config, labels))
            _write_json(temporary / HEAD, dataclasses.asdict(described))
            (temporary / README).write_text(about, encoding="utf-8")
            for name in TOKENIZER_FILES:
                if (Path(tokenizer) / name).is_file():
                    shutil.copyfile(Path(tokenizer) / name, temporary / name)

    @classmethod
    def from_pretrained(cls, folder: files.PathLike, *, dtype: str | None = None) -> "Classifier":
        """Read what `save_pretrained` wrote, bit for bit; `dtype` replaces the compute type.

        Raises:
          InputError: no such folder, or a damaged one: names the file and the entries.
        """
        return _read(Path(folder), _read_head(Path(folder)), dtype)


def load_classifier(folder: files.PathLike, *, dtype: str | None = None) -> Loaded:
    """Read a saved classifier with its tokenizer and labels; `dtype` replaces the compute type.

    Raises:
      InputError: no such folder, or a damaged one: names the file and the entries.
    """
    folder = Path(folder)
    head = _read_head(folder)
    return Loaded(
        classifier=_read(folder, head, dtype),
        tokenizer=load_tokenizer(folder),
        labels=head.labels,
        max_tokens=head.max_tokens,
        text=head.text,
        pair=head.pair,
        task=head.task,
        pairs=head.pairs,
    )


def _read_head(folder: Path) -> HeadFile:
    files.recover(folder)
    path = folder / HEAD
    if not path.is_file() and (folder / CONFIG).is_file():
        raise InputError(
            f"{folder}: found {CONFIG} but no {HEAD}: an encoder, not a saved classifier; train "
            "one on it with backbone.path, or give the folder that save_pretrained wrote"
        )
    try:
        found = files.read_json(path)
        if isinstance(found, dict) and found.get("format") == 1:
            raise InputError(
                f"{path}: format: found 1, a head that reads rows of unit norm, which this version "
                "does not; fit and save the classifier again, or read it with the version that "
                "saved it"
            )
        return TypeAdapter(HeadFile).validate_python(found)
    except ValidationError as error:
        faults = [
            f"{'.'.join(map(str, e['loc']))}: found {e['input']!r}: {e['msg']}"
            for e in error.errors()
        ]
        raise InputError(
            f"{path}: {'; '.join(faults)}; save the classifier again, or read it with the version "
            "that saved it"
        ) from error


def _read(folder: Path, described: HeadFile, dtype: str | None) -> Classifier:
    if described.pairs == "difference" and described.pair is None:
        raise InputError(
            f"{folder / HEAD}: pairs: found 'difference', but pair names no second column; save "
            "the classifier again"
        )
    bert = load_bert(
        folder,
        dtype=jnp.dtype(dtype or described.dtype),
        param_dtype=jnp.dtype(described.param_dtype),
        pooler=described.pooling == "pooler",
    )
    try:
        head = make_head(described.head, rngs=nnx.Rngs(0))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{folder / HEAD}: head: {error}; save the classifier again") from error
    if len(described.labels) != head.classes:
        raise InputError(
            f"{folder / HEAD}: labels: found {len(described.labels)} names for the "
            f"{head.classes} classes of the head; save the classifier again"
        )
    path = folder / HEAD_WEIGHTS
    arrays, _ = files.load_arrays(path)
    graph, weights, rest = nnx.split(head, NOT_RANDOM, ...)  # type: ignore[misc]
    weights = files.unflatten_like(weights, arrays, str(path))
    try:
        backbone = BertBackbone(bert, described.pooling, described.layers, described.pairs)
    except ValueError as error:
        raise InputError(f"{folder / HEAD}: {error}; save the classifier again") from error
    return Classifier(backbone, nnx.merge(graph, weights, rest))


def _bert_config(config: BertConfig, labels: Sequence[str]) -> dict[str, object]:
    return {
        "id2label": {str(i): name for i, name in enumerate(labels)},
        "label2id": {name: i for i, name in enumerate(labels)},
        "architectures": ["BertModel"],
        "model_type": "bert",
        **dataclasses.asdict(config),
        "position_embedding_type": "absolute",
    }


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

"""What turns inputs into features (N, D): an encoder, or the identity over features cached before.

A frozen encoder is not a mode with its own code: its features are computed once (`encode`), and
from then on the backbone is `Identity`.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, Protocol, TypeVar

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from enn_finetune.compiling import encoder_jit
from enn_finetune.errors import InputError
from enn_finetune.files import read_json
from enn_finetune.models.bert import Bert, Pooling
from enn_finetune.models.places import HEAD, POOLING
from enn_finetune.models.weights import load_bert
from enn_finetune.types import TokenBatch

Item = TypeVar("Item")

POOLINGS: tuple[Pooling, ...] = ("mean", "cls", "pooler")
POOLING_MODES: dict[str, Pooling] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
}

Inputs = Array | np.ndarray | TokenBatch
Layers = Literal["last", "auto"] | Sequence[int]
VIEWS = 4  # layers that "auto" reads, of encoders that have as many from the middle one up
Pairs = Literal["joint", "difference"]
PAIRS: tuple[Pairs, ...] = ("joint", "difference")


class Backbone(Protocol):
    """Inputs of N examples -> features (N, D), with dropout if a key is given."""

    width: int  # D

    def __call__(self, inputs: Inputs, *, key: Array | None = None) -> Array:
        """Features (N, D)."""
        ...


class Identity(nnx.Module):
    """Features (N, D) pass through: the backbone of a head on features computed before."""

    def __init__(self, width: int) -> None:
        self.width = width

    def __call__(self, inputs: Inputs, *, key: Array | None = None) -> Array:
        """The inputs (N, D) themselves.

        Raises:
          TypeError: the inputs are tokens.
          ValueError: they are of another width.
        """
        del key
        if isinstance(inputs, TokenBatch):
            raise TypeError("Identity: found tokens; it takes features (N, D), compute them first")
        if inputs.ndim != 2 or inputs.shape[1] != self.width:
            raise ValueError(f"Identity: found inputs {inputs.shape}, expected (N, {self.width})")
        return jnp.asarray(inputs)


class BertBackbone(nnx.Module):
    """A BERT encoder and how its hidden states become one vector an example.

    Several layers are several *views* of an example, side by side: the pooled hidden states of
    each, in one forward pass. They are for encoders that stay as they are.

    Two texts a row are read in one of two ways. "joint" takes them as one example,
    [CLS] a [SEP] b [SEP], as an encoder is fine-tuned. "difference" takes them as two examples, 2i
    and 2i + 1 for row i, and returns |u - v| of their features u and v: what a sentence encoder
    that stays as it is was made to compare (Reimers & Gurevych 2019, arXiv 1908.10084, section 3).
    """

    def __init__(
        self,
        bert: Bert,
        pooling: Pooling = "mean",
        layers: Sequence[int] | None = None,
        pairs: Pairs = "joint",
    ) -> None:
        """Take an encoder as it is.

        Args:
          bert: the encoder.
          pooling: mean, cls or pooler.
          layers: numbers of the layers read, from 1 to how many there are, rising; None reads the
            last one alone.
          pairs: "difference" where the examples of a batch are the two texts of each row.

        Raises:
          ValueError: an unknown pooling, a pooler that is not there or on other layers than the
            last, layers that are not there, or another word for pairs.
        """
        if pairs not in PAIRS:
            raise ValueError(f"pairs: found {pairs!r}; use one of {', '.join(PAIRS)}")
        if pooling not in POOLINGS:
            raise ValueError(f"pooling: found {pooling!r}; use one of {', '.join(POOLINGS)}")
        if pooling == "pooler" and bert.pooler is None:
            raise ValueError("pooling: found 'pooler', but the encoder has none; use mean or cls")
        count = len(bert.layers)
        chosen = (count,) if layers is None else tuple(int(number) for number in layers)
        if not chosen or list(chosen) != sorted({*chosen} & {*range(1, count + 1)}):
            raise ValueError(
                f"layers: found {list(chosen)}; give distinct numbers in rising order from 1 to "
                f"{count}, the encoder's last layer"
            )
        if pooling == "pooler" and chosen != (count,):
            raise ValueError(
                f"layers: found {list(chosen)} with the pooling 'pooler', which is made for the "
                f"last layer ({count}) alone; use the pooling mean or cls"
            )
        self.bert = bert
        self.pooling = pooling
        self.layers = chosen
        self.pairs = pairs
        self.width = len(chosen) * bert.config.hidden_size

    @property
    def views(self) -> int:
        """V: how many layers are read; features are (N, V * D)."""
        return len(self.layers)

    def __call__(self, inputs: Inputs, *, key: Array | None = None) -> Array:
        """Features (N, V * D) float32 of the rows of a token batch, N or 2N examples (see `pairs`).

        Zeros for a row without tokens.

        Raises:
          TypeError: the inputs are no token batch.
        """
        found = self.each(inputs, key=key)
        if self.pairs == "joint":
            return found
        both = found.reshape(-1, 2, self.width)
        return jnp.abs(both[:, 0] - both[:, 1])

    def each(self, inputs: Inputs, *, key: Array | None = None) -> Array:
        """Features (N, V * D) float32 of the N examples, each by itself; zeros without tokens.

        Raises:
          TypeError: the inputs are no token batch.
        """
        if not isinstance(inputs, TokenBatch):
            raise TypeError(f"BertBackbone: found {type(inputs).__name__}, expected a TokenBatch")
        states = self.bert.all_layers(inputs, key=key)
        views = [self.bert.pool(states[number], inputs, self.pooling) for number in self.layers]
        return views[0] if len(views) == 1 else jnp.concatenate(views, axis=1)


def auto_layers(count: int) -> tuple[int, ...]:
    """The layers that "auto" reads of an encoder with `count`: spread over its upper half.

    The middle and the last one are among them, and there are at most VIEWS. Those below are close
    to the word embeddings; which of the others tells most depends on the task (grammar sits in the
    middle).
    """
    first = max(count // 2, 1)
    spread = (first + round(i * (count - first) / (VIEWS - 1)) for i in range(VIEWS))
    return tuple(sorted({*spread}))


def load_backbone(
    folder: Path,
    *,
    pooling: str = "auto",
    layers: Layers = "last",
    pairs: Pairs = "joint",
    dtype: str = "float32",
    param_dtype: str = "float32",
) -> BertBackbone:
    """Read the encoder of a folder.

    Args:
      folder: in Hugging Face layout, see `weights.load_bert`.
      pooling: mean, cls, pooler, or auto for the folder's own (`default_pooling`).
      layers: last, auto (`auto_layers`), or the numbers of the layers read, from 1.
      pairs: joint or difference, see `BertBackbone`.
      dtype: the compute type.
      param_dtype: the type of the parameters.

    Raises:
      InputError: what cannot be read and why; a pooler is asked for and there is none; layers that
        the encoder does not have.
    """
    how = default_pooling(folder) if pooling == "auto" else _known_pooling(pooling)
    bert = load_bert(
        folder,
        dtype=jnp.dtype(dtype),
        param_dtype=jnp.dtype(param_dtype),
        pooler=how == "pooler",  # else it would be a weight that nothing uses
    )
    try:
        return BertBackbone(bert, how, _numbers(layers, len(bert.layers)), pairs)
    except ValueError as error:
        raise InputError(f"{folder}: backbone.{error}") from error


def _numbers(layers: Layers, count: int) -> Sequence[int]:
    if isinstance(layers, str):
        return auto_layers(count) if layers == "auto" else (count,)
    return layers


def default_pooling(folder: Path) -> Pooling:
    """What a saved classifier's folder or 1_Pooling/config.json says; the mean without either.

    Raises:
      InputError: it asks for a pooling that is not implemented.
    """
    saved = Path(folder) / HEAD
    if saved.is_file():
        return _known_pooling(str(read_json(saved).get("pooling")))
    path = Path(folder) / POOLING
    if not path.is_file():
        return "mean"
    modes = [k for k, v in read_json(path).items() if k.startswith("pooling_mode_") and v is True]
    if len(modes) != 1 or modes[0] not in POOLING_MODES:
        raise InputError(
            f"{path}: found {', '.join(modes) or 'no pooling mode'}; only one of "
            f"{', '.join(POOLING_MODES)} is implemented, set backbone.pooling to mean or cls"
        )
    return POOLING_MODES[modes[0]]


def encode(
    backbone: BertBackbone,
    batches: Iterable[tuple[np.ndarray, TokenBatch]],
    rows: int,
    progress: Callable[[int], None] | None = None,
) -> np.ndarray:
    """Features (rows, D) float32 of all rows, in evaluation mode.

    A row is an example: no differences of pairs are taken.

    Args:
      backbone: the encoder.
      batches: places (n,) in 0..rows-1 and the tokens of these n rows, padded to any number of
        examples. One compilation for each of their shapes, kept over calls.
      rows: how many rows there are.
      progress: called with the number of rows done so far.

    Raises:
      ValueError: the batches do not cover every row exactly once.
    """
    graph, state = nnx.split(backbone)
    features = np.zeros((rows, backbone.width), np.float32)
    times = np.zeros(rows, np.int32)
    started = ((places, _features(graph, state, batch)) for places, batch in batches)
    for places, computed in _one_behind(started):
        features[places] = np.asarray(computed)[: len(places)]
        np.add.at(times, places, 1)
        if progress is not None:
            progress(int(times.sum()))
    if (times != 1).any():
        row = int(np.argmax(times != 1))
        raise ValueError(f"encode: found row {row} in {times[row]} batches, expected one of them")
    return features


@functools.partial(encoder_jit, static_argnames="graph")
def _features(graph: nnx.GraphDef, state: nnx.State, batch: TokenBatch) -> Array:
    return nnx.merge(graph, state).each(batch)


def _one_behind(items: Iterable[Item]) -> Iterator[Item]:
    """The same items, each after the next was asked for: the device works while the host packs."""
    waiting: list[Item] = []
    for item in items:
        waiting.append(item)
        if len(waiting) > 1:
            yield waiting.pop(0)
    yield from waiting


def _known_pooling(name: str) -> Pooling:
    for known in POOLINGS:
        if known == name:
            return known
    raise InputError(f"backbone.pooling: found {name!r}; use auto, {', '.join(POOLINGS)}")

"""The tuning modes: what is added to an encoder, and which of its parameters are trained."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import jax
from flax import nnx
from flax.nnx import filterlib

from enn_finetune.config import ConfigError
from enn_finetune.config.schema import BackboneConfig
from enn_finetune.config.tuning import Tune
from enn_finetune.models.bert import Bert, BertConfig
from enn_finetune.models.tuning.ia3 import Scale, ScaledInputs, ScaledOutputs, add_ia3
from enn_finetune.models.tuning.lora import Factor, LoraDense, add_lora

if TYPE_CHECKING:  # it reads weights, which are exported by way of `plain`
    from enn_finetune.models.backbone import BertBackbone

ADDED = LoraDense | ScaledInputs | ScaledOutputs
STREAM = 0x7E4E
"""Additions are drawn apart from the head, which begins alike under every mode of one seed."""

Place = tuple[object, ...]
M = TypeVar("M", bound=nnx.Module)


class Fixed(nnx.Variable):
    """A parameter that the mode does not train: not an `nnx.Param`, so no filter finds it."""


class Mode(NamedTuple):
    """One way to train an encoder."""

    trained: Callable[[BackboneConfig, int], filterlib.Filter]
    """What of the parameters, of an encoder with so many layers."""
    add: Callable[[Bert, BackboneConfig, nnx.Rngs], None] | None = None
    """Puts in the place of some of its maps others, which are the same at first."""


def _last(settings: BackboneConfig, depth: int) -> filterlib.Filter:
    """The last layers, and what stands upon them."""
    first = depth - settings.tune_layers

    def last(path: Place, value: object) -> bool:
        del value
        return path[0] == "pooler" or (path[0] == "layers" and int(str(path[1])) >= first)

    return last


def _always(trained: filterlib.Filter) -> Callable[[BackboneConfig, int], filterlib.Filter]:
    return lambda *_: trained


MODES: Mapping[Tune, Mode] = {
    "frozen": Mode(_always(nnx.Nothing())),
    "last": Mode(_last),
    # Layer norms' too (Ben Zaken et al. 2021, arXiv 2106.10199).
    "bitfit": Mode(_always(nnx.PathContains("bias"))),
    "lora": Mode(_always(nnx.OfType(Factor)), add_lora),
    "ia3": Mode(_always(nnx.OfType(Scale)), add_ia3),
    "full": Mode(_always(nnx.Everything())),
}


def check(settings: BackboneConfig, config: BertConfig, folder: Path) -> None:
    """Refuse what does not fit the encoder of a folder.

    Raises:
      ConfigError: more layers than it has, or a rank above its width; names the key.
    """
    depth, width = config.num_hidden_layers, config.hidden_size
    if settings.tune == "last" and settings.tune_layers > depth:
        raise ConfigError(
            f"backbone.tune_layers: {settings.tune_layers} is more than the {depth} layers of the "
            f"encoder in {folder}; give at most {depth}, or backbone.tune = full"
        )
    if settings.tune == "lora" and settings.rank > width:
        raise ConfigError(
            f"backbone.rank: {settings.rank} is more than the width {width} of the encoder in "
            f"{folder}; give at most {width} (4 to 16 is usual)"
        )


def adapted(encoder: "BertBackbone", settings: BackboneConfig, seed: int) -> "BertBackbone":
    """A copy of an encoder that computes the same and whose `nnx.Param`s are what is trained.

    The word table of mode full is among them; `backbone.embeddings` decides about it.
    """
    copy = _copy(encoder)
    bert, mode = copy.bert, MODES[settings.tune]
    if mode.add is not None:
        mode.add(bert, settings, nnx.Rngs(params=jax.random.fold_in(jax.random.key(seed), STREAM)))
    trained = mode.trained(settings, len(bert.layers))
    fixed = nnx.state(bert, nnx.All(nnx.Param, nnx.Not(trained)))
    for path, variable in nnx.to_flat_state(fixed):
        _put(bert, path, Fixed(variable[...]))
    return copy


def plain(bert: Bert) -> Bert:
    """The encoder with additions folded into its matrices, all of it `nnx.Param`s again.

    The encoder itself where there is nothing to do; else a copy.
    """
    additions = [
        (layer, name)
        for layer in bert.layers
        for name, child in vars(layer).items()
        if isinstance(child, ADDED)
    ]
    if not additions and not jax.tree.leaves(nnx.state(bert, Fixed)):
        return bert
    copy = _copy(bert)
    for layer in copy.layers:
        for name, child in list(vars(layer).items()):
            if isinstance(child, ADDED):
                setattr(layer, name, child.fold())
    for path, variable in nnx.to_flat_state(nnx.state(copy, Fixed)):
        _put(copy, path, nnx.Param(variable[...]))
    return copy


def _copy(module: M) -> M:
    return nnx.merge(*nnx.split(module))


def _put(bert: Bert, path: Place, variable: nnx.Variable) -> None:
    """Put a variable in the place of the one at a path."""
    owner: Any = bert
    for name in path[:-1]:
        owner = owner[name] if isinstance(name, int) else getattr(owner, str(name))
    setattr(owner, str(path[-1]), variable)

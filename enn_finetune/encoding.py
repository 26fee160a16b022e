"""Splits as what a run reads: tokens where its encoder is trained, else features, made once."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from enn_finetune.config import Config, ConfigError
from enn_finetune.costs import Work
from enn_finetune.data.descriptions import Descriptions
from enn_finetune.data.inputs import FeatureRows, Rows, TokenRows
from enn_finetune.data.splits import Split
from enn_finetune.features import TextFeatures, cache_folder
from enn_finetune.models import tuning
from enn_finetune.models.backbone import BertBackbone, Pairs, load_backbone
from enn_finetune.models.places import find_backbone, load_tokenizer
from enn_finetune.progress import Display


class Encoded(NamedTuple):
    """Every split as an encoder's inputs or outputs, in the order of `Material.splits`."""

    encoder: BertBackbone
    folder: Path
    rows: tuple[Rows, ...]
    work: Work = Work()  # of the first split's features
    classes: np.ndarray | None = None  # (C, V * D): features of the classes' descriptions, if any


def encode_splits(
    config: Config, splits: Sequence[Split], display: Display, descriptions: Descriptions = ()
) -> Encoded:
    """Load the encoder; tokens of all splits if it is trained, else their features.

    A frozen encoder reads the descriptions of the classes too, if there are any.

    Raises:
      InputError: weights or a tokenizer that cannot be used.
    """
    folder = find_backbone(config.backbone.path)
    encoder = load_backbone(
        folder,
        pooling=config.backbone.pooling,
        layers=config.backbone.layers,
        pairs=_pairs(config, splits[0]),
        dtype=config.backbone.dtype,
    )
    tuning.check(config.backbone, encoder.bert.config, folder)
    positions = encoder.bert.config.max_position_embeddings
    if config.backbone.max_tokens > positions:
        raise ConfigError(
            f"backbone.max_tokens: {config.backbone.max_tokens} is more than the {positions} "
            f"positions of the encoder in {folder}"
        )
    rows, work = _rows(config, encoder, folder, splits, display)
    classes = None
    if descriptions and config.backbone.tune == "frozen":
        most = config.backbone.max_tokens
        read = TextFeatures(encoder, folder, most, cache=None, display=display)
        classes = np.stack([read(each, None, "classes").mean(axis=0) for each in descriptions])
    return Encoded(encoder, folder, rows, work, classes)


def _rows(
    config: Config,
    encoder: BertBackbone,
    folder: Path,
    splits: Sequence[Split],
    display: Display,
) -> tuple[tuple[Rows, ...], Work]:
    """Splits as model inputs: features if the encoder is frozen, else tokens; the first's work."""
    size = config.evaluation.batch
    if config.backbone.tune != "frozen":
        tokenizer, most = load_tokenizer(folder), config.backbone.max_tokens
        read = (TokenRows.read(tokenizer, one.text, one.pair, most, size) for one in splits)
        return tuple(read), Work()
    features = text_features(config, encoder, folder, display)
    rows, work = [], []
    for split in splits:
        rows.append(FeatureRows(features(split.text, split.pair, split.name), size))
        work.append(features.work)
    return tuple(rows), work[0]


def text_features(
    config: Config, encoder: BertBackbone, folder: Path, display: Display
) -> TextFeatures:
    """Texts to features as a config keeps and cuts them; what they take is counted."""
    return TextFeatures(
        encoder,
        folder,
        config.backbone.max_tokens,
        cache=cache_folder(config.backbone.cache),
        display=display,
        counted=True,
    )


def _pairs(config: Config, split: Split) -> Pairs:
    """How the encoder reads two texts a row; where there is one, it is read as it is."""
    if split.pair is None:
        return "joint"
    if config.backbone.pairs == "auto":
        return "difference" if config.backbone.tune == "frozen" else "joint"
    return config.backbone.pairs

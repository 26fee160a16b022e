"""Texts, a display that keeps what it is told, and where shards are: for tests of the cache."""

from pathlib import Path

import tiny_runs

from enn_finetune.features import TextFeatures
from enn_finetune.models.backbone import load_backbone
from enn_finetune.progress import Display

TEXTS = [str(row["text"]) for row in tiny_runs.sentences(30, 3)]
SHARD = 8


class Told(Display):
    """A quiet display that keeps what it is told."""

    def __init__(self):
        super().__init__(quiet=True)
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def reader(bert: Path, cache: Path | None, display=None, most: int = 16, **options) -> TextFeatures:
    """The features of an encoder's folder."""
    encoder = load_backbone(bert, **options)
    return TextFeatures(encoder, bert, most, cache=cache, display=display or Told())


def shards(cache: Path) -> list[Path]:
    """The files of all shards in a cache."""
    return sorted(cache.glob("*/*.features"))

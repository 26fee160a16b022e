"""How much of an encoder is trained: the words for it, and rates that were measured to work."""

from collections.abc import Mapping
from typing import Literal

Tune = Literal["frozen", "last", "bitfit", "lora", "ia3", "full"]
Embeddings = Literal["frozen", "touched", "dense"]
Projections = Literal["query_value", "all"]

WORDS_TRAINED = ("frozen", "full")
"""Modes under which `backbone.embeddings` may be asked for; it does nothing where all is frozen."""

LEARNING_RATES: Mapping[Tune, float] = {
    "frozen": 1e-4,  # of nothing
    "last": 1e-4,
    "bitfit": 3e-3,
    "lora": 1e-3,
    "ia3": 1e-2,
    "full": 1e-4,
}
"""Peak rates (AdamW) where `train.lr` is none: of three a mode, by likelihood and accuracy on rows
carved from training (SST-2 and messages, 200 labels, a 3-layer encoder of width 384)."""

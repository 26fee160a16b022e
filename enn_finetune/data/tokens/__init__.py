"""Text to token arrays: tokenise once, then pack examples into rows of a few fixed shapes.

Packing puts several examples in one row of L tokens; attention is confined to each example by
`TokenBatch.owner`, so the features are those of padded rows, without the padding's cost.
"""

from enn_finetune.data.tokens.packing import (
    Layout,
    PackShapes,
    efficiency,
    layout,
    pack,
    place,
    shapes_needed,
)
from enn_finetune.data.tokens.pool import batches, parts_of
from enn_finetune.data.tokens.sequences import Ragged, Tokenizer, tokenise

__all__ = [
    "Layout",
    "PackShapes",
    "Ragged",
    "Tokenizer",
    "batches",
    "efficiency",
    "layout",
    "pack",
    "parts_of",
    "place",
    "shapes_needed",
    "tokenise",
]

"""Texts to features of a frozen encoder, kept on disk between runs.

Rows with the same text are encoded once. What is left is cut into shards, in the order in which
texts first appear, and each shard is encoded by itself, with or without a cache: so the numbers are
the same bit for bit, whatever was cached. Where a shard ends is said by the text of its last row
(content-defined chunking), not by its place in the file: so wherever rows are added, edited or
taken out, only the shards that they stand in are encoded again. Rows in another order are other
shards.

For an encoder that reads pairs as differences (see `BertBackbone`) these rows are the single texts
of the pairs, first and second ones alike, and |u - v| is taken of what was encoded or read.

    CACHE/KEY/about.json                what KEY is the digest of: everything the numbers depend on
    CACHE/KEY/FINGERPRINT.features      a shard: a .npy array (rows, V * D), then a SHA-256 digest
    CACHE/KEY/FINGERPRINT.work          operations and seconds it took, an array with its digest too

Shards are float32, as computed: half the disk for half precision would make a run with a cache
another run than one without. They are written atomically, mapped, verified on reading and copied to
where their rows belong; they may be deleted at any time, and what other weights or versions left
behind is never deleted here. Processes at work on the same rows share the work.
"""

from enn_finetune.features.identity import cache_folder
from enn_finetune.features.reading import TextFeatures

__all__ = ["TextFeatures", "cache_folder"]

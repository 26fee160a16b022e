"""Texts to features of a frozen encoder, kept on disk between runs.

Rows with the same text are encoded once. What is left is cut into shards of SHARD rows, in the
order in which texts first appear, and each shard is encoded by itself, with or without a cache: so
the numbers are the same bit for bit, whatever was cached, and a file that is appended to or edited
in one place is encoded again only in the shards that changed.

For an encoder that reads pairs as differences (see `BertBackbone`) these rows are the single texts
of the pairs, first and second ones alike, and |u - v| is taken of what was encoded or read.

    CACHE/KEY/about.json                what KEY is the digest of: everything the numbers depend on
    CACHE/KEY/FINGERPRINT.features      a shard: a .npy array (rows, V * D), then a SHA-256 digest
    CACHE/KEY/FINGERPRINT.work          what computing it took, for those who account for it

Shards are float32, as computed: half the disk for half precision would make a run with a cache
another run than one without. They are written atomically, mapped and verified on reading, and may
be deleted at any time. Processes at work on the same rows share the work.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from itertools import repeat
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tokenizers
import transformers
from flax import nnx

from enn_finetune import costs, files
from enn_finetune.data.inputs import one_by_one
from enn_finetune.data.tokens import PackShapes, batches, tokenise
from enn_finetune.errors import InputError
from enn_finetune.models.backbone import BertBackbone, encode
from enn_finetune.models.places import TOKENIZER_FILES, load_tokenizer
from enn_finetune.progress import Display
from enn_finetune.records import version

FORMAT = 1  # raise it when the encoder's numbers change for the same weights and tokens
SHARD = 4096  # rows
ABOUT = "about.json"
SUFFIX, WORK = ".features", ".work"

TextRow = tuple[str, str | None]


def cache_folder(setting: str) -> Path | None:
    """The folder that `backbone.cache` names: empty is the user's own, none is no folder."""
    if setting == "none":
        return None
    if setting:
        return Path(setting).expanduser()
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "enn_finetune" / "features"


class Shard(NamedTuple):
    """Distinct rows that are encoded and kept together."""

    rows: list[TextRow]
    start: int  # of the first among all distinct rows
    fingerprint: str  # of their texts


class TextFeatures:
    """Texts -> features (N, V * D) of one encoder, computed where the cache does not have them."""

    def __init__(
        self,
        encoder: BertBackbone,
        folder: Path,
        max_tokens: int,
        *,
        cache: Path | None,
        display: Display,
        counted: bool = False,
    ) -> None:
        """Take an encoder as it is now; one that is trained further needs a new object.

        Args:
          encoder: what computes the features.
          folder: has the tokenizer.
          max_tokens: longer texts are cut.
          cache: where features are kept (see `cache_folder`); None keeps none.
          display: progress, what was found, and what was damaged.
          counted: `work` says what features take, those read included: as when they were computed.

        Raises:
          InputError: the folder has no tokenizer that can be read.
        """
        self._encoder, self._max_tokens, self._display = encoder, max_tokens, display
        self._counted, self._ledger, self.work = counted, costs.Ledger(), costs.Work()
        self._tokenizer = load_tokenizer(folder)
        self._place: Path | None = None
        if cache is not None:
            about = describe(encoder, folder, max_tokens)
            text = json.dumps(about, sort_keys=True, indent=2) + "\n"
            self._place = cache / hashlib.sha256(text.encode()).hexdigest()[:32]
            try:
                if not (self._place / ABOUT).exists():
                    files.atomic_write(self._place / ABOUT, text)
            except (InputError, OSError) as error:
                self._without(error)

    def __call__(
        self, text: Sequence[str], pair: Sequence[str] | None = None, name: str = "rows"
    ) -> np.ndarray:
        """Features (N, V * D) float32 of N texts or pairs of texts; `name` is what progress says.

        Raises:
          ValueError: another number of second texts than of first ones, or none for an encoder
            that takes differences.
        """
        count, apart = len(text), self._encoder.pairs == "difference"
        if apart:
            if pair is None:
                raise ValueError(f"{name}: found one text a row; the encoder takes differences")
            text, pair = one_by_one(text, pair), None
        rows, where = distinct(text, pair)
        sides = where.reshape(count, 2 if apart else 1).T
        shards = [_shard(rows, start) for start in range(0, len(rows), SHARD)]
        features = np.zeros((count, self._encoder.width), np.float32)

        def fill(shard: Shard, block: np.ndarray) -> None:
            # u - v and v - u differ in the sign alone: the order of shards changes no bit.
            for side, add in zip(sides, (np.add, np.subtract), strict=False):
                here = (side >= shard.start) & (side < shard.start + len(shard.rows))
                features[here] = add(features[here], block[side[here] - shard.start])

        missing = []
        for shard in shards:
            block = self._read(shard)
            if block is None:
                missing.append(shard)
            else:
                fill(shard, block)
        self._build(missing, fill, name)
        if apart:
            np.abs(features, out=features)
        if self._place is not None and shards:
            size = len(rows) * features.shape[1] * 4 / 1e6
            read = len(rows) - sum(len(shard.rows) for shard in missing)
            self._display.say(
                f"{name}: features of {count:,} rows ({len(rows):,} distinct"
                f"{' texts' if apart else ''}, {read:,} of them read from the cache), "
                f"{size:,.1f} MB in {self._place}"
            )
        return features

    def _build(
        self, missing: list[Shard], fill: Callable[[Shard, np.ndarray], None], name: str
    ) -> None:
        """Compute and keep shards; those that another process has in hand come last."""
        if missing:
            total = sum(len(shard.rows) for shard in missing)
            self._display.begin(f"encoding {name}", total, "rows")
        done = 0
        for wait in (False, True):
            if wait and missing:
                self._display.say(f"{name}: another process is encoding these rows; waiting for it")
            later = []
            for shard in missing:
                with self._claim(shard, wait) as mine:
                    if not mine:
                        later.append(shard)
                        continue
                    block = self._read(shard)
                    if block is None:
                        with self._ledger.measured() as taken:
                            block = self._encode(shard.rows, done)
                        self.work = self.work.plus(taken())
                        self._keep(shard, block, taken())
                fill(shard, block)
                done += len(shard.rows)
                self._display.reach(done)
            missing = later

    def _encode(self, rows: Sequence[TextRow], done: int) -> np.ndarray:
        text = [first for first, _ in rows]
        pair = [second for _, second in rows if second is not None] or None
        tokens = tokens_at_once()
        packed = batches(
            tokenise(self._tokenizer, text, pair, self._max_tokens),
            tokens=tokens,
            examples=tokens // 4,
            shapes=PackShapes(),
        )
        return encode(
            self._encoder, packed, len(rows), lambda count: self._display.reach(done + count)
        )

    def _read(self, shard: Shard) -> np.ndarray | None:
        """The kept features (n, V * D) of a shard; None where they are not there or not sound."""
        path = self._path(shard)
        if path is None or not path.exists():
            return None
        shape = (len(shard.rows), self._encoder.width)
        try:
            block = files.map_checked(path, self._identity(shard), shape, "float32")
            if self._counted:
                self.work = self.work.plus(costs.read_work(path.with_suffix(WORK)))
            return block
        except (InputError, OSError, ValueError) as error:
            self._display.say(f"{error}; these {shape[0]:,} rows are encoded again")
            with suppress(OSError):
                path.unlink()
            return None

    def _keep(self, shard: Shard, block: np.ndarray, work: costs.Work) -> None:
        path = self._path(shard)
        if path is None:
            return
        try:
            files.atomic_write(path.with_suffix(WORK), json.dumps(work) + "\n")
            files.save_checked(path, block, self._identity(shard))
        except (InputError, OSError) as error:
            self._without(error)

    def _claim(self, shard: Shard, wait: bool) -> AbstractContextManager[bool]:
        path = self._path(shard)
        return (
            nullcontext(True) if path is None else files.claim(path.with_suffix(".lock"), wait=wait)
        )

    def _path(self, shard: Shard) -> Path | None:
        return None if self._place is None else self._place / (shard.fingerprint + SUFFIX)

    def _identity(self, shard: Shard) -> str:
        return "" if self._place is None else f"{self._place.name} {shard.fingerprint}"

    def _without(self, error: Exception) -> None:
        """Features that cannot be kept are no reason to stop."""
        self._display.say(f"no features are kept from here on: {error}")
        self._place = None


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
        "shard": [SHARD, tokens_at_once()],
        "platform": [jax.default_backend(), str(precision)],
        "versions": {
            "enn-finetune": version(),
            "jax": jax.__version__,
            "tokenizers": tokenizers.__version__,
            "transformers": transformers.__version__,
        },
    }


def weights_digest(encoder: BertBackbone) -> str:
    """SHA-256 of the parameters as they are in memory, which may no longer be those of a file."""
    found = hashlib.sha256()
    for name, array in sorted(files.flatten(nnx.state(encoder, nnx.Param)).items()):
        found.update(f"{name} {array.dtype} {array.shape}\n".encode())
        found.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return found.hexdigest()


def distinct(text: Sequence[str], pair: Sequence[str] | None) -> tuple[list[TextRow], np.ndarray]:
    """The distinct rows in the order in which they first appear, and the place of each row (N,).

    Raises:
      ValueError: another number of second texts than of first ones.
    """
    if pair is not None and len(pair) != len(text):
        raise ValueError(f"found {len(text)} texts but {len(pair)} second ones; give one a text")
    places: dict[TextRow, int] = {}
    rows = zip(text, repeat(None) if pair is None else pair, strict=False)
    where = np.fromiter((places.setdefault(row, len(places)) for row in rows), np.int64, len(text))
    return list(places), where


def tokens_at_once() -> int:
    """Tokens of a batch: about what the cache of a CPU holds; more keeps an accelerator busy."""
    return 2048 if jax.default_backend() == "cpu" else 32768


def _shard(rows: list[TextRow], start: int) -> Shard:
    mine = rows[start : start + SHARD]
    text = json.dumps(mine, separators=(",", ":"))
    return Shard(mine, start, hashlib.sha256(text.encode()).hexdigest()[:32])

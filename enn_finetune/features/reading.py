"""Texts to features of one encoder, read where they are kept and else computed."""

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path

import numpy as np

from enn_finetune import costs, files
from enn_finetune.data.inputs import one_by_one
from enn_finetune.data.tokens import PackShapes, batches, tokenise
from enn_finetune.errors import InputError
from enn_finetune.features.identity import describe, tokens_at_once
from enn_finetune.features.shards import Shard, TextRow, distinct, shards_of
from enn_finetune.models.backbone import BertBackbone, encode
from enn_finetune.models.places import load_tokenizer
from enn_finetune.progress import Display

ABOUT = "about.json"
SUFFIX, WORK = ".features", ".work"
WIDE = "float64"


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
        shards = shards_of(rows)
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
                account = self._identity(shard) + WORK
                taken = files.map_checked(path.with_suffix(WORK), account, (2,), WIDE)
                self.work = self.work.plus(costs.Work(*taken.tolist()))
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
            account = self._identity(shard) + WORK
            files.save_checked(path.with_suffix(WORK), np.array(work, WIDE), account)
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

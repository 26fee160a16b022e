"""Finished cells of benchmarks/policies.py, packed: what a later sitting goes on from.

One file a study, one line a cell. A cell is known by what it depends on, so that one of other rows,
another size or other keys is run again; where its files lay does not matter.
"""

import functools
import hashlib
import json
import lzma
from pathlib import Path
from typing import TypedDict

from pack import packed, record

from enn_finetune.config import Config
from enn_finetune.files import atomic_write, claim, sha256
from enn_finetune.records import Record

SUFFIX = ".jsonl.xz"


class Cell(TypedDict):
    """One arm and seed of a study."""

    arm: str
    seed: int
    key: str
    commit: str  # of the code it was run with
    bought: str  # a digest of the rows, in their order
    records: list[Record]


@functools.cache
def weights_of(folder: Path) -> str:
    """A digest of an encoder's weights, with the name of its folder."""
    file = folder / "model.safetensors"
    return f"{folder.name} {sha256(file) if file.is_file() else ''}".strip()


def key_of(config: Config, fingerprint: str) -> str:
    """What a cell depends on, but for the code, whose commit stands beside it."""
    keys = config.tree
    for part in ("train", "test", "data"):
        keys["task"].pop(part)  # the fingerprint is of the rows
    for part in ("backbone", "proxy"):
        paths = keys[part].pop("path")
        keys[part]["weights"] = [weights_of(Path(path)) for path in paths]
    keys["backbone"].pop("cache")
    text = json.dumps([fingerprint, keys], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Kept:
    """The packed cells of one study."""

    def __init__(self, folder: Path | None, study: str) -> None:
        """Read them, if there are any; without a folder nothing is kept."""
        self._path = None if folder is None else folder / (study + SUFFIX)
        self._cells = self._read()

    def __len__(self) -> int:
        """How many there are."""
        return len(self._cells)

    def find(self, key: str) -> Cell | None:
        """A cell, None where it is not among them."""
        return self._cells.get(key)

    def add(self, cell: Cell) -> None:
        """Take a finished cell; `write` writes it."""
        self._cells[cell["key"]] = cell

    def write(self) -> None:
        """Put what there is in place of what was read, with what another process has added."""
        if self._path is None or not self._cells:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with claim(self._path.with_suffix(".lock"), wait=True):
            self._cells = self._read() | self._cells
            lines = [
                {**cell, "records": [record({**one}) for one in cell["records"]]}
                for cell in self._cells.values()
            ]
            atomic_write(self._path, packed(lines, dict))

    def _read(self) -> dict[str, Cell]:
        if self._path is None or not self._path.exists():
            return {}
        lines = lzma.decompress(self._path.read_bytes()).decode().splitlines()
        return {cell["key"]: cell for cell in map(json.loads, lines)}


def digest(rows: list[int]) -> str:
    """Of bought rows, in their order."""
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]

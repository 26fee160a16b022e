"""What a run leaves behind: records.jsonl, one line an evaluation, and where it all came from."""

import json
import subprocess
from importlib import metadata
from pathlib import Path
from typing import NotRequired, TypedDict

from enn_finetune import files
from enn_finetune.errors import InputError


class Record(TypedDict):
    """One evaluation of one split. A benchmark's records say of which study and arm."""

    step: int  # gradient steps; rounds in the pool regime
    labels_bought: int
    split: str
    metrics: dict[str, float]
    seconds: float
    # What a run takes that ends here, in seconds and flops, for one seed:
    scoring: NotRequired[dict[str, float]]
    training: NotRequired[dict[str, float]]
    encoding: NotRequired[dict[str, float]]  # of the pool, where its features are computed once
    evaluation: NotRequired[dict[str, float]]  # so far, for the curve alone: charged to nobody
    policy: NotRequired[str]
    refreshed: NotRequired[list[int]]  # labels at which the features were computed anew
    task: NotRequired[str]
    pool: NotRequired[str]
    backbone: NotRequired[str]
    tune: NotRequired[str]
    regime: NotRequired[str]
    arm: NotRequired[str]
    head: NotRequired[str]
    rule: NotRequired[str]
    seed: NotRequired[int]


class RecordFile:
    """An append-only file of records, cut back to a known count when a run resumes."""

    def __init__(self, path: Path, keep: int = 0):
        """Open `path`, keeping its first `keep` records: later ones were written after the
        checkpoint that the run goes on from, and will be written again.

        Raises:
          InputError: the file has fewer records, or a damaged one among them.
        """
        self._path = path
        self.records: list[Record] = read(path, keep)
        if len(self.records) < keep:
            raise InputError(
                f"{path}: found {len(self.records)} records, the checkpoint was saved after "
                f"{keep}; put the file back, or start again with another --out"
            )
        files.atomic_write(path, "".join(map(_line, self.records)))

    def append(self, record: Record) -> None:
        """Write one line and flush it."""
        self.records.append(record)
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(_line(record))


def _line(record: Record) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"


def read(path: Path, count: int | None = None) -> list[Record]:
    """The first `count` records of a file, or all; a last line cut off by a crash is left out.

    Raises:
      InputError: a line among them is damaged.
    """
    # Bytes, for a crash may have cut a character.
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    found: list[Record] = []
    for number, line in enumerate(lines[:count], 1):
        try:
            found.append(json.loads(line))
        except ValueError as error:
            raise InputError(
                f"{path}, line {number}: not a record ({error}); take the line out, or start "
                "again with another --out"
            ) from error
    return found


def commit() -> str:
    """The git commit of the checkout this package runs from (+dirty), or its installed version."""
    here = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments],
            cwd=here,
            capture_output=True,
            encoding="utf-8",
            check=True,
            timeout=10,
        ).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "types.py")  # not someone else's checkout around us
        return git("describe", "--always", "--abbrev=40", "--dirty=+dirty", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return f"enn-finetune {version()}"


def version() -> str:
    """The installed version of this package; "unknown" when it runs uninstalled."""
    try:
        return metadata.version("enn-finetune")
    except metadata.PackageNotFoundError:
        return "unknown"

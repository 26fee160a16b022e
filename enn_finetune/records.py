"""What a run leaves behind: records.jsonl, one line an evaluation, and where it all came from."""

import json
import subprocess
from importlib import metadata
from pathlib import Path
from typing import NotRequired, TypedDict

from enn_finetune import files


class Record(TypedDict):
    """One evaluation of one split."""

    step: int
    labels_bought: int
    split: str
    metrics: dict[str, float]
    seconds: float
    arm: NotRequired[str]
    head: NotRequired[str]
    rule: NotRequired[str]
    seed: NotRequired[int]


class RecordFile:
    """An append-only file of records, cut back to a known count when a run resumes."""

    def __init__(self, path: Path, keep: int = 0):
        """Open `path`, keeping its first `keep` records: later ones were written after the
        checkpoint that the run goes on from, and will be written again.
        """
        self._path = path
        self.records: list[Record] = read(path)[:keep] if keep else []
        files.atomic_write(path, "".join(map(_line, self.records)))

    def append(self, record: Record) -> None:
        """Write one line and flush it."""
        self.records.append(record)
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(_line(record))


def _line(record: Record) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"


def read(path: Path) -> list[Record]:
    """All complete records of a file; a last line cut off by a crash is left out."""
    lines = path.read_text(encoding="utf-8").split("\n") if path.exists() else []
    return [json.loads(line) for line in lines[:-1]]


def commit() -> str:
    """The git commit of the checkout this package runs from (+dirty), or its installed version."""
    here = Path(__file__).resolve().parent
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty=+dirty", "--exclude=*"],
            cwd=here,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
        tracked = subprocess.run(
            ["git", "ls-files", "--error-unmatch", "types.py"],
            cwd=here,
            capture_output=True,
            check=True,
            timeout=10,
        )
        del tracked
    except (OSError, subprocess.SubprocessError):
        return f"enn-finetune {version()}"
    return described.stdout.strip()


def version() -> str:
    """The installed version of this package; "unknown" when it runs uninstalled."""
    try:
        return metadata.version("enn-finetune")
    except metadata.PackageNotFoundError:
        return "unknown"

"""The files of a bench folder, line by line: records, bought rows, and what the studies were."""

import gzip
import json
import lzma
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import cast

from enn_finetune import files
from enn_finetune.errors import InputError
from enn_finetune.records import Record

OPEN: Mapping[str, Callable[[Path], bytes]] = {
    "": Path.read_bytes,
    ".gz": lambda path: gzip.decompress(path.read_bytes()),
    ".xz": lambda path: lzma.decompress(path.read_bytes()),
}
RECORD = {"step": int, "labels_bought": int, "split": str, "metrics": dict}
BOUGHT = {"head": str, "rule": str, "seed": int, "rows": list}
Line = dict[str, object]
SUMMARY = "summary.json"
REPORT = "report.html"
PAGE = "page"
"""Key of a page's summary: the page's name."""


def summary_of(page: Path, key: str) -> Path:
    """Where the summary of a page goes: summary.json beside it, never over that of anything else.

    Beside another page, whose summary says so, it is called after this one: b.summary.json. A page
    called report.html has summary.json in any case: that is where results' own figures are.

    Args:
      page: the file to be.
      key: what the summary of such a page has, and no other.

    Raises:
      InputError: the page's name is a folder's; a summary is there that lacks the key.
    """
    if page.is_dir():
        raise InputError(
            f"--out {page}: found a folder; give the name of a file, such as {page}/report.html"
        )
    path = page.parent / SUMMARY
    if not path.is_file():
        return path
    there = files.read_json(path)
    other = there.get(PAGE, page.name)
    if page.name not in {other, REPORT} and (page.parent / str(other)).is_file():
        return page.with_suffix(f".{SUMMARY}")
    if key not in there:
        raise InputError(
            f"{path} is the summary of a run, and the report writes a file of this name; give an "
            "--out in another folder"
        )
    return path


def find(folder: Path, name: str) -> Path | None:
    """A file of a folder, as it is or compressed (.gz, .xz); None where there is none."""
    paths = [folder / f"{name}{suffix}" for suffix in OPEN]
    return next((path for path in paths if path.is_file()), None)


def read_records(folder: Path) -> list[Record]:
    """All records of a folder.

    Raises:
      InputError: no such folder, no records in it, or a damaged line: which file and line.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give folders that bench, demo or train wrote")
    path = find(folder, "records.jsonl")
    if path is None:
        raise InputError(f"{folder}: found no records.jsonl (or .gz, .xz) in this folder")
    found = [cast(Record, line) for line in read_lines(path, RECORD)]
    if not found:
        raise InputError(f"{path}: found no record; is the run still before its first evaluation?")
    return found


def read_bought(folder: Path) -> list[Line]:
    """The bought rows of each cell and seed; nothing where the folder has no such file.

    Raises:
      InputError: a damaged line.
    """
    path = find(folder, "bought.jsonl")
    return [] if path is None else list(read_lines(path, BOUGHT))


def read_studies(folder: Path) -> list[Line]:
    """The entries of studies.json; nothing where the folder has no such file.

    Raises:
      InputError: it is not JSON, or not a list of objects (or an object of them).
    """
    path = folder / "studies.json"
    if not path.is_file():
        return []
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: found no valid JSON ({error}); copy the file again") from error
    if isinstance(found, dict):
        found = found.get("studies", list(found.values()))
    if isinstance(found, dict):
        found = list(found.values())
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise InputError(f"{path}: found no list of studies; copy the file again")
    return found


def read_defaults(folder: Path) -> Line:
    """What records of a plain run or a demo leave unsaid: from its summary.json and config.json."""
    found: Line = {}
    if (folder / "config.json").is_file():
        config = files.read_json(folder / "config.json")
        task, backbone = (config.get(name) for name in ("task", "backbone"))
        if isinstance(task, dict) and isinstance(task.get("pool", ""), str):
            found["pool"] = task.get("pool") or "plain"
        if isinstance(backbone, dict):
            path = backbone.get("path")
            found["backbone"] = path[0] if isinstance(path, list) and path else path
            found["tune"] = backbone.get("tune")
    if (folder / "summary.json").is_file():
        summary = files.read_json(folder / "summary.json")
        if "tasks" not in summary:  # else a report's
            found |= summary
    if (folder / "config.json").is_file() and "rule" in found:
        found["rule"] = f"{found['rule']}{_chooser(config)}"
    return {name: value for name, value in found.items() if value is not None}


def _chooser(config: Line) -> str:
    """What tells runs of one head and rule apart: who chose the rows (see config/policy.py)."""
    policy, proxy, prices = (config.get(name) for name in ("policy", "proxy", "prices"))
    asked = config.get("acquisition")
    if isinstance(asked, dict) and asked.get("rule") == "random":
        return ""
    words = f", {policy}" if policy not in (None, "standard") else ""
    if policy == "auto" and isinstance(prices, dict):
        words += f" at {prices.get('label'):g}/{prices.get('hour'):g}"
    path = proxy.get("path") if isinstance(proxy, dict) else None
    if isinstance(path, list) and path:
        words += f" by {str(path[0]).rstrip('/').rsplit('/', 1)[-1]}"
    return words


def read_lines(path: Path, needs: Mapping[str, type]) -> Iterator[Line]:
    """The objects of a JSON-lines file; a last line cut off by a crash is left out."""
    suffix = path.suffix if path.suffix in OPEN else ""
    try:
        lines = OPEN[suffix](path).split(b"\n")
    except (EOFError, OSError, lzma.LZMAError) as error:
        raise InputError(f"{path}: cannot be unpacked ({error}); copy the file again") from error
    for number, text in enumerate(lines[:-1], 1):
        yield _line(text, f"{path}, line {number}", needs)
    if lines[-1].strip():
        try:
            yield _line(lines[-1], f"{path}, line {len(lines)}", needs)
        except InputError:
            if suffix:  # a compressed file is written whole
                raise


def _line(text: bytes, where: str, needs: Mapping[str, type]) -> Line:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise InputError(f"{where}: not a line of JSON ({error}); take the line out") from error
    if not isinstance(found, dict):
        raise InputError(f"{where}: found a JSON {type(found).__name__} in place of an object")
    for name, kind in needs.items():
        if not isinstance(found.get(name), kind):
            raise InputError(
                f"{where}: {name}: found {found.get(name)!r} in place of a {kind.__name__}; take "
                "the line out"
            )
    for name, value in found["metrics"].items() if "metrics" in needs else ():
        if not isinstance(value, int | float):
            raise InputError(f"{where}: metrics.{name}: found {value!r} in place of a number")
    return found

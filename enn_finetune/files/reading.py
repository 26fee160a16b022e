"""Reading small files, with errors that say where."""

import hashlib
import json
import os
from pathlib import Path

from enn_finetune.errors import InputError

PathLike = str | os.PathLike[str]


def check_file(path: PathLike) -> None:
    """Raise an `InputError` that says what is there instead, unless `path` is a file."""
    path = Path(path)
    if path.is_file():
        return
    if path.is_dir():
        raise InputError(f"{path}: found a folder where a file is expected")
    if not path.parent.is_dir():
        raise InputError(f"{path}: no such file, and no folder {path.parent}")
    names = sorted(entry.name for entry in path.parent.iterdir())
    raise InputError(f"{path}: no such file; its folder holds {', '.join(names[:10]) or 'nothing'}")


def read_json(path: PathLike) -> dict[str, object]:
    """The object in a JSON file.

    Raises:
      InputError: no such file; not UTF-8, not JSON (with line and column), or not an object.
    """
    check_file(path)
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:  # of decoding or of parsing: both say where
        raise InputError(f"{path}: found no valid JSON ({error}); save or copy it again") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: found a JSON {type(value).__name__} where an object is expected")
    return value


def sha256(path: PathLike) -> str:
    """The SHA-256 digest of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

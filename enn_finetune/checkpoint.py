"""Saving a run in one file, at once: arrays (safetensors) with the JSON state in its metadata.

One file replaced atomically cannot disagree with itself: after a kill -9 at any moment there is the
old checkpoint or the new one, and everything in it is of one step.
"""

import json
from pathlib import Path
from typing import TypeVar

from enn_finetune import files
from enn_finetune.errors import InputError

Tree = TypeVar("Tree")

STATE = "state"


def save(path: Path, tree: object, state: object) -> None:
    """Write a pytree of arrays and a JSON-able state; the file before it is kept until then."""
    files.save_arrays(path, files.flatten(tree), {STATE: json.dumps(state)})


def restore(path: Path, like: Tree) -> tuple[Tree, object]:
    """Read what `save` wrote: a tree of the structure of `like`, and the state.

    Raises:
      InputError: the file is damaged, or of another structure; all differing entries are listed.
    """
    arrays, metadata = files.load_arrays(path)
    if STATE not in metadata:
        raise InputError(f"{path}: found arrays without a saved state; this is no checkpoint")
    return files.unflatten_like(like, arrays, str(path)), json.loads(metadata[STATE])

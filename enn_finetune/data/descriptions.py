"""What each class is, in words: entries `CLASS: a sentence`, checked against a task's classes."""

import difflib
from collections.abc import Sequence
from pathlib import Path

from enn_finetune import files
from enn_finetune.data.faults import DataError
from enn_finetune.errors import InputError

FILE = "@"
"""What a value begins with that is not an entry but the name of a file of them."""

Descriptions = tuple[tuple[str, ...], ...]
"""For each of C classes the sentences that describe it, one or more."""


def entries_of(values: Sequence[str]) -> list[str]:
    """The entries that values give: each is one itself, or `@FILE` is a file of them, one a line.

    In a file a class may be called anything: there `@` is a sign like others.

    Raises:
      InputError: no such file (what is there is said), or one that cannot be read.
      DataError: it is not UTF-8, has no line, or one that describes no class (which is said).
    """
    found: list[str] = []
    for value in values:
        if not value.startswith(FILE):
            found.append(value)
            continue
        path = Path(value.removeprefix(FILE)).expanduser()
        files.check_file(path)
        try:
            text = path.read_text("utf-8-sig")
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: is not UTF-8 ({error}); save it as UTF-8") from None
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from None
        lines = {n: line for n, line in enumerate(text.splitlines(), 1) if line.strip()}
        if not lines:
            raise DataError(f"{path}: found no line; write CLASS: and what it is, one a line")
        for number, line in lines.items():
            try:
                described_classes([line])
            except DataError as error:
                raise DataError(f"{path}, line {number}: {error}") from None
        found += lines.values()
    return found


def described_classes(entries: Sequence[str], classes: Sequence[str] = ()) -> dict[str, list[str]]:
    """Entries `CLASS: a sentence` -> the sentences of each class, in the order of the entries.

    A class is what stands before the first colon, or the longest of `classes` (some of which may
    have colons themselves) that an entry begins with.

    Raises:
      DataError: an entry without a class or without a sentence.
    """
    found: dict[str, list[str]] = {}
    longest = sorted(classes, key=len, reverse=True)
    for entry in entries:
        name, sentence = _parts(entry.strip(), longest)
        if not (name and sentence):
            raise DataError(
                f"{entry!r} does not describe a class; write CLASS: and what it is, such as "
                "positive: a review that praises"
            )
        found.setdefault(name, []).append(sentence)
    return found


def _parts(entry: str, classes: Sequence[str]) -> tuple[str, str]:
    """The class that an entry names, and what it says of it; one of them may be empty."""
    for name in classes:
        rest = entry.removeprefix(name).lstrip()
        if entry.startswith(name) and rest.startswith(":"):
            return name, rest[1:].strip()
    name, _, sentence = entry.partition(":")
    return name.strip(), sentence.strip()


def describe(entries: Sequence[str], classes: Sequence[str]) -> Descriptions:
    """The sentences of every class, in class order; () where there are no entries.

    Raises:
      DataError: a class that is none (the nearest is named), or one without a description.
    """
    found = described_classes(entries, classes)
    for name in found:
        if name not in classes:
            near = difflib.get_close_matches(name, classes, n=1, cutoff=0.0)
            raise DataError(
                f"{name!r} is described, which is no class"
                + (f"; the nearest is {near[0]!r}" if near else "")
            )
    absent = [name for name in classes if name not in found] if found else []
    if absent:
        raise DataError(
            f"no description of {', '.join(map(repr, absent))}; described are "
            f"{', '.join(map(repr, found))}: describe every class, or none"
        )
    return tuple(tuple(found[name]) for name in classes) if found else ()

r"""Rows of TSV, CSV and JSON-lines files, with errors that name file, line and column.

A TSV has no quoting: a quote is data, a tab ends a field and "\n" (or "\r\n") ends a row, as in
GLUE. A CSV is quoted in the usual way, so a field may span lines; a row is known by the line it
starts on. Files are UTF-8, a byte order mark is ignored, and so are blank lines.
"""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

from enn_finetune.data.faults import (
    DataError,
    Row,
    RowError,
    check_file,
    check_row,
    no_column,
    row_faults,
    shown,
)
from enn_finetune.data.splits import Labels, Split, to_split

__all__ = [
    "DataError",
    "Format",
    "Row",
    "RowError",
    "Split",
    "read_rows",
    "read_table",
    "stream_rows",
]

Format = Literal["tsv", "csv", "jsonl"]

_FORMATS: Mapping[str, Format] = {
    ".tsv": "tsv",
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}
_BOM = b"\xef\xbb\xbf"


class _Fields(NamedTuple):
    line: int
    cells: list[str]


def _lines(file: BinaryIO) -> Iterator[tuple[int, str, RowError | None]]:
    """Line number, text with its line end, and the fault where the bytes are not UTF-8."""
    offset = 0
    for number, raw in enumerate(file, 1):
        body = raw.removeprefix(_BOM) if number == 1 else raw
        try:
            yield number, body.decode(), None
        except UnicodeDecodeError as error:
            at = offset + len(raw) - len(body) + error.start
            utf16 = number == 1 and raw[:2] in (b"\xff\xfe", b"\xfe\xff")
            message = f"byte {at} of the file, 0x{body[error.start]:02x}, is not UTF-8" + (
                " (the file looks like UTF-16)" if utf16 else ""
            )
            fault = RowError(number, None, "encoding", message + "; save the file as UTF-8")
            yield number, body.decode(errors="replace"), fault
        offset += len(raw)


def _tsv_fields(file: BinaryIO) -> Iterator[_Fields | RowError]:
    for number, line, fault in _lines(file):
        if fault is not None:
            yield fault
        elif text := line.removesuffix("\n").removesuffix("\r"):
            yield _Fields(number, text.split("\t"))


def _csv_fields(file: BinaryIO) -> Iterator[_Fields | RowError]:
    faults: list[RowError] = []

    def decoded() -> Iterator[str]:
        for _, line, fault in _lines(file):
            if fault is not None:
                faults.append(fault)
            yield line

    reader = csv.reader(decoded(), strict=True)
    while True:
        start = reader.line_num + 1
        faults.clear()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            advice = "quote fields that hold commas or line ends, and double the quotes in them"
            yield RowError(start, None, "format", f"not a CSV row ({error}); {advice}")
        else:
            if faults:
                yield faults[0]
            elif cells:
                yield _Fields(start, cells)


def _named(
    path: Path,
    fields: Iterator[_Fields | RowError],
    header: Sequence[str] | None,
    needed: Sequence[str],
    optional: Sequence[str],
) -> Iterator[Row | RowError]:
    """Fields by column name: those of `header`, or of the first row where it is None."""
    if header is None:
        first = next(fields, None)
        if first is None:
            raise DataError(f"{path}: the file is empty; expected a header with {list(needed)}")
        if isinstance(first, RowError):
            raise row_faults(path, [first])
        header = first.cells
        for name in [*needed, *(name for name in optional if name in header)]:
            if header.count(name) != 1:
                message = no_column(name, header, "the header is") + _separated(header)
                if name in header:
                    message = (
                        f"{header.count(name)} columns are called {name!r}; rename all but one"
                    )
                raise DataError(f"{path}, line {first.line}: {message}")
    for row in fields:
        if isinstance(row, RowError):
            yield row
        elif len(row.cells) == len(header):
            yield Row(row.line, dict(zip(header, row.cells, strict=True)))
        else:
            found, expected = len(row.cells), len(header)
            fault = "short" if found < expected else "long"
            message = (
                f"a {fault} row: {found} fields where {expected} are expected; it begins "
                f"{shown(row.cells[0])}"
            )
            yield RowError(row.line, None, "length", message)


def _separated(header: Sequence[str]) -> str:
    """What to do where a header is one field, for it is separated by something else."""
    if len(header) != 1:
        return ""
    marks = [word for mark, word in ((";", "semicolons"), ("\t", "tabs")) if mark in header[0]]
    advice = "; it looks separated by {}: save it with commas, or tabs as a .tsv"
    return advice.format(marks[0]) if marks else ""


def _objects(file: BinaryIO) -> Iterator[Row | RowError]:
    for number, line, fault in _lines(file):
        if fault is not None:
            yield fault
        elif line.strip():
            try:
                value = json.loads(line)
            except (ValueError, RecursionError) as error:
                message = f"not JSON ({error}): {shown(line.strip())}; write one object a line"
                yield RowError(number, None, "format", message)
                continue
            if isinstance(value, dict):
                yield Row(number, value)
            else:
                message = f"found {shown(value)}; every line holds one JSON object, {{...}}"
                yield RowError(number, None, "format", message)


def stream_rows(
    path: Path | str,
    format: Format | None = None,
    *,
    texts: Sequence[str] = (),
    others: Sequence[str] = (),
    optional: Sequence[str] = (),
    header: Sequence[str] | None = None,
) -> Iterator[Row | RowError]:
    """Each row of a file or its fault, in order, holding one row at a time.

    Args:
      path: the file.
      format: its format; None goes by the suffix: .tsv, .csv, .jsonl or .ndjson.
      texts: columns that must hold text; in a `Row` they are non-empty strings.
      others: further columns that must be there.
      optional: columns that may be there, but not twice.
      header: column names of a TSV or CSV file that has no header line.

    Raises:
      DataError: no such file, an unknown suffix, or a header without the columns asked for.
    """
    path = Path(path)
    check_file(path)
    kind = format or _FORMATS.get(path.suffix.lower())
    if kind is None:
        raise DataError(f"{path}: unknown format {path.suffix!r}; use {', '.join(_FORMATS)}")
    return _stream(path, kind, texts, others, optional, header)


def _stream(
    path: Path,
    kind: Format,
    texts: Sequence[str],
    others: Sequence[str],
    optional: Sequence[str],
    header: Sequence[str] | None,
) -> Iterator[Row | RowError]:
    try:
        opened = path.open("rb")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    with opened as file:
        if kind == "jsonl":
            rows = _objects(file)
        else:
            fields = _tsv_fields(file) if kind == "tsv" else _csv_fields(file)
            rows = _named(path, fields, header, [*texts, *others], optional)
        for row in rows:
            yield (check_row(row, texts, others) or row) if isinstance(row, Row) else row


def read_rows(
    path: Path | str, format: Format | None = None, **options: Sequence[str]
) -> Iterator[Row]:
    """The rows of a file up to the first fault; options as in `stream_rows`.

    Raises:
      DataError: at the end of the file, with every fault in it; also as `stream_rows`.
    """
    faults: list[RowError] = []
    for row in stream_rows(path, format, **options):
        if isinstance(row, RowError):
            faults.append(row)
        elif not faults:
            yield row
    if faults:
        raise row_faults(path, faults)


def read_table(
    path: Path | str,
    *,
    text: str,
    pair: str | None = None,
    label: str | None = None,
    labels: Sequence[str] | None = None,
    name: str | None = None,
) -> Split:
    """A CSV, TSV or JSON-lines file of the user's own as a split.

    Args:
      path: the file.
      text: column of the text.
      pair: column of the second text, if there is one.
      label: column of the label; None reads a file without labels, and `targets` is None.
      labels: the class names in order. None takes those of the file: sorted, by value where all
        are integers. Give a test file the `classes` of its training split.
      name: what the split is called; the file's stem unless given.

    Raises:
      DataError: whatever is wrong with the file, with every faulty row in one message.
    """
    texts = [text] if pair is None else [text, pair]
    known = None if labels is None else Labels(tuple(labels), tuple(labels))
    return to_split(
        stream_rows(path, texts=texts, others=[] if label is None else [label]),
        path,
        name=name or Path(path).stem,
        text=text,
        pair=pair,
        label=label,
        labels=known,
    )

"""Scoring a file: class probabilities and uncertainty of every row, larger files than memory.

Rows stream through in blocks. Only one number a row is kept, its epistemic uncertainty, so that a
second pass over the scored rows can add the rank.
"""

import json
import sys
import tempfile
from array import array
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TextIO, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from enn_finetune import files
from enn_finetune.compiling import encoder_jit
from enn_finetune.data import tables
from enn_finetune.data.faults import check_row
from enn_finetune.data.inputs import TokenRows
from enn_finetune.data.tables import Row, RowError
from enn_finetune.errors import InputError
from enn_finetune.models.backbone import Inputs
from enn_finetune.models.classifier import Loaded, load_classifier
from enn_finetune.predictive import Uncertainty, mixture, uncertainty
from enn_finetune.progress import Display
from enn_finetune.train import Parts, merge, split

BLOCK = 16
"""Batches that are read and sorted by length together: bounds memory, and wastes little padding."""
LOOK_AHEAD = 1000
"""Rows that are searched for the columns: the first ones may be faulty."""

UTF8, ESCAPE = "utf-8", "backslashreplace"
"""Half of a surrogate pair, which an id in JSON may hold, goes out as the escape it came in as."""


TABLES = (".csv", ".tsv")
OUTPUT = frozenset({"line", "label", "probabilities", "total", "aleatoric", "epistemic", "rank"})


class Counts(NamedTuple):
    """What became of the rows of the input."""

    scored: int
    skipped: int


class Columns(NamedTuple):
    """Where the texts stand in the input."""

    text: str
    pair: str | None

    @property
    def needed(self) -> tuple[str, ...]:
        """All the columns a row must have."""
        return (self.text,) if self.pair is None else (self.text, self.pair)


def run(
    model: Path,
    source: Path,
    output: Path,
    *,
    text: str | None = None,
    pair: str | None = None,
    indices: int = 32,
    batch: int = 256,
    seed: int = 0,
    quiet: bool = False,
) -> Counts:
    """Score every row of a .jsonl, .csv or .tsv file under the same K epistemic indices.

    Each line of the output, a JSON object, has the row's line in the input, its columns (but those
    called as what follows), the predicted label, class probabilities, total, aleatoric and
    epistemic uncertainty in nats, and its rank by epistemic uncertainty (1 is the most uncertain:
    what to label next; by total uncertainty where there is no epistemic one: one index, or a head
    that is no epinet). A row that cannot be read is reported on standard error with its line, and
    the others are scored.

    Raises:
      InputError: no such file or model, an output called .csv or .tsv, a column that is nowhere,
        or not one row that can be read; an output that was there before is then left as it is.
    """
    if output.exists() and source.exists() and output.samefile(source):
        raise InputError(f"{output}: is the input too; give the scored rows another file")
    if output.suffix.lower() in TABLES:
        raise InputError(
            f"{output}: scored rows are JSON lines, whose probabilities no {output.suffix} has a "
            f"cell for; give a name such as {output.with_suffix('.jsonl').name}"
        )
    loaded = load_classifier(model)
    columns = find_columns(source, loaded, text, pair)
    scorer = Scorer(loaded, indices, batch, seed)
    by = "epistemic" if loaded.classifier.head.epistemic and indices > 1 else "total"
    uncertain, skipped = array("f"), 0
    with (
        Display(quiet=quiet) as display,
        files.atomic_file(output) as ranked,
        tempfile.TemporaryFile("w+", encoding=UTF8, errors=ESCAPE, dir=ranked.parent) as unranked,
    ):
        display.begin("scoring", count_lines(source), "lines")
        for block in _blocks(tables.stream_rows(source), BLOCK * batch):
            rows, faults = readable(block, columns)
            for fault in faults:
                print(f"{source}, {fault}; the row is skipped", file=sys.stderr)
            skipped += len(faults)
            for scored in scorer.score(rows, columns):
                uncertain.append(cast(float, scored[by]))
                unranked.write(json.dumps(scored, ensure_ascii=False) + "\n")
            display.advance(block[-1].line, rows=len(rows))
        if not uncertain:
            raise InputError(f"{source}: not one row can be scored; {skipped} are faulty")
        add_ranks(unranked, ranked, np.frombuffer(uncertain, np.float32))
        if by == "total":
            display.say("no spread over indices: ranks are by total, not by epistemic uncertainty")
        display.say(f"{len(uncertain):,} rows scored, {skipped:,} skipped; results in {output}")
    return Counts(len(uncertain), skipped)


def find_columns(source: Path, loaded: Loaded, text: str | None, pair: str | None) -> Columns:
    """The columns asked for, or those the model was trained on, or `text` (and `pair`).

    Raises:
      InputError: none of the first rows that can be read has them; the message lists what the
        first one has. Or a second text for a model of one.
    """
    if pair is not None and loaded.pair is None:
        raise InputError(f"--pair {pair}: the model was trained on one text a row; leave it out")
    choices = [Columns(loaded.text, loaded.pair)]
    choices.append(Columns("text", None if loaded.pair is None else "pair"))
    if text is not None or pair is not None:
        choices = [Columns(text or loaded.text, pair or loaded.pair)]
    read = islice(tables.stream_rows(source), LOOK_AHEAD)
    rows = [row for row in read if isinstance(row, Row)]
    for row in rows:
        for columns in choices:
            if all(name in row.columns for name in columns.needed):
                return _apart(columns, source)
    if rows:
        raise InputError(
            f"{source}, line {rows[0].line}: the row has the columns {', '.join(rows[0].columns)}; "
            f"the model needs {' and '.join(choices[0].needed)}: name yours with --text"
            + ("" if loaded.pair is None else " and --pair")
        )
    return choices[0]


def _apart(columns: Columns, source: Path) -> Columns:
    """The columns, none of which may have the name of something the output adds."""
    taken = OUTPUT.intersection(columns.needed)
    if taken:
        raise InputError(
            f"{source}: the column {', '.join(taken)} has the name of what scoring writes; "
            "rename it"
        )
    return columns


class Scorer:
    """A loaded classifier and the K indices that all rows of a file are scored under."""

    def __init__(self, loaded: Loaded, indices: int, batch: int, seed: int):
        self._loaded, self._batch = loaded, batch
        head = loaded.classifier.head
        self._z = head.sample_index(jax.random.key(seed), indices if head.epistemic else 1)
        self._parts = split(loaded.classifier, "frozen")

    def score(self, rows: Sequence[Row], columns: Columns) -> Iterator[dict[str, object]]:
        """What the output says of each row but its rank, in the order given."""
        if not rows:
            return
        pair = None if columns.pair is None else [str(r.columns[columns.pair]) for r in rows]
        tokens = TokenRows.read(
            self._loaded.tokenizer,
            [str(row.columns[columns.text]) for row in rows],
            pair,
            self._loaded.max_tokens,
            self._batch,
            apart=self._loaded.pairs == "difference",
        )
        probs = np.empty((len(rows), len(self._loaded.labels)), np.float32)
        parts = np.empty((3, len(rows)), np.float32)
        for places, inputs in tokens.batches(np.arange(len(rows))):
            log_probs, found = _predict(self._parts, inputs, self._z)
            probs[places] = np.exp(np.asarray(log_probs)[: len(places)])
            parts[:, places] = np.asarray(found)[:, : len(places)]
        for row, p, (total, aleatoric, epistemic) in zip(rows, probs, parts.T, strict=True):
            kept = {name: cell for name, cell in row.columns.items() if name not in OUTPUT}
            yield {
                "line": row.line,
                **kept,
                "label": self._loaded.labels[int(p.argmax())],
                "probabilities": {
                    name: rounded(value) for name, value in zip(self._loaded.labels, p, strict=True)
                },
                "total": rounded(total),
                "aleatoric": rounded(aleatoric),
                "epistemic": rounded(epistemic),
            }


def rounded(value: np.float32) -> float:
    """Six decimals: the rest depends on which rows share a batch, and would rank equal rows."""
    return round(float(value), 6) + 0.0  # -0.0 is 0


@encoder_jit
def _predict(parts: Parts, inputs: Inputs, z: Array) -> tuple[Array, Array]:
    """Log of the mean prediction (N, C), and the uncertainties (3, N)."""
    log_probs = merge(parts).log_probs(inputs, z)
    found: Uncertainty = uncertainty(log_probs)
    return mixture(log_probs), jnp.stack(found)


def readable(block: Sequence[Row | RowError], columns: Columns) -> tuple[list[Row], list[RowError]]:
    """The rows that have text where it is needed, and the faults of the others."""
    rows: list[Row] = []
    faults: list[RowError] = []
    for item in block:
        fault = check_row(item, columns.needed) if isinstance(item, Row) else item
        if fault is not None:
            faults.append(fault)
        elif isinstance(item, Row):
            rows.append(item)
    return rows, faults


def add_ranks(unranked: TextIO, ranked: Path, uncertain: np.ndarray) -> None:
    """Copy scored lines with their rank by uncertainty (N,), ties in the order of the file."""
    ranks = np.empty(len(uncertain), np.int64)
    ranks[np.argsort(-uncertain, kind="stable")] = np.arange(1, len(uncertain) + 1)
    unranked.seek(0)
    with open(ranked, "w", encoding=UTF8, errors=ESCAPE) as file:
        for line, rank in zip(unranked, ranks, strict=True):
            file.write(f'{line.rstrip()[:-1]}, "rank": {rank}}}\n')


def count_lines(path: Path) -> int:
    """Lines of a file, read a block at a time: what progress is measured against."""
    with open(path, "rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))


def _blocks(rows: Iterator[Row | RowError], size: int) -> Iterator[list[Row | RowError]]:
    while block := list(islice(rows, size)):
        yield block

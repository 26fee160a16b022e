"""Sessions of `next` on made-up texts whose labels are known."""

import csv
import json
from pathlib import Path

import tiny_runs

from enn_finetune.labelling import run

ROWS = tiny_runs.sentences(tiny_runs.TRAIN_ROWS, 1)
TRUTH = {str(row["text"]): str(row["label"]) for row in ROWS}


def ask(sources, out, encoder, **options):
    given = {
        "count": 5,
        "rule": "margin",
        "encoder": [encoder],
        "max_tokens": 16,
        "quiet": True,
    } | options
    return run(sources, out, **given)


def rows_of(path: Path) -> list[dict[str, str]]:
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    with open(path, newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def answer(path: Path) -> None:
    """Label every row that is asked about."""
    rows = rows_of(path)
    for row in rows:
        row["label"] = TRUTH[row["text"]]
    tiny_runs.write_rows(path, rows)


def session(pool, folder, encoder, rounds, **options):
    """Ask and answer; the files, and what each call came to."""
    files, found = [pool], []
    for number in range(rounds):
        out = folder / f"round{number}.csv"
        found.append(ask(files, out, encoder, **options))
        answer(out)
        files.append(out)
    return files, found

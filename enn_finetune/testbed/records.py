"""What a study leaves in its folder: records.jsonl, one line a run, and study.json. Needs no jax.

A line says which run it is of, then its scores (nats a row, joint ones nats a group):

    {"part": "active", "way": "once", "agent": "epinet", "rule": "variance", "problem": 0,
     "labels": [10, 20, ...], "kl": [...], "kl_excess": [...], "accuracy": [...], "ece": [...],
     "selection_regret": [...],
     "bought": [17, 3, ...], "steps": 200, "job": ..., "of": ...}
    {"part": "supervised", "agent": "epinet", "input_dim": 2, "temperature": 0.1, "ratio": 10.0,
     "problem": 0, "rows": 20, "scores": {"kl": ..., "joint_kl_10": ...}, "job": ..., "of": ...}

The floor is an agent of this name; its line has the effective sample size, "ess". Lines of one job
are written together: "of" says how many they are, and those of a job that a crash cut short are
dropped when the study goes on.
"""

import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple, NotRequired, TypedDict, cast

from enn_finetune import files, records
from enn_finetune.errors import InputError

RECORDS, STUDY = "records.jsonl", "study.json"
FLOOR = "floor"
Way = Literal["once", "again"]


class ActiveRun(NamedTuple):
    """An agent and a rule on one problem."""

    way: Way
    agent: str
    rule: str
    problem: int

    @property
    def arm(self) -> str:
        """AGENT/RULE."""
        return f"{self.agent}/{self.rule}"


class SupervisedRun(NamedTuple):
    """An agent on the rows of one problem."""

    agent: str
    input_dim: int
    temperature: float
    ratio: float
    problem: int

    @property
    def rows(self) -> int:
        """Training rows, as `types.Spec.rows`."""
        return max(1, round(self.ratio * self.input_dim))


Run = ActiveRun | SupervisedRun


class Line(TypedDict):
    """What all lines have."""

    part: str
    agent: str
    problem: int
    job: NotRequired[str]
    of: NotRequired[int]


class ActiveLine(Line):
    """One run of active learning; its lists are by number of labels."""

    way: Way
    rule: str
    labels: list[int]
    kl: list[float]  # of the last evaluation with at most so many labels
    accuracy: list[float]
    ece: list[float]
    kl_excess: NotRequired[list[float]]  # what of kl is due to drawing finitely many functions
    selection_regret: NotRequired[list[float]]  # nats: the KL summed over all label counts so far
    bought: list[int]  # candidates, in the order in which their first label was read
    steps: int


class SupervisedLine(Line):
    """One fit, or the floor."""

    input_dim: int
    temperature: float
    ratio: float
    rows: int
    scores: dict[str, float]
    ess: NotRequired[float]


def run_of(line: Line) -> Run:
    """Which run a line is of."""
    if line["part"] == "active":
        active = cast(ActiveLine, line)
        return ActiveRun(active["way"], active["agent"], active["rule"], active["problem"])
    found = cast(SupervisedLine, line)
    place = found["input_dim"], found["temperature"], found["ratio"]
    return SupervisedRun(found["agent"], *place, found["problem"])


def read_lines(folder: Path) -> list[Line]:
    """The lines of all complete jobs.

    Raises:
      InputError: a line that is none.
    """
    path = folder / RECORDS
    return complete(records.read(path), path)


def complete(found: Sequence[object], path: Path) -> list[Line]:
    """Those of a file's lines whose jobs are all there.

    Raises:
      InputError: a line that is none.
    """
    lines = cast(list[Line], found)
    for number, line in enumerate(lines, 1):
        if not isinstance(line, dict) or not {"part", "agent", "problem", "job", "of"} <= {*line}:
            raise InputError(f"{path}, line {number}: not a line of a testbed study; take it out")
    written = Counter(line["job"] for line in lines)
    return [line for line in lines if written[line["job"]] == line["of"]]


def keep_complete(folder: Path) -> list[Line]:
    """Drop the lines of jobs that were cut short, also from the file."""
    path, found = folder / RECORDS, read_lines(folder)
    text = "".join(map(_text, found))
    if path.exists() and path.stat().st_size != len(text.encode()):
        files.atomic_write(path, text)
    return found


def append(folder: Path, job: str, lines: Sequence[Line]) -> list[Line]:
    """Add a job's lines and flush them to the disk."""
    marked = [cast(Line, {**line, "job": job, "of": len(lines)}) for line in lines]
    with open(folder / RECORDS, "a", encoding="utf-8") as file:
        file.write("".join(map(_text, marked)))
        file.flush()
        os.fsync(file.fileno())
    return marked


def _text(line: Line) -> str:
    return json.dumps(line) + "\n"

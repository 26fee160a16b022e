"""The demo: random against epinet-prioritised labels on the bundled messages, frozen MiniLM.

Nothing here is scripted: the arms are named before any label is bought, every seed is reported, and
the test split is read once for each budget point and chooses nothing.
"""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from enn_finetune import config as configs
from enn_finetune import files, records, report, savings
from enn_finetune.config import Config
from enn_finetune.data.splits import Split
from enn_finetune.data.tasks import load_split
from enn_finetune.errors import InputError
from enn_finetune.problem import Problem, prepare
from enn_finetune.progress import Display
from enn_finetune.study import Course, Outcome, arm, run_course

COURSES = (
    Course("random", ("epinet", "linear")),
    Course("margin", ("epinet",)),
    Course("bald", ("epinet",)),
)
BASELINE, OWN = arm("linear", "random"), arm("epinet", "random")
SETTINGS: Mapping[str, configs.PlainValue] = {
    "task.name": "messages",
    "backbone.path": "minilm",
    "budget.start": 40,
    "budget.round": 40,
    "budget.labels": 320,
    "evaluation.indices": 512,
}
EXAMPLES = 12
FILES = ("records.jsonl", "summary.json", "curves.png", "report.html")


def run(out: Path, *, seeds: int = 10) -> dict[str, object]:
    """Run every arm, print the table, and write records, summary, curves and report into `out`.

    Raises:
      InputError: fewer than 2 seeds, an `out` that holds something else, or no encoder installed.
    """
    if seeds < 2:
        raise InputError(f"--seeds: got {seeds}; a comparison over paired seeds needs at least 2")
    claim(out)
    began = time.monotonic()
    config = configs.build(SETTINGS)
    with Display() as display:
        problem = prepare(config, display)
        outcomes: dict[str, Outcome] = {}
        for course in COURSES:
            display.begin(f"{course.rule}, {seeds} seeds", config.budget.labels)
            name = arm(course.heads[0], course.rule)
            outcomes[name] = run_course(course, problem, config, range(seeds), display.advance)
            display.say(f"{name}: {config.budget.labels} labels bought with each of {seeds} seeds")
    lines = [record for outcome in outcomes.values() for record in outcome.records]
    split, metric = problem.evaluations[0].name, problem.task.metrics[0]
    found = savings.summarise(lines, metric, BASELINE, OWN, split=split)
    origin = provenance(config, problem, seeds, time.monotonic() - began)
    section = report.Section(
        task=problem.task.name,
        summary=found,
        provenance=origin,
        description=DESCRIPTION,
        balance=balance(problem, outcomes),
        examples=examples(problem, config, outcomes),
    )
    summary = {
        "task": problem.task.name,
        "config_hash": origin.config_hash,
        "commit": origin.commit,
        "data_fingerprint": origin.data,
        "wall_seconds": round(origin.wall_seconds, 3),
        **found,
    }
    files.atomic_write(out / "records.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    files.atomic_write(out / "summary.json", json.dumps(summary, indent=2) + "\n")
    report.draw_curves(found, out / "curves.png")
    report.write_page(out / "report.html", "Labels saved on customer messages", [section])
    console = Console()
    console.print(report.table(found))
    for verdict in report.verdicts(found):
        console.print(f"{verdict.arm}: {verdict.sentence}", highlight=False)
    console.print(f"results in {out}: {', '.join(FILES)}; {origin.wall_seconds:.0f} s")
    return summary


DESCRIPTION = (
    "1,520 short customer messages over 15 long-tailed intents, written for this project; features "
    "of all-MiniLM-L6-v2, frozen. The baseline, 'linear', is an L2-regularised logistic regression "
    "whose strength cross-validation chooses anew at every round. The epinet stands on a logistic "
    "regression of its own, whose prior (its strength and shape) is chosen by marginal likelihood "
    "on the bought labels alone; it adds the posterior around it, in closed form, and leaves the "
    "mean prediction as it is. Margin reads the mean; BALD reads the epinet."
)


def claim(out: Path) -> None:
    """Refuse a folder that holds anything but an earlier demo."""
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out}: a file is there; give a folder")
    other = sorted(path.name for path in out.glob("*") if path.name not in FILES)
    if other:
        raise InputError(
            f"--out {out}: the folder holds {', '.join(other[:5])}; give a new one, so that "
            "nothing is mixed up with the demo's results"
        )
    out.mkdir(parents=True, exist_ok=True)


def provenance(config: Config, problem: Problem, seeds: int, seconds: float) -> report.Provenance:
    """Where the figures come from."""
    return report.Provenance(
        command=f"enn-finetune demo --seeds {seeds}",
        config_hash=config.hash,
        commit=records.commit(),
        data=problem.fingerprint,
        wall_seconds=seconds,
        more={"encoder": "sentence-transformers/all-MiniLM-L6-v2, frozen, mean pooling"},
    )


def balance(problem: Problem, outcomes: Mapping[str, Outcome]) -> dict[str, dict[str, float]]:
    """Labels bought of each class by each arm, over all seeds."""
    counts = {
        name: sum(oracle.buy(oracle.bought).sum(0) for oracle in outcome.oracles)
        for name, outcome in outcomes.items()
    }
    return {
        name: dict(zip(problem.task.classes, np.asarray(count).tolist(), strict=True))
        for name, count in counts.items()
    }


def examples(
    problem: Problem, config: Config, outcomes: Mapping[str, Outcome]
) -> dict[str, Sequence[report.Bought]]:
    """The first rows that each arm's rule chose, with the first seed."""
    train: Split = load_split(problem.task, "train")
    shown: dict[str, Sequence[report.Bought]] = {}
    for name, outcome in outcomes.items():
        rows = outcome.oracles[0].bought[config.budget.start :][:EXAMPLES]
        labels = outcome.oracles[0].buy(rows).argmax(1)
        shown[name] = [
            report.Bought(train.text[row], problem.task.classes[label])
            for row, label in zip(rows, labels, strict=True)
        ]
    return shown

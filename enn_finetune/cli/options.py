"""What can be typed: every command and its options."""

import argparse
from pathlib import Path


def _positive(text: str) -> int:
    """A whole number of 1 or more."""
    number = int(text)
    if number < 1:
        raise ValueError
    return number


_positive.__name__ = "number of 1 or more"  # what argparse calls it: invalid ... value


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    top = argparse.ArgumentParser(
        prog="enn-finetune",
        description="Fine-tune BERT with fewer labels: an epinet decides which examples to buy.",
    )
    top.add_argument("--version", action="store_true", help="print the version and leave")
    commands = top.add_subparsers(dest="command", metavar="COMMAND")

    demo = commands.add_parser(
        "demo", help="random against epinet-prioritised labels on bundled messages, in minutes"
    )
    demo.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder for the results")
    demo.add_argument("--seeds", type=_positive, default=10, help="paired seeds")

    train = commands.add_parser("train", help="one run from a TOML config")
    train.add_argument("config", metavar="CONFIG", help="a file such as configs/sst2.toml")
    train.add_argument(
        "overrides", nargs="*", metavar="key=value", help="such as budget.labels=200 seed=1"
    )
    train.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the run")
    train.add_argument("--resume", action="store_true", help="go on with the run in DIR")

    _add_study(
        commands,
        "bench",
        "tasks, encoders, heads, rules and seeds against random, and their report",
        "bench.tasks=sst2 bench.seeds=2 budget.labels=200 replay=FILE",
        "configs/quick.toml",
    )
    _add_study(
        commands,
        "intended",
        "do pretrained encoders ask for the rows that settle an ambiguous task?",
        "task.data=mine.csv task.label=topic task.attribute=source frozen.seeds=5",
        "configs/intended.toml",
    )
    _add_study(
        commands,
        "testbed",
        "agents and rules on problems whose generator is known (without CONFIG: the default study)",
        "active.problems=4 agents.epinet.l2=2 parts=active",
    )

    report = commands.add_parser("report", help="figures, tables and one page of any results")
    report.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="written by bench")
    report.add_argument("--out", type=Path, required=True, metavar="FILE", help="such as a.html")
    report.add_argument("--results", type=Path, metavar="FILE", help="the same tables as Markdown")
    report.add_argument("--baseline", metavar="ARM", help="other than named by what DIR holds")
    report.add_argument("--own", metavar="ARM", help="random selection with our head, likewise")

    after = commands.add_parser(
        "next", help="which rows of your files to label next, and whether to stop"
    )
    after.add_argument(
        "files", nargs="+", type=Path, metavar="FILE", help="labelled or not: .csv, .tsv, .jsonl"
    )
    after.add_argument("--out", type=Path, required=True, help="the rows: a new .csv or .jsonl")
    after.add_argument("--count", type=_positive, default=20, metavar="N", help="how many rows")
    after.add_argument("--text", default="text", help="column of the text")
    after.add_argument("--pair", help="column of the second text")
    after.add_argument(
        "--label", default="label", help="column of the label; empty cells are no labels"
    )
    after.add_argument("--rule", default="badge", help="acquisition rule")
    after.add_argument(
        "--encoder", action="append", default=[], metavar="PLACE",
        help="folder, hub id or minilm (of the extra demo), tried in order (repeatable)",
    )  # fmt: skip
    after.add_argument(
        "--max-tokens", type=_positive, default=128, metavar="T", help="longer texts are cut"
    )
    after.add_argument(
        "--describe", action="append", default=[], metavar="CLASS: TEXT",
        help="a class, a colon, what it is: of every class, or of none (repeatable; @FILE has "
        "one a line)",
    )  # fmt: skip
    after.add_argument("--model", type=Path, metavar="DIR", help="save what all labels give there")
    after.add_argument("--seed", type=int, default=0, help="of indices and of rules that draw")

    score = commands.add_parser(
        "score", help="class probabilities and uncertainty of every row of a file"
    )
    score.add_argument("model", type=Path, metavar="MODEL_DIR", help="such as DIR/model of a run")
    score.add_argument("--input", type=Path, required=True, help="rows: .jsonl, .csv or .tsv")
    score.add_argument("--output", type=Path, required=True, help="scored rows, JSON lines")
    score.add_argument("--text", help="column of the text (the one trained on, or `text`)")
    score.add_argument("--pair", help="column of the second text")
    score.add_argument("--indices", type=_positive, default=32, metavar="K", help="of the epinet")
    score.add_argument("--batch", type=_positive, default=256, help="rows scored at once")
    score.add_argument("--seed", type=int, default=0, help="of the epistemic indices")

    tasks = commands.add_parser("tasks", help="the tasks known, and where each would be read from")
    tasks.add_argument(
        "--data", action="append", metavar="PLACE", help="folder of TSV files, or hub (repeatable)"
    )
    return top


def _add_study(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    about: str,
    example: str,
    config: str | None = None,
) -> None:
    """A command that runs what a folder lacks of a study, and reports on it."""
    study = commands.add_parser(name, help=about)
    if config:
        study.add_argument("config", metavar="CONFIG", help=f"a file such as {config}")
    words = "key=value" if config else "[CONFIG] key=value"
    study.add_argument("overrides", nargs="*", metavar=words, help=f"such as {example}")
    study.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of results")
    study.add_argument(
        "--resume", action="store_true", help="run what DIR lacks, what was added to CONFIG too"
    )

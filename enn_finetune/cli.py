"""The command line: `enn-finetune COMMAND`, or `python -m enn_finetune COMMAND`.

Heavy imports wait until a command needs them, so that --help answers at once.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from enn_finetune.errors import InputError

INTERRUPTED = 130
FAULT = 2


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
    demo.add_argument("--seeds", type=int, default=10, help="paired seeds")

    train = commands.add_parser("train", help="one run from a TOML config")
    train.add_argument("config", metavar="CONFIG", help="a file such as configs/sst2.toml")
    train.add_argument(
        "overrides", nargs="*", metavar="key=value", help="such as budget.labels=200 seed=1"
    )
    train.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the run")
    train.add_argument("--resume", action="store_true", help="go on with the run in DIR")

    score = commands.add_parser(
        "score", help="class probabilities and uncertainty of every row of a file"
    )
    score.add_argument("model", type=Path, metavar="MODEL_DIR", help="such as DIR/model of a run")
    score.add_argument("--input", type=Path, required=True, help="rows: .jsonl, .csv or .tsv")
    score.add_argument("--output", type=Path, required=True, help="scored rows, JSON lines")
    score.add_argument("--text", help="column of the text (the one trained on, or `text`)")
    score.add_argument("--pair", help="column of the second text")
    score.add_argument("--indices", type=int, default=32, metavar="K", help="epistemic indices")
    score.add_argument("--batch", type=int, default=256, help="rows scored at once")
    score.add_argument("--seed", type=int, default=0, help="of the epistemic indices")

    tasks = commands.add_parser("tasks", help="the tasks known, and where each would be read from")
    tasks.add_argument(
        "--data", action="append", metavar="PLACE", help="folder of TSV files, or hub (repeatable)"
    )
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 0, 2 for bad input, 130 when interrupted."""
    top = parser()
    arguments = top.parse_args(argv)
    if arguments.version:
        from enn_finetune.records import version

        print(version())
        return 0
    if arguments.command is None:
        top.print_help()
        return FAULT
    try:
        return _COMMANDS[arguments.command](arguments)
    except InputError as error:
        print(f"enn-finetune {arguments.command}: {error}", file=sys.stderr)
        return FAULT
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED


def _use_compilation_cache() -> None:
    """Keep compiled programs between runs, in jax's own cache, unless the user chose a folder."""
    import jax

    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
        jax.config.update("jax_compilation_cache_dir", str(home / "enn_finetune" / "jax"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


def _demo(arguments: argparse.Namespace) -> int:
    _use_compilation_cache()
    from enn_finetune import demo

    demo.run(arguments.out, seeds=arguments.seeds)
    return 0


def _train(arguments: argparse.Namespace) -> int:
    from enn_finetune import config

    settings = config.load(arguments.config, arguments.overrides)
    _use_compilation_cache()
    from enn_finetune import experiment
    from enn_finetune.session import RunStoppedError

    try:
        experiment.run(settings, arguments.out, resume=arguments.resume)
    except RunStoppedError as error:
        print(error, file=sys.stderr)
        return INTERRUPTED
    return 0


def _score(arguments: argparse.Namespace) -> int:
    _use_compilation_cache()
    from enn_finetune import scoring

    scoring.run(
        arguments.model,
        arguments.input,
        arguments.output,
        text=arguments.text,
        pair=arguments.pair,
        indices=arguments.indices,
        batch=arguments.batch,
        seed=arguments.seed,
    )
    return 0


def _tasks(arguments: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.table import Table

    from enn_finetune.data import tasks

    table = Table("task", "classes", "metrics", "read from")
    for name in tasks.NAMES:
        task = tasks.find_task(name)
        place = tasks.where(task, tuple(arguments.data or ("hub",)))
        table.add_row(name, ", ".join(task.classes), ", ".join(task.metrics), place or "not found")
    Console().print(table)
    return 0


_COMMANDS = {"demo": _demo, "train": _train, "score": _score, "tasks": _tasks}

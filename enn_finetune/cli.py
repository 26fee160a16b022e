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
PLACES = ("../shared/glue", "../shared", "data/glue", "data", "hub")  # as in configs/
FAILED, FAULT = 1, 2


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


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 0, 2 for bad input, 130 when interrupted."""
    top = parser()
    arguments, rest = top.parse_known_args(argv)
    if "overrides" in arguments:  # argparse takes none after an option
        arguments.overrides += [word for word in rest if not word.startswith("-")]
        rest = [word for word in rest if word.startswith("-")]
    if rest:
        top.error(f"unrecognized arguments: {' '.join(rest)}")
    if arguments.version:
        from enn_finetune.records import version

        print(version())
        return 0
    if arguments.command is None:
        top.print_help()
        return FAULT
    try:
        return _COMMANDS[arguments.command](arguments)
    except (InputError, OSError) as error:  # bad input; a full disk, no permission
        print(f"enn-finetune {arguments.command}: {error}", file=sys.stderr)
        return FAULT
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except RuntimeError as error:
        from enn_finetune.session import RunStoppedError

        if not isinstance(error, RunStoppedError):
            raise
        print(error, file=sys.stderr)
        return INTERRUPTED


def _set_up_jax() -> None:
    """Before they load: its compilation cache kept on disk, small factorisations on one thread.

    A user's own JAX_COMPILATION_CACHE_DIR or OPENBLAS_NUM_THREADS is left as it is.
    """
    home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(home / "enn_finetune" / "jax"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
    # Two BLAS threads on matrices of a few hundred rows wait for each other more than they work.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # transformers, used for its tokenizers, warns on import that it finds no PyTorch.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")


def _demo(arguments: argparse.Namespace) -> int:
    _set_up_jax()
    from enn_finetune import demo

    demo.run(arguments.out, seeds=arguments.seeds)
    return 0


def _train(arguments: argparse.Namespace) -> int:
    from enn_finetune import config

    settings = config.load(arguments.config, arguments.overrides)
    _set_up_jax()
    from enn_finetune import experiment

    experiment.run(settings, arguments.out, resume=arguments.resume)
    return 0


def _bench(arguments: argparse.Namespace) -> int:
    from enn_finetune import config

    file = config.load_bench(arguments.config, arguments.overrides)
    _set_up_jax()
    from enn_finetune.bench import run
    from enn_finetune.report import command

    found = run.run(file, arguments.out, resume=arguments.resume, command=_again(arguments))
    if found.complete:
        command.show([arguments.out], arguments.out / "report.html")
    return _failures(arguments, found.failed)


def _intended(arguments: argparse.Namespace) -> int:
    from enn_finetune import config

    file = config.load_intended(arguments.config, arguments.overrides)
    _set_up_jax()
    from enn_finetune.intended import run
    from enn_finetune.report import intended

    found = run.run(file, arguments.out, resume=arguments.resume, command=_again(arguments))
    if found.complete:
        intended.run(arguments.out)
    return _failures(arguments, found.failed)


def _testbed(arguments: argparse.Namespace) -> int:
    from enn_finetune import config

    overrides = list(arguments.overrides)
    file = overrides.pop(0) if overrides and "=" not in overrides[0] else None
    settings = config.load_testbed(file, overrides)
    _set_up_jax()
    from enn_finetune.report import testbed
    from enn_finetune.testbed import run

    run.run(settings, arguments.out, resume=arguments.resume, command=_again(arguments))
    testbed.show(arguments.out)
    return 0


def _again(arguments: argparse.Namespace) -> str:
    """The command that would run a study again."""
    from enn_finetune.sittings import command_line

    config = getattr(arguments, "config", None)  # of a testbed among its overrides
    return command_line(arguments.command, config, arguments.overrides, arguments.out)


def _failures(arguments: argparse.Namespace, failed: Sequence[str]) -> int:
    """Say which cells failed; the exit status."""
    for failure in failed:
        print(f"enn-finetune {arguments.command}: failed: {failure}", file=sys.stderr)
    if failed:
        print(f"try these again with: {_again(arguments)} --resume", file=sys.stderr)
    return FAILED if failed else 0


def _report(arguments: argparse.Namespace) -> int:
    from enn_finetune.report import command

    named = {"baseline": arguments.baseline, "own": arguments.own}
    command.show(arguments.folders, arguments.out, arguments.results, **named)
    return 0


def _score(arguments: argparse.Namespace) -> int:
    _set_up_jax()
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

    table = Table()
    table.add_column("task", no_wrap=True)
    for heading in ("classes", "metrics", "read from"):
        table.add_column(heading, overflow="fold")  # a path that is cut short is of no use
    for name in tasks.NAMES:
        task = tasks.find_task(name)
        place = tasks.where(task, tuple(arguments.data or PLACES))
        table.add_row(name, ", ".join(task.classes), ", ".join(task.metrics), place or "not found")
    Console().print(table)
    return 0


_COMMANDS = {
    "demo": _demo,
    "train": _train,
    "bench": _bench,
    "intended": _intended,
    "testbed": _testbed,
    "report": _report,
    "score": _score,
    "tasks": _tasks,
}

"""What each command does. Heavy imports wait until a command needs them."""

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

PLACES = ("../shared/glue", "../shared", "data/glue", "data", "hub")  # as in configs/
FAILED = 1


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


def _next(arguments: argparse.Namespace) -> int:
    _set_up_jax()
    from enn_finetune import labelling

    labelling.run(
        arguments.files,
        arguments.out,
        count=arguments.count,
        text=arguments.text,
        pair=arguments.pair,
        label=arguments.label,
        rule=arguments.rule,
        encoder=arguments.encoder,
        max_tokens=arguments.max_tokens,
        model=arguments.model,
        seed=arguments.seed,
        describe=arguments.describe,
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


COMMANDS: Mapping[str, Callable[[argparse.Namespace], int]] = {
    "demo": _demo,
    "train": _train,
    "bench": _bench,
    "intended": _intended,
    "testbed": _testbed,
    "report": _report,
    "next": _next,
    "score": _score,
    "tasks": _tasks,
}

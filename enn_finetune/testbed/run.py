"""Run what is missing of a testbed study, chunk by chunk."""

import dataclasses
import itertools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, cast

import jax

from enn_finetune import files
from enn_finetune.config import Config, ConfigError, PlainDict, TestbedConfig, differences
from enn_finetune.config.testbed import with_later
from enn_finetune.errors import InputError
from enn_finetune.progress import Display
from enn_finetune.session import RunStoppedError
from enn_finetune.sittings import cores, duration, provenance, stoppable
from enn_finetune.testbed.chunks import programs_of
from enn_finetune.testbed.growing import GROWING, together
from enn_finetune.testbed.plan import Group, plan
from enn_finetune.testbed.records import STUDY, Run, append, keep_complete, run_of

LOCK = "testbed.lock"
STREAMS = 2
"""Goes up when the same keys draw other numbers: runs from before and after do not go together."""


class Outcome(NamedTuple):
    """What a call of `run` did."""

    done: int  # runs
    complete: int  # runs of this study in the folder, earlier calls' included


class Chunk(NamedTuple):
    """Runs that go through a program at once."""

    group: Group
    runs: tuple[Run, ...]

    @property
    def weight(self) -> float:
        """Work, to guess the time left."""
        return self.group.weight * len(self.runs)


def run(
    config: TestbedConfig,
    out: Path,
    *,
    resume: bool = False,
    command: str = "",
    quiet: bool = False,
) -> Outcome:
    """Run every run that has no results in the folder.

    Raises:
      InputError: names that are not known, or a folder of another study; nothing is run then.
      RunStoppedError: Ctrl-C; what is complete is kept.
    """
    groups = plan(config)
    whole = _check(out, config, resume=resume)
    out.mkdir(parents=True, exist_ok=True)
    with files.claim(out / LOCK, wait=False) as mine, Display(quiet=quiet) as display:
        if not mine:
            raise ConfigError(f"{out}: another process is running this study; let it finish")
        done = {run_of(line) for line in keep_complete(out)}
        chunks = list(_chunks(groups, done))
        _describe(out, whole, command, 0.0)
        with stoppable(out, command):
            _run(
                config,
                chunks,
                out,
                lambda seconds: _describe(out, whole, command, seconds),
                display,
            )
        wanted = {run for group in groups for run in group.runs}
        found = {run_of(line) for line in keep_complete(out)}
        return Outcome(sum(len(chunk.runs) for chunk in chunks), len(wanted & found))


def _chunks(groups: Sequence[Group], done: set[Run]) -> Iterator[Chunk]:
    for group in groups:
        missing = [run for run in group.runs if run not in done]
        for start in range(0, len(missing), group.size):
            yield Chunk(group, tuple(missing[start : start + group.size]))


def _run(
    config: TestbedConfig,
    chunks: Sequence[Chunk],
    out: Path,
    describe: Callable[[float], None],
    display: Display,
) -> None:
    """All chunks, those of a group on as many threads as there are cores; written in order."""
    began, worked, number = time.monotonic(), 0.0, 0
    total = sum(chunk.weight for chunk in chunks)
    display.say(f"{sum(len(chunk.runs) for chunk in chunks)} runs to do; results go to {out}")
    for group, of in itertools.groupby(chunks, lambda chunk: chunk.group):
        mine, start = list(of), time.monotonic()
        programs = programs_of(config, group)
        progress = _Progress(display, group.name, len(mine))
        with ThreadPoolExecutor(_threads()) as pool:
            found = [pool.submit(programs, one.runs, progress.of(one)) for one in mine]
            try:
                for chunk, lines in zip(mine, found, strict=True):
                    append(out, _job(chunk), lines.result())
                    number, worked = number + 1, worked + chunk.weight
            except BaseException:
                progress.stopped = True
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        now = time.monotonic()
        describe(now - start)
        left = (now - began) / worked * (total - worked)
        display.say(
            f"[{number}/{len(chunks)}] {group.name}: {sum(len(one.runs) for one in mine)} runs, "
            f"{now - start:.1f} s; about {duration(left)} left"
        )


def _threads() -> int:
    """Programs that run at once: small operations keep one core busy, no more."""
    return cores() if jax.default_backend() == "cpu" else 1


class _Progress:
    """What share of a group is done, told by its chunks."""

    def __init__(self, display: Display, name: str, chunks: int):
        self.stopped = False
        self._display, self._done = display, dict.fromkeys(range(chunks), 0.0)
        self._taken = itertools.count()
        display.begin(name, 100, "%")

    def of(self, chunk: Chunk) -> Callable[[float], None]:
        """Where a chunk says its per cents; raises in a thread whose results nobody awaits."""
        del chunk
        place = next(self._taken)

        def advance(percent: float) -> None:
            if self.stopped:
                raise RunStoppedError("stopped")
            self._done[place] = percent
            self._display.advance(int(sum(self._done.values()) / len(self._done)))

        return advance


def _job(chunk: Chunk) -> str:
    """A name that no other chunk of the folder has."""
    return f"{chunk.group.name}: {'-'.join(map(str, chunk.runs[0]))} to {chunk.runs[-1].problem}"


def _check(folder: Path, config: TestbedConfig, *, resume: bool) -> TestbedConfig:
    """Refuse a folder in which the study cannot be run; reads only.

    Returns the study that the folder will hold: this one, and what earlier sittings asked for.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder}: found a file where a folder is expected; give another --out")
    if not (folder / STUDY).exists():
        kept = [path.name for path in folder.iterdir()] if folder.exists() else []
        found = sorted(name for name in kept if name != LOCK)
        if found:
            raise ConfigError(
                f"{folder} holds {', '.join(found[:5])} but no {STUDY}, so no study that could go "
                "on; give another --out"
            )
        return config
    if not resume:
        raise ConfigError(
            f"{folder} holds a study already; go on with --resume, or give another --out"
        )
    study = files.read_json(folder / STUDY)
    before = study.get("config")
    if not isinstance(before, dict):
        raise InputError(f"{folder / STUDY}: has no config; put the file back")
    if study.get("streams") != STREAMS:
        raise ConfigError(
            f"{folder} holds a study whose random numbers another version drew otherwise (found "
            f"streams = {study.get('streams')}, here {STREAMS}); give another --out"
        )
    before = cast(PlainDict, with_later(before))
    changed = [name for name in differences(cast(Config, config), before) if name not in GROWING]
    if changed:
        raise ConfigError(
            f"{folder} holds a study of other settings; these keys differ:\n  "
            + ", ".join(changed)
            + "\ngo on with the same ones, or give another --out"
        )
    return together(config, before)


def _describe(folder: Path, config: TestbedConfig, command: str, seconds: float) -> None:
    """Bring study.json up to date: what the folder holds, and where the figures come from."""
    path = folder / STUDY
    before = files.read_json(path) if path.exists() else {}
    found = {
        "config": dataclasses.asdict(config),
        "config_hash": config.hash,
        "streams": STREAMS,
        **provenance(before, command, seconds),
    }
    files.atomic_write(path, json.dumps(found, indent=2) + "\n")

"""Where figures come from that were made in one sitting or in several, and how to go on."""

import os
import platform
import shlex
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import jax

from enn_finetune import records
from enn_finetune.config import PlainDict, PlainValue
from enn_finetune.session import RunStoppedError


def provenance(before: Mapping[str, object], command: str, seconds: float) -> PlainDict:
    """What an entry says of how it was made: commits, machines and commands of all sittings.

    Args:
      before: the entry as it stands, empty at the first time.
      command: that is running now; it may be empty.
      seconds: that have passed since the entry was brought up to date.
    """
    earlier, commands = before.get("seconds", 0.0), before.get("commands", [])
    made = [str(one) for one in (*(commands if isinstance(commands, list) else ()), command) if one]
    kept: list[PlainValue] = [*dict.fromkeys(made)]
    return {
        "commit": _all_of(before.get("commit"), records.commit()),
        "machine": _all_of(before.get("machine"), machine()),
        "command": command,
        "commands": kept,
        "seconds": round(seconds + (earlier if isinstance(earlier, float) else 0.0), 3),
    }


def _all_of(before: object, now: str) -> str:
    """What was there in an earlier sitting, and what is now where it is another."""
    if not isinstance(before, str) or now in before.split(", then "):
        return before if isinstance(before, str) else now
    return f"{before}, then {now}"


def machine() -> str:
    """The system, its cores and what the programs ran on; no names of hosts."""
    device = jax.devices()[0]
    kind = f"{device.platform}: {device.device_kind}"
    system = f"{platform.system()} {platform.machine()}"
    return f"{system}, {cores()} cores, {kind}, jax {jax.__version__}"


def cores() -> int:
    """The processor's cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def command_line(name: str, config: str | None, overrides: Iterable[str], out: Path) -> str:
    """The command that would run the same again."""
    words = ["enn-finetune", name, *([config] if config else []), *overrides, "--out", str(out)]
    return " ".join(shlex.quote(word) for word in words)


@contextmanager
def stoppable(out: Path, command: str) -> Iterator[None]:
    """Within: an interrupt becomes a RunStoppedError that says how to go on."""
    try:
        yield
    except (KeyboardInterrupt, RunStoppedError) as error:
        again = f": {command.removesuffix(' --resume')}" if command else ""
        raise RunStoppedError(
            f"stopped; what is complete is kept in {out}; go on with{again} --resume"
        ) from error


def duration(seconds: float) -> str:
    """Such as 40 s, 12 min, 2.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"

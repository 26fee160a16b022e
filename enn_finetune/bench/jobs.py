"""Jobs one after another, and what runners of cells keep between them."""

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, TypeVar

from enn_finetune.bench.plan import Place
from enn_finetune.bench.store import Store
from enn_finetune.config import PlainDict, PlainValue
from enn_finetune.problem import Problem
from enn_finetune.progress import Display
from enn_finetune.session import RunStoppedError
from enn_finetune.sittings import duration, provenance
from enn_finetune.study import Ground, forget_programs


class Weighted(Protocol):
    """A job, named by its `str`."""

    @property
    def weight(self) -> float:
        """Size, to guess the time left from the time of jobs that are done."""
        ...


AJob = TypeVar("AJob", bound=Weighted)


class Outcome(NamedTuple):
    """What a call of a runner did."""

    done: int
    failed: tuple[str, ...]
    complete: int  # cells with results in the folder, earlier calls' included


def in_turn(
    jobs: Sequence[AJob], do: Callable[[AJob], None], store: Store, display: Display
) -> Outcome:
    """Do all jobs in order; one that fails does not stop the others.

    Raises:
      RunStoppedError: a signal came.
    """
    began, done, failed = time.monotonic(), 0.0, []
    total = sum(job.weight for job in jobs)
    display.say(f"{len(jobs)} jobs to run; results go to {store.folder}")
    for number, job in enumerate(jobs, 1):
        start = time.monotonic()
        try:
            do(job)
        except RunStoppedError:
            raise
        except Exception as error:  # whatever it is, the other cells' results count
            failed.append(f"{job}: {type(error).__name__}: {error}")
            display.say(f"FAILED {failed[-1]}")
        done += job.weight
        now = time.monotonic()
        left = (now - began) / done * (total - done)
        display.say(
            f"[{number}/{len(jobs)}] {job}: {now - start:.1f} s; about {duration(left)} left"
        )
    return Outcome(len(jobs) - len(failed), tuple(failed), len(store.done))


class OneGround:
    """The ground of one problem at a time, for all jobs in a row that stand on it."""

    def __init__(self) -> None:
        self._ground: tuple[Problem, Ground] | None = None
        self._used = False

    def __call__(self, problem: Problem) -> Ground:
        """The problem's ground; what another one took is given back."""
        if self._ground is None or self._ground[0] is not problem:
            self._ground = None
            if self._used:  # before the first one there is nothing to give back
                forget_programs()
            self._used = True  # even by one that fails
            self._ground = (problem, Ground(problem))
        return self._ground[1]


def progress_of(store: Store, place: Place, command: str, seconds: float) -> PlainDict:
    """What studies.json says of what has been run of a study, and how."""
    done = [cell for cell in store.done if cell.place == place]
    arms: list[PlainValue] = [*sorted({str(cell.arm) for cell in done})]
    seeds: list[PlainValue] = [*sorted({cell.seed for cell in done})]
    before = store.studies.get(place, {})
    return {**provenance(before, command, seconds), "arms": arms, "seeds": seeds}

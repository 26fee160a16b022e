"""The bookkeeping of one run: evaluations and their records, costs, interrupts, checkpoints."""

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import NotRequired, TypedDict, TypeVar, cast

from enn_finetune import checkpoint, train
from enn_finetune.config import Config
from enn_finetune.costs import PARTS, Ledger, Part, Work
from enn_finetune.errors import InputError
from enn_finetune.evaluating import Evaluator
from enn_finetune.problem import Problem
from enn_finetune.progress import Display
from enn_finetune.records import Record, RecordFile

CHECKPOINT = "checkpoint.safetensors"
RECORDS = "records.jsonl"

Tree = TypeVar("Tree")


class RunStoppedError(RuntimeError):
    """A signal stopped the run after it was saved; it can be resumed."""


class SessionState(TypedDict):
    """The session's part of a checkpoint."""

    fingerprint: str  # of the data
    records: int
    seconds: float
    evaluated: tuple[int, int]  # step and labels of the last evaluation
    ledger: NotRequired[dict[str, list[float]]]  # of a run that accounts what it takes


class Session:
    """One run in one folder: what is shared by the online and the pool regime.

    It keeps account, in one ledger whatever regime and policy, of what encoding, scoring, training
    and evaluation take; each record has it as it then stands.
    """

    def __init__(
        self,
        folder: Path,
        config: Config,
        display: Display,
        fingerprint: str,
        *,
        resume: bool,
        began: float | None = None,
    ):
        """Open a folder; `began` is the `time.monotonic()` that seconds count from, if not now."""
        self.config, self.display = config, display
        self._folder, self._fingerprint = folder, fingerprint
        self._resuming = resume and (folder / CHECKPOINT).exists()
        self._records = RecordFile(folder / RECORDS) if not self._resuming else None
        self._stopping = False
        self._began, self._seconds = time.monotonic() if began is None else began, 0.0
        self._evaluated = (-1, 0)
        self._evaluator: Evaluator | None = None
        self.ledger = Ledger()
        self._accounts = True

    @property
    def records(self) -> RecordFile:
        """The open record file."""
        if self._records is None:
            raise RuntimeError("a resuming session has records only after `restore`")
        return self._records

    @property
    def seconds(self) -> float:
        """Wall seconds of this run, earlier sittings included."""
        return self._seconds + time.monotonic() - self._began

    def restore(self, tree: Tree) -> tuple[Tree, object] | None:
        """The saved tree (in the structure of `tree`) and regime state; None for a new run.

        Raises:
          InputError: a damaged checkpoint or record file, or other data than the run began with.
        """
        if not self._resuming:
            return None
        tree, state = checkpoint.restore(self._folder / CHECKPOINT, tree)
        saved = cast(dict[str, object], state)
        mine = cast(SessionState, saved["session"])
        if mine["fingerprint"] != self._fingerprint:
            raise InputError(
                f"{self._folder}: the run began on data with the fingerprint {mine['fingerprint']}"
                f", the data read now has {self._fingerprint}; put the files back as they were, or "
                "start again with another --out"
            )
        self._records = RecordFile(self._folder / RECORDS, keep=mine["records"])
        self._seconds = mine["seconds"]
        self._evaluated = (mine["evaluated"][0], mine["evaluated"][1])
        self._accounts = "ledger" in mine  # of a run that began without, half a bill is none
        self.ledger = Ledger(mine.get("ledger"))
        return tree, saved["regime"]

    def save(self, tree: object, regime: object) -> None:
        """Save everything the run needs to go on from here, in one atomic write."""
        mine = SessionState(
            fingerprint=self._fingerprint,
            records=len(self.records.records),
            seconds=self.seconds,
            evaluated=self._evaluated,
        )
        if self._accounts:
            mine["ledger"] = self.ledger.state()
        checkpoint.save(self._folder / CHECKPOINT, tree, {"session": mine, "regime": regime})

    @property
    def _reads_bought_alone(self) -> bool:
        """True where neither rule nor head looks at features of rows that are not bought."""
        config = self.config
        blind = config.acquisition.rule == "random" and not config.closed_form
        return blind and config.backbone.tune == "frozen"

    def due(self, labels: int) -> bool:
        """True when the labels bought have passed another multiple of `evaluation.every`."""
        every = self.config.evaluation.every
        return labels // every > self._evaluated[1] // every

    def charging(self, part: Part) -> AbstractContextManager[Callable[[], Work]]:
        """Within: work is counted and booked, where this run keeps account.

        What the name stands for says how much it was, afterwards.
        """
        return self.ledger.charging(part) if self._accounts else nullcontext(Work)

    def evaluate(
        self,
        problem: Problem,
        parts: train.Parts,
        step: int,
        labels: int,
        last: Work | None = None,
    ) -> None:
        """Score every evaluation split and record it; nothing where that was just done.

        `last`: see `note`.
        """
        if not self.evaluated(step, labels):
            evaluator = self.evaluator(problem)
            with self.charging("evaluation"):
                found = evaluator(parts)
            self.note(problem, found, step, labels, last)

    def evaluator(self, problem: Problem) -> Evaluator:
        """What scores classifiers on the evaluation splits, ready to do so.

        Which rows it predicts together is found here, so that what a call takes does not depend on
        whether the run was interrupted before.
        """
        if self._evaluator is None or self._evaluator.problem is not problem:
            self._evaluator = Evaluator(problem, self.config)
        _ = self._evaluator.groups
        return self._evaluator

    def evaluated(self, step: int, labels: int) -> bool:
        """True where the last evaluation was this one."""
        return self._evaluated == (step, labels)

    def note(
        self,
        problem: Problem,
        found: Mapping[str, dict[str, float]],
        step: int,
        labels: int,
        last: Work | None = None,
        refreshed: Sequence[int] = (),
    ) -> None:
        """Record the scores of each evaluation split, and what a run costs that ends here.

        `last` is the fit that such a run would end with, where the ledger has it as a part of
        `evaluation`: drawing the curve. `refreshed`: see `Record`.
        """
        self._evaluated = (step, labels)
        more: dict[str, object] = {}
        if self._accounts:
            spent = {part: self.ledger.parts[part] for part in PARTS}
            if self._reads_bought_alone:
                spent["encoding"] = spent["encoding"].times(problem.share(problem.oracle.bought))
            spent["training"] = spent["training"].plus(last or Work())
            more = {part: work.columns() for part, work in spent.items()}
            more |= {"policy": self.config.policy, "refreshed": list(refreshed)}
        for split in problem.evaluations:
            record = Record(
                step=step,
                labels_bought=labels,
                split=split.name,
                metrics=found[split.name],
                seconds=round(self.seconds, 3),
                **more,  # type: ignore[typeddict-item]
            )
            self.records.append(record)
            self.display.score(record, problem.task.metrics[0])

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Within: the first Ctrl-C or SIGTERM asks the run to stop and save, a second one kills.

        Only the main thread receives signals; in another one this does nothing.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(number: int, frame: FrameType | None) -> None:
            del frame
            if self._stopping:
                raise KeyboardInterrupt
            self._stopping = True
            self.display.say(
                f"{signal.Signals(number).name}: stopping after the step or round under way"
            )

        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def stop_if_asked(self, tree: object, regime: object) -> None:
        """Save and leave where a signal has come.

        Raises:
          RunStoppedError: always then, with how to resume.
        """
        if self._stopping:
            self.save(tree, regime)
            raise RunStoppedError(f"stopped and saved; go on with --resume --out {self._folder}")

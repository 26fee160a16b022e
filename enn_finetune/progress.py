"""Progress on the terminal: a live bar where there is one, a line an evaluation everywhere."""

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from enn_finetune.records import Record


class Display:
    """Shows labels bought, the last score, rows per second and the time left.

    Lines and the bar go to standard error, so that standard output stays for results.
    """

    def __init__(self, *, quiet: bool = False):
        self.console = Console(stderr=True, quiet=quiet)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f} {task.fields[unit]}"),
            TextColumn("{task.fields[score]}"),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self._task = self._bar.add_task("", total=1, visible=False, unit="", score="", speed="")
        self._start, self._rows = time.monotonic(), 0

    def __enter__(self) -> "Display":
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def say(self, text: str) -> None:
        """One line above the bar."""
        self.console.print(text, highlight=False, markup=False)

    def begin(self, what: str, total: int, unit: str = "labels") -> None:
        """A new stage of the run, of so many units."""
        self._start, self._rows = time.monotonic(), 0
        self._bar.reset(
            self._task, description=what, total=total, visible=True, unit=unit, score="", speed=""
        )

    def reach(self, done: int) -> None:
        """The stage, whose units are rows, stands at `done`."""
        self.advance(done, rows=done - self._rows)

    def advance(self, done: int, rows: int = 0) -> None:
        """The stage stands at `done` units; `rows` more rows went through the model."""
        self._rows += rows
        seconds = max(time.monotonic() - self._start, 1e-3)
        speed = f"{self._rows / seconds:,.0f} rows/s" if self._rows else ""
        self._bar.update(self._task, completed=done, speed=speed)

    def score(self, record: Record, metric: str) -> None:
        """Show an evaluation, on a line of its own and beside the bar."""
        value = record["metrics"][metric]
        self._bar.update(self._task, score=f"{metric} {value:.4f}")
        self.say(
            f"labels {record['labels_bought']:>6,}  step {record['step']:>6,}  "
            f"{record['split']} {metric} {value:.4f}  nll {record['metrics']['nll']:.4f}  "
            f"{record['seconds']:.1f} s"
        )

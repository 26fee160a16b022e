"""The short table that is printed at the end of a benchmark, from the report's summary."""

from collections.abc import Mapping, Sequence
from typing import cast

from rich.table import Table

HEADINGS = ("arm", "score", "labels", "system", "acquisition", "lost", "seeds")


def table(task: str, arms: Mapping[str, Mapping[str, object]]) -> Table:
    """One task's arms: final score, labels to the target (- where it is not reached), the ratios.

    A ratio stands with its 95 % interval; `lost` is the number of seeds on which random was better.
    """
    found = Table(title=task, title_justify="left", box=None, padding=(0, 1, 0, 0))
    for place, heading in enumerate(HEADINGS):
        found.add_column(heading, justify="left" if place == 0 else "right", no_wrap=True)
    for arm, figures in arms.items():
        found.add_row(
            arm,
            _number(figures.get("score_mean"), ".3f"),
            _number(figures.get("labels_to_target"), ",.0f", "-"),
            _ratio(figures.get("system_ratio")),
            _ratio(figures.get("acquisition_ratio")),
            _number(figures.get("losses_to_random"), "d"),
            _number(figures.get("seeds"), "d"),
        )
    return found


def _number(value: object, form: str, absent: str = "-") -> str:
    return format(value, form) if isinstance(value, int | float) else absent


def _ratio(found: object) -> str:
    """A ratio with its interval; an open end is a question mark."""
    if not isinstance(found, Mapping) or not isinstance(found.get("value"), int | float):
        return "-"
    text = f"{found['value']:.2f}"
    ends = cast(Sequence[object] | None, found.get("ci95"))
    if ends is None:
        return text
    return f"{text} ({'-'.join(_number(end, '.2f', '?') for end in ends)})"

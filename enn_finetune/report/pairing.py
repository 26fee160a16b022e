"""Whether the arms of a seed begin with the same labels, as paired comparisons take for granted."""

from collections import Counter
from collections.abc import Mapping
from typing import cast

from enn_finetune.report.reading import Line
from enn_finetune.report.studies import Study


def unpaired(study: Study) -> list[str]:
    """The arms with a seed that begins with other rows than most arms of that seed do.

    Lists of bought rows that another program made can be such arms. Nothing is known, and nothing
    said, where no source says how many rows are bought before a rule chooses.
    """
    starts = [_start(source) for source in study.sources]
    start = next((count for count in starts if count), 0)
    seeds: dict[object, list[tuple[str, tuple[int, ...]]]] = {}
    for line in study.bought if start else ():
        first = tuple(sorted(cast(list[int], line["rows"])[:start]))
        seeds.setdefault(line["seed"], []).append((f"{line['head']}/{line['rule']}", first))
    found: dict[str, None] = {}
    for arms in seeds.values():
        usual, _ = Counter(first for _, first in arms).most_common(1)[0]
        found |= dict.fromkeys(arm for arm, first in arms if first != usual)
    return list(found)


def note(study: Study) -> list[str]:
    """What readers are told of it."""
    arms = unpaired(study)
    if not arms:
        return []
    what = "begins" if len(arms) == 1 else "begin"
    return [
        f"{', '.join(arms)} {what} with other labels than the other arms of a seed: differences "
        "to these are not paired, and their intervals may be too narrow or too wide."
    ]


def _start(source: Line) -> int:
    budget = source.get("budget")
    start = cast(Mapping[str, object], budget).get("start") if isinstance(budget, dict) else None
    return start if isinstance(start, int) else 0

"""The README's table of described classes, from the page that `enn-finetune report` wrote.

    python benchmarks/described_table.py

Reads DESCRIBED.md beside this file: a line for each task and encoder. Bold: the whole 95 % interval
is on one side of nothing gained.
"""

import re
from collections.abc import Sequence
from pathlib import Path

PAGE = Path(__file__).parent / "DESCRIBED.md"
RATIOS, AREAS = "## All tasks", "### Area gained over linear/random"
WORTH = "How many times as many labels random selection needs to match the arm at a label count:"
PLAIN, TOLD = "epinet", "described_epinet"
RULES = ("random", "power4_margin")
HEADER = (
    "| | labels | worth | area gained at random | by `power4_margin` | labels saved by it |",
    "|---|---|---|---|---|---|",
)


def rows_after(page: str, title: str) -> list[list[str]]:
    """The cells of the first table after a title, header first, the line below it left out.

    Raises:
      ValueError: no such title, or no table after it.
    """
    _, found, rest = page.partition(f"{title}\n")
    lines = rest.strip().splitlines() if found else []
    count = next((n for n, line in enumerate(lines) if not line.startswith("|")), len(lines))
    if count < 3:
        raise ValueError(f"found no table after '{title}': not a page of `enn-finetune report`?")
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[:count]]
    return [cells[0], *cells[2:]]


def by_study(rows: Sequence[Sequence[str]]) -> dict[str, dict[str, str]]:
    """A table of arms by studies: study -> arm -> cell."""
    header, *body = rows
    return {
        study: {row[0]: row[place] for row in body}
        for place, study in enumerate(header)
        if place and "ahead" not in study and "mean" not in study and "won" not in study
    }


def gained(cell: str) -> str:
    """Points of area, bold where the interval is above or below 0."""
    low, high = (float(end) for end in re.findall(r"[-+][\d.]+", cell)[1:])
    points = cell.split(" ", maxsplit=1)[0]
    return f"**{points}**" if low > 0 or high < 0 else points


def worth(page: str, study: str) -> tuple[str, str]:
    """The first number of labels, and how many times as many random selection needs."""
    name = study if f"\n## {study}\n" in page else study.split(" · ", maxsplit=1)[0]
    part = page.split(f"\n## {name}\n", 1)[1].split("\n## ", 1)[0]
    header, *body = rows_after(part, WORTH)
    cells = {row[0]: row[1].split(";")[0] for row in body}
    return header[1].removeprefix("at "), cells[f"{TOLD}/random"]


def table(page: str) -> list[str]:
    """The lines of the table."""
    ratios, areas = (by_study(rows_after(page, title)) for title in (RATIOS, AREAS))
    lines = [*HEADER]
    for study, area in areas.items():
        first, times = worth(page, study)
        both = [
            f"{gained(area[f'{PLAIN}/{rule}'])} → {gained(area[f'{TOLD}/{rule}'])}"
            for rule in RULES
        ]
        saved = [ratios[study][f"{head}/{RULES[1]}"].split(" / ")[0] for head in (PLAIN, TOLD)]
        name = study if " · " in study else f"{study} · minilm"
        cells = [name, first, times, *both, " → ".join(saved)]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    print("\n".join(table(PAGE.read_text("utf-8"))))

"""The README's table of the intended task, from the page that `enn-finetune report` wrote.

    python benchmarks/intended_table.py

Reads INTENDED.md beside this file: a line for each task, encoder and regime, what its main arm
asked for and saved with a pretrained encoder, and what it saved with random weights. Bold: the
whole 95 % interval of the ratio is above 1.
"""

import re
from pathlib import Path

PAGE = Path(__file__).parent / "INTENDED.md"
TITLE, FRESH, NOTHING = "## All studies, by ", ", random weights", "nothing learned"
HEADER = (
    "| study | asked for rows that settle it | labels saved | the same with random weights |",
    "|---|---|---|---|",
)


def studies(page: str) -> dict[str, tuple[str, str]]:
    """What was asked for, and the saving by average accuracy, by study.

    Raises:
      ValueError: a page that has no such table.
    """
    if TITLE not in page:
        raise ValueError(f"found no '{TITLE}': not a page that `enn-finetune report` wrote?")
    part = page.split(TITLE, 1)[1].split("\n## ", 1)[0]
    lines = [line for line in part.splitlines() if line.startswith("|")][2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {name: (asked, saving) for name, _, asked, saving, *_ in cells}


def shown(saving: str) -> str:
    """Bold where the interval is above 1; two words where there was nothing to save."""
    if saving.endswith(NOTHING):
        return NOTHING
    low = re.search(r"\(([\d.]+) to ", saving)
    return f"**{saving}**" if low and float(low[1]) > 1 else saving


def table(page: str) -> list[str]:
    """The lines of the table."""
    found = studies(page)
    lines = [*HEADER]
    for name, (asked, saving) in found.items():
        if FRESH in name:
            continue
        task, encoder, regime = name.split(" · ")
        fresh = found.get(f"{task} · {encoder}{FRESH} · {regime}", ("", ""))[1]
        lines.append(f"| {name} | {asked} | {shown(saving)} | {shown(fresh)} |")
    return lines


if __name__ == "__main__":
    print("\n".join(table(PAGE.read_text("utf-8"))))

"""The README's tables of what each rule buys, from the pages that `enn-finetune report` wrote.

    python benchmarks/rules_table.py

Reads RULES-10.md, RULES.md and RULES-500.md beside this file: points of area under the learning
curve gained over random with the cross-validated regression, one column a pool and size of round;
bold where the 95 % interval leaves out 0. Prints the table of the rules that were run everywhere
and that of those run on three pools alone, then in how many columns each rule of the first is
settled to be ahead and behind. The last line is that count as one JSON object.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

HERE = Path(__file__).parent
PAGES = {"10": "RULES-10.md", "100": "RULES.md", "500": "RULES-500.md"}
TITLE = "### Area gained over linear/random"
COLUMNS = (
    ("kitchen", "reviews-kitchen", ("10", "100")),
    ("messages", "messages", ("10", "100")),
    ("SST-2", "sst2", ("10", "100", "500")),
    ("books x5", "reviews-books:repeated", ("10", "100", "500")),
    ("messages x5", "messages:repeated", ("10", "100")),
)
FEW = (
    ("kitchen", "reviews-kitchen", ("100",)),
    ("messages", "messages", ("100",)),
    ("books x5", "reviews-books:repeated", ("100",)),
)
RULES = (
    "random", "margin", "power4_margin", "bald", "epig", "batchbald", "logdet", "condvar", "vtl",
    "itl", "badge", "kcenter", "confident_coreset", "lcmd", "pool_loss", "typiclust", "neuronal",
)  # fmt: skip
OTHERS = (
    "random", "entropy", "variance", "power_margin", "softmax_bald", "softrank_bald", "epig_batch",
    "eer", "ctl", "vtl_features", "itl_gradients", "vtl_gradients", "lcmd_gradients",
    "confident_coreset_bald", "neuronal",
)  # fmt: skip
ARMS = (*(f"epinet/{rule}" for rule in RULES if rule != "neuronal"), "neuronal/neuronal")
MISSING = "\N{EN DASH}"

Columns = tuple[tuple[str, str, tuple[str, ...]], ...]  # title, task, sizes of round
Cells = Mapping[str, Mapping[str, str]]  # arm -> task -> "+1.2 (+0.3 to +2.1)"


def cells_of(page: str) -> Cells:
    """The table under `TITLE` in a report's page.

    Raises:
      ValueError: a page that has no such table.
    """
    lines = iter(page.splitlines())
    if TITLE not in lines:  # which also reads up to there
        raise ValueError(f"found no '{TITLE}': not a page that `enn-finetune report` wrote?")
    rows = []
    for line in lines:
        if line.startswith("|"):
            rows.append([cell.strip() for cell in line.strip("|").split("|")])
        elif rows:
            break
    head, _, *body = rows
    return {row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in body}


def settled(cell: str) -> int:
    """1 where the interval is above 0, -1 where it is below, else 0; bounds are read by their sign.

    A bound of +0.0 is above 0, rounded: the page counts it as settled too.
    """
    low, high = cell.split("(")[1].rstrip(")").split(" to ")
    return low.startswith("+") - high.startswith("-")


def table(
    pages: Mapping[str, Cells], arms: Sequence[str], wanted: Columns
) -> tuple[list[str], dict[str, dict[str, int]]]:
    """Lines of the table, and of each arm how many columns it is ahead and behind in."""
    columns = [(name, task, size) for name, task, sizes in wanted for size in sizes]
    titles = ["on the epinet", *(f"{name}, {size}" for name, _, size in columns)]
    lines = [_line(titles), "|" + "|".join(["---", *["---:"] * len(columns)]) + "|"]
    counts = {}
    for arm in arms:
        found = [pages[size].get(arm, {}).get(task, MISSING) for _, task, size in columns]
        signs = [settled(cell) if cell != MISSING else 0 for cell in found]
        values = [_short(cell) for cell in found]
        shown = [f"**{v}**" if sign else v for v, sign in zip(values, signs, strict=True)]
        rule = arm.split("/")[1]
        lines.append(_line([f"`{rule}`", *shown]))
        counts[rule] = {"ahead": signs.count(1), "behind": signs.count(-1)}
    return lines, counts


def _short(cell: str) -> str:
    """A cell's value with one decimal."""
    return cell if cell == MISSING else f"{float(cell.split(' ', 1)[0]):+.1f}"


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def tables() -> tuple[list[str], list[str], dict[str, dict[str, int]]]:
    """Both tables' lines, and the count of the first."""
    pages = {size: cells_of((HERE / name).read_text("utf-8")) for size, name in PAGES.items()}
    everywhere, counts = table(pages, ARMS, COLUMNS)
    few, _ = table(pages, [f"epinet/{rule}" for rule in OTHERS], FEW)
    return everywhere, few, counts


def main() -> None:
    """Print the tables."""
    everywhere, few, counts = tables()
    print("\n".join([*everywhere, "", *few]))
    print(json.dumps(counts))


if __name__ == "__main__":
    main()

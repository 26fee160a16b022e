"""What `next` prints: the rounds, whether to go on, and what was written."""

from pathlib import Path

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from enn_finetune.labelling.rows import Texts
from enn_finetune.labelling.standing import ADDED, STABLE, WINDOW, History


def tell(
    console: Console,
    texts: Texts,
    found: History,
    rule: str,
    chosen: int,
    out: Path,
    *,
    cold: str | None,
) -> None:
    """Print the rounds, what to do, and what was written.

    `cold` is the rule that took the place of another, where fewer than two classes have labels.
    """
    table = Table(caption_justify="left")
    table.add_column("labels of", overflow="fold")
    for name in ("labels", "expected right", "unsettled", "agreement"):
        table.add_column(name, justify="right")
    for one in found.rounds:
        table.add_row(
            escape(one.file), f"{one.labels:,}", *map(_share, one[2:4]), _kappa(one.agreement)
        )
    table.caption = (
        "expected right: share of the texts without a label on which the fit expects to be right; "
        "unsettled: share of them that one index, drawn at random, sees otherwise; agreement: "
        f"Cohen's kappa with the last fit to at least {ADDED} labels fewer, on all texts"
    )
    if found.rounds:
        console.print(table)
    counts = {name: int((texts.labels == c).sum()) for c, name in enumerate(texts.classes)}
    if counts:
        console.print("labels: " + ", ".join(f"{n} {c:,}" for n, c in counts.items()), markup=False)
    if found.words is not None and found.words[0]:
        count, right = found.words
        console.print(f"descriptions alone get {right:,} of the {count:,} labels right")
    console.print(_advice(found, cold), markup=False)
    if chosen:
        said = f"{chosen:,} rows to label, by {rule}: {out}"
        console.print(said, markup=False, highlight=False)


def _advice(found: History, cold: str | None) -> str:
    if cold is not None:
        return (
            "fewer than two classes have labels: these rows are typical of the pool's clusters; "
            f"{cold} reads features alone; --rule is asked from then on"
        )
    known = found.agreements[-WINDOW:]
    if found.settled:
        return (
            f"STOP, if what it gets right is enough: the last {WINDOW} rounds agree with the ones "
            f"before them by {np.mean(known):.3f} on the mean ({STABLE} asked); more labels hardly "
            "change predictions"
        )
    if len(known) < WINDOW:
        return (
            f"GO ON: stopping asks for {WINDOW} agreements, which take {WINDOW + 1} rounds, a file "
            f"of {ADDED} labels or more each; there are {len(known)}"
        )
    return (
        f"GO ON: the last {WINDOW} rounds agree with the ones before them by "
        f"{np.mean(known):.3f} on the mean; from {STABLE} on more labels hardly change predictions"
    )


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def _kappa(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"

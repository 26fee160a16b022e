"""`enn-finetune report DIR... --out report.html`: any records to a page, figures and a document."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from enn_finetune import files
from enn_finetune.errors import InputError
from enn_finetune.report import intended, testbed
from enn_finetune.report.bill import Bill, bill, tariff
from enn_finetune.report.figures import Figures, Json, figures_of, summary_json
from enn_finetune.report.page import Bought, Provenance, Section, write_page
from enn_finetune.report.reading import PAGE, summary_of
from enn_finetune.report.results import results_document
from enn_finetune.report.studies import read_folders
from enn_finetune.report.table import summary_table
from enn_finetune.savings import RESAMPLES

EXAMPLES = 8


def show(
    folders: Sequence[Path],
    out: Path,
    results: Path | None = None,
    *,
    baseline: str | None = None,
    own: str | None = None,
) -> None:
    """Write the page and its summary, the Markdown if asked for, and a table on the terminal.

    Raises:
      InputError: as `run` says; a folder of `enn-finetune intended` or `testbed` beside others;
        the latter's as Markdown.
    """
    apart = [folder for folder in folders if intended.holds(folder) or testbed.holds(folder)]
    if apart and len(folders) > 1:
        raise InputError(
            f"{apart[0]} holds results of `enn-finetune intended` or `testbed`, which have a page "
            "of their own; give it alone"
        )
    if apart and (baseline or own):
        raise InputError(f"--baseline, --own: {apart[0]} is not of `bench`; leave them out")
    if apart and intended.holds(apart[0]):
        intended.run(apart[0], out, results=results)
        return
    if apart:
        if results is not None:
            raise InputError(f"--results {results}: there is no such document of a testbed study")
        testbed.show(apart[0], out)
        return
    summary, console = run(folders, out, results=results, baseline=baseline, own=own), Console()
    console.print(summary_table(summary))
    console.print(f"report: {out}, its figures: {summary_of(out, 'tasks')}", highlight=False)


def run(
    folders: Sequence[Path],
    out: Path,
    *,
    results: Path | None = None,
    baseline: str | None = None,
    own: str | None = None,
    title: str = "Label savings",
    resamples: int = RESAMPLES,
) -> Json:
    """Write `out` (one HTML page) and its summary beside it; with `results`, a Markdown document.

    Args:
      folders: of `bench`, `demo` or `train`; what several of them hold is merged.
      out: the page; its folder is made.
      results: where the Markdown document goes.
      baseline: the arm of the system ratio's denominator, if not what the folders name.
      own: random selection with our head, if not what the folders name.
      title: of the page.
      resamples: of the bootstrap.

    Returns:
      What summary.json holds; see `summary_json`. `money` has a `Bill` for every study whose
      records account for their costs.

    Raises:
      InputError: damaged or contradicting files, or an `out` whose folder holds a run's summary.
    """
    out = Path(out)
    beside = summary_of(out, "tasks")
    figures = figures_of(read_folders(folders), baseline=baseline, own=own, resamples=resamples)
    rates = tariff(folders)
    bills = {one.name: bill(one.study.records, one.main, rates) for one in figures}
    found = {PAGE: out.name, **summary_json(figures)}
    found["money"] = {name: one for name, one in bills.items() if one is not None}
    out.parent.mkdir(parents=True, exist_ok=True)
    files.atomic_write(beside, json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    write_page(out, title, [section_of(one, bills[one.name]) for one in figures])
    if results is not None:
        results = Path(results)
        results.parent.mkdir(parents=True, exist_ok=True)
        files.atomic_write(results, results_document(figures))
    return found


def section_of(figures: Figures, money: Bill | None = None) -> Section:
    """A study's part of the page."""
    balance, examples = bought_of(figures)
    more = {
        "encoder": figures.study.key.backbone,
        "trained": figures.study.key.tune,
        "regime": figures.study.key.regime,
        "rows": ", ".join(f"{name} {rows:,}" for name, rows in figures.rows.items()),
        "machine": "; ".join(figures.facts("machine")),
    }
    return Section(
        task=figures.name,
        summary=figures.main,
        provenance=Provenance(
            command="; ".join(figures.facts("command")),
            config_hash=", ".join(figures.facts("config_hash")),
            commit=", ".join(figures.facts("commit")),
            data=", ".join(figures.facts("data_fingerprint")),
            wall_seconds=figures.seconds,
            more={name: value for name, value in more.items() if value},
        ),
        balance=balance,
        examples=examples,
        others=figures.summaries[1:],
        money=money,
    )


def bought_of(
    figures: Figures,
) -> tuple[dict[str, Mapping[str, float]], dict[str, Sequence[Bought]]]:
    """Labels bought of each class by each arm over all seeds; its first seed's first rows."""
    balance: dict[str, dict[str, float]] = {}
    examples: dict[str, tuple[int, Sequence[Bought]]] = {}
    for line in figures.study.bought:
        arm, seed = f"{line['head']}/{line['rule']}", int(str(line["seed"]))
        classes, rows = line.get("classes"), line.get("examples")
        if isinstance(classes, dict):
            counts = balance.setdefault(arm, {})
            for name, count in classes.items():
                counts[str(name)] = counts.get(str(name), 0.0) + float(count)
        if isinstance(rows, list) and rows and (arm not in examples or seed < examples[arm][0]):
            shown = [Bought(str(text), str(label)) for text, label in rows[:EXAMPLES]]
            examples[arm] = (seed, shown)
    known = [arm for arm in figures.main["arms"] if arm in balance or arm in examples]
    return (
        {arm: balance[arm] for arm in known if arm in balance},
        {arm: examples[arm][1] for arm in known if arm in examples},
    )

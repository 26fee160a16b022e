"""`enn-finetune intended`: its records to report.html, summary.json and a table on the terminal."""

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from enn_finetune import files
from enn_finetune.report.intended_figures import Figures, MeasuredJson, StudyJson, read_figures
from enn_finetune.report.intended_page import write_page
from enn_finetune.report.intended_ranks import RankJson, ranks
from enn_finetune.report.intended_results import results_document
from enn_finetune.report.intended_words import by_interval, claims, headline, left_out
from enn_finetune.report.reading import PAGE, read_studies, summary_of
from enn_finetune.report.table import COLOURS
from enn_finetune.report.words import interval_text, ratio_text
from enn_finetune.savings import RESAMPLES

REPORT = "report.html"
KEYS = {
    "page": "name of the page that this file belongs to",
    "headline": "how many of the paper's claims held, in one sentence",
    "claims": "each claim: title, verdict (held, held in part, not settled, did not hold), "
    "figure, sentence, detail",
    "left_out": "tasks and encoders that no place had, and why",
    "studies": "one a task, encoder and regime, by the main arm: separability of the intended and "
    "the spurious attribute (cross-validated accuracy of a linear probe, with its standard error); "
    "average and worst_group: target (what random selection scores at the full budget), learned "
    "(that, less its score with the seed set alone), random_labels and labels (to reach the target "
    "for good; null: not reached), ratio (random_labels / labels, with a paired bootstrap "
    "interval), gain (area under the curve gained; gain_by_seed); over_representation: share of "
    "disagreeing rows among those bought beyond the seed set, over their share of the pool (most: "
    "the largest possible)",
    "prediction": "Spearman's rank correlation over studies of a figure (of) with a separability "
    "(by), and its two-sided p by permutation",
    "arms": "by study and score, all arms as in the summary of `enn-finetune report`, and each "
    "arm's over-representation; same: arms that bought the same rows and stand with another",
}
"""What summary.json holds, which says so itself."""


def holds(folder: Path) -> bool:
    """Whether a folder's studies are of an intended task."""
    return any("separability" in entry for entry in read_studies(folder))


def run(
    folder: Path,
    out: Path | None = None,
    *,
    results: Path | None = None,
    resamples: int = RESAMPLES,
    quiet: bool = False,
) -> dict[str, object]:
    """Write the page of a folder of results, and summary.json beside it; the latter is returned.

    Args:
      folder: of `enn-finetune intended`.
      out: the page; report.html in the folder if left out.
      results: where a Markdown document goes, if anywhere.
      resamples: of the bootstrap.
      quiet: print nothing.

    Raises:
      InputError: no results there, damaged files, or other results beside the page.
    """
    page = folder / REPORT if out is None else Path(out)
    beside = summary_of(page, "claims")
    figures = read_figures(folder, resamples=resamples)
    studies = [one.json for one in figures if one.json is not None]
    found = ranks(studies)
    summary = {PAGE: page.name, **summary_json(figures, studies, found)}
    text = json.dumps(summary, indent=1, ensure_ascii=False) + "\n"
    page.parent.mkdir(parents=True, exist_ok=True)
    files.atomic_write(beside, text)
    write_page(page, figures, found)
    if results is not None:
        results.parent.mkdir(parents=True, exist_ok=True)
        files.atomic_write(results, results_document(figures, claims(studies, found)))
    if not quiet:
        console = Console()
        console.print(table(studies))
        console.print(summary["headline"], highlight=False)
        console.print(f"report: {page}", highlight=False)
    return summary


def summary_json(
    figures: Sequence[Figures], studies: Sequence[StudyJson], found: Sequence[RankJson]
) -> dict[str, object]:
    """What summary.json holds; see KEYS."""
    made = claims(studies, found)
    return {
        "keys": KEYS,
        "headline": headline(made),
        "claims": [claim._asdict() for claim in made],
        "left_out": left_out([one.about for one in figures]),
        "studies": [*studies],
        "prediction": [*found],
        "arms": {
            one.name: {
                "average": one.summaries[0],
                "worst_group": one.summaries[1],
                "over_representation": {arm: over.last for arm, over in one.over.items()},
                "same": one.same,
            }
            for one in figures
        },
    }


def table(studies: Sequence[StudyJson]) -> Table:
    """One line a study."""
    result = Table(
        title="Active against random selection, same head",
        title_justify="left",
        caption="separable: linear probe of the intended / the spurious attribute; asked: rows "
        "that settle the task\namong those bought, over their share of the pool; saving: labels "
        "random selection needs /\nlabels active learning needs, with 95 % interval",
        caption_justify="left",
    )
    for column in ("task", "encoder"):
        result.add_column(column, overflow="fold")
    for column in ("separable", "asked", "saving, average", "saving, worst group"):
        result.add_column(column, justify="right")
    for study in studies:
        result.add_row(
            study["task"],
            study["name"].split(" · ", 1)[1],
            f"{study['intended']:.2f} / {study['spurious']:.2f}",
            f"{study['over_representation']['mean']:.2f}x",
            _saving(study["average"]),
            _saving(study["worst_group"]),
        )
    return result


def _saving(measured: MeasuredJson) -> Text:
    ratio = measured["ratio"]
    words = f"{ratio_text(ratio)} ({interval_text(ratio['ci95'])})"
    return Text(words, style=COLOURS[by_interval(ratio)])

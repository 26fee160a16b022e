"""From a summary of savings to curves, a terminal table and one self-contained page."""

from enn_finetune.report.curves import MissingMatplotlibError, draw_curves
from enn_finetune.report.page import Bought, Provenance, Section, write_page
from enn_finetune.report.table import summary_table, table
from enn_finetune.report.words import Verdict, headline, verdicts

__all__ = [
    "Bought",
    "MissingMatplotlibError",
    "Provenance",
    "Section",
    "Verdict",
    "draw_curves",
    "headline",
    "summary_table",
    "table",
    "verdicts",
    "write_page",
]

"""The intended task as a Markdown document to be committed: the figures of the page."""

from collections.abc import Sequence
from typing import cast

from enn_finetune.report.intended_figures import Figures, MeasuredJson, StudyJson
from enn_finetune.report.intended_words import Claim, headline, learned, left_out
from enn_finetune.report.results import Lines, markdown_table
from enn_finetune.report.words import DASH, interval_text, number, points_text, ratio_text
from enn_finetune.savings import MeanJson

INTRO = (
    "Written by `enn-finetune report`; nothing in it was typed in by hand. Active learning "
    "against random selection with the same head. *Asked*: rows in which label and attribute "
    "disagree, among those bought, over their share of the pool. *Saving*: labels with which "
    "random selection reaches what it has at its full budget, over those of the arm; `<`: the arm"
    " did not get there, and the ratio is a bound. *Area*: points of area under the learning "
    "curve gained. In brackets 95 % intervals over seeds. *Nothing learned*: random selection is "
    "not shown to score more with its full budget than with the seed set alone."
)


def results_document(figures: Sequence[Figures], made: Sequence[Claim]) -> str:
    """Claims, all studies at a glance, then every arm of every study."""
    parts: Lines = ["# The intended task", "", INTRO, "", headline(made), ""]
    for claim in made:
        parts += [f"- **{claim.title}** {claim.verdict} ({claim.figure}). {claim.sentence} "
                  f"{claim.detail}"]  # fmt: skip
    parts.append("")
    absent = left_out([one.about for one in figures])
    parts += [f"> left out: {name}: {reason}" for name, reason in absent.items()]
    studies = [one.json for one in figures if one.json is not None]
    mains = ", ".join(dict.fromkeys(study["main"] for study in studies))
    parts += [f"## All studies, by {mains}", "", *_overview(studies)]
    for one in figures:
        parts += _study(one)
    return "\n".join(parts).rstrip() + "\n"


def _overview(studies: Sequence[StudyJson]) -> Lines:
    header = [
        "study", "intended / spurious separable", "asked", "saving", "area", "saving, worst group",
        "area, worst group",
    ]  # fmt: skip
    rows = [
        [
            study["name"],
            f"{study['intended']:.2f} / {study['spurious']:.2f}",
            _times(study["over_representation"]),
            *_measured(study["average"]),
            *_measured(study["worst_group"]),
        ]
        for study in studies
    ]
    return markdown_table(header, rows)


def _measured(found: MeasuredJson) -> tuple[str, str]:
    ratio = found["ratio"]
    text = f"{ratio_text(ratio)} ({interval_text(ratio['ci95'])})"
    return text if learned(found) else f"{text}; nothing learned", _points(found["gain"])


def _study(one: Figures) -> Lines:
    about, (average, worst) = one.about, one.summaries
    facts = ("config_hash", "commit", "data_fingerprint", "machine")
    said = [f"{name.replace('_', ' ')} {about[name]}" for name in facts if name in about]
    share = 100 * float(cast(float, about["pool_disagreeing"]))
    parts = [
        f"## {one.name}",
        "",
        f"Pool of {about['pool_rows']:,} rows, {share:.1f} % of which disagree; "
        f"{len(average['seeds'])} seeds, up to {average['budget']:,.0f} labels. "
        f"`{about.get('command', '')}`; {', '.join(said)}.",
        "",
    ]
    for arm, others in one.same.items():
        parts += [f"> {', '.join(others)} bought the same rows as {arm}.", ""]
    rows = []
    for name in average["arms"]:
        both = [summary["arms"][name] for summary in (average, worst)]
        asked = one.over.get(name)
        row = [name, *(f"{found['score_mean']:.3f}" for found in both)]
        row.append(_times(asked.last) if asked else DASH)
        for found in both:  # random selection is what others are compared with
            known = found["acquisition_reference"] != name
            row.append(ratio_text(found["acquisition_ratio"] if known else None))
            row.append(_points(found["acquisition_auc_gain"] if known else None))
        rows.append(row)
    header = ["arm", "accuracy", "worst group", "asked", "saving", "area", "saving, worst group",
              "area, worst group"]  # fmt: skip
    return parts + markdown_table(header, rows)


def _times(found: MeanJson) -> str:
    spread = f" ({interval_text([*found['ci95']])})" if found["ci95"] else ""
    return f"{number(found['mean'])}x{spread}"


def _points(found: MeanJson | None) -> str:
    if found is None:
        return DASH
    spread = f" ({points_text(found['ci95'])})" if found["ci95"] else ""
    return f"{100 * found['mean']:+.1f}{spread}"

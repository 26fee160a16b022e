"""The page of the intended task: what held, all studies at a glance, then each by itself."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast
from xml.etree.ElementTree import Element

from enn_finetune.files import atomic_write
from enn_finetune.report import blocks
from enn_finetune.report.blocks import card
from enn_finetune.report.chart import Curve, axes_of, chart
from enn_finetune.report.elements import Child, Row, document, element, grid
from enn_finetune.report.intended_chart import scatter
from enn_finetune.report.intended_figures import Figures, MeasuredJson, StudyJson
from enn_finetune.report.intended_method import method
from enn_finetune.report.intended_ranks import PREDICTORS, SCORES, RankJson, p_text
from enn_finetune.report.intended_words import (
    TONES,
    Claim,
    by_interval,
    claims,
    headline,
    learned,
    left_out,
)
from enn_finetune.report.looks import groups, looks
from enn_finetune.report.style import CSS
from enn_finetune.report.words import (
    interval_text,
    points_text,
    ratio_text,
)
from enn_finetune.savings import MeanJson

TITLE = "The intended task"
INTRO = (
    "A seed set of labels leaves open what the task is: the label can be told by the attribute "
    "that is meant and by a spurious one that goes with it. In a few rows of the pool the two "
    "disagree, and these settle it. Does active learning ask for them, and does it matter whether "
    "the encoder is pretrained (Tamkin et al. 2022, arXiv 2204.08491)? Test sets are balanced: "
    "every label stands with every attribute alike."
)


def write_page(path: Path, figures: Sequence[Figures], ranks: Sequence[RankJson]) -> None:
    """Write one HTML file, atomically; it needs no other file or host."""
    studies = [one.json for one in figures if one.json is not None]
    made = claims(studies, ranks)
    parts: list[Child] = [
        element("h1", TITLE),
        element("p", INTRO),
        element("p", headline(made), class_="headline"),
        _claims(made),
        *_left_out(figures),
    ]
    if studies:
        parts += [element("h2", "All studies at a glance"), overview(studies)]
    if ranks:
        parts += [
            element("h2", "Does separability predict the saving?"),
            *_prediction(studies, ranks),
        ]
    for one in figures:
        parts += _study(one)
    parts += method(figures[0].summaries[0]["resamples"])
    body = element("body", element("main", *parts))
    atomic_write(path, document(TITLE, CSS, body))


def _claims(made: Sequence[Claim]) -> Element:
    cards = [
        card(
            TONES[claim.verdict],
            claim.figure,
            claim.verdict,
            claim.title,
            claim.sentence,
            claim.detail,
        )
        for claim in made
    ]
    return element("ul", *cards, class_="verdicts")


def _left_out(figures: Sequence[Figures]) -> list[Child]:
    absent = left_out([one.about for one in figures])
    if not absent:
        return []
    items = (element("li", f"{name}: {reason}") for name, reason in absent.items())
    return [
        element("p", "Left out, for no place had what they need:", class_="small"),
        element("ul", *items, class_="notes"),
    ]


def overview(studies: Sequence[StudyJson]) -> Element:
    """One line a study: separability, what was bought, what was saved."""
    rows: list[Row] = [
        [
            element(
                "span",
                study["task"],
                element("span", study["encoder"], class_="small"),
                element("span", _kind(study), class_="small"),
            ),
            _accuracy(study["intended"], study["intended_error"]),
            _accuracy(study["spurious"], study["spurious_error"]),
            _mean(study["over_representation"]),
            _ratio(study["average"]),
            _points(study["average"]["gain"]),
            _ratio(study["worst_group"]),
            _points(study["worst_group"]["gain"]),
        ]
        for study in studies
    ]
    header = [
        "study",
        "intended separable",
        "spurious separable",
        "disagreeing rows bought",
        "saving, average",
        "area gained, average",
        "saving, worst group",
        "area gained, worst group",
    ]
    mains = ", ".join(dict.fromkeys(study["main"] for study in studies))
    note = (
        f"By {mains}, against random selection with the same head. Separable: cross-validated "
        "accuracy of a linear probe on the balanced test rows, before any training, with its "
        "standard error. Disagreeing rows bought: how many times their share of the pool. Saving: "
        "labels with which random selection reaches what it has at its full budget, over those "
        "with which active learning does; above 1 is labels saved. Small figures are 95 % "
        "intervals. 'Nothing learned': random selection does not score more with its full budget "
        "than with the seed set alone, so that the ratio says little."
    )
    return grid(header, rows, note)


def _kind(study: StudyJson) -> str:
    """Weights where they are not pretrained, and regime."""
    fresh = "" if study["weights"] == "pretrained" else f"{study['weights']} weights · "
    return f"{fresh}{study['regime']}"


def _accuracy(value: float, error: float) -> Element:
    return blocks.two_lines(f"{value:.3f}", f"± {error:.3f}")


def _mean(found: MeanJson) -> Element:
    spread = interval_text([*found["ci95"]]) if found["ci95"] else "no interval"
    low, high = found["ci95"] or (0.0, 2.0)
    kind = "fewer" if low > 1 else "more" if high < 1 else "unsettled"
    return blocks.two_lines(f"{found['mean']:.2f}x", spread, f"tone {kind}")


def _ratio(measured: MeasuredJson) -> Element:
    ratio = measured["ratio"]
    parts = [
        element("span", ratio_text(ratio), class_=f"tone {by_interval(ratio)}"),
        element("span", interval_text(ratio["ci95"]), class_="small"),
    ]
    if not learned(measured):
        parts.append(element("span", "nothing learned", class_="small"))
    return element("td", *parts)


def _points(gain: MeanJson) -> Element:
    low, high = gain["ci95"] or (-1.0, 1.0)
    kind = "fewer" if low > 0 else "more" if high < 0 else "unsettled"
    spread = points_text(gain["ci95"]) if gain["ci95"] else "no interval"
    return blocks.two_lines(f"{100 * gain['mean']:+.1f}", spread, f"tone {kind}")


def _prediction(studies: Sequence[StudyJson], ranks: Sequence[RankJson]) -> list[Child]:
    images = [scatter(studies, by, "gain") for by in ("intended", "spurious")]
    images.append(scatter(studies, "intended", "over"))
    note = (
        "One point a study; filled: pretrained, hollow: random weights; round: frozen, square: "
        "trained. Studies of one task share its rows, so they are fewer than they look."
    )
    named = {(rank["of"], rank["by"]): rank for rank in ranks}
    rows: list[Row] = [[SCORES[of], *(_rank(named[of, by]) for by in PREDICTORS)] for of in SCORES]
    table = grid(
        ["rank correlation of, with", *PREDICTORS.values()],
        rows,
        f"Spearman's rank correlation over {ranks[0]['studies']} studies; small: two-sided p by "
        "permutation. Ratios that are known as a bound only stand as that bound.",
    )
    figure = element(
        "figure", element("div", *images, class_="curves"), element("figcaption", note)
    )
    return [figure, table]


def _rank(rank: RankJson) -> Element:
    return blocks.two_lines(f"{rank['spearman']:+.2f}", p_text(rank["p"]))


def _study(one: Figures) -> list[Child]:
    about, (average, worst) = one.about, one.summaries
    parts: list[Child] = [element("h2", one.name), element("p", _described(one), class_="muted")]
    for arm, others in one.same.items():
        parts.append(
            element(
                "p",
                f"{', '.join(others)} bought the same rows as {arm} with every seed (with two "
                "classes these rules rank rows alike) and stand with it.",
                class_="small",
            )
        )
    parts += [element("h3", "Average accuracy"), blocks.curves(average, average["metric"])]
    parts += [element("h3", "Worst-group accuracy"), blocks.curves(worst, worst["metric"])]
    parts += [element("h3", "Rows that settle the task"), *_over(one)]
    for summary, words in ((average, "average accuracy"), (worst, "worst-group accuracy")):
        table = blocks.savings_table(summary)
        parts.append(blocks.details(f"Labels to reach the target, {words}", table))
    if average["notes"]:
        notes = (element("li", note) for note in average["notes"])
        parts.append(element("ul", *notes, class_="notes"))
    facts = {
        "command": about.get("command"),
        "config": about.get("config_hash"),
        "commit": about.get("commit"),
        "data": about.get("data_fingerprint"),
        "machine": about.get("machine"),
        "wall time": f"{float(cast(float, about.get('seconds', 0.0))):,.0f} s",
    }
    listed: list[Child] = []
    for name, value in facts.items():
        listed += [element("dt", name), element("dd", element("code", str(value)))]
    parts.append(blocks.details("What was run", element("dl", *listed)))
    return parts


def _described(one: Figures) -> str:
    about, average = one.about, one.summaries[0]
    names = cast(Sequence[str], about["groups"])
    start = cast(Mapping[str, object], about["seed_set"])
    pool = cast(Sequence[int], about["pool_groups"])
    seeds = cast(Sequence[int], start["groups"])
    share = 100 * float(cast(float, about["pool_disagreeing"]))
    return (
        f"Seed set of {start['rows']} rows ("
        + ", ".join(f"{name} {count}" for name, count in zip(names, seeds, strict=True))
        + f"), pool of {about['pool_rows']:,} ("
        + ", ".join(f"{name} {count}" for name, count in zip(names, pool, strict=True))
        + f"; {share:.1f} % disagree), test set of {about['test_rows']:,}, balanced. "
        f"{len(average['seeds'])} paired seeds, up to {average['budget']:,.0f} labels."
    )


def _over(one: Figures) -> list[Child]:
    """Curves and table of the over-representation of disagreeing rows."""
    summary = one.summaries[0]
    styles, images = looks(summary), []
    lines = {arm: Curve(arm, over.curve, styles[arm]) for arm, over in one.over.items()}
    if lines:
        axes = axes_of(list(lines.values()))
        for group in groups(summary):
            shown = [lines[arm] for arm in group.arms if arm in lines]
            if shown:
                images.append(chart(f"Times their share of the pool: {group.title}", shown, axes))
    rows: list[Row] = []
    for arm, over in one.over.items():
        labels, mean = over.curve["labels"], over.curve["mean"]
        middle = len(labels) // 3
        rows.append(
            [
                blocks.arm_name(styles, arm),
                element("td", f"{mean[middle]:.2f}x", element("span", f"at {labels[middle]:,.0f} "
                        "labels", class_="small")),
                _mean(over.last),
            ]
        )  # fmt: skip
    figure = element(
        "figure",
        element("div", *images, class_="curves"),
        element(
            "figcaption",
            "Share of rows whose label and attribute disagree among all bought beyond the seed "
            "set, over their share of the pool; 1 is what random selection has on average. Bands "
            "are 95 % intervals of the mean over seeds.",
        ),
    )
    table = grid(["arm", "early", "at the full budget"], rows)
    return [figure, blocks.details("Disagreeing rows bought, arm by arm", table)]

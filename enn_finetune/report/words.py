"""Figures and findings in words: one way to write each, for the page, the terminal and the plot."""

from typing import Literal, NamedTuple

from enn_finetune.savings import ArmJson, RatioJson, Summary, lower_is_better

DASH = "–"  # noqa: RUF001
NAMES = {
    "accuracy": "accuracy",
    "macro_f1": "macro-F1",
    "f1": "F1",
    "mcc": "MCC",
    "pearson": "Pearson correlation",
    "spearman": "Spearman correlation",
    "nll": "NLL",
    "brier": "Brier score",
    "ece": "ECE",
    "joint_nll_dyadic": "joint NLL, dyadic",
    "joint_nll_near": "joint NLL, near neighbours",
    "joint_nll_random": "joint NLL, random rows",
}
Outcome = Literal["fewer", "more", "unsettled"]
HEAD = "the head alone"
BADGES = {"fewer": "fewer labels", "more": "lost to random", "unsettled": "not settled"}


class Verdict(NamedTuple):
    """What one arm's figures say, in words that a loss is given as much room in as a win."""

    arm: str
    outcome: Outcome
    badge: str  # the outcome in a few words
    figure: str  # the ratio, or what stands in for it
    sentence: str
    detail: str


def metric_name(metric: str) -> str:
    """How people write a metric's name."""
    return NAMES.get(metric, metric.replace("_", " "))


def direction(metric: str) -> str:
    """Which way is better, in words."""
    return "lower is better" if lower_is_better(metric) else "higher is better"


def labels_text(labels: float | None, last: float) -> str:
    """A number of labels, or beyond which number it lies."""
    return f"{labels:,.0f}" if labels is not None else f"> {last:,.0f}"


def number(value: float) -> str:
    """Three significant figures, and never fewer than two decimals below 10."""
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def ratio_text(ratio: RatioJson | None) -> str:
    """A ratio such as 1.97x, a bound such as < 1.00x, a dash where there is none."""
    if ratio is None:
        return DASH
    if ratio["value"] is not None:
        return f"{number(ratio['value'])}x"
    if ratio["less_than"] is not None:
        return f"< {number(ratio['less_than'])}x"
    if ratio["more_than"] is not None:
        return f"> {number(ratio['more_than'])}x"
    return DASH


def interval_text(ci95: list[float | None] | None) -> str:
    """An interval such as 1.73 to 2.12; "up to" or "from" where an end is open."""
    if ci95 is None:
        return "no interval"
    low, high = ci95
    if low is None:
        return f"up to {number(high)}" if high is not None else "open at both ends"
    return f"{number(low)} to {number(high)}" if high is not None else f"from {number(low)}"


def spread_text(ci95: list[float | None] | None) -> str:
    """The same in a sentence, where there is one."""
    return f"95 % interval {interval_text(ci95)}" if ci95 else interval_text(ci95)


def outcome(ratio: RatioJson) -> Outcome:
    """Whether labels were saved: settled only where the whole interval is on one side of 1.

    The target is the baseline's own mean in the end, which an arm just as good misses half the
    time: it has lost where no resample but the widest reaches the target with fewer labels.
    """
    low, high = ratio["ci95"] or (None, None)
    if low is not None and low > 1:
        return "fewer"
    missed = ratio["less_than"] is not None
    return "more" if high is not None and (high < 1 or (missed and high <= 1)) else "unsettled"


def badge(ratio: RatioJson) -> str:
    """The outcome in a few words, a target that was not reached among them."""
    kind = outcome(ratio)
    if ratio["less_than"] is None:
        return BADGES[kind]
    return "lost: target not reached" if kind == "more" else "target not reached, not settled"


def match_outcome(ratio: RatioJson) -> Outcome:
    """The same for a ratio at a fixed label count, where it may be known as a bound only.

    A reference that never scores as much, or that scores more from its first evaluation on, bounds
    the ratio at some label counts by 1 itself: settled where the whole interval is such bounds.
    """
    low, high = ratio["ci95"] or (None, None)
    more_than, less_than = ratio["more_than"], ratio["less_than"]
    if low is not None and (low > 1 or (more_than is not None and 1 <= more_than <= low)):
        return "fewer"
    if high is not None and (high < 1 or (less_than is not None and high <= less_than <= 1)):
        return "more"
    return "unsettled"


def amount(value: float) -> str:
    """A cost: three significant figures, in powers of ten where it is large."""
    return f"{value:,.3g}" if value < 1e6 else f"{value:.2e}".replace("e+", "e")


def points_text(ends: list[float]) -> str:
    """An interval of points of score."""
    return f"{100 * ends[0]:+.1f} to {100 * ends[1]:+.1f}"


def verdicts(summary: Summary) -> list[Verdict]:
    """One verdict for every prioritised arm in the records' order, then for the head alone."""
    roles = ("prioritised", "own", "head")
    return [
        _verdict(name, arm, summary)
        for role in roles
        for name, arm in summary["arms"].items()
        if arm["role"] == role
    ]


def reference(summary: Summary) -> str:
    """What sentences call the baseline: random selection, or the arm that stands in for it."""
    name = summary["baseline"]
    return "random selection" if "random" in name and "+" not in name else name


def _verdict(name: str, arm: ArmJson, summary: Summary) -> Verdict:
    ratio = arm["system_ratio"]
    goal = f"{summary['target']:.3f} {metric_name(summary['metric'])}"
    seeds = f"{arm['seeds']} paired seed{'s' if arm['seeds'] > 1 else ''}"
    spread = spread_text(ratio["ci95"])
    result = outcome(ratio)
    took = f"reached {goal} after {labels_text(arm['labels_to_target'], 0)} labels, where "
    took += f"{reference(summary)} needs {summary['baseline_labels']:,.0f}"
    missed = f"; nor did {100 * ratio['unreached']:.0f} % of bootstrap resamples"
    missed = missed if ratio["ci95"] else ""
    if ratio["value"] is None:
        open_end = ", which is not settled" if result == "unsettled" else ""
        sentence = (
            f"did not reach {goal}, which {reference(summary)} reaches with "
            f"{summary['baseline_labels']:,.0f} labels, within its {arm['labels_last']:,.0f} labels"
            f" ({seeds}{missed}){open_end}."
        )
    elif result == "unsettled":
        sentence = f"{took}: {_change(ratio['value'])} ({spread}, {seeds}), which is not settled."
    else:
        sentence = f"{took}: {_change(ratio['value'])} ({spread}, {seeds})."
    return Verdict(name, result, badge(ratio), ratio_text(ratio), sentence, _detail(arm, summary))


def _change(ratio: float) -> str:
    if number(ratio) == "1.00":
        return "as many labels"
    if ratio >= 1:
        return f"{number(ratio)}x fewer labels"
    return f"{number(1 / ratio)}x more labels"


def _detail(arm: ArmJson, summary: Summary) -> str:
    """Acquisition alone, and the seeds lost."""
    against = reference(summary).removesuffix(" selection")
    lost = (
        f"Lost to {against} on {arm['losses_to_random']} of {arm['seeds']} seeds by area under the "
        f"curve, on {arm['losses_final']} of {arm['seeds']} at the full budget."
    )
    same_head, alone = arm["acquisition_reference"], arm["acquisition_ratio"]
    if arm["role"] in ("own", "head"):
        other = f"{HEAD}, with random selection"
        return f"This is {'random selection too' if _alike(arm, summary) else other}. {lost}"
    if same_head is None or alone is None or same_head == summary["baseline"]:
        return lost
    return (
        f"Acquisition alone, against {same_head}: {ratio_text(alone)} "
        f"({interval_text(alone['ci95'])}). {lost}"
    )


def _alike(arm: ArmJson, summary: Summary) -> bool:
    """Random selection with the baseline's own head, or trained in another way than the others."""
    return arm["head"] == summary["arms"][summary["baseline"]]["head"] or "+" in arm["rule"]


def tally(found: list[Verdict], summary: Summary) -> list[tuple[Outcome, str, list[str]]]:
    """The arms' names by outcome, each outcome in words."""
    arms = summary["arms"]
    alone = [
        name
        for name, arm in arms.items()
        if arm["role"] != "prioritised" and not _alike(arm, summary)
    ]
    names = {one.arm: f"{one.arm} ({HEAD})" if one.arm in alone else one.arm for one in found}
    titles: dict[Outcome, str] = {
        "fewer": "Needed fewer labels",
        "more": f"Lost to {reference(summary)}",
        "unsettled": "Not settled",
    }
    return [
        (kind, title, [names[one.arm] for one in found if one.outcome == kind])
        for kind, title in titles.items()
    ]


def headline(summary: Summary) -> str:
    """How many prioritised arms saved labels, lost, or are not settled; one sentence."""
    kinds = [
        outcome(arm["system_ratio"])
        for arm in summary["arms"].values()
        if arm["role"] == "prioritised"
    ]
    if not kinds:
        return "No prioritised arm was run, so there is no saving to report."
    if len(kinds) == 1:
        return {
            "fewer": f"Prioritised selection needed fewer labels than {reference(summary)}.",
            "more": f"Prioritised selection lost to {reference(summary)}.",
            "unsettled": "Whether prioritised selection saves labels is not settled.",
        }[kinds[0]]
    fewer, more, unsettled = (kinds.count(kind) for kind in ("fewer", "more", "unsettled"))
    clauses = [
        f"{fewer or 'none'} needed fewer labels than {reference(summary)}",
        f"{more or 'none'} lost to it",
    ]
    if unsettled:
        clauses.append(f"{unsettled} {'is' if unsettled == 1 else 'are'} not settled")
    return f"Of {len(kinds)} prioritised arms, {', '.join(clauses)}."

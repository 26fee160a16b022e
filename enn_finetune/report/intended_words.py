"""What held of the paper's claims and what did not, in plain words."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple, cast

import numpy as np
from scipy import special

from enn_finetune.report.intended_figures import MeasuredJson, StudyJson
from enn_finetune.report.intended_ranks import RankJson, p_text, ratio_value
from enn_finetune.report.words import Outcome, number, ratio_text, spread_text
from enn_finetune.savings import MeanJson, RatioJson, mean_interval
from enn_finetune.savings.schema import ends

Score = Literal["average", "worst_group"]
Verdict = Literal["held", "held in part", "did not hold", "not settled"]
TONES: Mapping[Verdict, Outcome] = {
    "held": "fewer",
    "held in part": "unsettled",
    "not settled": "unsettled",
    "did not hold": "more",
}
"""The colour of each verdict, as the sheet names it."""
SETTLED, CHANCE = 0.05, 0.025


class Claim(NamedTuple):
    """One claim of the paper, and what these studies say of it."""

    title: str
    verdict: Verdict
    figure: str
    sentence: str
    detail: str


def claims(studies: Sequence[StudyJson], found: Sequence[RankJson]) -> list[Claim]:
    """All claims that these studies can say something about."""
    trained = [study for study in studies if study["weights"] == "pretrained"]
    fresh = [study for study in studies if study["weights"] != "pretrained"]
    made = []
    if trained:
        made += [_saves(trained), _asks(trained)]
    if fresh:
        made.append(_saves_not(fresh))
    pairs = _pairs(trained, fresh)
    if pairs:
        made += [_gains_more(pairs), _asks_more(pairs)]
    rank = next((r for r in found if (r["of"], r["by"]) == ("gain", "intended")), None)
    if rank is not None:
        made.append(_predicts(rank, found))
    return made


def learned(measured: MeasuredJson) -> bool:
    """Whether random selection scores more with its full budget than with the seed set alone."""
    ci95 = measured["learned"]["ci95"]
    return ci95 is not None and ci95[0] > 0


def by_interval(ratio: RatioJson) -> Outcome:
    """Whether labels were saved, by the whole interval only: a target missed settles nothing."""
    low, high = ratio["ci95"] or (None, None)
    if low is not None and low > 1:
        return "fewer"
    return "more" if high is not None and high < 1 else "unsettled"


def settled(measured: MeasuredJson) -> Outcome:
    """The same for a claim, where an area that is wholly lost tells a loss too.

    A ratio and an area that tell the contrary of each other settle nothing.
    """
    found, area = by_interval(measured["ratio"]), measured["gain"]["ci95"]
    if area is None or area[1] >= 0 or measured["ratio"]["ci95"] is None:  # too few seeds
        return found
    return "unsettled" if found == "fewer" else "more"


def verdict(good: int, bad: int, of: int) -> Verdict:
    """Of so many studies, how many settled a claim, and how many settled its contrary.

    A part of them settles something where they are more than the others, and than chance explains.
    """
    if good and good == of:
        return "held"
    if good > bad and beyond_chance(good, of):
        return "held in part"
    return "did not hold" if bad > good and beyond_chance(bad, of) else "not settled"


def beyond_chance(count: int, of: int) -> bool:
    """Whether so many studies would settle one way by chance with a probability below .05.

    Where there is nothing, an interval of 95 % lies wholly on one given side in one case of forty;
    studies are counted as if they were independent, which those of one task are not.
    """
    return bool(special.bdtrc(count - 1, of, CHANCE) < SETTLED)


def _saves(studies: Sequence[StudyJson]) -> Claim:
    kept = [study for study in studies if learned(study["average"])]
    kinds = [settled(study["average"]) for study in kept]
    largest = ""
    if kept:
        best = max(kept, key=lambda study: ratio_value(study["average"]["ratio"]))
        ratio = best["average"]["ratio"]
        largest = (
            f" The largest ratio is {ratio_text(ratio)} ({spread_text(ratio['ci95'])}; "
            f"{best['name']})."
        )
    return Claim(
        "Active learning saves labels where the encoder is pretrained (the paper: up to 5x fewer).",
        *_counted(kinds),
        f"By average accuracy {studies[0]['main']} needed fewer labels than random selection in "
        f"{_of(kinds, 'fewer')} studies with a pretrained encoder, and lost to it in "
        f"{kinds.count('more')}; {kinds.count('unsettled')} are not settled.{largest}"
        f"{_left_out(studies)}",
        _by_worst(studies),
    )


def _saves_not(studies: Sequence[StudyJson]) -> Claim:
    kinds = [settled(study["average"]) for study in studies if learned(study["average"])]
    good = kinds.count("more")  # an unsettled saving is no proof that there is none
    return Claim(
        "It saves nothing, or costs labels, where the encoder is not pretrained.",
        verdict(good, kinds.count("fewer"), len(kinds)),
        _of(kinds, "more"),
        f"With random weights of the same size {studies[0]['main']} saved labels in "
        f"{_of(kinds, 'fewer')} studies; it lost to random selection in {good}, and "
        f"{kinds.count('unsettled')} are not settled.{_left_out(studies)}",
        _by_worst(studies),
    )


def _left_out(studies: Sequence[StudyJson], score: Score = "average") -> str:
    """What is said of the studies in which there is nothing to save."""
    still = sum(not learned(study[score]) for study in studies)
    if not still:
        return ""
    return (
        f" Left out: {still} of {len(studies)} studies, in which random selection is not shown to "
        "score more with its full budget than with the seed set alone."
    )


def _by_worst(studies: Sequence[StudyJson]) -> str:
    """The same by the worst group's accuracy, and what a loss is."""
    worst = [settled(study["worst_group"]) for study in studies if learned(study["worst_group"])]
    return (
        f"By the worst group's accuracy: fewer in {_of(worst, 'fewer')}, lost in "
        f"{worst.count('more')}, {worst.count('unsettled')} not settled."
        f"{_left_out(studies, 'worst_group')} Lost: the whole interval of the ratio is below 1, or "
        "that of the area gained below 0."
    )


def _counted(kinds: Sequence[Outcome]) -> tuple[Verdict, str]:
    """The verdict of studies of which "fewer" settle a claim, and how many do."""
    return verdict(kinds.count("fewer"), kinds.count("more"), len(kinds)), _of(kinds, "fewer")


def _of(kinds: Sequence[Outcome], kind: Outcome) -> str:
    return f"{kinds.count(kind)} of {len(kinds)}"


def _asks(studies: Sequence[StudyJson]) -> Claim:
    above = [s for s in studies if (s["over_representation"]["ci95"] or [0])[0] > 1]
    below = [s for s in studies if (s["over_representation"]["ci95"] or [0, 2])[1] < 1]
    means = [study["over_representation"]["mean"] for study in studies]
    return Claim(
        "Pretrained models ask for the rows that settle the task.",
        verdict(len(above), len(below), len(studies)),
        f"{number(float(np.mean(means)))}x",
        f"Among the rows that {studies[0]['main']} bought, those in which label and attribute "
        f"disagree are {_span(means)} times as frequent as in the "
        f"pool; in {len(above)} of {len(studies)} studies with a pretrained encoder the whole "
        "interval is above 1.",
        f"Buying every such row of the pool would give {_span([s['most'] for s in studies])}.",
    )


def _span(values: Sequence[float]) -> str:
    """From the least to the greatest; one figure where they are alike."""
    low, high = number(min(values)), number(max(values))
    return low if low == high else f"{low} to {high}"


Pair = tuple[StudyJson, StudyJson]
BySeed = Mapping[str, float]


def _pairs(trained: Sequence[StudyJson], fresh: Sequence[StudyJson]) -> list[Pair]:
    """Studies that differ in the weights alone: pretrained, then not."""
    keys = ("task", "encoder", "regime")
    others = {tuple(study[key] for key in keys): study for study in fresh}  # type: ignore[literal-required]
    found = [(study, others.get(tuple(study[key] for key in keys))) for study in trained]  # type: ignore[literal-required]
    return [(one, other) for one, other in found if other is not None]


def _compared(pairs: Sequence[Pair], by_seed: Callable[[StudyJson], BySeed]) -> list[Outcome]:
    """Whether the pretrained one has more ("fewer" labels), by pairs of seeds, which share rows."""
    kinds: list[Outcome] = []
    for one, other in pairs:
        ours, theirs = by_seed(one), by_seed(other)
        gaps = np.array([ours[seed] - theirs[seed] for seed in ours.keys() & theirs.keys()])
        interval = ends(mean_interval(gaps)) if len(gaps) else None
        low, high = interval or (-1.0, 1.0)
        kinds.append("fewer" if low > 0 else "more" if high < 0 else "unsettled")
    return kinds


def _means(pairs: Sequence[Pair], value: Callable[[StudyJson], MeanJson]) -> list[float]:
    """Of all pretrained ones, and of all others."""
    return [
        float(np.mean([value(study)["mean"] for study in side]))
        for side in zip(*pairs, strict=True)
    ]


def _asks_more(pairs: Sequence[Pair]) -> Claim:
    kinds = _compared(pairs, lambda study: study["by_seed"])
    means = _means(pairs, lambda study: study["over_representation"])
    return Claim(
        "And they ask for them more than models that are not pretrained do.",
        *_counted(kinds),
        f"Of {len(pairs)} pairs of studies that differ in the weights alone, the pretrained one "
        f"bought more of these rows in {kinds.count('fewer')} and fewer in {kinds.count('more')}; "
        f"{kinds.count('unsettled')} are not settled.",
        f"On the mean over pairs {number(means[0])} times their share of the pool against "
        f"{number(means[1])} times.",
    )


def _gains_more(pairs: Sequence[Pair]) -> Claim:
    kinds = _compared(pairs, lambda study: study["average"]["gain_by_seed"])
    means = _means(pairs, lambda study: study["average"]["gain"])
    worst = _compared(pairs, lambda study: study["worst_group"]["gain_by_seed"])
    lows = _means(pairs, lambda study: study["worst_group"]["gain"])
    return Claim(
        "Active learning gains more where the encoder is pretrained.",
        *_counted(kinds),
        f"Of {len(pairs)} pairs of studies that differ in the weights alone, it added more area "
        f"under the curve of the average accuracy to the pretrained one in {kinds.count('fewer')} "
        f"and less in {kinds.count('more')}; {kinds.count('unsettled')} are not settled.",
        f"On the mean over pairs {100 * means[0]:+.1f} points against {100 * means[1]:+.1f}. By "
        f"the worst group's accuracy more in {_of(worst, 'fewer')}, less in "
        f"{worst.count('more')}; {100 * lows[0]:+.1f} points against {100 * lows[1]:+.1f}.",
    )


def _predicts(rank: RankJson, found: Sequence[RankJson]) -> Claim:
    """By the area gained, which every study has; ratios are told beside it."""
    good = rank["p"] < SETTLED
    kind: Verdict = "not settled"
    if good:
        kind = "held" if rank["spearman"] > 0 else "did not hold"
    named = {(r["of"], r["by"]): r for r in found}
    ratio, over = named["saving", "intended"], named["over", "intended"]
    return Claim(
        "How linearly separable the intended attribute is in an encoder's features explains it.",
        kind,
        f"{rank['spearman']:+.2f}",
        f"Over {rank['studies']} studies the rank correlation of the intended attribute's "
        f"separability with the area that active learning "
        f"gained is {rank['spearman']:+.2f} ({p_text(rank['p'])} by permutation)."
        + ("" if good else " So few studies, which share tasks, do not settle it."),
        f"With the saving ratio {ratio['spearman']:+.2f} ({p_text(ratio['p'])}), with the "
        f"over-representation {over['spearman']:+.2f} ({p_text(over['p'])}).",
    )


def left_out(abouts: Sequence[Mapping[str, object]]) -> dict[str, str]:
    """Tasks and encoders that no place had, and why: of those that no study has."""
    there = {f"task {a['task']}" for a in abouts} | {f"encoder {a['encoder']}" for a in abouts}
    found: dict[str, str] = {}
    for about in abouts:
        found |= cast(Mapping[str, str], about.get("left_out", {}))
    return {name: reason for name, reason in found.items() if name not in there}


def headline(made: Sequence[Claim]) -> str:
    """How many claims held, in one sentence."""
    kinds = [claim.verdict for claim in made]
    if not kinds:
        return "No study has its main arm yet, so there is nothing to say."
    parts = [f"{kinds.count(kind)} {kind}" for kind in TONES if kind in kinds]
    return f"Of {len(kinds)} claims of the paper that were put to the test, {', '.join(parts)}."

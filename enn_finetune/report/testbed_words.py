"""Findings of a testbed study in words: what held and what did not."""

from collections.abc import Mapping
from typing import NamedTuple, cast

from enn_finetune.report.testbed_summary import PAPER, Json
from enn_finetune.report.words import DASH, labels_text, outcome, ratio_text, spread_text
from enn_finetune.savings import MatchJson, RatioJson
from enn_finetune.testbed.records import FLOOR

WAYS: Mapping[str, str] = {
    "once": "each candidate once",
    "again": "candidates again for nothing",
}
PAPERS_ARM = "epinet/variance"


class Settled(NamedTuple):
    """In how many settings an agent's score is settled to be below the reference's, or above."""

    below: int
    above: int
    all: int


def labels_to(arm: Json) -> str:
    """Labels to the target, or beyond which number they lie."""
    reached = cast("float | None", arm["labels_to_target"])
    return labels_text(reached, cast(float, arm["labels_last"]))


def settled(summary: Json) -> dict[str, dict[str, Settled]]:
    """By agent and score; the reference and the floor are left out."""
    found: dict[str, dict[str, Settled]] = {}
    for setting in cast(dict[str, dict], summary["supervised"]).values():
        for agent, scores in setting["agents"].items():
            if agent in (summary["reference"], FLOOR):
                continue
            for name, score in scores.items():
                if not isinstance(score, dict) or "against" not in score:
                    continue
                before = found.setdefault(agent, {}).get(name, Settled(0, 0, 0))
                found[agent][name] = _count(before, score["against"]["ci95"])
    return found


def _count(before: Settled, ci95: list[float] | None) -> Settled:
    low, high = ci95 or (0.0, 0.0)
    return Settled(before.below + (high < 0), before.above + (low > 0), before.all + 1)


def answer(found: Json) -> str:
    """One sentence on whether the paper's result holds here."""
    arms = cast(dict[str, dict], found["arms"])
    target, base = cast(float, found["target"]), str(found["baseline"])
    needs = labels_to(arms[base])
    said = (
        f"With all {found['candidates']:,.0f} labels {base} has a KL of {target:.3f} and needs "
        f"{needs} labels to get there"
    )
    arm = arms.get(PAPERS_ARM)
    if arm is None:
        return f"{said}; {PAPERS_ARM} was not run."
    ratio = cast(RatioJson, arm["system_ratio"])
    spread = f"ratio {ratio_text(ratio)}, {spread_text(ratio['ci95'])}"
    if arm["labels_to_target"] is None:
        end = f"{arm['kl']:.3f} after {arm['distinct']:,.0f}"
        return (
            f"{said}; {PAPERS_ARM} does not reach it: its KL ends at {end} labels ({spread}). "
            + _on_the_way(arm, base)
        )
    verb = {
        "fewer": "needs fewer",
        "more": "needs more",
        "unsettled": "is not settled to need fewer",
    }
    kind = outcome(ratio)
    return f"{said}; {PAPERS_ARM} {verb[kind]}: {labels_to(arm)} ({spread}). " + _on_the_way(
        arm, base
    )


def _on_the_way(arm: Json, baseline: str) -> str:
    """The same comparison half way: labels the baseline needs for what the arm has there."""
    matches = cast(list[MatchJson], arm["matching"])
    if not matches:
        return ""
    found = min(matches, key=lambda match: abs(match["at"] - cast(float, arm["labels_last"]) / 2))
    ratio, needs = found["system_ratio"], found["baseline_labels"]
    takes = f"takes {needs:,.0f}" if needs is not None else "never has it"
    return (
        f"At {found['labels']:,.0f} labels its KL is {found['score']:.3f}, for which {baseline} "
        f"{takes} (ratio {ratio_text(ratio)}, {spread_text(ratio['ci95'])})."
    )


def papers_level(found: Json) -> str:
    """Which arms get to the paper's KL, whatever the baseline's is here."""
    arms = cast(dict[str, dict], found["arms"])
    reached = {name: arm["labels_to_paper"] for name, arm in arms.items()}
    there = [f"{name} with {count:,.0f} labels" for name, count in reached.items() if count]
    return f"To the paper's KL of {PAPER['kl_full']}: {', '.join(there) or 'none'}."


def best(found: Json) -> str:
    """Which arms reach the target with fewest labels, and which lose to the baseline."""
    arms = cast(dict[str, dict], found["arms"])
    others = {name: arm for name, arm in arms.items() if name != found["baseline"]}
    kinds = {name: outcome(arm["system_ratio"]) for name, arm in others.items()}
    lists = [
        f"{title}: {', '.join(name for name, kind in kinds.items() if kind == wanted) or 'none'}."
        for wanted, title in (
            ("fewer", "Settled to need fewer labels than the baseline"),
            ("more", "Settled to need more, or target not reached"),
            ("unsettled", "Not settled"),
        )
    ]
    return " ".join(lists)


def paper() -> str:
    """What the paper reports."""
    low, high = cast(list[int], PAPER["baseline_labels"])
    return (
        f"The paper ({PAPER['source']}): the epinet by variance reaches the full-data loss, a KL "
        f"of about {PAPER['kl_full']}, at about {PAPER['epinet_variance_labels']} distinct labels, "
        f"the baseline needs {low} to {high}."
    )


def supervised_words(summary: Json) -> list[str]:
    """One sentence an agent on its marginal and joint predictions."""
    counts, reference = settled(summary), summary["reference"]
    said = []
    for agent, scores in counts.items():
        parts = [
            f"{name.replace('joint_kl_', 'joint KL of ').replace('kl', 'marginal KL')}: below "
            f"{of.below}, above {of.above}"
            for name, of in scores.items()
            if name == "kl" or (name.startswith("joint_kl") and name != "joint_kl_1")
        ]
        count = next(iter(scores.values())).all if scores else 0
        said.append(f"{agent} against {reference} in {count} settings: {'; '.join(parts) or DASH}.")
    return said


METHOD: Mapping[str, str] = {
    "Problem": "a random network of two hidden ReLU layers of 50 units, x standard normal, labels "
    "drawn from softmax(h(x) / temperature) (arXiv 2110.04629). All arms of a problem share its "
    "generator, candidates, labels and rows of examination.",
    "KL": "of the generator's class probabilities from the agent's mean prediction, on rows that "
    "are never trained on: nats a row. The log-loss is this plus the generator's entropy, which "
    "no agent can lower.",
    "Each candidate once": "every step buys the label of another candidate, then trains for a "
    "fixed number of gradient steps; the agent stays warm. At a label count all arms have the "
    "same number of labels and of gradient steps.",
    "Candidates again for nothing": "the paper's protocol in the main, with the config's "
    "steps and batches: every step chooses among all "
    "candidates and draws the chosen one's label anew; only distinct candidates count "
    "as labels. Choosing again thus brings training and further draws of a noisy label which are "
    "not counted. At n labels stands the last score with at most n distinct candidates: an arm "
    "that settles on a part of the candidates keeps its last score, and the last point of one that "
    "has chosen all of them has all the further draws behind it. The target is low for that "
    "reason, and ratios of labels leave out what the draws would cost.",
    "Target": "the baseline's mean KL over problems with all candidates labelled.",
    "Labels to the target": "on the mean curve over problems, the first evaluation at or below the "
    "target such that the mean of it and all later ones is too; linear in between, nothing "
    "extrapolated. Ratios have paired bootstrap intervals over problems.",
    "Regret": "the mean over label counts of the KL above the target: what choosing in this order "
    "has cost on the way.",
    "Excess of the KL": "an agent that draws its functions is scored through a mean of finitely "
    "many of them, and its KL is too high in expectation. Estimated by halves, KL(K / 2) - KL(K) "
    "over the functions of the exam; nothing is taken off. Agents that show all their functions "
    "have none. The same estimate stands beside the marginal KL on labels drawn at random, and for "
    "the floor that of its weights; records of older studies have none.",
    "Accuracy": "the expected share of right guesses over the generator's own labels, of which "
    "none are drawn: without bias, and at best the generator's, below 1 where labels are noisy.",
    "ECE": "the gap between confidence and the true probability of the guess, in 15 bins of equal "
    "width, over the generator's labels. Too high for finitely many rows, as the chance gaps of "
    "bins never cancel: with two classes by at most sqrt(2 / rows), .10 at the 200 rows that "
    "supervised scores have by default and .082 at the 300 of active learning; by .062 and .052 "
    "for an agent that is calibrated and as wrong as such an agent can be. Too low where gaps of "
    "opposite signs share a bin. Compare agents by it, which are examined on the same rows.",
    "Selection regret": "the KL summed over label counts, every KL standing for the labels since "
    "the evaluation before: what is lost against the generator by predicting one row after each "
    "label, in nats.",
    "Joint KL": "of tau rows predicted together, each one of a group's anchors (polyadic sampling, "
    "arXiv 2202.13509; two anchors, dyadic sampling, unless supervised.anchors says otherwise): "
    "nats a group. All label tables are summed over where they are few (tau = 1 and 10 with two "
    "classes and two anchors), else drawn. Over finitely many functions the estimate is too high; "
    "the excess, estimated by halves, is given in the unfolded table where it is not 0.",
    "Floor": "the posterior mean of the generator itself, by importance-weighted particles; shown "
    "where the effective sample size is at least 100 on every problem of the setting. That is "
    "enough for one row; for many rows together it is too high by the excess shown, half the mean "
    "of 1 / (effective size once their labels are known too) - 1 / (effective size before): its "
    "bias to second order as a ratio of weighted means. Where that nears .5, few particles are "
    "left, the estimate says too little, and an agent may be below the floor.",
    "Problems and seeds": "one axis. A problem's number is the seed of its generator, rows and "
    "labels and of the agent that learns from them: every agent learns each problem once, and "
    "intervals over problems hold the luck of both. For more seeds ask for more problems "
    "(active.problems, supervised.problems; --resume adds them to a folder).",
    "Settings": "a problem of one number has the same generator and rows at every temperature and "
    "ratio: settings are not independent of one another.",
    "Settled": "the 95 % interval of the paired difference lies on one side of 0 (t-interval over "
    "problems, not corrected for the number of comparisons).",
    "Bands and bars": "95 % t-intervals of the mean over problems.",
}

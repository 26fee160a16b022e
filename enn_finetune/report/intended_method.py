"""How the intended task was measured: the last part of its page."""

from enn_finetune.report.elements import Child, element


def method(resamples: int) -> list[Child]:
    """A list of terms; `resamples` of the bootstrap are told."""
    points = {
        "Label": "a distinct training row whose label was read, those of the seed set included.",
        "Groups": "a label with an attribute. The test set has as many rows of each, and is the "
        "same for all seeds; intervals are of the seeds' noise, not of the test rows'.",
        "Seed sets": "each seed has its own, and every arm of a seed begins with it. What it "
        "leaves is a pool of exactly the stated counts.",
        "Rounds": "at each, the head (or the encoder with it) is fitted anew from the same "
        "starting weights to all labels bought so far.",
        "Worst group": "the least of the groups' accuracies, seed by seed and round by round; of "
        "small groups it is biased downwards, alike for all arms.",
        "Labels to reach the target": "on the mean curve over seeds, the first evaluation at or "
        "above what random selection with the same head has at its full budget, such that the "
        "mean of it and all later ones is too. Nothing is extrapolated: '<' is an arm that did "
        "not get there.",
        "Interval of a ratio": f"paired bootstrap over seeds, {resamples:,} resamples, widened for "
        "few seeds (Hesterberg 2015).",
        "Verdicts": "a study settles a claim where its whole 95 % interval lies on one side; one "
        "in forty does without any effect. Held: all studies do. Held in part: more do than settle "
        "the contrary, and more than chance explains (binomial, p below .05, as if studies were "
        "independent; those of one task share rows). No interval is corrected for the number of "
        "studies and scores.",
        "Separability": "5-fold cross-validated accuracy of the study's plain head on the balanced "
        "test rows; of a trained study, in the features that its encoder begins with.",
        "Random weights": "the same architecture and tokenizer, initialised as BERT is; one draw "
        "for all runs.",
    }
    listed: list[Child] = []
    for name, words in points.items():
        listed += [element("dt", name), element("dd", words)]
    return [element("h2", "How it was measured"), element("dl", *listed)]

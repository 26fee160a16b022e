"""Does what an encoder separates predict what active learning saves? Ranks over studies."""

from collections.abc import Mapping, Sequence
from typing import TypedDict

import numpy as np

from enn_finetune.report.intended_figures import StudyJson
from enn_finetune.savings import RatioJson

FEW = 4  # studies that a rank correlation needs at the least
PERMUTATIONS = 10_000


class RankJson(TypedDict):
    """How well the ranks of one figure go with those of another, over studies."""

    of: str
    by: str
    studies: int
    spearman: float
    p: float  # share of permutations at least as far from 0, the one found among them


SCORES: Mapping[str, str] = {
    "saving": "saving ratio, average accuracy",
    "saving_worst": "saving ratio, worst group",
    "gain": "area gained, average accuracy",
    "over": "over-representation of disagreeing rows",
}
PREDICTORS: Mapping[str, str] = {
    "intended": "separability of the intended attribute",
    "spurious": "separability of the spurious attribute",
    "difference": "intended less spurious",
}


def value_of(study: StudyJson, name: str) -> float:
    """A figure of a study by its name in SCORES or PREDICTORS; a ratio's bound stands for it."""
    if name in ("saving", "saving_worst"):
        return ratio_value(study["average" if name == "saving" else "worst_group"]["ratio"])
    if name == "gain":
        return study["average"]["gain"]["mean"]
    if name == "over":
        return study["over_representation"]["mean"]
    if name == "difference":
        return study["intended"] - study["spurious"]
    return study["intended"] if name == "intended" else study["spurious"]


def ratio_value(ratio: RatioJson) -> float:
    """A ratio, or the bound that stands for it."""
    return next(
        value
        for value in (ratio["value"], ratio["less_than"], ratio["more_than"], 1.0)
        if value is not None
    )


def p_text(p: float) -> str:
    """A p-value as it is written."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def ranks(studies: Sequence[StudyJson]) -> list[RankJson]:
    """Spearman's rank correlation of each score with each predictor; none below FEW studies."""
    if len(studies) < FEW:
        return []
    return [_rank(studies, of, by) for of in SCORES for by in PREDICTORS]


def _rank(studies: Sequence[StudyJson], of: str, by: str) -> RankJson:
    """Spearman's correlation and a permutation test of it, two-sided, by a fixed seed."""
    one, other = (_ranked([value_of(study, name) for study in studies]) for name in (of, by))
    scale = float(np.sqrt((one @ one) * (other @ other)))
    rho = float(one @ other) / scale if scale > 0 else 0.0
    rng = np.random.default_rng(0)
    drawn = rng.permuted(np.tile(other, (PERMUTATIONS, 1)), axis=1) @ one
    as_far = int((np.abs(drawn) >= abs(rho) * scale - 1e-9).sum())
    p = (as_far + 1) / (PERMUTATIONS + 1)  # the one found is a permutation too: never 0
    return RankJson(of=of, by=by, studies=len(studies), spearman=rho, p=p)


def _ranked(values: Sequence[float]) -> np.ndarray:
    """Ranks less their mean, those of equal values averaged."""
    found = np.array(values)
    below = (found[:, None] > found[None]).sum(1)
    level = (found[:, None] == found[None]).sum(1)
    places = below + (level - 1) / 2
    return places - places.mean()

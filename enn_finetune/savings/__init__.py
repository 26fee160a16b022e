"""Label savings, measured as a claim about money is: curves, labels to reach a score, ratios."""

from enn_finetune.savings.curves import (
    Curve,
    Stack,
    areas,
    arm_of,
    lower_is_better,
    mean_interval,
    read_curves,
    stack,
    without_interrupted,
)
from enn_finetune.savings.reach import Match, Ratio, Saving, labels_to_reach, match, saving
from enn_finetune.savings.schema import ArmJson, CurveJson, MatchJson, RatioJson, Summary
from enn_finetune.savings.summary import summarise

__all__ = [
    "ArmJson",
    "Curve",
    "CurveJson",
    "Match",
    "MatchJson",
    "Ratio",
    "RatioJson",
    "Saving",
    "Stack",
    "Summary",
    "areas",
    "arm_of",
    "labels_to_reach",
    "lower_is_better",
    "match",
    "mean_interval",
    "read_curves",
    "saving",
    "stack",
    "summarise",
    "without_interrupted",
]

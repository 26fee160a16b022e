"""Label savings, measured as a claim about money is: curves, labels to reach a score, ratios."""

from enn_finetune.savings.across import Row, mean_of_gains, over_tasks
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
from enn_finetune.savings.reach import (
    RESAMPLES,
    Comparison,
    Match,
    Ratio,
    Saving,
    compare,
    labels_to_reach,
    match,
    saving,
)
from enn_finetune.savings.schema import (
    ArmJson,
    CurveJson,
    MatchJson,
    MeanJson,
    RatioJson,
    Summary,
)
from enn_finetune.savings.summary import summarise

__all__ = [
    "RESAMPLES",
    "ArmJson",
    "Comparison",
    "Curve",
    "CurveJson",
    "Match",
    "MatchJson",
    "MeanJson",
    "Ratio",
    "RatioJson",
    "Row",
    "Saving",
    "Stack",
    "Summary",
    "areas",
    "arm_of",
    "compare",
    "labels_to_reach",
    "lower_is_better",
    "match",
    "mean_interval",
    "mean_of_gains",
    "over_tasks",
    "read_curves",
    "saving",
    "stack",
    "summarise",
    "without_interrupted",
]

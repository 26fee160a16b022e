"""What asking in an order has cost on the way, and how far its scores are off by sampling."""

from collections.abc import Sequence

import numpy as np

from enn_finetune.savings import CurveJson, mean_interval
from enn_finetune.testbed.records import ActiveLine

Json = dict[str, object]


def regret_json(lines: Sequence[ActiveLine], arm: str, baseline: str) -> Json | None:
    """An arm's regret with all candidates labelled, what is saved of the baseline's, and its curve.

    None where the records have no regret (of studies run before it was recorded).
    """
    if not all("selection_regret" in line for line in lines):
        return None
    found: dict[str, dict[int, np.ndarray]] = {}
    for line in lines:
        mine = found.setdefault(f"{line['agent']}/{line['rule']}", {})
        mine[line["problem"]] = np.asarray(line["selection_regret"])
    own, base = found[arm], found[baseline]
    curve = _mean(np.stack([*own.values()]), lines[0]["labels"])
    gaps = [base[problem] - own[problem] for problem in own if problem in base]
    saved = _mean(np.stack(gaps), lines[0]["labels"])
    return {"total": _last(curve), "saved": _last(saved), "curve": dict(curve)}


def _mean(values: np.ndarray, labels: Sequence[int]) -> CurveJson:
    """Mean over problems (P, T) and its 95 % interval, by labels (T,)."""
    found = mean_interval(values)
    return CurveJson(
        labels=[float(count) for count in labels],
        mean=found.mean.tolist(),
        low=None if found.low is None else found.low.tolist(),
        high=None if found.high is None else found.high.tolist(),
    )


def _last(curve: CurveJson) -> Json:
    low, high = curve["low"], curve["high"]
    ci95 = None if low is None or high is None else [low[-1], high[-1]]
    return {"mean": curve["mean"][-1], "ci95": ci95}


def excess(lines: Sequence[ActiveLine], arm: str) -> float | None:
    """Mean estimated excess of the last KL; None where the records have none."""
    mine = [line for line in lines if f"{line['agent']}/{line['rule']}" == arm]
    if not all("kl_excess" in line for line in mine):
        return None
    return float(np.mean([line["kl_excess"][-1] for line in mine]))

"""When features are computed anew, and how the last fit begins: decisions of asvp and auto.

All of it is made of numbers of the run itself: labels bought, prices, operations counted, the
indicator on bought rows, and how well models predicted rows before they were trained on them. No
evaluation split is looked at.

The text of arXiv 2403.01101 was not at hand beyond its abstract, its authors' summary and the
README of its code: an indicator of LogME and PED detects whether the pre-computed features need an
update; LP-FT helps while labels are few, and with more of them the features must be updated and
fine-tuning is the better training. What of that is a number is our choice, and is this:

- *Indicator*: LogME of the labelled rows' features after PED's evolution of their classes, by the
  pool's mean and deviation. It is evidence per label: it rises while labels still teach a linear
  map something new about these features.
- *Stale* when it has risen by less than `proxy.tolerance` (in nats a label) since the round before,
  after `proxy.patience` readings.
- *LP-FT* for the last fit until the features were stale for the first time, FT from then on.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from enn_finetune import costs
from enn_finetune.config import Config
from enn_finetune.config.policy import PriceConfig

MOST = 0.3
"""auto: no more of the labels to come is ever taken to be saved by new features."""
LEAST = 0.01
TRIAL_SHARE = 0.05
"""auto: other tuning modes are tried where that takes less than this share of what labels cost."""


class Reading(NamedTuple):
    """The indicator after a round."""

    labels: int
    still: float  # LogME
    evolved: float  # LogME after PED


def stale(readings: Sequence[Reading], config: Config) -> bool:
    """True where the features have told what they can of the labels; see the module's text."""
    if len(readings) <= config.proxy.patience:
        return False
    return readings[-1].evolved - readings[-2].evolved < config.proxy.tolerance


def worth(labels: int, since: int, config: Config, gain: float) -> float:
    """What new features are expected to save, in money.

    Of the labels still to come, the share `gain`; less, where the features in use were themselves
    computed with an encoder trained on `since` of the `labels` that there are.
    """
    age = 1 - since / labels
    return gain * age * (config.budget.labels - labels) * config.prices.label


def refresh_price(fit: float, encoding: float, prices: PriceConfig) -> float:
    """What it costs to fine-tune and to compute the features of the pool anew (operations each)."""
    return costs.money(0, costs.hours(fit + encoding, prices), prices)


def fit_estimate(encoding: float, rows: int, batch: int, steps: int) -> float:
    """Operations of a fit before any was counted: three forward passes for each row of a step."""
    return 3 * encoding / rows * batch * steps


def learned(gain: float, old: np.ndarray, new: np.ndarray) -> float:
    """What new features are taken to save, after rows were predicted before they were trained on.

    It doubles where the new features predicted the rows better than the old ones by more than a
    standard error of the paired difference, halves where it was the other way round, and stays
    within [LEAST, MOST]. The rows are those that the new features were least sure of, which
    speaks against them.

    Args:
      gain: before.
      old: (n,) log-loss of each row with the old features, from the same labels as `new`.
      new: (n,).
    """
    difference = old - new
    error = difference.std(ddof=1) / math.sqrt(len(difference)) if len(difference) > 1 else math.inf
    if difference.mean() > error:
        gain = 2 * gain
    elif difference.mean() < -error:
        gain = gain / 2
    return min(max(gain, LEAST), MOST)


def cheapest(losses: Sequence[np.ndarray], operations: Sequence[float]) -> int:
    """The mode with the fewest operations whose loss is within a standard error of the best one's.

    Args:
      losses: (n,) log-loss of each row by mode, rows not trained on.
      operations: of a fit, by mode.
    """
    best = min(range(len(losses)), key=lambda mode: losses[mode].mean())

    def as_good(mode: int) -> bool:
        difference = losses[mode] - losses[best]
        error = difference.std(ddof=1) / math.sqrt(len(difference)) if len(difference) > 1 else 0.0
        return bool(difference.mean() <= error)

    return min(filter(as_good, range(len(losses))), key=lambda mode: operations[mode])

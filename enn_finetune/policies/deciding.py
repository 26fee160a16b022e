"""When features are computed anew, and how the last fit begins: decisions of asvp and auto.

All of it is made of numbers of the run itself: labels bought, prices, operations counted, the
indicator on bought rows, and how well models predicted bought rows that they were not trained on.
No evaluation split is looked at.

*asvp*. The text of arXiv 2403.01101 was not at hand beyond its abstract, its authors' summary and
the README of its code: an indicator of LogME and PED detects whether the pre-computed features need
an update; LP-FT helps while labels are few, and with more of them the features must be updated and
fine-tuning is the better training. What of that is a number is our choice, and is this:

- *Indicator*: LogME of the labelled rows' features after PED's evolution of their classes, by the
  pool's mean and deviation. It is evidence per label: it rises while labels still teach a linear
  map something new about these features.
- *Stale* when it has risen by less than `proxy.tolerance` (in nats a label) since the round before,
  after `proxy.patience` readings.
- *LP-FT* for the last fit until the features were stale for the first time, FT from then on.

*auto* is svpp, the cheapest, until something else is shown to be worth its price.

- *Evidence* is out of sample and uniform: `apart` of the first labels, which were drawn at random,
  train no encoder that chooses, so any two can be compared on them, whoever chose the other rows.
  Gains count as *proven* from two standard errors of the paired difference in log-loss on.
- *Features are computed anew* where that is expected to pay (`worth`) and all that auto has spent
  on trying stays within `UNPROVEN` of what the run will cost, all labels of its budget included, or
  within `PROVEN` of what it has cost so far where the features in use are proven better than the
  pretrained encoder's. So a run that saves no label by it is at most a tenth dearer than svpp, from
  half of its budget on and whatever the prices. What that forgoes: where one refresh alone costs
  more than `UNPROVEN` of the run it is not tried, although it might have paid; whether it does
  nobody knows who has not paid for it.
- New features, once paid for, are used if they predicted better than those in use, proven or not.
- *Ways of training* (`proxy.modes`, and LP-FT) are compared with the config's own once, where all
  of them together stay within `UNPROVEN`, whether or not new features pay. Another one is taken if
  it is proven better: a wrong way spoils every later fit, and the rows to judge by are few.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from enn_finetune import costs
from enn_finetune.config import Config
from enn_finetune.config.tuning import Tune

UNPROVEN, PROVEN = 0.05, 0.1
"""auto: shares of a run's cost that all trying may take, before and after it has shown."""
ERRORS = 2.0
"""auto: standard errors from which on a gain is proven."""


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


class Way(NamedTuple):
    """How an encoder is trained: what of it, and whether a probe comes first (LP-FT)."""

    mode: Tune
    probe: bool


class Account(NamedTuple):
    """What auto decides by; operations as the ledger counts them."""

    labels: int  # bought
    since: int  # labels that the last encoder tried was trained on, 0 before the first
    spent: float  # operations charged so far
    explored: float  # those of them that svpp would not have taken
    proven: bool  # the features in use are better than the pretrained encoder's


def apart(config: Config) -> int:
    """How many of the first labels train no encoder that chooses; none where they are too few."""
    return config.budget.start // 2 if config.budget.start >= 4 else 0


def may_try(account: Account, config: Config) -> bool:
    """True where enough labels are there to train on and to judge by."""
    return apart(config) > 0 and account.labels >= 2 * config.budget.start


def affordable(account: Account, operations: float, config: Config) -> bool:
    """True where these operations leave all that was tried within its share of what a run costs."""
    prices, used = config.prices, costs.hours(account.spent, config.prices)
    room = UNPROVEN * costs.money(config.budget.labels, used, prices)
    if account.proven:
        room = max(room, PROVEN * costs.money(account.labels, used, prices))
    tried = costs.hours(account.explored + operations, prices)
    return costs.money(0, tried, prices) <= room


def worth(account: Account, config: Config) -> float:
    """What new features are expected to save, in money.

    Of the labels still to come, the share `proxy.gain`; less, where the features in use were
    themselves computed with an encoder trained on `since` of the `labels` that there are.
    """
    age = 1 - account.since / account.labels
    left = config.budget.labels - account.labels
    return config.proxy.gain * age * left * config.prices.label


def refreshes(account: Account, operations: float, config: Config) -> bool:
    """True where auto fine-tunes and computes features anew, at so many operations for both."""
    price = costs.money(0, costs.hours(operations, config.prices), config.prices)
    enough = may_try(account, config) and affordable(account, operations, config)
    return enough and price < worth(account, config)


def dearer(mode: Tune) -> float:
    """How many times the operations of a step in `mode` one in any other takes, at most.

    A step takes one forward pass at least, and with all gradients three.
    """
    return 1.0 if mode == "full" else 3.0


def fit_estimate(encoding: float, rows: int, batch: int, steps: int) -> float:
    """Operations of a fit before any was counted: three forward passes for each row of a step."""
    return 3 * encoding / rows * batch * steps


def proven(old: np.ndarray, new: np.ndarray) -> bool:
    """True where the losses `new` (n,) are below `old` (n,) by two standard errors or more."""
    difference = old - new
    if len(difference) < 2 or difference.mean() <= 0:
        return False
    error = difference.std(ddof=1) / math.sqrt(len(difference))
    return bool(difference.mean() >= ERRORS * error)


def chosen(losses: Sequence[np.ndarray]) -> int:
    """The way of training that is taken; the first is the config's own.

    Args:
      losses: (n,) log-loss of each row by way, rows not trained on.
    """
    allowed = [way for way, loss in enumerate(losses) if way == 0 or proven(losses[0], loss)]
    return min(allowed, key=lambda way: float(losses[way].mean()))

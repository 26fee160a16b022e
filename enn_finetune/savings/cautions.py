"""What a reader should know of a study before believing its ratios."""

from collections.abc import Mapping

from enn_finetune.savings.curves import Stack, mean_interval
from enn_finetune.savings.reach import FEWEST
from enn_finetune.savings.schema import ArmJson


def cautions(base: Stack, arms: Mapping[str, ArmJson]) -> list[str]:
    """Notes: nothing was learned; the first labels sufficed; another blind arm is the stronger.

    Args:
      base: the baseline's curves, larger is better.
      arms: all arms, the baseline among them.
    """
    return [*_unlearned(base), *_at_once(base, arms), *_stronger(base.arm, arms)]


def _unlearned(base: Stack) -> list[str]:
    """The target is no higher than where the curves begin, so there is nothing to save.

    Of few seeds nothing is settled, which is said elsewhere: that is no sign of nothing learned.
    """
    gained = mean_interval(base.scores[:, -1] - base.scores[:, 0])
    few = len(base.seeds) < FEWEST
    if few or len(base.labels) == 1 or gained.low is None or gained.low > 0:
        return []
    return [
        f"{base.arm} is not settled to score more with {base.labels[-1]:,.0f} labels than with "
        f"{base.labels[0]:,.0f}: next to nothing was learned, and ratios say little."
    ]


def _at_once(base: Stack, arms: Mapping[str, ArmJson]) -> list[str]:
    """Arms at the target before any rule chose."""
    first = [
        name
        for name, arm in arms.items()
        if name != base.arm and arm["labels_to_target"] == base.labels[0]
    ]
    if not first or len(base.labels) == 1:
        return []
    return [
        f"{', '.join(first)}: at the target with the first {base.labels[0]:,.0f} labels, which no "
        "rule chose; such a ratio is the head's, or chance."
    ]


def _stronger(baseline: str, arms: Mapping[str, ArmJson]) -> list[str]:
    """Random selection with another head that has more area than the baseline."""
    blind = [name for name, arm in arms.items() if arm["role"] in ("own", "head")]
    best = max(blind, key=lambda name: arms[name]["auc_gain"]["mean"], default=baseline)
    gain = arms[best]["auc_gain"]
    if best == baseline or gain["mean"] <= 0 or gain["ci95"] is None:
        return []
    low, high = gain["ci95"]
    spread = f"{100 * low:+.1f} to {100 * high:+.1f}"
    return [
        f"{best}, random selection too, has {100 * gain['mean']:+.1f} points of area over "
        f"{baseline} ({spread}): the {'training' if '+' in best else 'head'}'s share of a system "
        "ratio, which acquisition alone leaves out."
    ]

"""The names of all acquisition rules, for configs to be checked without jax.

Tests hold them to `acquisition.choose`, which needs jax, and to what its rules do.
"""

from collections.abc import Sequence
from typing import Literal, get_args

PlainRule = Literal[
    "random",
    "entropy",
    "margin",
    "least_confidence",
    "power_entropy",
    "power_margin",
    "power_least_confidence",
    "power4_entropy",
    "power4_margin",
    "power4_least_confidence",
    "softmax_entropy",
    "softmax_margin",
    "softmax_least_confidence",
    "softrank_entropy",
    "softrank_margin",
    "softrank_least_confidence",
    "itl_features",
    "vtl_features",
    "ctl_features",
    "itl_gradients",
    "vtl_gradients",
    "ctl_gradients",
    "badge",
    "kcenter",
    "confident_coreset",
    "lcmd",
    "lcmd_gradients",
    "typiclust",
    "neuronal",
]
"""Rules that any head can answer."""

EpistemicRule = Literal[
    "bald",
    "variance",
    "power_bald",
    "power_variance",
    "power_epig",
    "power_eer",
    "power_eer_brier",
    "power4_bald",
    "power4_variance",
    "power4_epig",
    "power4_eer",
    "power4_eer_brier",
    "softmax_bald",
    "softmax_variance",
    "softmax_epig",
    "softmax_eer",
    "softmax_eer_brier",
    "softrank_bald",
    "softrank_variance",
    "softrank_epig",
    "softrank_eer",
    "softrank_eer_brier",
    "epig",
    "eer",
    "eer_brier",
    "epig_batch",
    "batchbald",
    "logdet",
    "condvar",
    "itl",
    "vtl",
    "ctl",
    "confident_coreset_bald",
    "pool_loss",
]
"""Rules that read the spread over indices, of which a plain head has none."""

RuleName = Literal[PlainRule, EpistemicRule]
"""All rules."""

NAMES: tuple[str, ...] = (*get_args(PlainRule), *get_args(EpistemicRule))
EPISTEMIC: frozenset[str] = frozenset(get_args(EpistemicRule))

_AIMED = ("epig", "epig_batch", "eer", "eer_brier", "itl", "vtl", "ctl", "condvar", "pool_loss")
_FORMS = ("power_", "power4_", "softmax_", "softrank_")
_KERNELS = ("_features", "_gradients")
TARGETED: frozenset[str] = frozenset(
    name
    for aim in _AIMED
    for name in (aim, *(form + aim for form in _FORMS), *(aim + kernel for kernel in _KERNELS))
    if name in NAMES
)
"""Rules that choose for the rows that `acquisition.targets` names; the others pay no heed to it."""

FEATURES_ALONE = ("typiclust", "kcenter", "lcmd")
"""Rules that read features and no predictions: they can choose before any label is bought, where
no head is fitted yet. `random` can too, which reads nothing."""


def pays_no_heed(rules: Sequence[str]) -> str:
    """What to say of rules beside `acquisition.targets`; empty where all make use of it.

    `random` is not spoken of: it is what others are compared with.
    """
    deaf = [rule for rule in rules if rule not in TARGETED and rule != "random"]
    if not deaf:
        return ""
    verb = "pay" if len(deaf) > 1 else "pays"
    return (
        f"acquisition.targets: {', '.join(deaf)} {verb} no heed to the rows it names; rules that "
        "do are ctl_features, vtl_features, epig and others (README, Named targets)"
    )

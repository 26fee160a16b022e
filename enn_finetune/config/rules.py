"""The names of all acquisition rules, for configs to be checked without jax.

A test holds them to those of `acquisition.choose`, which needs jax.
"""

from typing import Literal, get_args

PlainRule = Literal[
    "random",
    "entropy",
    "margin",
    "least_confidence",
    "power_margin",
    "power_entropy",
    "power4_margin",
    "power4_entropy",
    "softmax_margin",
    "softrank_margin",
    "itl_features",
    "vtl_features",
    "itl_gradients",
    "vtl_gradients",
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
    "power4_bald",
    "softmax_bald",
    "softrank_bald",
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

EPISTEMIC: frozenset[str] = frozenset(get_args(EpistemicRule))

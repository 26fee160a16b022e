"""How rounds make use of an encoder that is trained, and what labels and hours cost."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, ConfigDict, NonNegativeInt, PositiveInt
from pydantic.dataclasses import dataclass

from enn_finetune.config.tuning import Tune
from enn_finetune.config.values import Layers, Names, NonNegative, Positive, Share

Policy = Literal["standard", "svpp", "asvp", "auto"]
"""Who chooses rows in the rounds of an encoder that is trained. standard: the model itself, trained
anew in every round. svpp: a proxy on features of the pretrained encoder; the model is trained once,
in the end. asvp: the same, but where an indicator finds the features stale the encoder is
fine-tuned, they are computed anew, and it chooses beside the proxy. auto: svpp, but for what prices
let it try and what then shows on bought rows (see policies/deciding.py)."""
ProxyHead = Literal["epinet", "linear", "shaped", "mc_dropout"]


def _several(value: object) -> object:
    return [part.strip() for part in value.split(",") if part] if isinstance(value, str) else value


Modes = Annotated[tuple[Tune, ...], BeforeValidator(_several)]


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class ProxyConfig:
    """What chooses rows in place of the model that is trained in the end (arXiv 2403.01101)."""

    path: Names = ()
    """Places of another encoder that chooses rows, usually a smaller one; none is the encoder that
    is trained. With policy = standard that one is fine-tuned in every round."""
    layers: Layers = "last"
    """Layers whose pooled states are its features, as `backbone.layers`."""
    head: ProxyHead = "epinet"
    """Solved for on the features; mc_dropout drops out in this classification layer only. With
    policy = standard and a `path`, mc_dropout is that of the linear layer which the other encoder
    was fine-tuned with, at its own rate; any other value leaves it as it is."""
    replay: str = ""
    """A list of bought rows, the bought.jsonl of `enn-finetune train` or `bench`: the run buys
    these, in their order, whatever the rule, and trains its own encoder on them."""
    tolerance: NonNegative = 0.01
    """asvp: the features are stale when the indicator has risen by less than this in a round."""
    patience: PositiveInt = 2
    """asvp: rounds in which the indicator is read before it may say so."""
    refreshes: NonNegativeInt = 1
    """asvp: times, at most, that the encoder is fine-tuned to compute its features anew."""
    probe_steps: PositiveInt = 100
    """Steps of LP-FT's linear probe, where the policy asks for it."""
    gain: Share = 0.1
    """auto: the share of labels to come that new features are taken to save. What they do save no
    run can see; whether they predict better it can, and that decides what it may spend on them."""
    modes: Modes = ()
    """auto: other values of `backbone.tune` that it may take, tried once where prices allow: taken
    if better by two standard errors on rows kept apart."""
    pseudo: Share = 0.0
    """Share of the pool, the surest first, that the trained model labels itself before its last fit
    (arXiv 2205.03598): against what is lost where another model chose. 0 for none."""


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class PriceConfig:
    """What is paid for, in one currency."""

    label: NonNegative = 0.1
    """One label."""
    hour: NonNegative = 1.0
    """One hour of computing."""
    speed: Positive = 5e10
    """Floating-point operations that the machine of that price does in a second. Hours are counted
    from operations, so that decisions do not depend on who else is at work on a machine."""

"""All that a policy knows between rounds, as plain JSON: what a checkpoint keeps."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from enn_finetune.config import Config
from enn_finetune.config.tuning import Tune
from enn_finetune.data.oracle import OracleState
from enn_finetune.policies.deciding import Reading


class Refresh(NamedTuple):
    """A fine-tuning that features were computed with: enough to make it again."""

    round: int
    labels: int
    mode: Tune
    probe: bool
    apart: int = 0  # of the labels, the first so many were not trained on
    used: bool = True  # False: rows go on being chosen by the features before


@dataclass
class Standing:
    """Where a run is between rounds; `deciding` says what the numbers are for."""

    mode: Tune
    round: int = 0
    refreshes: list[Refresh] = field(default_factory=list)
    readings: list[Reading] = field(default_factory=list)
    fired: bool = False  # the features have been stale
    tried: bool = False  # auto has compared ways of training
    probing: bool = False  # auto found LP-FT to be better
    proven: bool = False  # auto found the features in use to be better than the pretrained ones
    explored: float = 0.0  # operations that auto took and svpp would not have
    step_flops: float = 0.0  # of a step of the last fit, 0 before the first
    encoding_flops: float = 0.0  # of the pool

    @staticmethod
    def begin(config: Config) -> "Standing":
        """Before the first round."""
        return Standing(mode=config.backbone.tune)

    @property
    def since(self) -> int:
        """Labels that there were when features were last computed anew; 0 before that."""
        return self.refreshes[-1].labels if self.refreshes else 0

    @property
    def in_use(self) -> Refresh | None:
        """What the features in use were computed with; None for the pretrained encoder."""
        return next((one for one in reversed(self.refreshes) if one.used), None)

    def state(self, oracle: OracleState) -> dict[str, Any]:
        """What `restore` reads."""
        kept = {one.name: getattr(self, one.name) for one in dataclasses.fields(self)}
        return kept | {"oracle": oracle}

    @staticmethod
    def restore(saved: Mapping[str, Any]) -> "Standing":
        """The standing of a saved state."""
        kept = {name: value for name, value in saved.items() if name != "oracle"}
        kept["refreshes"] = [Refresh(*one) for one in kept["refreshes"]]
        kept["readings"] = [Reading(*one) for one in kept["readings"]]
        return Standing(**kept)

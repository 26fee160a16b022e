"""All that a policy knows between rounds, as plain JSON: what a checkpoint keeps."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from enn_finetune.config import Config
from enn_finetune.config.tuning import Tune
from enn_finetune.costs import Ledger
from enn_finetune.data.oracle import OracleState
from enn_finetune.policies.deciding import Reading


class Refresh(NamedTuple):
    """A fine-tuning that features were computed with: enough to make it again."""

    round: int
    labels: int
    mode: Tune
    probe: bool


@dataclass
class Standing:
    """Where a run is between rounds; `deciding` says what the numbers are for."""

    mode: Tune
    gain: float
    round: int = 0
    refreshes: list[Refresh] = field(default_factory=list)
    readings: list[Reading] = field(default_factory=list)  # of the features in use
    fired: bool = False  # the features have been stale
    tried: bool = False  # auto has compared its modes
    step_flops: float = 0.0  # of a step of the last fit, 0 before the first
    encoding_flops: float = 0.0  # of the pool
    ledger: Ledger = field(default_factory=Ledger)

    @staticmethod
    def begin(config: Config) -> "Standing":
        """Before the first round."""
        return Standing(mode=config.backbone.tune, gain=config.proxy.gain)

    @property
    def since(self) -> int:
        """Labels that the encoder behind the features in use was trained on; 0 as pretrained."""
        return self.refreshes[-1].labels if self.refreshes else 0

    def state(self, oracle: OracleState) -> dict[str, Any]:
        """What `restore` reads."""
        kept = {one.name: getattr(self, one.name) for one in dataclasses.fields(self)}
        return kept | {"ledger": self.ledger.state(), "oracle": oracle}

    @staticmethod
    def restore(saved: Mapping[str, Any]) -> "Standing":
        """The standing of a saved state."""
        kept = {name: value for name, value in saved.items() if name != "oracle"}
        kept["refreshes"] = [Refresh(*one) for one in kept["refreshes"]]
        kept["readings"] = [Reading(*one) for one in kept["readings"]]
        return Standing(**(kept | {"ledger": Ledger(kept["ledger"])}))

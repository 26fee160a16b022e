"""Who chooses rows in the rounds of a pool run whose encoder is trained, and what that costs.

    standard   the model itself, fine-tuned in every round
    svpp       a head solved for on features of the pretrained encoder; one fine-tuning, in the end
    asvp       the same until an indicator finds the features stale: then the encoder is fine-tuned
               on what was bought and the features are computed anew (arXiv 2403.01101); from there
               on it chooses beside that head (see `beside`)
    auto       svpp, but for what prices let it try and what then shows (see `deciding`)

All four book what they take in the ledger of the run's `Session`, which writes it into every
record; standard, where nothing is replayed and no other model chooses, is `pool.run`. The model
that chooses (the selector) may be another encoder than the one that is trained in the end (the
successor). A learning curve needs a fitted successor at every point of it: such fits are recorded,
and charged only where the run would have made them had it ended there. So each record says what a
run costs that ends with its labels, and `evaluation` what drawing the curve took.
"""

from enn_finetune.policies.run import run
from enn_finetune.policies.selector import Shared

__all__ = ["Shared", "run"]

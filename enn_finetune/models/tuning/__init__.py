"""How much of an encoder is trained: all of it, some of its layers or biases, or small additions.

`adapted` gives a copy of an encoder in which exactly the `nnx.Param`s are trained (one table says
which, `MODES`); `plain` folds what was added into the weights, so that a plain encoder is left,
which computes the same and is saved in Hugging Face layout like any other.
"""

from enn_finetune.models.tuning.modes import MODES, Fixed, Mode, adapted, check, plain

__all__ = ["MODES", "Fixed", "Mode", "adapted", "check", "plain"]

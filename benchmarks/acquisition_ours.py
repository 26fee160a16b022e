"""One of our rules, in a process of its own: see acquisition.py."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from acquisition_measure import BOUGHT, NOISE, Asked, Inputs, answer, asked, measure
from jax import Array

from enn_finetune.acquisition.choose import choose
from enn_finetune.acquisition.closed_form import pick_condvar, pick_logdet
from enn_finetune.acquisition.kernels import Factors, Kernel
from enn_finetune.acquisition.transductive import itl_criterion, rule, vtl_criterion
from enn_finetune.types import BatchRule, Shown, Targets


def read_features(log_probs: Array, features: Array) -> Factors:
    """The linear kernel of the features with one noise: what the peers are given."""
    del log_probs
    return Factors(features, jnp.full(features.shape[0], NOISE))


def as_kept(*_: object) -> Callable[[Factors], Factors]:
    return lambda rows: rows


linear = Kernel(read_features, as_kept, knows_bought=True, epistemic=False)
SAME_KERNEL = {
    "itl_linear": rule(linear, itl_criterion()),
    "vtl_linear": rule(linear, vtl_criterion),
    "logdet_linear": BatchRule(read_features, pick_logdet),
    "condvar_linear": BatchRule(read_features, pick_condvar),
}
"""Our criteria on the peers' kernel; other names are those of `acquisition.choose`."""

GIVEN_BOUGHT = {"kcenter", "lcmd"}
TOWARDS_TARGETS = {"itl_linear", "vtl_linear", "epig", "itl", "vtl", "itl_features"}


@partial(jax.jit, static_argnums=(0, 2))
def pick(name: str, shown: Shown, count: int, key: Array) -> Array:
    """Both halves of the rule: what is kept of each row, and the choice."""
    if name in SAME_KERNEL:
        return SAME_KERNEL[name](shown, count, key)
    return choose(name, shown, count, key)


def prepare(inputs: Inputs, what: Asked) -> Callable[[], np.ndarray]:
    """The call, from predictions and features on the device."""
    targets = None
    if what.name in TOWARDS_TARGETS:
        targets = Targets(jnp.asarray(inputs.target_log_probs), jnp.asarray(inputs.target_features))
    free = np.arange(len(inputs.features)) >= (BOUGHT if what.name in GIVEN_BOUGHT else 0)
    shown = Shown(
        jnp.asarray(inputs.log_probs), jnp.asarray(inputs.features), jnp.asarray(free), targets
    )
    shown = jax.block_until_ready(shown)
    return lambda: np.asarray(pick(what.name, shown, what.count, jax.random.key(0)))


def main() -> None:
    what = asked()
    jax.block_until_ready(jnp.ones(()) + 1)  # the backend is up
    answer(measure(prepare, what, compiles=True))


if __name__ == "__main__":
    main()

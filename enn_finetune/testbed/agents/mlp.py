"""One network of two hidden layers: the baseline, certain of itself."""

from jax import Array

from enn_finetune.testbed.agents.penalties import decay
from enn_finetune.testbed.networks import (
    Layers,
    apply_mlp,
    class_log_probs,
    hide,
    init_mlp,
    mean_loss,
    penalty,
)
from enn_finetune.testbed.types import Agent, Spec, Tree

HIDDEN = (50, 50)


def mlp(spec: Spec, *, hidden: tuple[int, ...] = HIDDEN, l2: float = 1.0) -> Agent:
    """A perceptron with weight decay; K = 1 whatever is asked for.

    Args:
      spec: the problem's numbers.
      hidden: widths of its hidden layers.
      l2: of `penalties.decay`.
    """
    strength = decay(spec, l2)

    def init(key: Array, spec: Spec) -> tuple[Layers, tuple[()]]:
        return init_mlp(key, (spec.input_dim, *hidden, spec.classes)), ()

    def loss(params: Layers, fixed: Tree, key: Array, x: Array, y: Array, weight: Array) -> Array:
        del fixed, key
        x, y = hide(x, y, weight)
        return mean_loss(apply_mlp(params, x), y, weight) + penalty(params, strength, weight)

    def finish(params: Layers, fixed: Tree, x: Array, y: Array, weight: Array) -> Layers:
        del fixed, x, y, weight
        return params

    def log_probs(fit: Layers, key: Array, x: Array, count: int) -> Array:
        del key, count
        return class_log_probs(fit, x)[None]

    return Agent(init, loss, finish, log_probs, functions=1)

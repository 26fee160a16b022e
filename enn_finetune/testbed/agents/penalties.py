"""How strong an agent's weight decay is: from the problem's numbers, as the testbed's agents do."""

import jax.numpy as jnp
from jax import Array

from enn_finetune.testbed.types import Spec


def decay(spec: Spec, l2: float) -> Array:
    """l2 * sqrt(temperature) * d, to be divided by the rows known (`networks.penalty`).

    The testbed's rule for every agent but the epinet (`adaptive_weight_scale`): the agent may know
    temperature, d and n. Noisier labels ask for more decay, and a wider input too.
    """
    return l2 * jnp.sqrt(jnp.asarray(spec.temperature, jnp.float32)) * spec.input_dim

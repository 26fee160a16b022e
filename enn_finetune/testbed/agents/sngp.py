"""A deep kernel: a spectrally normalised trunk under a Gaussian process (arXiv 2006.10108).

    h_0 = x A,   h_l = h_(l-1) + relu(h_(l-1) W_l + b_l),   |W_l| <= bound (largest singular value)
    phi(x) = sqrt(2 / R) cos(h_L Omega / length + phases),  logits = phi(x) B

A is a fixed random matrix that widens x, Omega and the phases are the random Fourier features of
the kernel exp(-|h - h'|^2 / (2 length^2)) (Rahimi & Recht 2007). With |W_l| < 1 a block cannot fold
two rows onto each other, so that distance in x remains distance in h, and far from the data the
logits return to the prior N(0, (amplitude / temperature)^2). B has its Laplace posterior
(`last_layer.py`) and an index is a draw of it.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from enn_finetune.testbed.agents.last_layer import LastLayer, draw_logits, last_layer
from enn_finetune.testbed.agents.penalties import decay
from enn_finetune.testbed.networks import Layers, hide, init_mlp, mean_loss, penalty
from enn_finetune.testbed.types import Agent, Spec

POWER_STEPS = 8


class Params(NamedTuple):
    """What is trained."""

    blocks: Layers  # of shapes (W, W)
    last: Array  # (R, C)


class Fixed(NamedTuple):
    """What never is."""

    inwards: Array  # (d, W)
    frequencies: Array  # (W, R)
    phases: Array  # (R,)
    start: Array  # (W,): of power iteration


class Fit(NamedTuple):
    """A trained trunk, and the posterior of the last layer on it."""

    blocks: Layers
    fixed: Fixed
    posterior: LastLayer


def sngp(
    spec: Spec,
    *,
    width: int = 32,
    blocks: int = 2,
    frequencies: int = 128,
    length: float = 1.5,
    amplitude: float = 0.3,
    bound: float = 0.9,
    l2: float = 1.0,
) -> Agent:
    """A Gaussian process on a trained trunk.

    Args:
      spec: the problem's numbers.
      width: W, of the trunk.
      blocks: residual blocks.
      frequencies: R, features of the process.
      length: of the kernel, in units of sqrt(d) (rows of N(0, I_d) lie sqrt(2 d) apart).
      amplitude: prior standard deviation of a logit times the temperature (the generator's is .44).
      bound: of the largest singular value of a block's matrix.
      l2: of `penalties.decay`, for the trunk.
    """
    strength = decay(spec, l2)
    # Of B, of the summed loss: logits of deviation amplitude / temperature beforehand.
    precision = (jnp.asarray(spec.temperature, jnp.float32) / amplitude) ** 2

    def init(key: Array, spec: Spec) -> tuple[Params, Fixed]:
        keys = jax.random.split(key, 5)
        trunk = [init_mlp(k, (width, width))[0] for k in jax.random.split(keys[0], blocks)]
        scale = length * spec.input_dim**0.5
        fixed = Fixed(
            # Singular values near 1, so that distances in x are those in h_0.
            jax.random.normal(keys[1], (spec.input_dim, width)) * width**-0.5,
            jax.random.normal(keys[2], (width, frequencies)) / scale,
            jax.random.uniform(keys[3], (frequencies,), maxval=2 * jnp.pi),
            jax.random.normal(keys[4], (width,)),
        )
        return Params(tuple(trunk), jnp.zeros((frequencies, spec.classes))), fixed

    def features(trunk: Layers, fixed: Fixed, x: Array) -> Array:
        rows = x @ fixed.inwards
        for weights, biases in trunk:
            rows = rows + jax.nn.relu(rows @ normalised(weights, fixed.start, bound) + biases[None])
        waves = jnp.cos(rows @ fixed.frequencies + fixed.phases[None])
        return waves * (2 / frequencies) ** 0.5

    def loss(params: Params, fixed: Fixed, key: Array, x: Array, y: Array, weight: Array) -> Array:
        del key
        x, y = hide(x, y, weight)
        logits = features(params.blocks, fixed, x) @ params.last
        trunk = penalty(params.blocks, strength, weight)
        return mean_loss(logits, y, weight) + trunk + penalty(params.last, precision / 2, weight)

    def finish(params: Params, fixed: Fixed, x: Array, y: Array, weight: Array) -> Fit:
        x, y = hide(x, y, weight)
        phi = features(params.blocks, fixed, x)
        return Fit(params.blocks, fixed, last_layer(phi, params.last, weight, precision))

    def log_probs(fit: Fit, key: Array, x: Array, count: int) -> Array:
        phi = features(fit.blocks, fit.fixed, x)
        return jax.nn.log_softmax(draw_logits(fit.posterior, key, phi, count), axis=-1)

    return Agent(init, loss, finish, log_probs)


def normalised(weights: Array, start: Array, bound: float) -> Array:
    """The matrix, scaled down where its largest singular value exceeds `bound` (arXiv 1802.05957).

    The singular value is found by power iteration from a fixed vector; no gradient goes through
    the vectors.
    """
    fixed = lax.stop_gradient(weights)

    def step(vector: Array, _: None) -> tuple[Array, None]:
        vector = fixed @ (vector @ fixed)
        return vector / jnp.maximum(jnp.linalg.norm(vector), 1e-12), None

    left, _ = lax.scan(step, start / jnp.linalg.norm(start), None, length=POWER_STEPS)
    right = left @ fixed
    right = right / jnp.maximum(jnp.linalg.norm(right), 1e-12)
    largest = left @ weights @ right
    return weights * jnp.minimum(1.0, bound / jnp.maximum(largest, 1e-12))

"""Batches for what their labels tell about target rows (Huebotter et al. 2024, arXiv 2402.15898).

ITL, VTL and CTL choose row after row for the information on, the variance of, and the correlation
with the targets, each given the labels before it; the targets are the rows of `targets`, else
TARGETS free rows of the pool. The Gaussian model is one of `kernels.py`, and the paper's noise
rho^2 is the estimated noise of each row's label.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple, TypeVar

import jax.numpy as jnp
from jax import Array

from enn_finetune.acquisition.conditioning import (
    Criterion,
    Gain,
    condition,
    condition_on,
    greedy,
    prepare,
    variances,
)
from enn_finetune.acquisition.kernels import EXACT, Factors, Kernel, gradients, indices, last_layer
from enn_finetune.acquisition.pool_wide import TARGETS
from enn_finetune.acquisition.rows import everywhere, sample, take
from enn_finetune.types import BatchRule, Spread

BLUR = 1.0
"""Noise with which ITL sees the targets, in units of the noise of their labels.

With 1 ITL is the information on the *labels* of the targets, as in the authors' program (eq. 44),
which adds the labels' noise to the targets too. The paper's targets (eq. 43) are without noise. In
R dimensions, R targets without noise determine w whole, so that ITL would forget which rows were
targets; worse, of K index samples any K rows explain each other, whatever the true covariance.
"""

DETERMINED = 1e-6
"""A variance below this share of the prior one is 0 but for rounding: correlated with nothing."""

Kept = TypeVar("Kept")
State = TypeVar("State")


class Told(NamedTuple):
    """ITL's state: covariances of w without and with the targets."""

    cov: Array  # (R, R)
    told: Array  # (R, R) given the targets as well


def itl_criterion(blur: float = BLUR) -> Criterion[Told]:
    """ITL, eq. 3: argmax I(f_A; y_x | D) = 1/2 log(var(y_x | D) / var(y_x | f_A, D)).

    All targets A jointly; y_x is with its noise in both variances. Conditioning on A and on the
    batch can be done in either order, so two covariances go side by side. The tally of a row is
    var(f_x | D) and var(f_x | f_A, D).
    """

    def start(cov: Array, total: Array, targets: Factors) -> Told:
        del total
        return Told(cov, condition_on(cov, targets._replace(noise=blur * targets.noise)))

    def tally(state: Told, factors: Array) -> Array:
        return jnp.stack([variances(cov, factors) for cov in state], axis=-1)

    def buy(state: Told, factor: Array, noise: Array) -> tuple[Told, Gain]:
        cov, one, t = condition(state.cov, factor, noise)
        told, two, u = condition(state.told, factor, noise)
        return Told(cov, told), Gain(jnp.stack([one, two], axis=-1), jnp.stack([t, u]))

    def update(tally: Array, products: Array, numbers: Array) -> Array:
        return jnp.maximum(tally - products**2 / numbers[None], 0)

    def score(tally: Array, noise: Array, norms: Array) -> Array:
        del norms
        less = jnp.maximum(tally[:, 0] - tally[:, 1], 0)
        return jnp.log1p(less / (tally[:, 1] + noise)) / 2

    return Criterion(start, tally, buy, update, score)


class Spent(NamedTuple):
    """VTL's state: covariance of w, and of what it leaves of the targets."""

    cov: Array  # (R, R)
    left: Array  # (R, R) cov G cov, G = sum_t phi_t phi_t'


def _vtl() -> Criterion[Spent]:
    """VTL, eq. 4: argmin sum_t var(f_t | D, y_x), so argmax sum_t cov(f_t, f_x)^2 / var(y_x).

    The targets enter as G = sum_t phi_t phi_t' alone, so all rows of a pool can be targets at no
    price: `closed_form.condvar`. The tally of a row is phi' cov G cov phi and var f_x.
    """

    def start(cov: Array, total: Array, targets: Factors) -> Spent:
        del targets
        half = jnp.matmul(cov, total, precision=EXACT)
        left = jnp.matmul(half, cov, precision=EXACT)
        return Spent(cov, (left + left.T) / 2)

    def tally(state: Spent, factors: Array) -> Array:
        return jnp.stack([variances(some, factors) for some in (state.left, state.cov)], axis=-1)

    def buy(state: Spent, factor: Array, noise: Array) -> tuple[Spent, Gain]:
        cov, s, t = condition(state.cov, factor, noise)
        h = jnp.matmul(state.left, factor, precision=EXACT)
        g = jnp.dot(factor, h, precision=EXACT)
        # cov' G cov' with cov' = cov - s s' / t; h = cov G s
        along, h = s / t, h - s * (g / t / 2)
        cross = along[:, None] * h[None]
        left = state.left - (cross + cross.T)
        return Spent(cov, left), Gain(jnp.stack([h, s], axis=-1), jnp.stack([t, t]))

    def update(tally: Array, products: Array, numbers: Array) -> Array:
        h, s, t = products[:, 0], products[:, 1], numbers[0]
        left = tally[:, 0] - 2 * (s / t) * h
        return jnp.maximum(jnp.stack([left, tally[:, 1] - s**2 / t], axis=-1), 0)

    def score(tally: Array, noise: Array, norms: Array) -> Array:
        del norms
        return tally[:, 0] / (tally[:, 1] + noise)

    return Criterion(start, tally, buy, update, score)


vtl_criterion = _vtl()


class Facing(NamedTuple):
    """CTL's state: covariance of w, and the targets."""

    cov: Array  # (R, R)
    targets: Array  # (M, R)


def _ctl() -> Criterion[Facing]:
    """CTL, eq. 41 (appendix D.4): argmax sum_t cor(f_t, f_x | D), signed, without noise.

    Rows of large *positive* correlation are preferred, where ITL and VTL ask for large correlation
    of either sign: so the sign of f matters here, and each kernel says what it is. With a kernel of
    features it is their cosine, once rows bought are conditioned on. The tally of a row is var f_x
    and cov(f_x, sum_t f_t / sd f_t).
    """

    def towards(state: Facing) -> Array:
        """Direction cov sum_t phi_t / sd f_t (R,); determined targets have no part in it."""
        found = variances(state.cov, state.targets)
        live = found > DETERMINED * jnp.sum(state.targets**2, axis=-1)
        weights = jnp.where(live, 1 / jnp.sqrt(jnp.where(live, found, 1)), 0)
        mixed = jnp.matmul(weights, state.targets, precision=EXACT)
        return jnp.matmul(state.cov, mixed, precision=EXACT)

    def start(cov: Array, total: Array, targets: Factors) -> Facing:
        del total
        return Facing(cov, targets.factors)

    def tally(state: Facing, factors: Array) -> Array:
        products = jnp.matmul(factors, towards(state), precision=EXACT)
        return jnp.stack([variances(state.cov, factors), products], axis=-1)

    def buy(state: Facing, factor: Array, noise: Array) -> tuple[Facing, Gain]:
        cov, s, t = condition(state.cov, factor, noise)
        state = Facing(cov, state.targets)
        return state, Gain(jnp.stack([s, towards(state)], axis=-1), jnp.stack([t, t]))

    def update(tally: Array, products: Array, numbers: Array) -> Array:
        left = jnp.maximum(tally[:, 0] - products[:, 0] ** 2 / numbers[0], 0)
        return jnp.stack([left, products[:, 1]], axis=-1)

    def score(tally: Array, noise: Array, norms: Array) -> Array:
        del noise
        live = tally[:, 0] > DETERMINED * norms
        return jnp.where(live, tally[:, 1] / jnp.sqrt(jnp.where(live, tally[:, 0], 1)), 0)

    return Criterion(start, tally, buy, update, score)


ctl_criterion = _ctl()


def rule(kernel: Kernel[Kept], criterion: Criterion[State]) -> BatchRule[Kept]:
    """The rule that chooses by a criterion in the Gaussian model of a kernel.

    It has the time and memory of `conditioning.greedy`, M conditionings of an (R, R) matrix, and
    one for each row bought where the kernel does not know those.
    """

    def pick(
        kept: Kept,
        free: Array,
        count: int,
        key: Array,
        *,
        targets: Kept | None = None,
        axis: Spread = None,
    ) -> Array:
        """Rows (count,): see the criterion."""
        pool, factors_of = prepare(kernel, kept, free, axis)
        if targets is None:
            size = min(TARGETS, everywhere(free.shape[0], axis))
            targets = take(kept, sample(free, size, key, axis), axis)
        facing = factors_of(targets)
        total = jnp.matmul(facing.factors.T, facing.factors, precision=EXACT)
        state = criterion.start(pool.cov, total, facing)
        return greedy(criterion, pool, factors_of, state, count, axis)

    return BatchRule(kernel.read, pick, kernel.epistemic)


RULES: Mapping[str, BatchRule] = MappingProxyType(
    {
        "itl": rule(indices, itl_criterion()),
        "vtl": rule(indices, vtl_criterion),
        "ctl": rule(indices, ctl_criterion),
        "itl_features": rule(last_layer, itl_criterion()),
        "vtl_features": rule(last_layer, vtl_criterion),
        "ctl_features": rule(last_layer, ctl_criterion),
        "itl_gradients": rule(gradients, itl_criterion()),
        "vtl_gradients": rule(gradients, vtl_criterion),
        "ctl_gradients": rule(gradients, ctl_criterion),
    }
)
"""All criteria with all kernels."""

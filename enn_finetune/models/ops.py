"""The encoder's row-wise operations with hand-written reverse passes.

Each reverse pass keeps the least from the forward pass (recomputing an activation is cheaper than
storing it) and states its matrix products in the operand order that XLA's CPU backend has a fast
path for. `jax.custom_vjp` means: reverse mode only, no jvp through the encoder.
"""

from functools import partial
from math import pi, sqrt

import jax
import jax.numpy as jnp

from enn_finetune.models.dropout import later

Array = jax.Array


@jax.custom_vjp
def dense(x: Array, kernel: Array, bias: Array) -> Array:
    """Affine map: x (n, in) @ kernel (in, out) + bias (out,) -> (n, out)."""
    return x @ kernel + bias[None]


def _dense_forward(x: Array, kernel: Array, bias: Array) -> tuple[Array, tuple[Array, Array]]:
    return dense(x, kernel, bias), (x, kernel)


def _dense_backward(saved: tuple[Array, Array], g: Array) -> tuple[Array, Array, Array]:
    x, kernel = saved
    dx = jax.lax.dot_general(g, kernel, (((1,), (1,)), ((), ())))
    # Contracting axis 0 of both: a transposed copy of either takes XLA:CPU three times as long.
    dkernel = jax.lax.dot_general(x, g, (((0,), (0,)), ((), ())))
    return dx, dkernel, g.sum(0)


dense.defvjp(_dense_forward, _dense_backward)


@jax.custom_vjp
def dense_gelu(x: Array, kernel: Array, bias: Array) -> Array:
    """Exact GELU of an affine map: u Phi(u) for u = x (n, in) @ kernel (in, out) + bias (out,)."""
    return gelu(x @ kernel + bias[None])


def _dense_gelu_forward(
    x: Array, kernel: Array, bias: Array
) -> tuple[Array, tuple[Array, Array, Array, Array]]:
    product = x @ kernel
    return gelu(product + bias[None]), (x, kernel, bias, product)


def _dense_gelu_backward(
    saved: tuple[Array, Array, Array, Array], g: Array
) -> tuple[Array, Array, Array]:
    x, kernel, bias, product = saved
    u = later(product, g) + bias[None]
    density = jnp.exp(-0.5 * u * u) * (1.0 / sqrt(2.0 * pi))
    return _dense_backward((x, kernel), g * (_normal_cdf(u) + u * density))


dense_gelu.defvjp(_dense_gelu_forward, _dense_gelu_backward)


def gelu(u: Array) -> Array:
    """Exact GELU: u Phi(u), Phi the standard normal distribution function."""
    return u * _normal_cdf(u)


def _normal_cdf(u: Array) -> Array:
    # erf, not erfc as in jax.nn.gelu: half the work; the absolute error is what matters here.
    return 0.5 + 0.5 * jax.lax.erf(u * sqrt(0.5))


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def layer_norm(x: Array, scale: Array, bias: Array, eps: float) -> Array:
    """Normalise x (n, D) over its last axis, then scale (D,) and shift (D,)."""
    return _norm_forward(x, scale, bias, eps)[0]


def _norm_forward(
    x: Array, scale: Array, bias: Array, eps: float
) -> tuple[Array, tuple[Array, Array, Array]]:
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    mean = wide.mean(-1, keepdims=True)
    centred = wide - mean
    inverse_sd = jax.lax.rsqrt((centred * centred).mean(-1, keepdims=True) + eps)
    unit = centred * inverse_sd
    y = unit * scale[None].astype(unit.dtype) + bias[None].astype(unit.dtype)
    return y.astype(x.dtype), (unit, inverse_sd, scale)


def _norm_backward(
    eps: float, saved: tuple[Array, Array, Array], g: Array
) -> tuple[Array, Array, Array]:
    del eps
    unit, inverse_sd, scale = saved
    g32 = g.astype(unit.dtype)
    dunit = g32 * scale[None].astype(unit.dtype)
    along = (dunit * unit).mean(-1, keepdims=True)
    dx = inverse_sd * (dunit - dunit.mean(-1, keepdims=True) - unit * along)
    dscale, dbias = (g32 * unit).sum(0), g32.sum(0)
    return dx.astype(g.dtype), dscale.astype(scale.dtype), dbias.astype(scale.dtype)


layer_norm.defvjp(_norm_forward, _norm_backward)

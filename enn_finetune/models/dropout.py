"""Dropout from a counter hash: cheap on CPU, fused into what uses it, never stored.

An element is kept or dropped by a 32-bit hash of its flat index and of 64 bits of salt drawn from
the key. The backward pass computes the same mask again instead of keeping it in memory, and the
mask does not depend on how the array is sharded. The hash is a two-multiply xor-shift mixer
(C. Wellons, "lowbias32", 2018) with the second salt word added between the rounds, so that two
salts do not give permutations of one sequence.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array


def salts(key: Array, count: int) -> Array:
    """Salt (count, 2) uint32 for `count` dropout sites, from a typed key of any implementation."""
    return jax.random.bits(key, (count, 2), jnp.uint32)


def hash_bits(shape: tuple[int, ...], salt: Array) -> Array:
    """Uniform uint32 bits of this shape, a pure function of the flat index and of salt (2,)."""
    x = _flat_index(shape) ^ salt[0]
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D)
    x = x + salt[1]
    x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B)
    return x ^ (x >> np.uint32(16))


def keep_scale(shape: tuple[int, ...], salt: Array, rate: float, dtype: jnp.dtype) -> Array:
    """The factor (shape) of dropout: 0 where dropped, 1 / P(keep) where kept.

    P(keep) is the realised one, a multiple of 2^-32, so the expectation of the factor is 1.
    """
    threshold = min(round((1.0 - rate) * 2**32), 2**32 - 1)
    kept = hash_bits(shape, salt) < np.uint32(threshold)
    return jnp.where(kept, jnp.asarray(2**32 / threshold, dtype), jnp.zeros((), dtype))


def dropout(x: Array, salt: Array | None, rate: float) -> Array:
    """Drop elements of x at this rate; x itself when salt is None or the rate is 0."""
    if salt is None or rate == 0.0:
        return x
    return _dropped(x, salt, rate)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _dropped(x: Array, salt: Array, rate: float) -> Array:
    return x * keep_scale(x.shape, salt, rate, x.dtype)


def _backward(rate: float, salt: Array, g: Array) -> tuple[Array, None]:
    return _dropped(g, later(salt, g), rate), None


_dropped.defvjp(lambda x, salt, rate: (_dropped(x, salt, rate), salt), _backward)


def later(saved: Array, g: Array) -> Array:
    """The same array, but what is computed from it is computed once more, after g is known.

    Without it XLA finds the forward pass's expression equal and keeps its result in memory.
    """
    # One element of g is enough to order the two, and leaves g free to be fused.
    return jax.lax.optimization_barrier((saved, g.reshape(-1)[:1]))[0]


def _flat_index(shape: tuple[int, ...]) -> Array:
    index = jnp.zeros(shape, jnp.uint32)
    stride = 1
    for axis in reversed(range(len(shape))):
        index = index + jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * np.uint32(stride)
        stride *= shape[axis]
    return index

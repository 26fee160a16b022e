"""Self-attention over packed rows, with a hand-written reverse pass.

Softmax attention as in Vaswani et al. 2017 (arXiv 1706.03762). The reverse pass keeps the
probabilities, computes the dropout mask again, and takes the softmax's row sum from the output:
sum_k p_k dp_k = do . o (Dao et al. 2022, arXiv 2205.14135, appendix B), which holds under dropout.
"""

from functools import partial

import jax
import jax.numpy as jnp

from enn_finetune.models.dropout import dropout, later

Array = jax.Array
BLOCKED = -1e30  # added to a score; every token may attend to itself, so no row is all blocked


def block_bias(owner: Array) -> Array:
    """What is added to scores so that only tokens of one owner meet: (R, L) -> (R, 1, L, L)."""
    same = owner[:, None, :, None] == owner[:, None, None, :]
    return jnp.where(same, jnp.float32(0), jnp.float32(BLOCKED))


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def attend(qkv: Array, bias: Array, salt: Array | None, heads: int, rate: float) -> Array:
    """Multi-head self-attention.

    qkv (R * L, 3D) is the fused projection, bias (R, 1, L, L) is added to the scores, and salt (2,)
    drops probabilities at `rate` (None: no dropout). Returns (R * L, D). No gradient for bias.
    """
    R, _, L, _ = bias.shape
    q, k, v = _split(qkv, R, heads)
    scores = _batched(q * (q.shape[-1] ** -0.5), k, 3, 3).astype(jnp.float32) + bias
    # Normalised after the product with v, which is smaller than the scores.
    weights = jnp.exp(scores - scores.max(-1, keepdims=True))
    out = _batched(dropout(weights, salt, rate).astype(v.dtype), v, 3, 2)
    out = (out / weights.sum(-1, keepdims=True)).astype(v.dtype)
    return out.transpose(0, 2, 1, 3).reshape(R * L, -1)


Saved = tuple[Array, Array, Array, Array, Array, Array | None]


def _forward(
    qkv: Array, bias: Array, salt: Array | None, heads: int, rate: float
) -> tuple[Array, Saved]:
    R, _, L, _ = bias.shape
    q, k, v = _split(qkv, R, heads)
    scores = _batched(q, k, 3, 3).astype(jnp.float32) * (q.shape[-1] ** -0.5) + bias
    probs = jax.nn.softmax(scores, axis=-1)
    out = _batched(dropout(probs, salt, rate).astype(v.dtype), v, 3, 2)
    return out.transpose(0, 2, 1, 3).reshape(R * L, -1), (q, k, v, probs, out, salt)


def _backward(heads: int, rate: float, saved: Saved, g: Array) -> tuple[Array, None, None]:
    q, k, v, probs, out, salt = saved
    salt = None if salt is None else later(salt, g)
    R, _, L, d = q.shape
    g = g.reshape(R, L, heads, d).transpose(0, 2, 1, 3)
    dv = _batched(dropout(probs, salt, rate).astype(g.dtype), g, 2, 2)
    row = (g * out).astype(jnp.float32).sum(-1, keepdims=True)
    dprobs = dropout(_batched(g, v, 3, 3).astype(jnp.float32), salt, rate)
    dscores = (probs * (dprobs - row) * (d**-0.5)).astype(q.dtype)
    dq, dk = _batched(dscores, k, 3, 2), _batched(dscores, q, 2, 2)
    return jnp.stack([dq, dk, dv]).transpose(1, 3, 0, 2, 4).reshape(R * L, -1), None, None


attend.defvjp(_forward, _backward)


def _split(qkv: Array, rows: int, heads: int) -> tuple[Array, Array, Array]:
    """Queries, keys and values (R, H, L, d) of the fused projection (R * L, 3D)."""
    q, k, v = qkv.reshape(rows, -1, 3, heads, qkv.shape[1] // 3 // heads).transpose(2, 0, 3, 1, 4)
    return q, k, v


def _batched(a: Array, b: Array, a_axis: int, b_axis: int) -> Array:
    return jax.lax.dot_general(a, b, (((a_axis,), (b_axis,)), ((0, 1), (0, 1))))

"""The encoder's operations against autodiff of their plain definitions, and dropout's bits."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from enn_finetune.models.attention import attend, block_bias
from enn_finetune.models.dropout import dropout, hash_bits, keep_scale, salts
from enn_finetune.models.ops import dense, dense_gelu, gelu, layer_norm


def plain_attention(qkv, bias, salt, heads, rate):
    R, _, L, _ = bias.shape
    q, k, v = jnp.moveaxis(qkv.reshape(R, L, 3, heads, -1), 2, 0)
    scores = jnp.einsum("rqhd,rkhd->rhqk", q, k) / jnp.sqrt(q.shape[-1]) + bias
    probs = dropout(jax.nn.softmax(scores, axis=-1), salt, rate)
    return jnp.einsum("rhqk,rkhd->rqhd", probs, v).reshape(R * L, -1)


@pytest.mark.parametrize("drop", [False, True])
def test_attention_gradient_is_autodiff(drop):
    keys = jax.random.split(jax.random.key(0), 3)
    qkv, weight = jax.random.normal(keys[0], (10, 24)), jax.random.normal(keys[1], (10, 8))
    bias = block_bias(jnp.asarray([[0, 0, 0, 1, 1], [2, 2, 3, 3, 3]]))
    salt = salts(keys[2], 1)[0] if drop else None

    def total(function, qkv):
        return (function(qkv, bias, salt, 2, 0.3) * weight).sum()

    ours, plain = (jax.jit(jax.grad(partial(total, f)))(qkv) for f in (attend, plain_attention))
    np.testing.assert_allclose(ours, plain, atol=1e-5)


def test_dense_gradient_is_autodiff():
    keys = jax.random.split(jax.random.key(2), 3)
    arrays = [jax.random.normal(k, s) for k, s in zip(keys, [(7, 5), (5, 6), (6,)], strict=True)]
    ours = jax.grad(lambda *a: jnp.sin(dense(*a)).sum(), (0, 1, 2))(*arrays)
    plain = jax.grad(lambda x, k, b: jnp.sin(x @ k + b[None]).sum(), (0, 1, 2))(*arrays)
    for a, b in zip(ours, plain, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_dense_gelu_and_layer_norm_gradients_are_autodiff():
    keys = jax.random.split(jax.random.key(1), 5)
    x, kernel = jax.random.normal(keys[0], (7, 5)), jax.random.normal(keys[1], (5, 6))
    weight = jax.random.normal(keys[2], (7, 6))
    bias, scale = (jax.random.normal(k, (6,)) for k in keys[3:])

    def ours(x, kernel, bias, scale):
        return (layer_norm(dense_gelu(x, kernel, bias), scale, bias, 1e-6) * weight).sum()

    def plain(x, kernel, bias, scale):
        h = jax.nn.gelu(x @ kernel + bias[None], approximate=False)
        h = (h - h.mean(-1, keepdims=True)) / jnp.sqrt(h.var(-1, keepdims=True) + 1e-6)
        return ((h * scale[None] + bias[None]) * weight).sum()

    grads = (jax.jit(jax.grad(f, (0, 1, 2, 3)))(x, kernel, bias, scale) for f in (ours, plain))
    for a, b in zip(*grads, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5, rtol=1e-5)


def test_gelu_is_exact_to_1e_6():
    scipy_special = pytest.importorskip("scipy.special")
    u = np.linspace(-12, 12, 100_001)
    expected = u * 0.5 * scipy_special.erfc(-u / np.sqrt(2))
    np.testing.assert_allclose(gelu(jnp.asarray(u, jnp.float32)), expected, atol=1e-6)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_keep_scale_is_unbiased(rate):
    factor = np.asarray(keep_scale((400, 1000), salts(jax.random.key(3), 1)[0], rate, jnp.float32))
    kept = (factor > 0).mean()
    assert abs(kept - (1 - rate)) < 5 * np.sqrt(rate * (1 - rate) / factor.size)
    assert abs(factor[factor > 0].mean() * (1 - rate) - 1) < 1e-6


def test_hash_bits_are_uniform_and_uncorrelated():
    a, b = (np.asarray(hash_bits((512, 512), s)) for s in salts(jax.random.key(0), 2))
    n = a.size
    for bit in range(32):
        ones_a, ones_b = (a >> bit) & 1, (b >> bit) & 1
        assert abs(ones_a.mean() - 0.5) < 5 * 0.5 / np.sqrt(n)
        assert abs((ones_a ^ ones_b).mean() - 0.5) < 5 * 0.5 / np.sqrt(n)
    low = a / 2**32 < 0.1  # the event of a drop, in neighbouring places
    for shifted in (low[:, 1:] & low[:, :-1], low[1:] & low[:-1]):
        assert abs(shifted.mean() - 0.01) < 5 * np.sqrt(0.01 * 0.99 / n)

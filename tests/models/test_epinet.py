"""The MLP epinet: definition against fast path, what its prior is spared, its losses."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from enn_finetune.models import row_chunks
from enn_finetune.models.epinet import Epinet, Prior
from enn_finetune.models.epinet_loss import bootstrap_weights, cross_entropy, l2, row_signatures

few = settings(deadline=None, max_examples=6)


def by_definition(head: Epinet, features: jax.Array, z: jax.Array) -> jax.Array:
    return jax.vmap(lambda one: head(features, one))(z)


fast, defined = nnx.jit(Epinet.many), nnx.jit(by_definition)


SHAPES = [(1, 5, 2, (), 3, 1), (7, 16, 5, (13,), 10, 6), (40, 1, 1, (5, 6, 3), 1, 2)]
"""n, features, classes, hidden, dim z, K: few, for each is two compiled programs."""


@few
@given(shape=st.sampled_from(SHAPES), scale=st.sampled_from([0.0, 0.3]), seed=st.integers(0, 99))
def test_many_is_the_definition(shape, scale, seed):
    n, features, classes, hidden, index_dim, count = shape
    head = Epinet(
        features, classes, hidden=hidden, index_dim=index_dim, prior_scale=scale, rngs=nnx.Rngs(n)
    )
    x = jax.random.normal(jax.random.key(seed), (n, features))
    z = head.sample_index(jax.random.key(seed + 1), count)
    got = fast(head, x, z)
    chex.assert_shape(got, (count, n, classes))
    np.testing.assert_allclose(got, defined(head, x, z), atol=1e-5, rtol=1e-5)


def biased_head(hidden: tuple[int, ...]) -> Epinet:
    """A head none of whose biases is zero."""
    head = Epinet(6, 3, hidden=hidden, index_dim=4, prior_scale=0.7, rngs=nnx.Rngs(0))
    for seed, bias in enumerate([*head.learnable.biases, *head.prior.biases, head.base.bias]):
        bias[...] = jax.random.normal(jax.random.key(seed), bias[...].shape)
    return head


@pytest.mark.parametrize("hidden", [(), (9,), (9, 8)])
@pytest.mark.parametrize("rows", [1, 37, 64])
def test_chunks_of_rows_change_neither_values_nor_gradients(hidden, rows, monkeypatch):
    head = biased_head(hidden)
    x = jax.random.normal(jax.random.key(1), (rows, 6))
    z = head.sample_index(jax.random.key(2), 5)
    monkeypatch.setattr(row_chunks, "CACHE_FLOATS", 16)  # chunks of 8 rows

    def gradients(forward):
        def loss(head, x):
            logits = forward(head, x, z)
            return jnp.sum(jnp.sin(logits)), logits

        wrt = (nnx.DiffState(0, nnx.Param), 1)
        return nnx.jit(nnx.value_and_grad(loss, argnums=wrt, has_aux=True))(head, x)

    chex.assert_trees_all_close(
        gradients(Epinet.many), gradients(by_definition), atol=1e-4, rtol=1e-4
    )


def test_small_inputs_are_not_chunked():
    head = Epinet(6, 3, rngs=nnx.Rngs(0))
    jaxpr = jax.make_jaxpr(head.many)(jnp.ones((8, 6)), jnp.ones((4, 10)))
    assert not {"scan", "while"} & {str(eqn.primitive) for eqn in jaxpr.eqns}


def test_only_the_base_sends_gradients_to_the_features():
    head = Epinet(6, 3, rngs=nnx.Rngs(0))
    x, z = jnp.ones((4, 6)), jnp.ones((2, 10))
    got = jax.grad(lambda x: head.many(x, z).sum())(x)
    np.testing.assert_allclose(got, jax.grad(lambda x: 2 * head.base(x).sum())(x), rtol=1e-5)
    one = jax.grad(lambda x: head(x, z[0]).sum())(x)
    np.testing.assert_allclose(one, jax.grad(lambda x: head.base(x).sum())(x), rtol=1e-5)


def test_the_prior_is_its_own_kind_of_variable():
    head = Epinet(6, 3, rngs=nnx.Rngs(0))
    assert len(jax.tree.leaves(nnx.state(head, Prior))) == 4
    assert len(jax.tree.leaves(nnx.state(head, nnx.Param))) == 6
    assert len(jax.tree.leaves(nnx.state(head))) == 10


def test_the_prior_is_in_the_sum_and_differs_from_the_learnable_part():
    z = jnp.ones((2, 10))
    with_prior, without = (
        Epinet(6, 3, prior_scale=scale, rngs=nnx.Rngs(0)) for scale in (1.0, 0.0)
    )
    x = jax.random.normal(jax.random.key(0), (8, 6))
    difference = with_prior.many(x, z) - without.many(x, z)
    assert float(jnp.min(jnp.max(jnp.abs(difference), axis=(0, 1)))) > 1e-2
    learn, prior = with_prior.learnable(x, z[0]), with_prior.prior(x, z[0])
    assert float(jnp.max(jnp.abs(learn - prior))) > 1e-2


def test_a_base_of_ones_own():
    base = nnx.Sequential(
        nnx.Linear(6, 8, rngs=nnx.Rngs(1)), jax.nn.gelu, nnx.Linear(8, 3, rngs=nnx.Rngs(2))
    )
    head = Epinet(6, 3, base=base, prior_scale=0, rngs=nnx.Rngs(0))
    x, zero = jnp.ones((2, 6)), jnp.zeros((1, 10))
    np.testing.assert_allclose(head.many(x, zero)[0], base(x), rtol=1e-6)
    with pytest.raises(ValueError, match="base of your own"):
        _ = head.config


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ({"features": 0}, "features=0"),
        ({"classes": 0}, "classes=0"),
        ({"index_dim": 0}, "index_dim=0"),
        ({"hidden": (50, 0)}, r"hidden=\(50, 0\)"),
        ({"prior_scale": -1.0}, "prior_scale=-1.0"),
        ({"prior_scale": float("nan")}, "prior_scale=nan"),
    ],
)
def test_impossible_sizes_are_named(arguments, found):
    sizes = {"features": 6, "classes": 3} | arguments
    with pytest.raises(ValueError, match=found):
        Epinet(**sizes, rngs=nnx.Rngs(0))


# ---- losses


def test_cross_entropy_against_loops():
    log_probs = jax.nn.log_softmax(jax.random.normal(jax.random.key(0), (3, 4, 5)))
    targets = jax.nn.softmax(jax.random.normal(jax.random.key(1), (4, 5)))
    weights, by_index = jnp.array([1.0, 0.5, 2.0, 0.0]), jnp.arange(12.0).reshape(3, 4)
    expected = sum(
        float(weights[n] * by_index[k, n] * -(targets[n] @ log_probs[k, n]))
        for k in range(3)
        for n in range(4)
    ) / (3 * 3.5)
    got = cross_entropy(log_probs, targets, weights, by_index)
    assert float(got) == pytest.approx(expected, rel=1e-5)


def test_cross_entropy_is_safe_at_zero_probability_and_without_rows():
    log_probs = jnp.array([[[0.0, -jnp.inf], [-jnp.inf, 0.0]]])
    targets, one = jnp.array([[1.0, 0.0], [1.0, 0.0]]), jnp.array([1.0, 0.0])
    value, gradient = jax.value_and_grad(cross_entropy)(log_probs, targets, one)
    assert float(value) == 0
    assert bool(jnp.all(jnp.isfinite(gradient)))
    assert float(cross_entropy(log_probs, targets, jnp.zeros(2))) == 0


@pytest.mark.parametrize(("kind", "variance"), [("bernoulli", 1), ("exponential", 1), ("none", 0)])
def test_bootstrap_weights_have_the_moments_of_their_kind(kind, variance):
    signatures = row_signatures(jax.random.key(0), jnp.arange(20), 6)
    np.testing.assert_allclose(jnp.linalg.norm(signatures, axis=1), 1, rtol=1e-5)
    weights = bootstrap_weights(signatures, jax.random.normal(jax.random.key(1), (20_000, 6)), kind)
    chex.assert_shape(weights, (20_000, 20))
    assert float(weights.min()) >= 0
    np.testing.assert_allclose(weights.mean(0), 1, atol=0.05)
    np.testing.assert_allclose(weights.var(0), variance, atol=0.12)


def test_a_rows_signature_is_its_own_in_every_batch():
    key = jax.random.key(3)
    together = row_signatures(key, jnp.array([5, 9, 2]), 4)
    np.testing.assert_array_equal(together[1:2], row_signatures(key, jnp.array([9]), 4))
    with pytest.raises(ValueError, match="'poisson'"):
        bootstrap_weights(together, jnp.ones((1, 4)), "poisson")


def test_l2_is_of_the_parameters_only_and_falls_as_one_over_n():
    head = Epinet(6, 3, rngs=nnx.Rngs(0))
    squares = sum(float(jnp.sum(p**2)) for p in jax.tree.leaves(nnx.state(head, nnx.Param)))
    assert float(l2(head, 0.3, 10)) == pytest.approx(0.3 / 20 * squares, rel=1e-5)
    assert float(l2(nnx.state(head), 0.3, 10)) == pytest.approx(0.3 / 20 * squares, rel=1e-5)
    assert float(l2(head, 0.3, 20)) == pytest.approx(0.3 / 40 * squares, rel=1e-5)
    gradient = nnx.grad(lambda head: l2(head, 0.3, 10))(head)
    np.testing.assert_allclose(
        gradient["base"]["kernel"][...], 0.03 * head.base.kernel[...], rtol=1e-5
    )


def test_the_epinet_learns():
    """Some AdamW steps on a separable problem; the indices go on disagreeing far away."""
    head = Epinet(2, 2, hidden=(20,), index_dim=5, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (64, 2))
    targets = jax.nn.one_hot((x[:, 0] > 0).astype(int), 2)
    signatures = row_signatures(jax.random.key(1), jnp.arange(64), 5)
    optimizer = nnx.Optimizer(head, optax.adamw(2e-2), wrt=nnx.Param)

    @nnx.jit
    def step(head, optimizer, key):
        z = head.sample_index(key, 8)

        def loss(head):
            log_probs = jax.nn.log_softmax(head.many(x, z))
            by_index = bootstrap_weights(signatures, z)
            return cross_entropy(log_probs, targets, jnp.ones(64), by_index) + l2(head, 0.1, 64)

        value, grads = nnx.value_and_grad(loss)(head)
        optimizer.update(head, grads)
        return value

    values = [step(head, optimizer, jax.random.key(i)) for i in range(150)]
    assert float(values[-1]) < 0.4 * float(values[0])
    z = head.sample_index(jax.random.key(9), 50)
    spread = jnp.std(jax.nn.softmax(head.many(jnp.array([[2.0, 0], [0, 8.0]]), z))[..., 0], axis=0)
    assert float(spread[1]) > 3 * float(spread[0])

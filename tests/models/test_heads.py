"""The laws of every head, and `make_head`. A head that enters HEADS is covered by entering MADE."""

import functools
import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from enn_finetune.models.epinet import Epinet
from enn_finetune.models.heads import HEADS, LinearHead, make_head
from enn_finetune.models.shaped_features import pool_shapes
from enn_finetune.models.solvers import SOLVERS

D, C = 8, 3


@functools.cache
def fitted(name: str):
    features = jax.random.normal(jax.random.key(0), (40, D))
    targets = jax.nn.one_hot(jnp.argmax(features[:, :C], axis=1), C)
    solving = SOLVERS[name]
    return solving.make(
        jax.jit(solving.fit)(
            features,
            targets,
            jnp.ones(40),
            pool_shapes(features, classes=features[:C]),
            key=jax.random.key(1),
        )
    )


MADE = {
    "linear": lambda: LinearHead(D, C, rngs=nnx.Rngs(0)),
    "epinet": lambda: Epinet(D, C, hidden=(9,), index_dim=5, rngs=nnx.Rngs(0)),
    "linear_epinet": lambda: fitted("epinet"),
    "shaped_linear": lambda: fitted("shaped"),
    "plain_linear": lambda: fitted("linear"),
    "members": lambda: fitted("ensemble_prior"),
    **{
        name: functools.partial(fitted, name)
        for name in ("mc_dropout", "gp", "mlp_epinet", "neuronal")
    },
    # Not kinds of their own, but solvers whose heads are to keep the laws:
    **{
        f"members of {name}": functools.partial(fitted, name)
        for name in ("ensemble", "laplace", "laplace_kron")
    },
    "described epinet": lambda: fitted("described_epinet"),
}


@pytest.fixture(scope="module", params=sorted(HEADS.keys() | MADE.keys()))
def head(request):
    return MADE[request.param]()


def rows(n: int = 12) -> np.ndarray:
    return np.random.default_rng(5).normal(size=(n, D)).astype(np.float32)


many = nnx.jit(lambda head, features, z: head.many(features, z))


def test_shapes_of_one_and_of_many_indices(head):
    z = head.sample_index(jax.random.key(0), 4)
    assert z.shape[0] == 4
    assert (z.shape[1] == 0) == (not head.epistemic)
    chex.assert_shape(many(head, rows(), z), (4, 12, C))
    chex.assert_shape(many(head, rows(1), z), (4, 1, C))
    assert head.classes == C


def test_one_index_is_one_function_of_x(head):
    features, z = rows(), head.sample_index(jax.random.key(0), 3)
    logits = many(head, features, z)
    order = jax.random.permutation(jax.random.key(1), 12)
    np.testing.assert_allclose(many(head, features[order], z), logits[:, order], atol=1e-5)
    halves = [many(head, part, z) for part in (features[:6], features[6:])]
    np.testing.assert_allclose(jnp.concatenate(halves, axis=1), logits, atol=1e-5)
    np.testing.assert_allclose(many(head, features, z[1:2])[0], logits[1], atol=1e-5)


def test_many_is_one_index_after_another(head):
    features, z = rows(), head.sample_index(jax.random.key(0), 3)
    one = nnx.jit(lambda head, features, z: head(features, z))
    one_by_one = jnp.stack([one(head, features, each) for each in z])
    np.testing.assert_allclose(many(head, features, z), one_by_one, atol=1e-5)


def test_indices_disagree_exactly_when_the_head_is_epistemic(head):
    logits = many(head, rows(), head.sample_index(jax.random.key(0), 4))
    spread = float(jnp.std(jax.nn.softmax(logits), axis=0).max())
    assert spread > 1e-2 if head.epistemic else spread == 0


def test_indices_are_seeded(head):
    draw = [np.asarray(head.sample_index(jax.random.key(k), 4)) for k in (0, 0, 1)]
    np.testing.assert_array_equal(draw[0], draw[1])
    assert not head.epistemic or (draw[0] != draw[2]).any()


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e4, 1e10])
def test_extreme_features_give_finite_logits(head, scale):
    logits = many(head, scale * rows(), head.sample_index(jax.random.key(0), 3))
    assert np.isfinite(logits).all()
    assert np.isfinite(jax.nn.log_softmax(logits)).all()


def test_one_trace_for_all_calls_of_a_shape(head):
    graph, state = nnx.split(head)

    traces = []

    @jax.jit
    def call(state, features, z):
        traces.append(1)
        return nnx.merge(graph, state).many(features, z)

    for seed in range(3):
        call(state, rows() + seed, head.sample_index(jax.random.key(seed), 4))
    assert len(traces) == 1


def test_an_optimiser_of_params_leaves_everything_else_alone(head):
    head = nnx.clone(head)
    others = nnx.Not(nnx.Param)
    before, params = (jax.tree.map(jnp.copy, nnx.state(head, k)) for k in (others, nnx.Param))
    optimizer = nnx.Optimizer(head, optax.adamw(1e-2, weight_decay=0.5), wrt=nnx.Param)
    z = head.sample_index(jax.random.key(0), 2)

    @nnx.jit
    def step(head, optimizer):
        grads = nnx.grad(lambda head: jnp.sum(head.many(rows(), z) ** 2))(head)
        optimizer.update(head, grads)

    step(head, optimizer)
    chex.assert_trees_all_equal(before, nnx.state(head, others))
    moved = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), params, nnx.state(head, nnx.Param))
    assert all(jax.tree.leaves(moved))


def test_config_and_state_build_the_head_again(head):
    config = json.loads(json.dumps(head.config))
    again = make_head(config, rngs=nnx.Rngs(99))
    nnx.update(again, nnx.state(head))
    assert again.config == head.config
    z = head.sample_index(jax.random.key(0), 3)
    np.testing.assert_array_equal(again.sample_index(jax.random.key(0), 3), z)
    np.testing.assert_array_equal(many(again, rows(), z), many(head, rows(), z))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"kind": "epinett"}, "found 'epinett'; did you mean 'epinet'"),
        ({"features": 8}, "found None; use one of linear, epinet"),
        ({"kind": 3}, "found 3; use one of linear, epinet"),
        ({"kind": "epinet", "features": 8, "classes": 3, "index_dims": 4}, "mean 'index_dim'"),
        ({"kind": "linear", "features": 8, "classes": 3, "rngs": 0}, "head.rngs: not an argument"),
        ({"kind": "linear_epinet", "features": 8}, "also needs classes"),
    ],
)
def test_errors_name_the_nearest(config, message):
    with pytest.raises(ValueError, match=message):
        make_head(config, rngs=nnx.Rngs(0))

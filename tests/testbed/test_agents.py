"""Laws of every agent: one index is one function, hidden rows are hidden, priors stay."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from enn_finetune.testbed import fitting
from enn_finetune.testbed.agents import AGENTS
from enn_finetune.testbed.agents.last_layer import draw_logits, last_layer
from enn_finetune.testbed.agents.sngp import normalised
from enn_finetune.testbed.types import Data, Spec, Tree

SPEC = Spec(input_dim=3, classes=3, temperature=0.01)
KEY = jax.random.key(0)
ROWS, COUNT = 8, 6
SMALL = {
    "mlp": {"hidden": (6, 5)},
    "dropout": {"hidden": (6, 5), "rate": 0.4},
    "ensemble": {"hidden": (6, 5), "members": 4},
    "ensemble_prior": {"hidden": (6, 5), "members": 4},
    "epinet": {"hidden": (6, 5), "sigma_hidden": (4,), "prior_hidden": (3,), "index_dim": 2},
    "laplace": {"hidden": (6, 5), "widen": 0.5},
    "sngp": {"width": 6, "frequencies": 16, "amplitude": 0.03},
}
EPISTEMIC = sorted(set(SMALL) - {"mlp"})


class Run(NamedTuple):
    before: fitting.State
    after: fitting.State
    fit: Tree
    log_probs: Array


@pytest.fixture(scope="module")
def made():
    """Each agent's whole course as one program, compiled once: (data, weight, asked x)."""
    cache = {}

    def make(name):
        agent = AGENTS[name](SPEC, **SMALL[name])

        def run(data: Data, weight: Array, asked: Array, key: Array) -> Run:
            before = fitting.start(agent, SPEC, KEY)
            after = fitting.train(agent, before, KEY, data, weight, steps=100, learning_rate=0.03)
            fit = fitting.finish(agent, after, data, weight)
            return Run(before, after, fit, agent.log_probs(fit, key, asked, COUNT))

        if name not in cache:
            program = jax.jit(run)
            cache[name] = agent, lambda *given, key=KEY: program(*given, key)
        return cache[name]

    return make


def some_data() -> tuple[Data, Array]:
    x = jax.random.normal(jax.random.key(3), (ROWS, 3))
    y = jax.random.randint(jax.random.key(4), (ROWS,), 0, 3)
    return Data(x, y), jnp.array([1, 1, 0, 1, 1, 0, 1, 0], jnp.float32)


def same(first: Tree, second: Tree) -> None:
    jax.tree.map(np.testing.assert_array_equal, first, second)


def test_every_agent_is_tested():
    assert set(SMALL) == set(AGENTS)


@pytest.mark.parametrize("name", SMALL)
def test_one_index_is_one_function(made, name):
    """Under the same key a row's predictions do not depend on where and beside what it stands."""
    (agent, run), (data, weight) = made(name), some_data()
    log_probs = run(data, weight, data.x).log_probs
    assert log_probs.shape == (min(agent.functions or COUNT, COUNT), ROWS, 3)
    np.testing.assert_allclose(jax.nn.logsumexp(log_probs, axis=-1), 0, atol=1e-4)
    order = np.random.default_rng(0).permutation(ROWS)
    permuted = run(data, weight, data.x[order]).log_probs
    np.testing.assert_allclose(permuted, log_probs[:, order], rtol=1e-4, atol=1e-5)
    others = data.x.at[4:].set(jax.random.normal(KEY, (4, 3)))
    beside = run(data, weight, others).log_probs
    np.testing.assert_allclose(beside[:, :4], log_probs[:, :4], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", SMALL)
def test_hidden_rows_may_hold_anything(made, name):
    (_, run), (data, weight) = made(name), some_data()
    hidden = weight == 0
    other = Data(jnp.where(hidden[:, None], jnp.nan, data.x), jnp.where(hidden, 2 - data.y, data.y))
    first, second = run(data, weight, data.x), run(other, weight, data.x)
    same(first, second)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(first))


@pytest.mark.parametrize("name", SMALL)
def test_known_rows_do_matter(made, name):
    (_, run), (data, weight) = made(name), some_data()
    first = run(data, weight, data.x).log_probs
    more = run(data, weight.at[2].set(1), data.x).log_probs
    assert np.abs(first - more).max() > 1e-4


@pytest.mark.parametrize("name", SMALL)
def test_training_moves_what_is_trained_and_nothing_else(made, name):
    (_, run), (data, weight) = made(name), some_data()
    found = run(data, weight, data.x)
    same(found.before.fixed, found.after.fixed)
    moved = jax.tree.map(lambda a, b: np.any(a != b), found.before.params, found.after.params)
    assert all(jax.tree.leaves(moved))


@pytest.mark.parametrize("name", SMALL)
def test_extremes_are_finite(made, name):
    (_, run), (data, weight) = made(name), some_data()
    assert np.isfinite(run(data, weight, 1e6 * data.x).log_probs).all()
    assert np.isfinite(run(data, jnp.zeros(ROWS), data.x).log_probs).all()


@pytest.mark.parametrize("name", EPISTEMIC)
def test_functions_differ_and_are_those_of_the_key(made, name):
    (agent, run), (data, weight) = made(name), some_data()
    log_probs = run(data, weight, data.x).log_probs
    spread = np.abs(log_probs[:, None] - log_probs[None]).max(axis=(2, 3))
    assert (spread + np.eye(len(log_probs)) > 1e-4).all()
    again = run(data, weight, data.x, key=jax.random.key(1)).log_probs
    assert np.array_equal(again, log_probs) == (agent.functions > 0)


def test_an_ensemble_asked_for_few_gives_some_of_its_members(made):
    (agent, run), (data, weight) = made("ensemble_prior"), some_data()
    found = run(data, weight, data.x)
    every = np.asarray(found.log_probs)
    some = np.asarray(agent.log_probs(found.fit, KEY, data.x, 2))
    which = [np.argmin(np.abs(every - member[None]).max(axis=(1, 2))) for member in some]
    assert len(set(which)) == 2
    np.testing.assert_allclose(some, every[which], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["ensemble_prior", "epinet"])
def test_the_prior_stands_where_nothing_is_known(made, name):
    """Before training, functions with a prior spread at least twice as far as those without."""
    x = some_data()[0].x

    @jax.jit
    def untrained(scale: Array) -> Array:
        agent = AGENTS[name](SPEC, **SMALL[name], prior_scale=scale)
        params, fixed = agent.init(KEY, SPEC)
        fit = agent.finish(params, fixed, x, jnp.zeros(ROWS, int), jnp.zeros(ROWS))
        return agent.log_probs(fit, KEY, x, COUNT)

    without, with_prior = (np.exp(untrained(jnp.float32(scale))) for scale in (0, 3))
    assert with_prior.std(axis=0).mean() > 2 * without.std(axis=0).mean()


def test_hessian_of_the_last_layer_is_the_second_derivative():
    phi = jax.random.normal(KEY, (5, 2))
    w = jax.random.normal(jax.random.key(1), (2, 3))
    y, weight = jnp.array([0, 1, 2, 1, 0]), jnp.array([1.0, 2.0, 0.0, 1.0, 1.0])

    def loss(flat):
        log_probs = jax.nn.log_softmax(phi @ flat.reshape(2, 3), axis=-1)
        picked = log_probs[jnp.arange(5), y]
        return -jnp.sum(weight * picked) + 0.5 * 0.7 * jnp.sum(flat**2)

    root = jax.jit(last_layer)(phi, w, weight, 0.7).root
    np.testing.assert_allclose(root @ root.T, jax.jit(jax.hessian(loss))(w.ravel()), atol=1e-5)


def test_draws_of_the_last_layer_have_the_posteriors_covariance():
    phi = jax.random.normal(KEY, (5, 2))
    posterior = jax.jit(last_layer)(phi, jnp.ones((2, 3)), jnp.ones(5), 0.7)
    draw = jax.jit(draw_logits, static_argnums=3)
    logits = draw(posterior, KEY, jnp.eye(2), 20_000)  # rows e_1, e_2: the weights
    covariance = np.cov(np.asarray(logits).reshape(20_000, 6).T)
    expected = np.linalg.inv(posterior.root @ posterior.root.T)
    np.testing.assert_allclose(covariance, expected, atol=0.05 * expected.max())
    np.testing.assert_allclose(np.mean(logits, axis=0), 1, atol=0.05)


@pytest.mark.parametrize("scale", [0.01, 3.0])
def test_normalised_matrices_fold_nothing(scale):
    weights = scale * jax.random.normal(KEY, (6, 6))
    found = normalised(weights, jax.random.normal(jax.random.key(1), (6,)), 0.9)
    expected = min(1.0, 0.9 / np.linalg.norm(weights, 2))
    np.testing.assert_allclose(found, expected * weights, rtol=0.03)


def test_minibatches_hold_known_rows_and_keep_the_weight():
    data, weight = some_data()
    data = data._replace(x=jnp.where(weight[:, None] > 0, data.x, jnp.nan))
    draw = jax.jit(jax.vmap(lambda key: fitting.minibatch(key, data, weight, 4)))
    x, _, share = draw(jax.random.split(KEY, 200))
    assert np.isfinite(x).all()
    np.testing.assert_allclose(share.sum(axis=1), weight.sum(), rtol=1e-6)
    drawn = np.unique(np.asarray(x).reshape(-1, 3), axis=0)
    assert len(drawn) == weight.sum()
    assert fitting.minibatch(KEY, data, jnp.zeros(ROWS), 4)[2].sum() == 0


def test_problems_and_seeds_are_one_vmap(made):
    """As `vmap` over keys and data: the same as one at a time; minibatches as well."""
    (agent, _), (data, weight) = made("mlp"), some_data()

    def one(key: Array, x: Array) -> Array:
        fit = fitting.fit(agent, SPEC, key, Data(x, data.y), weight, steps=5, batch=4)
        return agent.log_probs(fit, key, x, 1)

    keys, xs = jax.random.split(KEY, 2), jnp.stack([data.x, -data.x])
    together = jax.jit(jax.vmap(one))(keys, xs)
    apart = jax.jit(one)(keys[1], xs[1])
    np.testing.assert_allclose(together[1], apart, rtol=1e-4)


@pytest.mark.parametrize("name", SMALL)
def test_agents_learn(made, name):
    """Five labels of a plain rule: the known rows are told apart."""
    (_, run), (data, weight) = made(name), some_data()
    data = data._replace(y=2 * (data.x[:, 0] > 0).astype(jnp.int32))
    probs = np.exp(run(data, weight, data.x).log_probs).mean(axis=0)
    known = np.asarray(weight) > 0
    assert (probs.argmax(axis=1) == data.y)[known].all()
    assert -np.log(probs[np.arange(ROWS), data.y])[known].mean() < 0.8 * np.log(3)

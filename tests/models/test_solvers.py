"""The laws of every head on frozen features: a solver that enters SOLVERS is covered by that."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from enn_finetune.models.shaped_features import pool_shapes as shapes_of_pool
from enn_finetune.models.solvers import SOLVERS

D, N = 6, 16
KEY = jax.random.key(3)
FITS = {fit: jax.jit(fit) for fit in {solving.fit for solving in SOLVERS.values()}}
many = nnx.jit(lambda head, features, z: head.many(features, z))


def problem(classes: int = 2, seed: int = 0, width: int = D):
    """A pool, N labelled rows of it and their one-hot targets."""
    rng = np.random.default_rng(seed)
    pool = (rng.normal(size=(60, width)) * np.arange(1, width + 1) ** -0.5 + 0.5).astype(np.float32)
    logits = (pool[:N] - 0.5) @ rng.normal(size=(width, classes)) + 0.3 * rng.normal(
        size=(N, classes)
    )
    return pool, pool[:N], np.eye(classes, dtype=np.float32)[np.argmax(logits, axis=1)]


def pool_shapes(pool, classes: int = 2, views: int = 1):
    """With descriptions of the classes that say nothing about them: any rows."""
    return shapes_of_pool(pool, views=views, classes=jnp.asarray(pool[-classes:]))


def fitted(name, x, targets, weights, shapes, key=KEY):
    return FITS[SOLVERS[name].fit](x, targets, np.float32(weights), shapes, key=key)


def logits_of(name, fit, rows, count=6):
    head = SOLVERS[name].make(fit)
    return many(head, rows, head.sample_index(KEY, count))


@pytest.fixture(scope="module", params=sorted(SOLVERS))
def name(request):
    return request.param


def test_padding_changes_nothing_and_a_key_settles_everything(name):
    pool, x, targets = problem()
    shapes = pool_shapes(pool)
    half = np.arange(N) < N // 2
    whole = fitted(name, x, targets, half, shapes)
    x, targets = x.copy(), targets.copy()
    x[~half], targets[~half] = np.nan, np.nan
    padded = fitted(name, x, targets, half, shapes)
    np.testing.assert_allclose(
        logits_of(name, padded, pool), logits_of(name, whole, pool), atol=1e-4
    )
    np.testing.assert_array_equal(
        logits_of(name, fitted(name, x, targets, half, shapes), pool),
        logits_of(name, padded, pool),
    )


@pytest.mark.slow
def test_more_padding_changes_nothing(name):
    """Also where it takes the rows from fewer than D + 1 to more, and so to other algebra."""
    pool, x, targets = problem(width=20)
    shapes = pool_shapes(pool)
    longer = np.arange(2 * N) < N
    found = [
        fitted(name, x, targets, np.ones(N), shapes),
        fitted(name, np.tile(x, (2, 1)), np.tile(targets, (2, 1)), longer, shapes),
    ]
    probs = [jax.nn.softmax(logits_of(name, fit, pool)) for fit in found]
    np.testing.assert_allclose(*probs, atol=0.02)


@pytest.mark.parametrize("case", ["one class", "one row", "no rows", "equal rows"])
def test_poor_labels_give_a_finite_head(name, case):
    pool, x, targets = problem()
    weights = np.ones(N)
    if case == "one class":
        targets = np.tile(targets[:1], (N, 1))
    if case == "one row":
        weights = np.eye(N)[0]
    if case == "no rows":
        weights = np.zeros(N)
    if case == "equal rows":
        x = np.tile(x[:1], (N, 1))
    logits = logits_of(name, fitted(name, x, targets, weights, pool_shapes(pool)), pool)
    assert np.isfinite(logits).all()
    if case == "one class":
        mean = jnp.mean(jax.nn.softmax(logits), axis=(0, 1))
        assert int(jnp.argmax(mean)) == int(targets[0].argmax())


@pytest.mark.slow
@pytest.mark.parametrize("classes", [2, 15])
def test_classes_views_and_vmap_over_seeds(name, classes):
    problems = [problem(classes, seed, width=2 * D) for seed in range(2)]
    x, targets = (np.stack([p[i] for p in problems]) for i in (1, 2))
    pool = problems[0][0]
    shapes, keys = pool_shapes(pool, classes, views=2), jax.random.split(KEY)
    solving = SOLVERS[name]

    def fit(x, targets, key):
        return solving.fit(x, targets, jnp.ones(N), shapes, key=key)

    both = jax.jit(jax.vmap(fit))(x, targets, keys)
    for seed, key in enumerate(keys):
        one = jax.tree.map(lambda leaf, seed=seed: leaf[seed], both)
        assert one.rows(pool).shape == (60, D + 1) if hasattr(one, "rows") else True
        alone = fitted(name, x[seed], targets[seed], np.ones(N), shapes, key)
        probs = [jax.nn.softmax(logits_of(name, f, pool)) for f in (one, alone)]
        assert probs[0].shape == (6, 60, classes)
        np.testing.assert_allclose(*probs, atol=0.03)


def test_heads_learn(name):
    """Labels that one direction settles are predicted far better than by chance."""
    pool, x, _ = problem()
    targets = np.eye(2, dtype=np.float32)[(x[:, 0] > 0.5).astype(int)]
    logits = logits_of(name, fitted(name, x, targets, np.ones(N), pool_shapes(pool)), pool, 20)
    guess = jnp.argmax(jnp.mean(jax.nn.softmax(logits), axis=0), axis=1)
    assert np.mean(guess == (pool[:, 0] > 0.5)) > 0.75


def test_rows_may_be_shared(name):
    pool, x, targets = problem()
    head = SOLVERS[name].make(fitted(name, x, targets, np.ones(N), pool_shapes(pool)))
    z = head.sample_index(KEY, 3)
    np.testing.assert_allclose(
        head.from_rows(head.rows(pool), z), head.many(pool, z), atol=1e-5, rtol=1e-5
    )


def test_the_prior_moves_nothing(name):
    """Twice the pool's scale, shifted: the same predictions."""
    pool, x, targets = problem()
    found = [
        logits_of(
            name,
            fitted(name, a * x + 1, targets, np.ones(N), pool_shapes(a * pool + 1)),
            a * pool + 1,
        )
        for a in (1, 2)
    ]
    np.testing.assert_allclose(*(jax.nn.softmax(logits) for logits in found), atol=5e-3)

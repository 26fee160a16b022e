"""Each head on frozen features against its definition, by hand."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from enn_finetune.models import dropout_head, laplace_head, mlp_epinet
from enn_finetune.models.ensemble import bootstrap_counts, out_of_bag_loss
from enn_finetune.models.folds import held_out_loss, stratified_folds, training_weights
from enn_finetune.models.members import draw_members
from enn_finetune.models.mlp_epinet import MLPEpinet, fit_mlp_epinet
from enn_finetune.models.random_features import random_features
from enn_finetune.models.regressions import fit_regressions
from enn_finetune.models.shaped_features import pool_shapes
from enn_finetune.models.softmax_regression import (
    Rotated,
    fit_softmax_regression,
    rotate,
    with_bias,
)

KEY = jax.random.key(1)
N, WIDTH = 24, 5
regression = jax.jit(fit_softmax_regression)
fit_dropped = jax.jit(dropout_head.fit_dropped)


def problem(classes: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    x = with_bias(jnp.asarray(rng.normal(size=(N, WIDTH - 1)), jnp.float32) / 2)
    logits = 3 * np.asarray(x) @ rng.normal(size=(WIDTH, classes))
    labels = np.argmax(logits + rng.gumbel(size=logits.shape), axis=1)
    return x, jnp.eye(classes)[labels]


# ---- many regressions at once, folds


@pytest.mark.parametrize("classes", [2, 4])
def test_a_member_is_the_weighted_regression(classes):
    x, targets = problem(classes)
    counts = bootstrap_counts(KEY, N, 3)
    rotated = rotate(x, jnp.ones(N))
    found = jax.jit(fit_regressions)(rotated, targets, counts, 0.5)
    for m in range(3):
        alone = regression(x, targets, counts[:, m], 0.5).coefficients
        np.testing.assert_allclose(rotated.basis @ found[:, m], alone, atol=2e-3)


def test_a_member_with_its_own_centre_is_stationary():
    x, targets = problem(3)
    centre = jax.random.normal(KEY, (WIDTH, 2, 3))
    centre = centre - centre.mean(axis=-1, keepdims=True)
    weights = bootstrap_counts(KEY, N, 2)
    rotated = Rotated(x, jnp.eye(WIDTH), jnp.sum(x**2, axis=0))
    found = fit_regressions(rotated, targets, weights, 0.7, centre=centre, tolerance=1e-9)
    for m in range(2):
        residual = weights[:, m, None] * (jax.nn.softmax(x @ found[:, m]) - targets)
        gradient = x.T @ residual + 0.7 * (found[:, m] - centre[:, m])
        np.testing.assert_allclose(gradient, 0, atol=3e-3)


def test_bootstrap_counts_are_poisson():
    counts = np.asarray(bootstrap_counts(KEY, 4000, 5))
    assert counts.mean() == pytest.approx(1, abs=0.03)
    assert counts.var() == pytest.approx(1, abs=0.05)
    assert (counts == 0).mean() == pytest.approx(np.exp(-1), abs=0.02)
    np.testing.assert_array_equal(bootstrap_counts(KEY, 9, 5), counts[:9])


def test_out_of_bag_loss_asks_those_who_did_not_see_the_row():
    logits = jnp.log(jnp.asarray([[[0.9, 0.1], [0.6, 0.4]], [[0.2, 0.8], [0.5, 0.5]]]))
    targets, counts = jnp.eye(2), jnp.asarray([[0.0, 0.0], [0.0, 2.0]])
    expected = -(np.log(0.75) + np.log(0.8)) / 2
    assert float(out_of_bag_loss(logits, targets, jnp.ones(2), counts)) == pytest.approx(expected)
    nobody = out_of_bag_loss(logits, targets, jnp.ones(2), jnp.ones((2, 2)))
    assert float(nobody) == 0


def test_folds_deal_classes_out_evenly():
    labels = np.repeat([0, 1, 2], [20, 10, 7])
    weights = jnp.asarray(np.arange(37) % 9 > 0, jnp.float32)
    fold = np.asarray(stratified_folds(jnp.eye(3)[labels], weights, KEY))
    assert ((fold < 0) == (weights == 0)).all()
    for c in range(3):
        sizes = np.bincount(fold[(labels == c) & (fold >= 0)], minlength=5)
        assert np.ptp(sizes) <= 1
    training = np.asarray(training_weights(fold, weights))
    assert (training.sum(axis=1) == np.asarray(weights) * 4).all()
    log_probs = jnp.where(jnp.arange(5)[None, :, None] == fold[:, None, None], -1.0, -99.0)
    loss = held_out_loss(jnp.broadcast_to(log_probs, (37, 5, 3)), jnp.eye(3)[labels], weights, fold)
    assert float(loss) == pytest.approx(float(weights.sum()))


def test_every_member_is_drawn_equally_often():
    for count, together in [(10, 1), (30, 1), (7, 2), (20, 2)]:
        numbers = np.asarray(draw_members(KEY, count, 10, together))[:, 0]
        assert np.ptp(np.bincount(numbers, minlength=10)) <= 1
        if together == 2:
            pairs = numbers[: count // 2 * 2].reshape(-1, 2)
            assert (pairs[:, 0] // 2 == pairs[:, 1] // 2).all()


# ---- MC-dropout


def test_dropouts_mean_prediction_is_the_mean_over_all_masks():
    x, _ = problem(2)
    w, rate = jax.random.normal(KEY, (WIDTH, 2)), 0.3
    basis = np.asarray(dropout_head.cosine_basis(WIDTH))
    np.testing.assert_allclose(basis @ basis.T, np.eye(WIDTH), atol=1e-6)
    expected = np.zeros((N, 2))
    for kept in itertools.product([0, 1], repeat=WIDTH - 1):
        chance = np.prod([(1 - rate) if k else rate for k in kept])
        z = np.append(np.asarray(kept) / (1 - rate), 1)
        expected += chance * np.asarray(jax.nn.softmax(((x @ basis.T) * z[None]) @ basis @ w))
    z = dropout_head.masks(jax.random.uniform(KEY, (20_000, WIDTH)), rate)
    weights = dropout_head.dropped_weights(w, z)
    mean = jnp.mean(jax.nn.softmax(x[None] @ weights, axis=-1), axis=0)
    np.testing.assert_allclose(mean, expected, atol=0.01)


def test_training_under_dropout_minimises_the_masked_loss():
    x, targets = problem(3)
    uniform = dropout_head.row_uniforms(KEY, N, WIDTH)
    start = jnp.zeros((WIDTH, 1, 3))
    weights = jnp.ones((N, 1))
    found = fit_dropped(x, uniform, 0.4, targets, weights, 0.5, start)[:, 0]

    def loss(w):
        basis = dropout_head.cosine_basis(WIDTH)
        logits = ((x @ basis.T)[:, None] * dropout_head.masks(uniform, 0.4)) @ basis @ w
        nll = -jnp.sum(targets[:, None] * jax.nn.log_softmax(logits), axis=-1)
        return jnp.sum(jnp.mean(nll, axis=1)) + 0.25 * jnp.sum(w**2)

    assert float(jnp.abs(jax.grad(loss)(found)).max()) < 0.05
    assert float(loss(found)) < float(loss(found * 0.98))
    assert float(loss(found)) < float(loss(found * 1.02))
    still = fit_dropped(x, uniform, 0.0, targets, weights, 0.5, start)[:, 0]
    plain = regression(x, targets, jnp.ones(N), 0.5).coefficients
    np.testing.assert_allclose(still, plain, atol=0.02)


# ---- Laplace


def test_kron_draws_have_the_factored_covariance(monkeypatch):
    monkeypatch.setattr(laplace_head, "DRAWS", 8000)
    x, _ = problem(3)
    weights, l2 = jnp.linspace(0.5, 2, N), 0.8
    w = jax.random.normal(KEY, (WIDTH, 3))
    probs = np.asarray(jax.nn.softmax(x @ w), np.float64)
    blocks = np.einsum("nc,ce->nce", probs, np.eye(3)) - np.einsum("nc,ne->nce", probs, probs)
    share = np.asarray(weights) / np.sum(weights)
    factor = np.einsum("n,nce->ce", share, blocks)
    np.testing.assert_allclose(laplace_head.class_factor(x @ w, weights), factor, atol=1e-6)

    rotated = rotate(x, weights)
    values, vectors = jnp.linalg.eigh(factor)
    curvature = rotated.squares[:, None] * jnp.maximum(values, 0)[None]
    draws = laplace_head.kron_draws(rotated, curvature, vectors, jnp.asarray(l2), KEY)
    gram = np.asarray((x * weights[:, None]).T @ x, np.float64)
    seen = np.kron(np.eye(WIDTH), np.eye(3) - 1 / 3)
    expected = seen @ np.linalg.inv(np.kron(gram, factor) + l2 * np.eye(3 * WIDTH)) @ seen
    flat = np.asarray(draws, np.float64).reshape(len(draws), -1)
    scale = np.sqrt(np.diag(expected))
    np.testing.assert_allclose(
        flat.T @ flat / len(draws) / scale / scale[:, None],
        expected / scale / scale[:, None],
        atol=0.08,
    )


@pytest.mark.parametrize("classes", [pytest.param(2, marks=pytest.mark.slow), 3])
def test_laplaces_members_are_the_posteriors_draws(classes, monkeypatch):
    monkeypatch.setattr(laplace_head, "DRAWS", 4000)
    x, targets = problem(classes)
    pool = pool_shapes(x[:, :-1])
    solve = jax.jit(lambda *given: laplace_head.fit_laplace(*given, key=KEY))  # with these draws
    fit = solve(x[:, :-1], targets, jnp.ones(N), pool)
    head = laplace_head.laplace(fit)
    rows = np.asarray(head.rows(x[:, :-1]), np.float64)
    probs = np.asarray(jax.nn.softmax(rows @ fit.coefficients), np.float64)
    blocks = np.einsum("nc,ce->nce", probs, np.eye(classes)) - np.einsum("nc,ne->nce", probs, probs)
    size = WIDTH * classes
    hessian = np.einsum("nd,nce,nf->dcfe", rows, blocks, rows).reshape(size, size)
    seen = np.kron(np.eye(WIDTH), np.eye(classes) - 1 / classes)
    expected = seen @ np.linalg.inv(hessian + float(fit.l2) * np.eye(size)) @ seen
    off = np.asarray(head.weights[...] - fit.coefficients[None], np.float64)
    np.testing.assert_allclose(off[0::2], -off[1::2], atol=1e-4)  # mirrored
    flat = off.reshape(len(off), -1)
    scale = np.sqrt(np.diag(expected))
    found = flat.T @ flat / len(flat) / scale / scale[:, None]
    np.testing.assert_allclose(found, expected / scale / scale[:, None], atol=0.1)


# ---- Gaussian process


def test_random_features_have_the_rbf_kernel():
    rng = np.random.default_rng(0)
    u = rng.normal(size=(20, 6))
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    for length in (0.5, 1.0, 2.0):
        omega = jax.random.normal(KEY, (6, 20_000)) / length
        phi = np.asarray(random_features(with_bias(jnp.asarray(u, jnp.float32)), omega))
        distance = np.sum((u[:, None] - u[None]) ** 2, axis=-1)
        kernel = np.exp(-distance / (2 * length**2))
        np.testing.assert_allclose(phi[:, :-1] @ phi[:, :-1].T, kernel, atol=0.04)
        np.testing.assert_array_equal(phi[:, -1], 1)


# ---- the MLP epinet


def test_the_networks_are_odd_in_the_index_and_of_unit_scale():
    u = jax.random.normal(KEY, (50, WIDTH - 1))
    x = with_bias(u / jnp.linalg.norm(u, axis=1, keepdims=True))
    z = jax.random.normal(KEY, (20, mlp_epinet.INDEX_DIM))
    out = jnp.stack(
        [
            mlp_epinet.net_outputs(mlp_epinet.random_net(key, WIDTH, 2), x, z)
            for key in jax.random.split(KEY, 40)
        ]
    )
    assert float(jnp.std(out)) == pytest.approx(1, abs=0.15)
    net = mlp_epinet.random_net(KEY, WIDTH, 2)
    np.testing.assert_allclose(
        mlp_epinet.net_outputs(net, x, z), -mlp_epinet.net_outputs(net, x, -z), atol=1e-4
    )
    frames = np.asarray(mlp_epinet.index_frames(KEY))
    np.testing.assert_allclose(
        frames.T @ frames / len(frames), np.eye(mlp_epinet.INDEX_DIM), atol=1e-5
    )


@pytest.mark.parametrize("classes", [pytest.param(2, marks=pytest.mark.slow), 3])
def test_the_mlp_epinets_mean_prediction_is_the_regressions(classes):
    x, targets = problem(classes)
    features = x[:, :-1]
    fit = jax.jit(fit_mlp_epinet)(features, targets, jnp.ones(N), pool_shapes(features), key=KEY)
    head = MLPEpinet(fit)
    assert float(fit.gradient) < 0.5  # of an objective of some 10 nats: settled
    wanted = jax.nn.softmax(head.plain()(features))
    logits = head.many(features, head.sample_index(KEY, 2000))
    assert float(jnp.std(jax.nn.softmax(logits), axis=0).mean()) > 0.02
    gap = jnp.abs(jnp.mean(jax.nn.softmax(logits), axis=0) - wanted)
    assert float(jnp.mean(gap)) < 0.02
    assert float(jnp.max(gap)) < 0.08

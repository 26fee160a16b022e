"""The linear epinet in closed form: its parts against float64 by hand, and what it promises."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enn_finetune.models import row_chunks
from enn_finetune.models.laplace import L2_GRID, SPREAD, peak
from enn_finetune.models.linear_epinet import LinearEpinet, bucket, fit_linear_epinet, pool_shapes
from enn_finetune.models.mean_preserving import mean_preserving_logits
from enn_finetune.models.plain_linear import fit_plain_linear
from enn_finetune.models.shaped_features import EXPONENTS, shape_matrix, shaped_rows
from enn_finetune.models.softmax_regression import fit_softmax_regression

STATIC = ("index_dim", "l2_grid")
fit_jit = jax.jit(fit_linear_epinet, static_argnames=STATIC)
regression = jax.jit(fit_softmax_regression)
preserving = jax.jit(mean_preserving_logits)
KEY = jax.random.key(0)


def problem(n: int, features: int, classes: int, *, flat: bool = False, seed: int = 0):
    """A pool whose covariance falls off, and n labelled rows of it.

    The labels follow the leading directions or, `flat`, all alike.
    """
    rng = np.random.default_rng(seed)
    scales = np.arange(1, features + 1) ** -1.0
    pool = (rng.normal(size=(200, features)) * scales + 0.5).astype(np.float32)
    weights = rng.normal(size=(features, classes)) * (1 / scales if flat else scales)[:, None]
    logits = (pool[:n] - 0.5) @ weights
    labels = np.argmax(4 * logits / logits.std(), axis=1)
    return pool, pool[:n], np.eye(classes, dtype=np.float32)[labels]


N, D = 32, 8  # most tests share these, and so one compiled program for two and one for four classes


def fit_problem(classes, *, n=N, features=D, index_dim=32, **kinds):
    pool, x, targets = problem(n, features, classes, **kinds)
    fit = fit_jit(
        x, targets, np.ones(n, np.float32), pool_shapes(pool), key=KEY, index_dim=index_dim
    )
    return pool, x, targets, fit


def loss_and_hessian(rows, targets, coefficients, l2):
    """J and its Hessian ((D + 1) C square) in float64."""
    rows, w = np.asarray(rows, np.float64), np.asarray(coefficients, np.float64)
    logits = rows @ w
    probs = np.exp(logits - logits.max(1, keepdims=True))
    probs /= probs.sum(1, keepdims=True)
    loss = -np.sum(targets * np.log(probs)) + l2 / 2 * np.sum(w**2)
    inner = np.einsum("nc,ce->nce", probs, np.eye(probs.shape[1])) - np.einsum(
        "nc,ne->nce", probs, probs
    )
    hessian = np.einsum("nd,nce,nf->dcfe", rows, inner, rows).reshape(w.size, w.size)
    return loss, hessian + l2 * np.eye(w.size)


# ---- the features' shape


def test_shaped_rows_have_the_powered_covariance_as_kernel():
    pool, x, _ = problem(20, 6, 2)
    shapes = pool_shapes(pool)
    centred = np.asarray(pool, np.float64) - pool.mean(0)
    covariance = centred.T @ centred / len(pool)
    for exponent, middle in [(0.0, np.eye(6)), (0.5, covariance), (1.0, covariance @ covariance)]:
        rows = np.asarray(shaped_rows(x, shapes.mean, shape_matrix(shapes, exponent)))
        np.testing.assert_array_equal(rows[:, -1], 1)
        kernel = (x - pool.mean(0)) @ middle @ (x - pool.mean(0)).T
        expected = kernel / np.trace(covariance @ middle)  # the pool's mean square norm is 1
        np.testing.assert_allclose(rows[:, :-1] @ rows[:, :-1].T, expected, atol=1e-4)


def test_flat_pools_and_impossible_ones():
    flat = pool_shapes(np.ones((3, 4), np.float32))
    for exponent in (0.0, 1.0):
        rows = shaped_rows(jnp.eye(4), flat.mean, shape_matrix(flat, exponent))
        assert np.isfinite(rows).all()
    with pytest.raises(ValueError, match=r"\(0, 4\)"):
        pool_shapes(np.ones((0, 4)))
    with pytest.raises(ValueError, match="at least 0"):
        pool_shapes(np.ones((3, 4)), (0.0, -1.0))


@pytest.mark.parametrize("fit", [fit_linear_epinet, fit_plain_linear])
def test_a_pool_of_one_row_repeated_says_nothing_absurd_of_others(fit):
    """Its centred rows are rounding, which no scale may blow up."""
    rng = np.random.default_rng(0)
    pool = pool_shapes(np.full((300, D), 0.1, np.float32))
    targets = np.eye(2, dtype=np.float32)[np.arange(N) % 2]
    found = fit(np.full((N, D), 0.1, np.float32), targets, jnp.ones(N), pool, key=KEY)
    others = rng.normal(size=(50, D)).astype(np.float32)
    logits = found.rows(others) @ found.coefficients
    assert float(jnp.max(jnp.abs(logits))) < 1


@pytest.mark.parametrize("where", ["pool", "scored"])
def test_one_odd_row_spoils_no_others(where):
    pool, x, targets = problem(300, 8, 2)
    odd = np.array(pool)
    odd[0] *= 100
    shapes = pool_shapes(odd if where == "pool" else pool)
    fit = fit_jit(x, targets, np.ones(len(x), np.float32), shapes, key=KEY)
    lengths = np.linalg.norm(np.asarray(fit.rows(odd))[:, :-1], axis=1)
    assert lengths.max() <= 4.001
    assert 0.3 < np.median(lengths) < 1.5


# ---- the mean is preserved


@jax.jit
def mean_over_index(logits, spread):
    half = jax.random.normal(jax.random.key(9), (10_000, spread.shape[1]))
    z = jnp.concatenate([half, -half])

    def row(row_logits, row_spread):
        return jnp.mean(jax.nn.softmax(row_logits[None] + z @ row_spread, axis=-1), axis=0)

    return jax.lax.map(lambda pair: row(*pair), (logits, spread))


@pytest.mark.parametrize(
    ("classes", "worst", "mean"), [(2, 0.01, 0.003), (5, 0.04, 0.012), (15, 0.05, 0.02)]
)
@pytest.mark.parametrize("scale", [0.3, 1.0, 2.0])
def test_mean_prediction_is_the_one_wanted(classes, worst, mean, scale):
    keys = jax.random.split(jax.random.key(classes))
    wanted = 2 * jax.random.normal(keys[0], (60, classes))
    spread = scale * jax.random.normal(keys[1], (60, 32, classes)) / np.sqrt(32)
    got = mean_over_index(preserving(wanted, spread), spread)
    gap = np.abs(np.asarray(got - jax.nn.softmax(wanted)))
    assert gap.max() < worst
    assert gap.sum(axis=1).mean() / 2 < mean
    top_two = np.sort(jax.nn.softmax(wanted), axis=1)[:, -2:]
    clear = (top_two[:, 1] - top_two[:, 0] > 0.04) | (classes == 2)
    agree = np.argmax(got, axis=1) == np.argmax(wanted, axis=1)
    assert agree[clear].all()


@settings(deadline=None, max_examples=8)
@given(
    classes=st.sampled_from([2, 4]), size=st.sampled_from([0.0, 1.0, 1e4]), seed=st.integers(0, 99)
)
def test_without_spread_logits_stay_and_saturated_ones_are_finite(classes, size, seed):
    wanted = size * jax.random.normal(jax.random.key(seed), (6, classes))
    still = preserving(wanted, jnp.zeros((6, 3, classes)))
    np.testing.assert_allclose(
        jax.nn.softmax(still), jax.nn.softmax(wanted), atol=2e-5 + 1e-6 * size
    )
    wide = preserving(wanted, 30 * jax.random.normal(KEY, (6, 3, classes)))
    assert np.isfinite(wide).all()
    if size and classes == 2:
        np.testing.assert_array_equal(np.argmax(wide, axis=1), np.argmax(wanted, axis=1))


# ---- the fit


@pytest.mark.parametrize("classes", [2, 4])
def test_fit_is_the_regression_at_the_chosen_prior(classes):
    _, x, targets, fit = fit_problem(classes)
    rows = shaped_rows(x, fit.mean, fit.matrix)
    alone = regression(rows, targets, jnp.ones(N), fit.l2)
    np.testing.assert_allclose(
        rows @ fit.coefficients, rows @ alone.coefficients, atol=1e-3, rtol=1e-3
    )
    best = np.unravel_index(np.argmax(fit.evidence), fit.evidence.shape)
    assert float(fit.exponent) == EXPONENTS[best[0]]
    neighbours = np.asarray(L2_GRID)[max(best[1] - 1, 0) : best[1] + 2]
    assert neighbours.min() <= float(fit.l2) <= neighbours.max()


@pytest.mark.parametrize(("classes", "features", "nats"), [(2, D, 0.1), (2, 40, 0.1), (4, D, 4)])
def test_evidence_is_the_laplace_approximations(classes, features, nats):
    """Exact for two classes; for more, of H's class blocks, an approximation."""
    pool, x, targets, fit = fit_problem(classes, features=features)
    shapes = pool_shapes(pool)
    prior = np.log(0.45) - 0.5 * (np.log(np.array(L2_GRID) / 0.5) / np.log(4)) ** 2
    for i, exponent in enumerate(EXPONENTS):
        rows = shaped_rows(x, shapes.mean, shape_matrix(shapes, exponent))
        for j, l2 in enumerate(L2_GRID):
            w = regression(rows, targets, jnp.ones(N), l2).coefficients
            loss, hessian = loss_and_hessian(rows, targets, w, l2)
            expected = -loss - 0.5 * np.linalg.slogdet(hessian / l2)[1]
            expected += prior[j]
            assert float(fit.evidence[i, j]) == pytest.approx(expected, abs=nats)


@pytest.mark.parametrize(("n", "features", "classes"), [(4, 6, 2), (30, 3, 4)])
def test_draws_have_the_narrow_posteriors_covariance(n, features, classes):
    draws = 6000
    _, x, targets, fit = fit_problem(classes, n=n, features=features, index_dim=draws)
    rows = shaped_rows(x, fit.mean, fit.matrix)
    prior = -0.5 * (np.log(np.array(L2_GRID) / 0.5) / np.log(4)) ** 2
    best = np.unravel_index(np.argmax(fit.evidence), fit.evidence.shape)[0]
    likely = np.asarray(fit.evidence[best]) - prior
    evident = float(peak(jnp.asarray(L2_GRID), jnp.asarray(likely), jnp.argmax(likely)))
    l2 = max(float(fit.l2), evident, 0.5)
    _, hessian = loss_and_hessian(rows, targets, fit.coefficients, l2)
    seen = np.kron(np.eye(features + 1), np.eye(classes) - 1 / classes)  # what softmax can see
    expected = SPREAD**2 * seen @ np.linalg.inv(hessian) @ seen
    factor = np.asarray(fit.factor, np.float64).reshape(draws, -1)
    scale = np.sqrt(np.diag(expected))
    correlations = [c / scale / scale[:, None] for c in (factor.T @ factor, expected)]
    np.testing.assert_allclose(*correlations, atol=0.09)


def test_the_prior_follows_the_labels():
    """Labels of the leading directions ask for an exponent above 0, labels of all alike for 0."""
    leading = [fit_problem(2, seed=seed)[-1].exponent for seed in range(6)]
    alike = [fit_problem(2, flat=True, seed=seed)[-1].exponent for seed in range(6)]
    assert np.mean(leading) > 0.3
    assert np.mean(alike) < 0.1


def test_padding_changes_nothing():
    """Not even when it takes the rows from fewer than D + 1 to more, and so to other algebra."""
    pool, x, targets = problem(20, 24, 3)
    shapes = pool_shapes(pool)
    alone = fit_jit(x, targets, np.ones(20, np.float32), shapes, key=KEY)
    padded = fit_jit(
        np.concatenate([x, np.full((12, 24), np.nan, np.float32)]),
        np.concatenate([targets, np.full((12, 3), np.nan, np.float32)]),
        np.concatenate([np.ones(20), np.zeros(12)]).astype(np.float32),
        shapes,
        key=KEY,
    )
    assert float(alone.exponent) == float(padded.exponent)
    np.testing.assert_allclose(alone.evidence, padded.evidence, atol=0.02)
    z = jax.random.normal(KEY, (4, 32))
    logits = [LinearEpinet(fit).many(pool, z) for fit in (alone, padded)]
    # The draws are solved to 1 %.
    np.testing.assert_allclose(*logits, atol=0.02 * np.abs(logits[0]).max())


def test_vmap_over_seeds():
    problems = [problem(N, D, 4, seed=seed) for seed in range(2)]
    x, targets = (np.stack([p[i] for p in problems]) for i in (1, 2))
    shapes, weights, keys = pool_shapes(problems[0][0]), jnp.ones(N), jax.random.split(KEY)

    def fit(x, targets, key):
        return fit_linear_epinet(x, targets, weights, shapes, key=key)

    both = jax.jit(jax.vmap(fit))(x, targets, keys)
    for seed, key in enumerate(keys):
        alone = fit_jit(x[seed], targets[seed], weights, shapes, key=key)
        for vmapped, single in zip(both, alone, strict=True):
            np.testing.assert_allclose(vmapped[seed], single, atol=2e-2, rtol=1e-2)


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("case", ["one class", "one row", "equal rows", "no rows"])
def test_poor_labels_give_a_finite_head(classes, case):
    pool, x, targets = problem(N, D, classes)
    weights = np.ones(N, np.float32)
    if case == "one class":
        targets = np.tile(targets[:1], (N, 1))
    if case == "one row":
        weights = np.eye(N, dtype=np.float32)[0]
    if case == "equal rows":
        x = np.tile(x[:1], (N, 1))
    if case == "no rows":
        weights = np.zeros(N, np.float32)
    head = LinearEpinet(fit_jit(x, targets, weights, pool_shapes(pool), key=KEY, index_dim=32))
    logits = head.many(pool, head.sample_index(KEY, 10))
    assert np.isfinite(logits).all()
    if case == "one class":
        mean = jnp.mean(jax.nn.softmax(logits), axis=(0, 1))
        assert int(jnp.argmax(mean)) == int(targets[0].argmax())


def test_one_program_for_rounds_of_one_bucket():
    pool, x, targets = problem(N, D, 2)
    shapes = pool_shapes(pool)
    before = fit_jit._cache_size()
    for labels in (10, 20, 32):
        weights = np.asarray(np.arange(N) < labels, np.float32)
        fit_jit(x, targets, weights, shapes, key=jax.random.key(labels), index_dim=32)
    assert fit_jit._cache_size() <= before + 1
    assert all(bucket(n) >= n for n in range(1, 1001))
    sizes = {bucket(n) for n in range(1, 1001)}
    assert sorted(sizes) == [32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024]


# ---- the head


@pytest.mark.parametrize("classes", [2, 4])
def test_the_heads_mean_prediction_is_its_plain_views(classes):
    pool, _, _, fit = fit_problem(classes)
    head = LinearEpinet(fit)
    plain = head.plain()
    assert head.epistemic
    assert not plain.epistemic
    wanted = jax.nn.softmax(plain(pool))
    mean = jnp.mean(jax.nn.softmax(head.many(pool, head.sample_index(KEY, 4000))), axis=0)
    assert float(jnp.abs(mean - wanted).max()) < 0.03
    if classes == 2:  # pairs z, -z cancel: the sign holds for any even K
        few = jnp.mean(jax.nn.softmax(head.many(pool, head.sample_index(KEY, 2))), axis=0)
        np.testing.assert_array_equal(jnp.argmax(few, axis=1), jnp.argmax(wanted, axis=1))


def test_indices_come_in_pairs():
    *_, fit = fit_problem(2)
    head = LinearEpinet(fit)
    z = head.sample_index(KEY, 5)
    np.testing.assert_array_equal(z[0], -z[1])
    np.testing.assert_array_equal(z[2], -z[3])
    assert z.shape == (5, 32)
    assert head.sample_index(KEY, 1).shape == (1, 32)


def test_chunks_of_rows_change_nothing(monkeypatch):
    pool, _, _, fit = fit_problem(4)
    head = LinearEpinet(fit)
    z = head.sample_index(KEY, 3)
    whole = head.many(pool[:37], z)
    monkeypatch.setattr(row_chunks, "CACHE_FLOATS", 16)  # chunks of 8 rows
    np.testing.assert_allclose(head.many(pool[:37], z), whole, atol=1e-5)

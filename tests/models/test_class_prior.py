"""The prior whose mean is what descriptions of the classes say, and when the labels overrule it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enn_finetune.models.class_prior import prior_mean
from enn_finetune.models.laplace import fit_linear_epinet
from enn_finetune.models.linear_epinet import LinearEpinet, ShapedLinear
from enn_finetune.models.shaped_features import pool_shapes, shape_matrix, shaped_rows

D, C, N = 6, 3, 32
KEY = jax.random.key(0)
fit = jax.jit(fit_linear_epinet, static_argnames=("described", "index_dim"))


def world(classes: int = C, seed: int = 0):
    """Rows about the centre of their class: a pool, its labels, and the centres."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(classes, D)).astype(np.float32)
    labels = np.arange(200) % classes
    pool = centres[labels] + 0.7 * rng.normal(size=(200, D)).astype(np.float32)
    return pool, labels, centres


def solved(pool, labels, shapes, count, *, described):
    weights = (np.arange(N) < count).astype(np.float32)
    classes = len(shapes.classes)
    targets = np.eye(classes, dtype=np.float32)[labels[:N]]
    return fit(pool[:N], targets, weights, shapes, key=KEY, described=described, index_dim=4)


@settings(max_examples=25, deadline=None)
@given(
    classes=st.integers(2, 6),
    views=st.integers(1, 3),
    exponent=st.sampled_from((0.0, 0.5, 1.0)),
    seed=st.integers(0, 99),
    scale=st.sampled_from((1e-3, 1.0, 1e3)),
)
def test_the_mean_says_log_c_over_the_pool_and_nothing_of_the_bias(
    classes, views, exponent, seed, scale
):
    rng = np.random.default_rng(seed)
    pool = (scale * rng.normal(size=(60, views * 4))).astype(np.float32)
    words = (scale * rng.normal(size=(classes, views * 4))).astype(np.float32)
    shapes = pool_shapes(jnp.asarray(pool), views=views)
    for reading in range(len(shapes.readings)):
        mean = prior_mean(shapes, jnp.asarray(words), exponent, reading)
        assert mean.shape == (5, classes)
        np.testing.assert_array_equal(mean[-1], 0)
        rows = shaped_rows(pool, shapes.mean, shape_matrix(shapes, exponent, reading))
        logits = np.asarray(rows @ mean)
        np.testing.assert_allclose(logits.sum(1), 0, atol=1e-4)
        # But for rows of four times the typical length, which a pool of normal rows hardly has.
        size = np.sqrt(np.mean(logits**2))
        np.testing.assert_allclose(size, np.sqrt(np.log2(classes)), rtol=0.1)


def test_descriptions_that_are_all_alike_say_nothing():
    pool, _, centres = world()
    shapes = pool_shapes(jnp.asarray(pool))
    same = jnp.broadcast_to(jnp.asarray(centres[:1]), centres.shape)
    np.testing.assert_array_equal(prior_mean(shapes, same, 0.5), 0)
    flat = pool_shapes(jnp.ones((20, D)))
    assert np.isfinite(prior_mean(flat, jnp.asarray(centres), 0.5)).all()


def test_without_a_label_the_head_says_what_the_words_say():
    pool, labels, centres = world()
    shapes = pool_shapes(jnp.asarray(pool), classes=jnp.asarray(centres))
    found = solved(pool, labels, shapes, 0, described=True)
    assert found.described == 1
    logits = np.asarray(ShapedLinear(found)(jnp.asarray(pool)))
    assert np.mean(logits.argmax(1) == labels) > 0.85
    mean = prior_mean(shapes, shapes.classes, found.exponent, found.reading)
    rows = shaped_rows(pool, shapes.mean, found.matrix)
    np.testing.assert_allclose(logits, rows @ mean, atol=1e-4)
    head = LinearEpinet(found)
    logits = np.asarray(head.many(jnp.asarray(pool), head.sample_index(KEY, 200)))
    deviation = np.median((logits[:, :, 0] - logits[:, :, 1]).std(0))
    # Of a typical row's logit 1 / sqrt(lambda) each, at most; 0.18 were lambda 64.
    assert deviation == pytest.approx(np.sqrt(2 / found.l2), rel=0.35), "nothing else is known"


def test_good_words_are_kept_and_wrong_ones_dropped():
    pool, labels, centres = world()
    good = pool_shapes(jnp.asarray(pool), classes=jnp.asarray(centres))
    wrong = pool_shapes(jnp.asarray(pool), classes=jnp.asarray(-centres))
    plain = solved(pool, labels, good, 24, described=False)
    assert plain.described == 0
    assert solved(pool, labels, good, 6, described=True).described == 1
    found = solved(pool, labels, wrong, 24, described=True)
    assert found.described == 0
    np.testing.assert_allclose(found.coefficients, plain.coefficients, atol=1e-5)


def test_the_order_of_the_classes_does_not_matter():
    pool, labels, centres = world()
    order = np.array([2, 0, 1])
    shapes = [
        pool_shapes(jnp.asarray(pool), classes=jnp.asarray(words))
        for words in (centres, centres[order])
    ]
    one = solved(pool, labels, shapes[0], 6, described=True)
    other = solved(pool, np.argsort(order)[labels], shapes[1], 6, described=True)
    np.testing.assert_allclose(one.coefficients[:, order], other.coefficients, atol=1e-3)


def test_descriptions_that_are_not_there_or_do_not_fit_are_refused():
    pool, labels, centres = world()
    targets = np.eye(C, dtype=np.float32)[labels[:N]]
    for classes, words in (
        (None, "give pool_shapes features"),
        (centres[:2], "2 descriptions for 3"),
    ):
        shapes = pool_shapes(jnp.asarray(pool))._replace(classes=classes)
        with pytest.raises(ValueError, match=words):
            fit_linear_epinet(pool[:N], targets, np.ones(N), shapes, key=KEY, described=True)
    with pytest.raises(ValueError, match=r"\(C, D\) with the D of the pool"):
        pool_shapes(jnp.asarray(pool), classes=jnp.zeros((C, D + 1)))

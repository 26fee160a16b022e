"""EpinetClassifier: scikit-learn's own checks, and what is ours beside them."""

import subprocess
import sys

import joblib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("sklearn", reason="needs scikit-learn (extra: sklearn)")

from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from enn_finetune.models.linear_epinet import ShapedLinear, bucket, fit_linear_epinet, pool_shapes
from enn_finetune.predictive import joint_log_likelihood, mixture
from enn_finetune.sklearn import EpinetClassifier


@parametrize_with_checks([EpinetClassifier()])
def test_scikit_learns_checks(estimator, check):
    check(estimator)


def problem(seed: int = 0, rows: int = 60, width: int = 12, classes: int = 2):
    """Rows whose leading directions carry the classes."""
    draw = np.random.default_rng(seed)
    centres = draw.normal(size=(classes, width)) * np.linspace(3, 0, width)
    y = np.arange(rows) % classes
    return centres[y] + draw.normal(size=(rows, width)), np.array(["no", "yes", "perhaps"])[y]


@pytest.mark.parametrize("classes", [2, 3])
def test_the_mean_prediction_is_the_librarys_regression(classes):
    import jax

    X, y = problem(classes=classes)
    model = EpinetClassifier(random_state=3).fit(X, y)
    size = bucket(len(X))
    features = np.pad(X, ((0, size - len(X)), (0, 0))).astype(np.float32)
    targets = np.zeros((size, classes), np.float32)
    targets[: len(X)] = y[:, None] == np.unique(y)[None]
    weights = (np.arange(size) < len(X)).astype(np.float32)
    pool = pool_shapes(X.astype(np.float32))
    fit = fit_linear_epinet(features, targets, weights, pool, key=jax.random.key(0))
    expected = jax.nn.softmax(ShapedLinear(fit)(X.astype(np.float32)), axis=-1)
    assert model.exponent_ == pytest.approx(float(fit.exponent))
    assert model.l2_ == pytest.approx(float(fit.l2), rel=1e-3)
    np.testing.assert_allclose(model.predict_proba(X), expected, atol=1e-4)


@pytest.mark.parametrize("classes", [2, 3])
def test_functions_average_to_the_mean_prediction_and_differ(classes):
    X, y = problem(classes=classes, rows=40)
    model = EpinetClassifier(random_state=0).fit(X, y)
    joint = model.joint_log_proba(X, 2000)
    assert joint.shape == (2000, 40, classes)
    np.testing.assert_allclose(np.exp(joint).sum(-1), 1, atol=1e-5)
    np.testing.assert_allclose(np.exp(mixture(joint)), model.predict_proba(X), atol=0.02)
    assert np.exp(joint).std(0).max() > 0.02


def test_rows_are_predicted_together():
    """Two copies of a row have the same label under every function; marginals do not know."""
    X, y = problem()
    model = EpinetClassifier(random_state=0).fit(X[:10], y[:10])
    unsure = model.uncertainty(X).epistemic.argmax()
    joint = model.joint_log_proba(np.stack([X[unsure], X[unsure]]), 500)
    np.testing.assert_array_equal(joint[:, 0], joint[:, 1])
    together = joint_log_likelihood(joint, np.array([1, 1]))
    assert together > 2 * mixture(joint)[0, 1] + 1e-3


def test_calls_draw_the_same_functions():
    X, y = problem()
    model = EpinetClassifier(random_state=0).fit(X, y)
    np.testing.assert_allclose(
        model.joint_log_proba(X, 7)[:, 5:8], model.joint_log_proba(X[5:8], 7), atol=1e-5
    )


def test_uncertainty_adds_up_and_falls_with_labels():
    X, y = problem(rows=400)
    few = EpinetClassifier(random_state=0).fit(X[:20], y[:20]).uncertainty(X)
    many = EpinetClassifier(random_state=0).fit(X, y).uncertainty(X)
    np.testing.assert_allclose(few.total, few.aleatoric + few.epistemic, atol=1e-5)
    assert few.total.shape == (400,)
    assert few.total.max() <= np.log(2) + 1e-5
    assert 0 <= many.epistemic.mean() < few.epistemic.mean()


@settings(deadline=None, max_examples=5)
@given(seed=st.integers(0, 2**20), weights=st.lists(st.integers(0, 3), min_size=30, max_size=30))
def test_weights_are_copies(seed, weights):
    X, y = problem(seed, rows=30)
    weights = np.array(weights)
    weights[:2] += 1  # both classes
    copies = np.random.default_rng(seed).permutation(30)
    copies = np.repeat(copies, weights[copies])
    once = EpinetClassifier(random_state=1).fit(X, y, sample_weight=weights)
    often = EpinetClassifier(random_state=1).fit(X[copies], y[copies])
    np.testing.assert_array_equal(once.predict_proba(X), often.predict_proba(X))
    np.testing.assert_array_equal(once.joint_log_proba(X, 4), often.joint_log_proba(X, 4))


def test_weighted_rows_shape_the_prior_like_their_copies():
    """Not merged here: the pool with weights against the pool with copies."""
    from enn_finetune.sklearn import _shapes

    draw = np.random.default_rng(0)
    rows, weights = draw.normal(size=(20, 4)), draw.integers(1, 4, 20).astype(float)
    rows = (rows - np.average(rows, axis=0, weights=weights)).astype(np.float32)
    weighted = _shapes(rows, weights, (0.0, 1.0))
    copied = pool_shapes(np.repeat(rows, weights.astype(int), axis=0), (0.0, 1.0))
    np.testing.assert_allclose(weighted.values, copied.values, atol=1e-5)
    np.testing.assert_allclose(weighted.mean, copied.mean, atol=1e-5)


def test_the_pool_shapes_the_prior():
    X, y = problem(rows=30)
    pool = np.random.default_rng(1).normal(size=(500, 12)) * np.linspace(0.1, 3, 12)
    own = EpinetClassifier(random_state=0).fit(X, y)
    wide = EpinetClassifier(random_state=0).fit(X, y, X_pool=pool)
    assert np.abs(own.predict_proba(X) - wide.predict_proba(X)).max() > 1e-4
    with pytest.raises(ValueError, match="5 features"):
        EpinetClassifier().fit(X, y, X_pool=pool[:, :5])


def test_units_and_offsets_do_not_matter():
    X, y = problem()
    plain = EpinetClassifier(random_state=0).fit(X, y).predict_proba(X)
    for scale, offset in ((1e30, 0), (1e-30, 0), (1, 1e6)):
        moved = X * scale + offset
        found = EpinetClassifier(random_state=0).fit(moved, y).predict_proba(moved)
        np.testing.assert_allclose(found, plain, atol=1e-4)


def test_it_is_saved_and_works_in_a_pipeline(tmp_path):
    X, y = problem(rows=90, classes=3)
    model = make_pipeline(StandardScaler(), EpinetClassifier(random_state=0))
    assert cross_val_score(model, X, y, cv=3).mean() > 0.6
    model.fit(X, y)
    joblib.dump(model, tmp_path / "model")
    again = joblib.load(tmp_path / "model")
    np.testing.assert_array_equal(again.predict(X), model.predict(X))
    np.testing.assert_array_equal(again[-1].joint_log_proba(X, 3), model[-1].joint_log_proba(X, 3))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"index_dim": 0}, "index_dim: expected an integer from 1 up, found 0"),
        ({"index_dim": 2.5}, "index_dim: expected an integer from 1 up, found 2.5"),
        ({"exponents": ()}, "exponents"),
        ({"exponents": (-1.0,)}, "exponents"),
    ],
)
def test_arguments_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        EpinetClassifier(**arguments).fit(*problem())


def test_rows_of_one_class_are_refused():
    X, y = problem()
    with pytest.raises(ValueError, match="at least 2 classes, found 1 class"):
        EpinetClassifier().fit(X, y, sample_weight=(y == "no").astype(float))
    with pytest.raises(ValueError, match="n_indices"):
        EpinetClassifier().fit(X, y).joint_log_proba(X, 0)


def test_without_scikit_learn_the_error_names_the_extra():
    program = (
        "import sys; sys.modules['sklearn'] = None\n"
        "try:\n    import enn_finetune.sklearn\n"
        "except ImportError as error:\n    print(error)"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "enn-finetune[sklearn]" in found.stdout


def centred_rows(seed: int = 0):
    """Rows about the centres of three classes, called by words."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(3, 8))
    names = np.array(["ask", "pay", "send"])
    places = np.arange(150) % 3
    return centres[places] + 0.7 * rng.normal(size=(150, 8)), names[places], centres, names


@pytest.mark.parametrize("kind", ["U", "O"])
def test_descriptions_of_the_classes_help_where_labels_are_few(kind):
    X, y, centres, names = centred_rows()
    y = y.astype(kind) if kind == "O" else y
    words = {name: np.stack([centre, centre]) for name, centre in zip(names, centres, strict=True)}
    few = slice(0, 2)  # labels of two classes; the third is known by its words alone
    told = EpinetClassifier(random_state=0).fit(X[few], y[few], X_pool=X, class_embeddings=words)
    assert told.classes_.tolist() == names.tolist()
    assert told.described_
    assert np.mean(told.predict(X) == y) > 0.85
    wrong = {name: -centre for name, centre in zip(names, centres, strict=True)}
    plain = EpinetClassifier(random_state=0).fit(X[:30], y[:30], X_pool=X)
    kept = EpinetClassifier(random_state=0).fit(X[:30], y[:30], X_pool=X, class_embeddings=wrong)
    assert not kept.described_
    np.testing.assert_allclose(kept.predict_proba(X), plain.predict_proba(X), atol=1e-5)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"ask": np.zeros(8), "pay": np.zeros(8)}, "found none of the class .*send"),
        ({0: np.zeros(8)}, "found none of the class 'ask'"),
        ([np.zeros(8)], "give a mapping of labels"),
        ({0: np.zeros(8)} | dict.fromkeys(("ask", "pay", "send"), np.zeros(8)), "several kinds"),
        (dict.fromkeys(("ask", "pay", "send"), np.full(8, np.nan)), "'ask': .* expected finite"),
        (
            {name: np.zeros(7) for name in ("ask", "pay", "send")},
            r"'ask': got \(1, 7\), expected finite \(8,\)",
        ),
    ],
)
def test_descriptions_that_do_not_fit_are_refused(words, message):
    X, y, _, _ = centred_rows()
    with pytest.raises(ValueError, match=message):
        EpinetClassifier().fit(X, y, X_pool=X, class_embeddings=words)


def test_descriptions_want_a_pool_and_numbers_are_compared_by_value():
    X, _, centres, _ = centred_rows()
    y = np.arange(len(X)) % 3
    with pytest.raises(ValueError, match="class_embeddings: give X_pool too"):
        EpinetClassifier().fit(X, y, class_embeddings=dict(enumerate(centres)))
    for kind in (np.uint8, np.float64):
        words = dict(enumerate(centres))
        model = EpinetClassifier().fit(X, y.astype(kind), X_pool=X, class_embeddings=words)
        assert (model.classes_.tolist(), model.classes_.dtype) == ([0, 1, 2], kind)

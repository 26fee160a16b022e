"""LogME and PED against their definitions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from enn_finetune.models.transferability import evolve, log_maximum_evidence, logme_ped

logme = jax.jit(log_maximum_evidence, static_argnames="classes")
ped = jax.jit(
    evolve,
    static_argnames=("classes", "n_sigma", "dt", "force", "exit_ratio", "steps"),
)


def rows(n, d, classes=2, seed=0, signal=1.0):
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), rng.integers(0, classes, n - classes)])
    features = rng.normal(size=(n, d)) + signal * rng.normal(size=(classes, d))[labels]
    return features.astype(np.float32), labels.astype(np.int32)


def direct(features, labels, classes):
    """The definition: log N(y; 0, I / beta + F F' / alpha), maximised by scipy, per row."""
    f = features.astype(np.float64)
    n = len(f)

    def negative(logs, y):
        alpha, beta = np.exp(logs)
        covariance = np.eye(n) / beta + f @ f.T / alpha
        _, log_det = np.linalg.slogdet(covariance)
        return 0.5 * (log_det + y @ np.linalg.solve(covariance, y) + n * np.log(2 * np.pi))

    found = []
    for c in range(classes):
        y = (labels == c).astype(np.float64)
        starts = [(a, b) for a in (-2.0, 2.0, 6.0, 10.0) for b in (0.5, 3.0)]
        tried = [
            optimize.minimize(negative, start, (y,), method="Nelder-Mead", options={"xatol": 1e-7})
            for start in starts
        ]
        found.append(-min(one.fun for one in tried) / n)
    return np.mean(found)


@pytest.mark.parametrize(("n", "d", "classes"), [(40, 5, 2), (12, 30, 2), (50, 8, 3), (30, 30, 2)])
def test_logme_is_the_maximised_evidence(n, d, classes):
    features, labels = rows(n, d, classes, seed=n)
    expected = direct(features, labels, classes)
    np.testing.assert_allclose(logme(features, labels, classes), expected, atol=2e-4)


def test_logme_of_features_without_anything_is_that_of_noise():
    labels = np.array([0, 1, 1, 1], np.int32)
    expected = [0.5 * (np.log(4 / (2 * np.pi * total)) - 1) / 1 for total in (1, 3)]
    found = logme(np.zeros((4, 3), np.float32), labels, 2)
    np.testing.assert_allclose(found, np.mean(expected), atol=1e-5)


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 99), scale=st.floats(0.01, 100))
def test_logme_is_blind_to_rotation_scale_order_and_names(seed, scale):
    features, labels = rows(30, 6, 3, seed)
    rng = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(rng.normal(size=(6, 6)))
    order, names = rng.permutation(30), rng.permutation(3)
    other = (scale * features @ turn)[order].astype(np.float32)
    np.testing.assert_allclose(
        logme(other, names[labels][order].astype(np.int32), 3),
        logme(features, labels, 3),
        atol=1e-4,
    )


def test_logme_prefers_features_that_tell_the_labels():
    values = []
    for signal in (0.0, 0.5, 2.0):
        features, labels = rows(60, 5, 2, 1, signal)
        values.append(float(logme(features, labels, 2)))
    assert values == sorted(values)
    assert values[2] > values[0] + 0.1


def test_padding_and_classes_without_rows_change_nothing():
    features, labels = rows(20, 4, 2, 3)
    padded = np.concatenate([features, np.full((12, 4), np.nan, np.float32)])
    more = np.concatenate([labels, np.zeros(12, np.int32)])
    weights = (np.arange(32) < 20).astype(np.float32)
    np.testing.assert_allclose(
        logme(padded, more, 2, weights), logme(features, labels, 2), atol=1e-5
    )
    np.testing.assert_allclose(logme(features, labels, 5), logme(features, labels, 2), atol=1e-5)
    reference = (features.mean(0), features.std(0))
    whole = ped(features, labels, 4, reference)
    found = ped(padded, more, 4, reference, weights)
    np.testing.assert_allclose(found.shifts, whole.shifts, atol=1e-6)
    np.testing.assert_allclose(whole.shifts[2:], 0)


# PED


def test_two_classes_by_hand():
    """Means at +-1, variance 1 each: radii .6, so 1.2 - 2 < 0 and nothing moves; at +-.5 the
    overlap is .2, and a step from rest moves each mean by k o dt^2 / 2.
    """
    reference = (np.zeros(1, np.float32), np.ones(1, np.float32))
    labels = np.array([0, 0, 1, 1], np.int32)
    far = np.array([[-2.0], [0.0], [0.0], [2.0]], np.float32)
    still = ped(far, labels, 2, reference)
    np.testing.assert_allclose(still.features, far)
    np.testing.assert_allclose([still.before, still.after], 0)
    near = far + np.array([[0.5], [0.5], [-0.5], [-0.5]], np.float32)
    one = ped(near, labels, 2, reference, dt=0.4, force=2.0, steps=1)
    step = 0.5 * 0.4**2 * 2.0 * 0.2
    np.testing.assert_allclose(one.shifts[:, 0], [-step, step], atol=1e-6)
    np.testing.assert_allclose(one.features[:, 0] - near[:, 0], [-step, -step, step, step], 1e-4)
    np.testing.assert_allclose(one.before, 0.5 * 2.0 * 0.2**2, atol=1e-6)
    np.testing.assert_allclose(one.after, 0.5 * 2.0 * (0.2 - 2 * step) ** 2, atol=1e-6)
    two = ped(near, labels, 2, reference, dt=0.4, force=2.0, steps=2)
    second = 0.5 * 0.4**2 * 2.0 * (0.2 - 2 * step)
    np.testing.assert_allclose(two.shifts[1, 0], step + second, atol=1e-6)
    # A force that would overshoot moves a mean by the overlap at most.
    strong = ped(near, labels, 2, reference, dt=10.0, steps=1)
    np.testing.assert_allclose(strong.shifts[:, 0], [-0.2, 0.2], atol=1e-6)


def ped_by_loops(features, labels, classes, reference, *, dt, by_columns=False):
    """The text of the paper in loops over rows and pairs, in float64: features, steps taken.

    `by_columns` sums up movement as the paper's code does.
    """
    middle, spread = (part.astype(np.float64) for part in reference)
    rows = (features.astype(np.float64) - middle) / spread
    found = rows.copy()
    means = {c: rows[labels == c].mean(0) for c in range(classes)}
    radius = {c: 0.6 * np.sqrt(rows[labels == c].var(0).sum()) for c in range(classes)}
    first, taken = None, 0
    for _ in range(6):
        moves = {c: np.zeros(rows.shape[1]) for c in range(classes)}
        for a in range(classes):
            for b in range(classes):
                length = np.linalg.norm(means[a] - means[b])
                overlap = radius[a] + radius[b] - length
                if a != b and overlap > 0:
                    moves[a] += min(0.5 * overlap * dt**2, overlap) * (means[a] - means[b]) / length
        size = sum(np.abs(m).sum() if by_columns else np.linalg.norm(m) for m in moves.values())
        first = size if first is None else first
        if size <= 0.5 * first:
            break
        for c, move in moves.items():
            means[c] = means[c] + move
            found[labels == c] += move
        taken += 1
    return found * spread + middle, taken


@pytest.mark.parametrize("dt", [0.1, 0.5])
@pytest.mark.parametrize(("d", "classes"), [(6, 3), (40, 5)])
def test_ped_is_what_loops_over_rows_and_pairs_say(d, classes, dt):
    features, labels = rows(60, d, classes, seed=d, signal=0.2)
    reference = (features.mean(0), features.std(0))
    expected, taken = ped_by_loops(features, labels, classes, reference, dt=dt)
    found = ped(features, labels, classes, reference, dt=dt)
    assert int(found.steps) == taken > 0
    np.testing.assert_allclose(found.features, expected, atol=2e-5)


@pytest.mark.parametrize("seed", range(5))
def test_summing_movement_by_columns_ends_at_the_same_step(seed):
    """Of steps of .1, the published length: where the two ways differ, all six are taken."""
    features, labels = rows(60, 12, 3, seed, signal=0.2)
    reference = (features.mean(0), features.std(0))
    ours, theirs = (
        ped_by_loops(features, labels, 3, reference, dt=0.1, by_columns=by_columns)
        for by_columns in (False, True)
    )
    assert ours[1] == theirs[1]


def test_it_ends_where_a_step_moves_half_as_much_as_the_first():
    features, labels = rows(40, 3, 2, 5, 0.1)
    reference = (features.mean(0), features.std(0))
    # Each step leaves 1 - k dt^2 = .64 of the overlap: the second moves .64, the third .41.
    found = ped(features, labels, 2, reference, dt=0.6, steps=6)
    assert int(found.steps) == 2
    assert int(ped(features, labels, 2, reference, dt=0.1).steps) == 6
    np.testing.assert_allclose(found.after / found.before, 0.64**4, rtol=1e-3)


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 99))
def test_ped_follows_translations_and_is_blind_to_order_and_names(seed):
    features, labels = rows(25, 4, 3, seed, 0.3)
    rng = np.random.default_rng(seed)
    reference = (features.mean(0), features.std(0))
    found = ped(features, labels, 3, reference)
    away = rng.normal(size=4).astype(np.float32)
    moved = ped(features + away, labels, 3, (reference[0] + away, reference[1]))
    np.testing.assert_allclose(moved.features, found.features + away[None], atol=1e-5)
    order, names = rng.permutation(25), rng.permutation(3)
    other = ped(features[order], names[labels][order].astype(np.int32), 3, reference)
    np.testing.assert_allclose(other.features, found.features[order], atol=1e-5)
    np.testing.assert_allclose(other.after, found.after, rtol=1e-4)
    assert float(found.after) <= float(found.before)
    np.testing.assert_allclose(np.sum(found.shifts / reference[1][None], axis=0), 0, atol=1e-4)


def test_evolved_features_tell_more():
    features, labels = rows(60, 5, 2, 2, 0.4)
    reference = (features.mean(0), features.std(0))
    still, evolved = jax.jit(functools.partial(logme_ped, classes=2))(
        jnp.asarray(features), labels, reference=reference
    )
    assert float(evolved) > float(still)
    np.testing.assert_allclose(still, logme(features, labels, 2), atol=1e-6)

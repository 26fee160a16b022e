"""The reference posterior against Bayes' rule written out."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from enn_finetune.testbed import floor, problems, scores
from enn_finetune.testbed.types import Data, Spec

KEY = jax.random.key(0)
SPEC = Spec(input_dim=2, classes=2, temperature=0.5, hidden=4)
SLOPES = jnp.array([-2.0, 0.0, 3.0])

# One program each: operation by operation, most of the time would be compiling.
sample_exam = jax.jit(problems.sample_exam, static_argnames=("taus", "groups"))
grade = jax.jit(scores.grade)
log_probs = jax.jit(floor.log_probs)
thin = jax.jit(jax.vmap(floor._thin, (0, None, None)), static_argnums=2)


def one_of_three(key, spec):
    """A prior of three linear generators, the chances 1/2, 1/4, 1/4."""
    which = jnp.array([0, 0, 1, 2])[jax.random.randint(key, (), 0, 4)]
    weights = jnp.array([[0.0, 0.0], [0.0, 1.0]]) * SLOPES[which]
    return problems.Problem(((weights, jnp.zeros(2)),), jnp.float32(1))


@pytest.fixture(scope="module")
def weigh():
    """The posterior of that prior, compiled once: (data, weight)."""
    find = jax.jit(partial(floor.posterior, particles=8000, keep=8000, chunk=1000))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(floor, "sample_problem", one_of_three)
        find = find.lower(KEY, SPEC, Data(jnp.ones((6, 2)), jnp.ones(6, int)), jnp.ones(6))
    compiled = find.compile()
    return lambda *given: compiled(KEY, SPEC, *given)


@pytest.fixture(scope="module")
def data():
    x = jax.random.normal(jax.random.key(2), (6, 2))
    return Data(x, jnp.array([0, 1, 1, 0, 1, 0], jnp.int32))


def likelihood(slope, data, weight):
    log_odds = slope * np.nan_to_num(data.x)[:, 1]
    log_probs = -np.logaddexp(0, np.where(np.asarray(data.y) == 1, -log_odds, log_odds))
    return np.exp(np.sum(np.where(np.asarray(weight) > 0, weight * log_probs, 0)))


def test_posterior_is_bayes_rule(weigh, data):
    """Three generators with known chances: predictions, evidence and effective size."""
    weight = jnp.array([1.0, 1.0, 0.0, 1.0, 2.0, 1.0])
    data = data._replace(x=data.x.at[2].set(jnp.nan))  # hidden
    found = weigh(data, weight)
    prior = np.array([0.5, 0.25, 0.25])
    terms = np.array([likelihood(float(slope), data, weight) for slope in SLOPES])
    exact = prior * terms / np.sum(prior * terms)
    np.testing.assert_allclose(found.log_evidence, np.log(np.sum(prior * terms)), atol=0.05)
    np.testing.assert_allclose(np.exp(found.log_weights).sum(), 1, rtol=1e-4)
    size = 8000 * np.sum(prior * terms) ** 2 / np.sum(prior * terms**2)
    np.testing.assert_allclose(found.size, size, rtol=0.05)
    x = jnp.array([[0.0, 1.0], [5.0, -0.4]])
    ours = jnp.exp(jax.nn.logsumexp(log_probs(found, x) + found.log_weights[:, None, None], axis=0))
    wanted = sum(
        share / (1 + np.exp(-float(slope) * np.asarray(x[:, 1])))
        for share, slope in zip(exact, SLOPES, strict=True)
    )
    np.testing.assert_allclose(ours[:, 1], wanted, atol=0.02)


def test_joint_predictions_are_the_exact_posteriors(weigh, data):
    """KL of rows together, with the posterior's three functions and their exact weights."""
    found = weigh(data, jnp.ones(6))
    problem = one_of_three(jax.random.key(8), SPEC)
    exam = sample_exam(KEY, problem, taus=(3,), groups=10)
    _, (ours,) = grade(log_probs(found, exam.x), exam, log_weights=found.log_weights)
    terms = np.array([likelihood(float(s), data, np.ones(6)) for s in SLOPES])
    exact = np.array([0.5, 0.25, 0.25]) * terms
    logits = jnp.stack([jnp.zeros((3, 20)), SLOPES[:, None] * exam.x[None, :, 1]], axis=-1)
    _, (wanted,) = grade(
        jax.nn.log_softmax(logits, axis=-1), exam, log_weights=jnp.log(exact / exact.sum())
    )
    np.testing.assert_allclose(ours.value, wanted.value, atol=0.02)


@pytest.fixture(scope="module")
def few():
    return jax.jit(partial(floor.posterior, particles=60, keep=60, chunk=20))


def test_without_labels_the_posterior_is_the_prior(few, data):
    found = few(KEY, SPEC, data, jnp.zeros(6))
    np.testing.assert_allclose(found.size, 60, rtol=1e-4)
    np.testing.assert_allclose(found.log_weights, -math.log(60), rtol=1e-3)
    np.testing.assert_allclose(found.log_evidence, 0, atol=1e-5)


def test_kept_particles_are_drawn_again_as_they_were(few, data):
    """With all kept, their likelihoods are their weights."""
    found = few(KEY, SPEC, data, jnp.ones(6))
    picked = log_probs(found, data.x)[:, np.arange(6), data.y].sum(axis=1)
    np.testing.assert_allclose(
        picked - picked[0], found.log_weights - found.log_weights[0], atol=1e-3
    )
    assert len(np.unique(picked)) == 60


@pytest.mark.parametrize("spread", [0.0, 1.0, 5.0, 40.0])
def test_what_is_kept_weighs_as_all_do_on_average(spread):
    """From equal weights to a single particle that has them all: means over what is kept."""
    log_weights = jax.nn.log_softmax(spread * jax.random.normal(KEY, (300,)))
    values = np.sin(np.arange(300))

    chosen, kept = thin(jax.random.split(KEY, 400), log_weights, 40)
    found = np.sum(np.exp(kept) * values[chosen], axis=1)
    exact = float(np.sum(np.exp(log_weights) * values))
    error = np.std(found) / 20
    np.testing.assert_allclose(np.mean(found), exact, atol=4 * error + 1e-4)
    assert int(jnp.argmax(log_weights)) in chosen[0] or spread == 0.0


def test_many_informative_labels_give_a_small_size_and_no_nan(few, data):
    found = few(KEY, SPEC, data, 1e4 * jnp.ones(6))
    assert found.size == pytest.approx(1)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))


def test_chunks_must_divide_the_particles(data):
    with pytest.raises(ValueError, match="chunks that divide particles=60"):
        floor.posterior(KEY, SPEC, data, jnp.ones(6), particles=60, keep=10, chunk=25)


@pytest.mark.slow
def test_no_agent_is_told_more_than_the_posterior():
    """Over problems drawn from the prior, the posterior's mean KL is below the prior's own."""
    spec = Spec(input_dim=2, temperature=0.5, ratio=5)

    @jax.jit
    def both(key):
        keys = jax.random.split(key, 4)
        problem = problems.sample_problem(keys[0], spec)
        data = problems.sample_data(keys[1], problem, spec.rows)
        exam = problems.sample_exam(keys[2], problem, (1, 10), groups=50)
        kls = []
        for weight in (jnp.ones(spec.rows), jnp.zeros(spec.rows)):
            found = floor.posterior(keys[3], spec, data, weight, particles=2000, keep=2000)
            log_probs = floor.log_probs(found, exam.x)
            _, joint = scores.grade(log_probs, exam, log_weights=found.log_weights)
            kls.append([kl.value for kl in joint])
        return jnp.array(kls)

    kls = np.mean([both(jax.random.fold_in(KEY, i)) for i in range(12)], axis=0)
    assert (kls[0] < kls[1]).all()

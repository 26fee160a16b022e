"""A fine-tuned model beside a head on pretrained features: what is asked of which."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_runs
import worlds
from flax import nnx

from enn_finetune import evaluating, train
from enn_finetune.data.inputs import FeatureRows
from enn_finetune.evaluating import predict
from enn_finetune.models.heads import LinearHead
from enn_finetune.policies import Shared, fits
from enn_finetune.policies.beside import Beside
from enn_finetune.policies.encoders import Features, FineTuned

W, D, C = 5, 4, 2


def log_softmax(logits):
    return jax.nn.log_softmax(jnp.asarray(logits, jnp.float32), axis=-1)


def test_the_prediction_is_the_mean_of_both():
    rng = np.random.default_rng(0)
    head = LinearHead(W, C, rngs=nnx.Rngs(0))
    pretrained, tuned = rng.normal(size=(7, W)), rng.normal(size=(7, D))
    said = log_softmax(rng.normal(size=(7, C)))
    rows = jnp.asarray(np.concatenate([pretrained, tuned, said], axis=1), jnp.float32)
    both = Beside(head, W, C)
    z = both.sample_index(jax.random.key(0), 3)
    found = jnp.exp(log_softmax(both.many(rows, z)))
    solved = jnp.exp(log_softmax(head.many(rows[:, :W], z)))
    np.testing.assert_allclose(found, (solved + jnp.exp(said)[None]) / 2, atol=1e-6)
    np.testing.assert_allclose(both(rows, z[0]), both.many(rows, z)[0])
    np.testing.assert_allclose(both.rows(rows), tuned, rtol=1e-6)


@pytest.fixture
def made(world):
    """A pool of random features, 12 rows bought, and what some model made of it."""
    problem = tiny_runs.prepared(worlds.config_of(world, policy="asvp"))
    problem.oracle.buy(np.arange(12))
    rng, rows = np.random.default_rng(1), len(problem.pool)
    features = Features(FeatureRows(rng.normal(size=(rows, W)).astype(np.float32), 16), 1)
    said = np.asarray(log_softmax(rng.normal(size=(rows, problem.oracle.classes))))
    return problem, features, FineTuned(rng.normal(size=(rows, D)).astype(np.float32), said)


def test_the_head_is_solved_for_on_pretrained_features_alone(world, made):
    problem, features, tuned = made
    config = worlds.config_of(world, policy="asvp")
    alone = fits.Proxy(problem, features, config)
    both = fits.Proxy(problem, features, config, beside=tuned)
    rows = np.arange(12, 20)
    before, _ = predict(alone.fit(0), alone.problem.pool, rows, config)
    after, _ = predict(both.fit(0), both.problem.pool, rows, config)
    mean = np.logaddexp(before, tuned.log_probs[rows]) - np.log(2)
    np.testing.assert_allclose(after, mean, atol=0.05)  # 32 indices stand for all
    assert np.abs(before - after).max() > 0.2, "the fine-tuned model has its say"


def test_the_indicator_reads_the_newest_features(world, made):
    problem, features, tuned = made
    config = worlds.config_of(world, policy="asvp")
    read = fits.Proxy(problem, features, config, beside=tuned).reading()
    same = Features(dataclasses.replace(features.rows, features=tuned.features), 1)
    assert read == pytest.approx(fits.Proxy(problem, same, config).reading(), rel=1e-4)


def test_rows_predicted_together_are_found_once(world, tmp_path, monkeypatch):
    found, real = [], evaluating.joint_groups
    monkeypatch.setattr(
        evaluating, "joint_groups", lambda features: found.append(len(features)) or real(features)
    )
    shared = Shared()
    for name in ("standard", "svpp"):
        config = worlds.config_of(world, **worlds.CASES[name], **{"evaluation.every": 24})
        worlds.course(config, tmp_path / name, shared=shared)
    assert len(found) == len(tiny_runs.prepared(config).evaluations)


def test_a_proxy_in_use_is_asked_with_the_model_that_was_fine_tuned(world, tmp_path, monkeypatch):
    asked, real = [], fits.Proxy.fit

    def watched(self, number, rows=None):
        parts = real(self, number, rows)
        asked.append((number, type(train.merge(parts).head).__name__))
        return parts

    monkeypatch.setattr(fits.Proxy, "fit", watched)
    config = worlds.config_of(world, **worlds.CASES["asvp"], **{"evaluation.every": 24})
    worlds.course(config, tmp_path)
    assert asked == [(0, "LinearEpinet"), (1, "Beside"), (2, "Beside"), (3, "Beside")]

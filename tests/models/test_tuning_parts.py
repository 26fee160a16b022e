"""Tuning modes: what is added by definition, a probe before the rest (LP-FT), and the config."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tuning_made import (
    RECIPE,
    C,
    D,
    batch,
    classifier,
    every_mode,
    fit,
    settings,
    written,
)

from enn_finetune import train
from enn_finetune.config import ConfigError, build
from enn_finetune.config.schema import BackboneConfig, TrainConfig
from enn_finetune.config.tuning import LEARNING_RATES
from enn_finetune.models.backbone import BertBackbone
from enn_finetune.models.bert import Dense
from enn_finetune.models.classifier import Classifier
from enn_finetune.models.heads import make_head
from enn_finetune.models.tuning import MODES, check
from enn_finetune.models.tuning.ia3 import ScaledInputs, ScaledOutputs
from enn_finetune.models.tuning.lora import LoraDense


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> BertBackbone:
    return written(tmp_path_factory.mktemp("encoder"), dropout=0.0)  # compiles quicker


# The definitions


def dense(width: int, out: int) -> Dense:
    made = Dense(width, out, dtype=jnp.float32, param_dtype=jnp.float32, rngs=nnx.Rngs(2))
    made.bias[...] = jnp.arange(out) / 10
    return made


def test_lora_adds_scaled_products_to_its_parts_of_the_columns():
    rng = np.random.default_rng(0)
    inner, x = dense(4, 9), rng.normal(size=(5, 4)).astype(np.float32)
    added = LoraDense(inner, 2, 6.0, parts=(0, 2), of=3, rngs=nnx.Rngs(0))
    a, b = rng.normal(size=(2, 4, 2)), rng.normal(size=(2, 2, 3))
    added.down[...] = jnp.asarray(np.concatenate(a, axis=1), jnp.float32)
    added.up[...] = jnp.asarray(b, jnp.float32)
    expected = x @ np.asarray(inner.kernel[...]) + np.asarray(inner.bias[...])
    expected[:, :3] += 3 * x @ a[0] @ b[0]
    expected[:, 6:] += 3 * x @ a[1] @ b[1]
    np.testing.assert_allclose(added(x), expected, atol=1e-5)
    np.testing.assert_allclose(added.activated(x, "relu"), np.maximum(expected, 0), atol=1e-5)
    np.testing.assert_allclose(added.fold()(x), expected, atol=1e-5)


def test_ia3_scales_keys_values_and_inner_activations():
    x = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    outputs, inputs = ScaledOutputs(dense(4, 9), unscaled=3), ScaledInputs(dense(4, 6))
    outputs.scale[...], inputs.scale[...] = jnp.arange(6.0), jnp.asarray([2.0, 0, 1, -1])
    whole = np.asarray(dense(4, 9)(x))
    scaled = np.concatenate([whole[:, :3], whole[:, 3:] * np.arange(6)], axis=1)
    expected = x * [2, 0, 1, -1] @ np.asarray(dense(4, 6).kernel[...]) + np.arange(6) / 10
    for found, true in ((outputs, scaled), (inputs, expected)):
        np.testing.assert_allclose(found(x), true, atol=1e-5)
        np.testing.assert_allclose(found.fold()(x), true, atol=1e-5)


# A probe first (LP-FT)


def test_a_probe_trains_the_head_alone_and_all_begins_anew_after_it(encoder):
    parts = train.split(classifier(encoder, settings("lora")), "frozen")
    recipe = dataclasses.replace(RECIPE, probe_steps=2, average=0.9)
    states = fit(parts, recipe, 4)
    for state in states[1:3]:
        for tree in (state.params, state.average):
            assert not differing(tree["backbone"], states[0].params["backbone"])
        assert not differing(
            state.optimizer.inner_states["encoder"], states[0].optimizer.inner_states["encoder"]
        )
    assert all(
        (a != b).any()
        for a, b in zip(
            jax.tree.leaves(states[1].params["head"]),
            jax.tree.leaves(states[0].params["head"]),
            strict=True,
        )
    )
    assert differing(states[3].params["backbone"], states[0].params["backbone"])
    # The average begins with the first step after the probe.
    for one, other in zip(
        jax.tree.leaves(states[3].average), jax.tree.leaves(states[3].params), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_a_probe_is_without_dropout_and_a_step_is_not(tmp_path):
    encoder = written(tmp_path, dropout=0.5)

    def losses(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        head = make_head({"kind": "linear", "features": D, "classes": C}, rngs=nnx.Rngs(1))
        both = Classifier(encoder, head)  # which draws no indices
        return tuple(train.loss(both, batch(), key, RECIPE, probe=p) for p in (True, False))

    one, other = losses(jax.random.key(1)), losses(jax.random.key(2))
    assert one[0] == other[0]
    assert one[1] != other[1]


def differing(one: object, other: object) -> bool:
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return any((np.asarray(a) != np.asarray(b)).any() for a, b in pairs)


# The config


@every_mode
def test_a_mode_has_its_own_rate_unless_one_is_given(mode):
    config = build({"backbone.tune": mode})
    assert config.train.lr is None
    assert config.training.peak == LEARNING_RATES[mode]
    given = build({"backbone.tune": mode, "train.lr": "2e-5"})
    assert given.training == given.train
    assert given.training.peak == 2e-5


def test_a_recipe_without_a_rate_trains_nothing():
    with pytest.raises(ValueError, match=r"train\.lr: found none; take Config\.training"):
        train.optimizer(TrainConfig())


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode not in ("frozen", "full")])
def test_words_are_not_trained_by_modes_that_leave_them_alone(mode):
    with pytest.raises(ConfigError, match=r"backbone\.embeddings: got 'touched'; .*= full"):
        build({"backbone.tune": mode, "backbone.embeddings": "touched"})
    assert build({"backbone.tune": mode, "backbone.embeddings": "frozen"})


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"tune": "last", "tune_layers": 3}, r"backbone\.tune_layers: 3 is more than the 2 layers"),
        ({"tune": "lora", "rank": 9}, r"backbone\.rank: 9 is more than the width 8"),
    ],
)
def test_what_the_encoder_is_too_small_for_is_named_by_key(encoder, keys, message):
    with pytest.raises(ConfigError, match=message):
        check(BackboneConfig(**keys), encoder.bert.config, Path("folder"))
    fits = {name: value - 1 if isinstance(value, int) else value for name, value in keys.items()}
    check(BackboneConfig(**fits), encoder.bert.config, Path("folder"))


@pytest.mark.parametrize(
    ("key", "value"),
    [("rank", 0), ("tune_layers", 0), ("lora_alpha", 0), ("lora_on", "keys"), ("tune", "adapter")],
)
def test_bad_values_are_named_by_key(key, value):
    with pytest.raises(ConfigError, match=rf"backbone\.{key}: got "):
        build({f"backbone.{key}": value})

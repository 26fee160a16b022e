"""MC-dropout in the classification layer, where a small encoder chooses for a large one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_runs
import worlds
from flax import nnx

from enn_finetune import cli, train
from enn_finetune.models.heads import LinearHead
from enn_finetune.policies import dropping, fits

BALD = {"acquisition.rule": "bald", "evaluation.every": 24, "budget.labels": 16}


def test_masks_drop_features_and_never_the_bias():
    head = LinearHead(40, 3, rngs=nnx.Rngs(0))
    head.linear.bias[...] = jnp.asarray([1.0, 2.0, 3.0])
    dropped = dropping.DroppedLinear(head, 0.25)
    z = dropped.sample_index(jax.random.key(0), 500)
    np.testing.assert_allclose(np.unique(z), [0, 4 / 3], rtol=1e-6)
    assert float(jnp.mean(z == 0)) == pytest.approx(0.25, abs=0.02)
    x = jax.random.normal(jax.random.key(1), (6, 40))
    logits = dropped.many(x, z)
    assert logits.shape == (500, 6, 3)
    kernel = head.linear.kernel[...]
    np.testing.assert_allclose(
        logits[7], (x * z[7][None]) @ kernel + head.linear.bias[...][None], rtol=1e-5, atol=1e-5
    )
    # In the mean over masks, the layer as it was trained.
    np.testing.assert_allclose(logits.mean(0), head(x), atol=0.35)
    np.testing.assert_allclose(
        dropped.many(jnp.zeros((2, 40)), z)[:, 0], jnp.tile(head.linear.bias[...][None], (500, 1))
    )


def test_one_mask_is_one_function_of_the_rows():
    dropped = dropping.DroppedLinear(LinearHead(12, 2, rngs=nnx.Rngs(0)), 0.5)
    z = dropped.sample_index(jax.random.key(0), 4)
    x = jax.random.normal(jax.random.key(1), (9, 12))
    order = np.random.default_rng(0).permutation(9)
    np.testing.assert_allclose(dropped.many(x, z)[:, order], dropped.many(x[order], z), rtol=1e-6)
    np.testing.assert_allclose(dropped(x, z[1]), dropped.many(x, z)[1], rtol=1e-6)


def test_the_rate_is_the_encoders_own(world):
    config = worlds.config_of(world)
    problem = tiny_runs.prepared(config)
    problem.oracle.buy(np.arange(8))
    parts = dropping.dropped(fits.trained(problem, config, 0))
    head = train.merge(parts).head
    assert head.rate == problem.encoder.bert.config.hidden_dropout_prob > 0
    config = worlds.config_of(world, **{"head.kind": "epinet"})
    with pytest.raises(TypeError, match="expected a linear head, found Epinet"):
        dropping.dropped(fits.trained(problem, config, 0))


@pytest.mark.parametrize("policy", ["svpp", "standard"])
def test_a_small_encoder_chooses_by_dropout_for_a_large_one(
    world, smaller, tmp_path, monkeypatch, policy
):
    """From the command line, by a rule that the large one's linear head could not answer."""
    config = worlds.config_of(world)
    path = tiny_runs.toml(tmp_path / "run.toml", config)
    made = []
    real = dropping.DroppedLinear.__init__

    def watched(self, head, rate):
        made.append(rate)
        real(self, head, rate)

    monkeypatch.setattr(dropping.DroppedLinear, "__init__", watched)
    keys = BALD | {"policy": policy, "proxy.path": str(smaller), "proxy.head": "mc_dropout"}
    out = tmp_path / "out"
    given = [f"{name}={value}" for name, value in keys.items()]
    code = cli.main(["train", str(path), "--out", str(out), *given])
    assert code == 0
    found = worlds.records(out)[-1]
    assert found["labels_bought"] == 16
    assert found["scoring"]["flops"] > 0
    assert len(made) >= 2 if policy == "standard" else not made
    assert (out / "model" / "model.safetensors").exists()

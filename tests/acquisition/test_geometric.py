"""What geometric rules keep to beside the laws of every rule: features, rows bought, devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from geometric import KEY, C, D, K, chosen, shown
from jax.sharding import Mesh, PartitionSpec
from strategies import seeded_log_probs

from enn_finetune.acquisition import typiclust as typiclust_module
from enn_finetune.acquisition.badge import badge
from enn_finetune.acquisition.coreset import confident_coreset, confident_coreset_bald, kcenter
from enn_finetune.acquisition.lcmd import lcmd, lcmd_gradients
from enn_finetune.acquisition.pool_loss import pool_loss
from enn_finetune.acquisition.rows import BLOCK
from enn_finetune.acquisition.typiclust import typiclust
from enn_finetune.types import Axis, Shown

RULES = {
    "badge": badge,
    "kcenter": kcenter,
    "confident_coreset": confident_coreset,
    "confident_coreset_bald": confident_coreset_bald,
    "lcmd": lcmd,
    "lcmd_gradients": lcmd_gradients,
    "pool_loss": pool_loss,
    "typiclust": typiclust,
}
every_rule = pytest.mark.parametrize("name", RULES)
every_coreset = pytest.mark.parametrize("name", sorted(RULES.keys() - {"badge"}))


@every_rule
def test_all_rows_can_be_bought_whatever_the_features(name):
    plain = shown(0, rows=6)
    same = jnp.ones_like(plain.features)
    for features in (0 * same, same, 1e-15 * plain.features, 1e15 * plain.features):
        rows = np.asarray(chosen(RULES[name], plain._replace(features=features), 6))
        assert rows.dtype == np.int32
        assert sorted(rows) == list(range(6))


@every_coreset
@pytest.mark.parametrize("seed", range(3))
def test_duplicates_of_rows_bought_come_last(name, seed):
    """Four different rows, each six times; two are bought."""
    lp = np.tile(seeded_log_probs(seed, K, 4, C), (1, 6, 1))
    plain = shown(seed, np.arange(24) >= 2, rows=24)
    seen = plain._replace(log_probs=jnp.asarray(lp), features=jnp.tile(plain.features[:4], (6, 1)))
    rows = np.asarray(chosen(RULES[name], seen, 3, jax.random.key(seed)))
    assert set(rows[:2] % 4) == {2, 3}


@functools.cache
def large_pool() -> tuple[Shown, int]:
    """A pool over all devices, with duplicates, bought rows and padding on the last device."""
    devices = jax.device_count()
    every = BLOCK * devices
    rows = every - BLOCK // 3
    rng = np.random.default_rng(0)
    features = rng.normal(size=(every, D)).astype(np.float32)
    lp = seeded_log_probs(1, K, every, C)
    features[1 : rows // 2 : 3], lp[:, 1 : rows // 2 : 3] = features[0], lp[:, :1]
    features[rows:], lp[:, rows:] = 0, 0
    free = rng.random(every) < 0.99
    free[rows:] = False
    return Shown(jnp.asarray(lp), jnp.asarray(features), jnp.asarray(free)), rows


@every_rule
@pytest.mark.slow
def test_devices_together_pick_what_one_picks(name, monkeypatch):
    monkeypatch.setattr(typiclust_module, "SAMPLE", 300)
    rule, (seen, rows) = RULES[name], large_pool()
    mesh = Mesh(np.array(jax.devices()), ("rows",))
    axis = Axis("rows", rows)

    def spread(seen, key):
        kept = rule.read(seen.log_probs, seen.features)
        return rule.pick(kept, seen.free, 6, key, axis=axis)

    parts = PartitionSpec("rows")
    specs = Shown(PartitionSpec(None, "rows"), parts, parts), PartitionSpec()
    together = jax.shard_map(
        spread, mesh=mesh, in_specs=specs, out_specs=PartitionSpec(), check_vma=False
    )
    alone = Shown(seen.log_probs[:, :rows], seen.features[:rows], seen.free[:rows])
    expected = np.asarray(jax.jit(rule, static_argnums=1)(alone, 6, KEY))
    assert np.asarray(alone.free)[expected].all()
    np.testing.assert_array_equal(jax.jit(together)(seen, KEY), expected)


@every_rule
def test_nothing_as_large_as_rows_by_rows_is_built(name):
    rows, width = 4000, 8
    seen = Shown(
        jax.ShapeDtypeStruct((2, rows, 2), jnp.float32),
        jax.ShapeDtypeStruct((rows, width), jnp.float32),
        jax.ShapeDtypeStruct((rows,), jnp.bool_),
    )
    key = jax.eval_shape(lambda: jax.random.key(0))
    compiled = jax.jit(RULES[name], static_argnums=1).lower(seen, 4, key).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 4 * rows * rows / 2

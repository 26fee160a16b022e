"""Rows spread over devices: every function on one device, on two, and on all that there are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from enn_finetune.acquisition import rows
from enn_finetune.acquisition.rows import BLOCK
from enn_finetune.types import Axis

DEVICES = len(jax.devices())
PER_DEVICE = BLOCK  # one block: where a compiler is most tempted to do otherwise
SIZE = DEVICES * PER_DEVICE
N = SIZE - BLOCK // 2  # the rest is padding
AXIS = Axis("rows", N)
WHOLE = P()
KEY = jax.random.key(3)

generator = np.random.default_rng(0)
VALUES = generator.normal(size=SIZE).astype(np.float32)
VALUES[[5, SIZE // 2, SIZE // 2 + 1]] = 9  # the largest, on more than one device
TIES = generator.integers(0, 4, SIZE).astype(np.float32)
FEATURES = generator.normal(size=(SIZE, 24)).astype(np.float32)
FREE = np.arange(SIZE) < N
FREE[generator.choice(N, N // 3, replace=False)] = False
PICKED = np.array([0, N - 1, PER_DEVICE, 7, 7], np.int32)


def on(devices, function, *parts, out=WHOLE):
    """`function` of each device's part of the rows."""
    mesh = Mesh(np.array(jax.devices()[:devices]), ("rows",))
    placed = jax.device_put(parts, NamedSharding(mesh, P("rows")))
    spread = jax.shard_map(
        function, mesh=mesh, in_specs=(P("rows"),) * len(parts), out_specs=out, check_vma=False
    )
    return jax.tree.map(np.asarray, jax.jit(spread)(*placed))


def everywhere(function, *parts, out=WHOLE):
    """The result, which is bit for bit the same on 1, 2 and all devices."""
    found = [on(devices, function, *parts, out=out) for devices in sorted({1, 2, DEVICES})]
    for other in found[1:]:
        jax.tree.map(
            lambda a, b: np.testing.assert_array_equal(_bits(a), _bits(b)), found[0], other
        )
    return found[0]


def _bits(array):
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def test_there_are_devices_to_spread_rows_over():
    assert DEVICES >= 4, "conftest.py asks for them"


def test_numbers_are_global_and_padding_is_not_real():
    found = everywhere(lambda x: rows.numbers(len(x), AXIS), VALUES, out=P("rows"))
    np.testing.assert_array_equal(found, np.arange(SIZE))
    found = everywhere(lambda x: rows.real(len(x), AXIS), VALUES, out=P("rows"))
    np.testing.assert_array_equal(found, np.arange(SIZE) < N)
    assert everywhere(lambda x: jnp.int32(rows.everywhere(len(x), AXIS)), VALUES) == SIZE
    assert rows.everywhere(7, None) == 7
    assert np.asarray(rows.real(3, None)).all()


def test_padding_is_not_bought():
    found = everywhere(lambda free: rows.bought(free, AXIS), FREE, out=P("rows"))
    np.testing.assert_array_equal(found, ~FREE & (np.arange(SIZE) < N))
    np.testing.assert_array_equal(rows.bought(FREE[:9], None), ~FREE[:9])


@pytest.mark.parametrize("values", [VALUES, TIES, -np.inf * np.ones(SIZE, np.float32)])
def test_the_largest_is_the_first_of_equals(values):
    assert everywhere(lambda x: rows.argmax(x, AXIS), values) == values.argmax()
    assert rows.argmax(jnp.asarray(values), None) == values.argmax()


@pytest.mark.parametrize("values", [VALUES, TIES])
@pytest.mark.parametrize("count", [1, 50, PER_DEVICE + 9])
def test_the_largest_come_best_first_and_ties_in_row_order(values, count):
    found = everywhere(lambda x: rows.top_k(x, count, AXIS), values)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, np.argsort(-values, kind="stable")[:count])
    np.testing.assert_array_equal(found, rows.top_k(jnp.asarray(values), count, None))


def test_rows_taken_are_those_rows_to_the_last_bit_in_every_type():
    odd = np.float32([-0.0, np.inf, -np.inf, np.nan, 1e-45])
    tree = {
        "odd": np.resize(odd, (SIZE, 5)),
        "half": FEATURES.astype(np.float16),
        "flags": FREE,
        "counts": np.arange(SIZE, dtype=np.int32) - 5,
        "small": np.arange(SIZE).astype(np.uint8),
    }
    for picked in (PICKED, PICKED[2], PICKED[:4].reshape(2, 2)):
        found = everywhere(lambda rest, one=picked: rows.take(rest, jnp.asarray(one), AXIS), tree)
        here = rows.take(jax.tree.map(jnp.asarray, tree), jnp.asarray(picked), None)
        for name, leaf in tree.items():
            assert found[name].dtype == leaf.dtype
            np.testing.assert_array_equal(_bits(found[name]), _bits(leaf[picked]))
            np.testing.assert_array_equal(_bits(here[name]), _bits(leaf[picked]))


def test_all_rows_gathered_are_those_without_padding():
    found = everywhere(lambda x: rows.gather({"x": x}, AXIS), FEATURES)
    np.testing.assert_array_equal(found["x"], FEATURES[:N])
    assert rows.gather(VALUES, None) is VALUES


def test_rows_bought_are_no_longer_free():
    for picked in (PICKED, PICKED[1]):
        expected = FREE.copy()
        expected[picked] = False
        found = everywhere(
            lambda free, one=picked: rows.without(free, jnp.asarray(one), AXIS), FREE, out=P("rows")
        )
        np.testing.assert_array_equal(found, expected)
        here = rows.without(jnp.asarray(FREE), jnp.asarray(picked), None)
        np.testing.assert_array_equal(here, expected)


def test_rows_put_are_where_they_were_asked_for():
    expected = FEATURES.copy()
    expected[PICKED[:4]] = 1
    new = jnp.ones((4, FEATURES.shape[1]))
    found = everywhere(
        lambda x: rows.put(x, jnp.asarray(PICKED[:4]), new, AXIS), FEATURES, out=P("rows")
    )
    np.testing.assert_array_equal(found, expected)


def test_sums_leave_out_padding_and_do_not_depend_on_devices():
    """Between operations that a compiler would like to fuse with the sum."""

    def sums(x, values):
        first = rows.total(x * values[:, None], AXIS)
        return first, rows.total(jnp.exp(values) * jnp.sin(values) + first[0], AXIS)

    by_hand = FEATURES * VALUES[:, None]
    by_hand[N:] = np.nan  # padding may hold anything
    found, _ = everywhere(sums, FEATURES, VALUES)
    np.testing.assert_allclose(found, by_hand[:N].astype(np.float64).sum(0), rtol=1e-4, atol=1e-2)
    whole = everywhere(lambda x: rows.total(x, AXIS), by_hand)
    assert np.isfinite(whole).all()
    counts = everywhere(lambda x: rows.total(x.astype(jnp.int32), AXIS), FREE)
    assert counts == FREE[:N].sum()
    np.testing.assert_allclose(rows.total(FEATURES[:9], None), FEATURES[:9].sum(0), rtol=1e-5)
    assert everywhere(lambda x: rows.total(jnp.ones_like(x), "rows"), VALUES) == SIZE


def test_blocks_are_computed_alike_whatever_is_around_them():
    """The case that a plain loop, or one with barriers, gets wrong on the CPU (jaxlib 0.10)."""
    weights = generator.normal(size=(24, 33)).astype(np.float32)

    def function(some):
        inner = jnp.sum(jnp.matmul(some, weights) ** 2, axis=-1)
        return jnp.exp(-inner / 1e3) * jnp.log1p(jnp.abs(some[:, 0] * some[:, 1] + some[:, 2]))

    def busy(x, values):
        found = rows.map_blocks(function, x * values[:, None])
        return found, found * values + 1

    # The second result is arithmetic outside blocks: only the first is promised.
    found, _ = everywhere(lambda x, v: (busy(x, v)[0], 0), FEATURES, VALUES, out=(P("rows"), P()))
    np.testing.assert_allclose(found, function(FEATURES * VALUES[:, None]), rtol=1e-4)


@pytest.mark.parametrize("n", [1, 10, 11, 30, 31])
def test_blocks_are_put_together_in_row_order(n):
    tree = {"x": jnp.asarray(FEATURES[:n]), "flags": jnp.asarray(FREE[:n])}
    found = rows.map_blocks(lambda some: (2 * some["x"][:, :2], ~some["flags"]), tree, 10)
    np.testing.assert_array_equal(found[0], 2 * FEATURES[:n, :2])
    np.testing.assert_array_equal(found[1], ~FREE[:n])


def test_noise_is_a_function_of_the_key_and_the_row():
    found = everywhere(lambda x: rows.gumbel(KEY, len(x), AXIS), VALUES, out=P("rows"))
    assert abs(found.mean() - 0.5772) < 0.05
    assert abs(found.std() - np.pi / np.sqrt(6)) < 0.05
    one = jax.random.gumbel(jax.random.fold_in(KEY, 1234))
    np.testing.assert_allclose(found[1234], one, rtol=1e-6)
    np.testing.assert_allclose(rows.gumbel(KEY, 100, None), found[:100], rtol=1e-5)


def test_a_sample_is_of_distinct_free_rows_and_uniform():
    found = everywhere(lambda free: rows.sample(free, 300, KEY, AXIS), FREE)
    assert len(set(found)) == 300
    assert FREE[found].all()
    free = jnp.asarray([True, False, True, True, True])
    draw = jax.jit(jax.vmap(lambda key: rows.sample(free, 2, key, None)))
    draws = draw(jax.random.split(KEY, 4000))
    counts = np.bincount(np.asarray(draws).ravel(), minlength=5)
    assert counts[1] == 0
    assert np.abs(counts[[0, 2, 3, 4]] - 2000).max() < 150


def test_seeds_are_served_together():
    """Under vmap: the loop over blocks stays one loop."""
    batch = jnp.stack([jnp.asarray(FEATURES[:50]), 2 * jnp.asarray(FEATURES[:50])])

    def work(x, key):
        free = rows.without(jnp.ones(50, bool), rows.argmax(x[:, 0], None), None)
        shared = rows.map_blocks(lambda some: some @ x[0], x, 20)
        return rows.total(shared, None, 20), rows.sample(free, 3, key, None)

    keys = jax.random.split(KEY, 2)
    together = jax.jit(jax.vmap(work))(batch, keys)
    for seed in range(2):
        alone = jax.jit(work)(batch[seed], keys[seed])
        np.testing.assert_allclose(together[0][seed], alone[0], rtol=1e-5)
        np.testing.assert_array_equal(together[1][seed], alone[1])


def test_products_with_one_row_are_rounded_as_those_of_blocks():
    values = np.random.default_rng(0).normal(size=(2 * BLOCK + 5, 7)).astype(np.float32)
    many = jnp.asarray(values)
    found = jax.jit(lambda all_, one: rows.products(all_)(one))(many, many[3])
    by_block = rows.map_blocks(lambda some: jnp.matmul(some, many[3], precision=rows.EXACT), many)
    np.testing.assert_array_equal(found, by_block)
    np.testing.assert_allclose(found, values.astype(np.float64) @ values[3], atol=1e-5)

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from enn_finetune.models.touched import TouchedAdam, gather, touched, touched_adam

V, D = 12, 3


@pytest.fixture
def table():
    return jax.random.normal(jax.random.key(0), (V, D))


def test_touched_gives_back_the_ids_and_marks_unused_slots():
    ids = np.asarray([[5, 0, 5], [2, 2, 11]], np.int32)
    unique, inverse = touched(ids, V)
    np.testing.assert_array_equal(unique, [0, 2, 5, 11, V, V])
    np.testing.assert_array_equal(np.asarray(unique)[np.asarray(inverse)], ids)


def test_touched_is_never_larger_than_the_table():
    ids = np.arange(100, dtype=np.int32).reshape(10, 10) % V
    unique, inverse = touched(ids, V)
    np.testing.assert_array_equal(unique, np.arange(V))
    np.testing.assert_array_equal(inverse, ids)


def test_gather_gives_zeros_in_unused_slots(table):
    rows = gather(TouchedAdam.begin(table), jnp.asarray([3, V]))
    np.testing.assert_array_equal(rows, jnp.stack([table[3], jnp.zeros(D)]))


def test_equals_dense_adam_on_rows_touched_at_every_step_and_leaves_the_others(table):
    ids, inverse = touched(np.asarray([[7, 1, 7, 4]], np.int32), V)
    mine = [1, 4, 7]
    step = jax.jit(touched_adam, donate_argnums=0)
    words = TouchedAdam.begin(jnp.array(table))
    adam = optax.adam(1e-2)
    dense, moments = table, adam.init(table)
    for seed in range(5):
        weight = jax.random.normal(jax.random.key(seed), (1, 4, D))
        grads = jax.grad(lambda rows, w=weight: (rows[inverse] ** 2 * w).sum())(gather(words, ids))
        words = step(words, ids, grads, 1e-2)
        full = jax.grad(lambda t, w=weight: (t[jnp.asarray([[7, 1, 7, 4]])] ** 2 * w).sum())(dense)
        updates, moments = adam.update(full, moments)
        dense = optax.apply_updates(dense, updates)
    np.testing.assert_allclose(words.table[jnp.asarray(mine)], dense[jnp.asarray(mine)], atol=1e-6)
    others = np.setdiff1d(np.arange(V), mine)
    np.testing.assert_array_equal(words.table[others], table[others])
    np.testing.assert_array_equal(words.mean[others], 0)
    np.testing.assert_array_equal(words.square[others], 0)
    moved = np.abs(words.table - table).max(1)
    assert moved[jnp.asarray(mine)].min() > 1e-2


def test_matches_torch_sparse_adam_when_rows_come_and_go(table):
    torch = pytest.importorskip("torch")
    weight = torch.nn.Parameter(torch.tensor(np.asarray(table)))
    theirs = torch.optim.SparseAdam([weight], lr=1e-2)
    words = TouchedAdam.begin(table)
    for seed in range(6):
        rng = np.random.default_rng(seed)
        batch = rng.integers(0, V, (1, 4)).astype(np.int32)
        target = rng.normal(size=(1, 4, D)).astype(np.float32)
        ids, inverse = touched(batch, V)
        rows = gather(words, ids)
        grads = jax.grad(lambda r, i=inverse, t=target: ((r[i] - t) ** 2).sum())(rows)
        words = touched_adam(words, ids, grads, 1e-2)
        theirs.zero_grad()
        embedded = torch.nn.functional.embedding(torch.tensor(batch).long(), weight, sparse=True)
        ((embedded - torch.tensor(target)) ** 2).sum().backward()
        theirs.step()
    np.testing.assert_allclose(words.table, weight.detach().numpy(), atol=1e-5)

"""Pools over devices and processes: the same picks, row for row."""

import hashlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scan_made

from enn_finetune import scan, sharding
from enn_finetune.acquisition import rows
from enn_finetune.acquisition.rows import BLOCK

DEVICES = len(jax.devices())
KEY = jax.random.key(1)
N = 2 * BLOCK + 77
MESHES = {count: sharding.rows_mesh(jax.devices()[:count]) for count in sorted({1, 2, DEVICES})}
every_mesh = pytest.mark.parametrize("mesh", MESHES.values(), ids=MESHES.keys())


def kept(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return generator.normal(size=(N, 3)).astype(np.float32), np.arange(N, dtype=np.int32)


def by_all(kept, free, count, key, *, targets=None, axis=None):
    """A rule that uses all there is to use of rows: a draw about the bought and the targets."""
    features, names = kept
    bought = rows.bought(free, axis)
    centre = rows.total(jnp.where(bought[:, None], features, 0), axis)
    if targets is not None:
        centre += targets[0].sum(0)
    scores = rows.map_blocks(lambda some: some @ centre, features)
    scores += rows.gumbel(key, len(free), axis)
    first = rows.argmax(jnp.where(free, scores, -jnp.inf), axis)
    like = rows.map_blocks(lambda some: some @ rows_of(features, first, axis), features)
    left = rows.without(free, first, axis)
    rest = rows.top_k(jnp.where(left, scores + like, -jnp.inf), count - 1, axis)
    return rows.take(names, jnp.concatenate([first[None], rest]), axis)


def rows_of(features, picked, axis):
    return rows.take(features, picked, axis)


@every_mesh
@pytest.mark.parametrize("count", [1, BLOCK, BLOCK + 1, 5 * BLOCK])
def test_parts_are_equal_whole_blocks_that_hold_the_pool(mesh, count):
    part = sharding.part(count, mesh)
    assert part % BLOCK == 0
    assert part * mesh.size >= count
    assert part == BLOCK or (part - BLOCK) * mesh.size < count


@every_mesh
def test_a_pool_is_placed_in_row_order_and_padded_with_zeros(mesh, tmp_path):
    features = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float16, (N, 3))
    features[:] = kept()[0]
    placed = sharding.place({"x": features, "free": np.ones(N, bool)}, mesh)
    size = mesh.size * sharding.part(N, mesh)
    assert placed["x"].shape == (size, 3)
    assert placed["x"].dtype == np.float16
    assert {piece.data.shape for piece in placed["x"].addressable_shards} == {
        (size // mesh.size, 3)
    }
    np.testing.assert_array_equal(np.asarray(placed["x"])[:N], features)
    assert not np.asarray(placed["x"])[N:].any()
    np.testing.assert_array_equal(placed["free"], np.arange(size) < N)
    np.testing.assert_array_equal(sharding.collect(placed, mesh, N)["x"], features)


@every_mesh
def test_what_all_devices_have_is_as_it_was(mesh):
    tree = {"key": KEY, "x": np.float32([1, -0.0]), "n": jnp.int32(3), "none": None}
    found = sharding.replicate(tree, mesh)
    assert found["x"].sharding.is_fully_replicated
    assert found["none"] is None
    assert jax.random.uniform(found["key"]) == jax.random.uniform(KEY)
    np.testing.assert_array_equal(found["x"], tree["x"])
    assert found["n"] == 3


@pytest.mark.parametrize("targets", [None, np.ones((4, 3), np.float32)])
def test_picks_are_the_same_on_any_number_of_devices_and_never_padding(targets):
    free = np.random.default_rng(1).random(N) < 0.7
    about = None if targets is None else (targets, np.arange(4))
    found = [
        sharding.pick(
            by_all, sharding.place(kept(), mesh), free, 500, KEY, mesh=mesh, targets=about
        )
        for mesh in MESHES.values()
    ]
    for other in found[1:]:
        np.testing.assert_array_equal(found[0], other)
    assert len(set(found[0])) == 500
    assert free[found[0]].all()


def test_all_free_rows_can_be_asked_for():
    free = np.zeros(N, bool)
    free[[3, N - 1]] = True
    mesh = MESHES[DEVICES]
    found = sharding.pick(by_all, sharding.place(kept(), mesh), free, 2, KEY, mesh=mesh)
    assert sorted(found) == [3, N - 1]


def test_rounds_of_equal_shapes_are_compiled_once():
    traces = []

    def traced(*args, **options):
        traces.append(1)
        return by_all(*args, **options)

    free = np.ones(N, bool)
    mesh = MESHES[DEVICES]
    for number in range(3):
        found = sharding.pick(
            traced,
            sharding.place(kept(number), mesh),
            free,
            9,
            jax.random.fold_in(KEY, number),
            mesh=mesh,
        )
        free[found] = False
    assert free.sum() == N - 27
    assert len(traces) == 1


def test_what_does_not_fit_is_refused():
    mesh = MESHES[1]
    free = np.arange(N) < 5
    placed = sharding.place(kept(), mesh)
    with pytest.raises(ValueError, match=f"got count=6; 5 of {N} free"):
        sharding.pick(by_all, placed, free, 6, KEY, mesh=mesh)
    with pytest.raises(ValueError, match="count=0"):
        sharding.pick(by_all, placed, free, 0, KEY, mesh=mesh)
    with pytest.raises(ValueError, match="free has 5 rows"):
        sharding.pick(by_all, placed, free[:5], 2, KEY, mesh=mesh)


# ---- clusters


@pytest.fixture
def joined(monkeypatch):
    calls = []
    for name in (sharding.COORDINATOR, *sharding.TASKS):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(jax.distributed, "initialize", lambda *args: calls.append(args))
    return calls


def test_a_process_alone_joins_nothing(joined, monkeypatch):
    sharding.join_cluster()
    sharding.join_cluster("localhost:1", 1, 0)
    monkeypatch.setenv("SLURM_NTASKS", "1")
    sharding.join_cluster()
    assert joined == []


@pytest.mark.parametrize(
    ("name", "value"), [("SLURM_NTASKS", "2"), ("JAX_COORDINATOR_ADDRESS", "node0:1")]
)
def test_a_launcher_is_asked_for_what_was_not_given(joined, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    sharding.join_cluster()
    sharding.join_cluster("node0:8476", 4, 3)
    assert joined == [(None, None, None), ("node0:8476", 4, 3)]


def in_processes(
    processes: int, devices: int, count: int, rules: str, size: int = 20_000, flags: str = ""
) -> list[dict]:
    """What each of several processes on this machine picks."""
    with socket.socket() as free_port:
        free_port.bind(("localhost", 0))
        port = free_port.getsockname()[1]
    environment = os.environ | {
        "XLA_FLAGS": f"{flags} --xla_force_host_platform_device_count={devices}",
        "PYTHONPATH": str(Path(scan_made.__file__).parents[1]),
    }
    command = [sys.executable, scan_made.__file__, str(size), str(count), rules, str(port)]
    running = [
        subprocess.Popen(
            [*command, str(process), str(processes)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for process in range(processes)
    ]
    try:
        ended = [process.communicate(timeout=1200) for process in running]  # a few lines each
    finally:
        for process in running:
            process.kill()
    for process, (_, errors) in zip(running, ended, strict=True):
        assert process.returncode == 0, errors[-3000:]
    return [json.loads(out.splitlines()[-1]) for out, _ in ended]


def test_picks_in_2_processes_are_those_of_this_one():
    """The cheap part of the next test: scores of single rows, and a rule that looks at all."""
    one, other = in_processes(2, 1, 5, "kcenter", BLOCK + 500, os.environ["XLA_FLAGS"])
    assert one == other
    assert one["devices"] == 2
    features, free = scan_made.pool(BLOCK + 500)
    key, how = jax.random.key(3), {"indices": scan_made.INDICES, "mesh": MESHES[1]}
    mine = scan.choose_from(scan_made.Tiny(), features, "kcenter", free, 5, key, **how)
    assert one["picks"] == {"kcenter": mine.tolist()}
    scores = scan.score_all(scan_made.Tiny(), features, "bald", key, **how)
    assert one["scores"] == hashlib.sha256(scores.tobytes()).hexdigest()


@pytest.mark.slow
def test_picks_on_1_device_on_8_and_in_2_processes_are_the_same_row_for_row():
    # One of each way to pick: every rule on one and on several devices is tests/test_scan.py's.
    rules = "random,bald,power_bald,badge,batchbald,logdet,itl"
    (alone,) = in_processes(1, 1, 9, rules)
    (eight,) = in_processes(1, 8, 9, rules)
    two = in_processes(2, 4, 9, rules)
    assert [found["devices"] for found in (alone, eight, *two)] == [1, 8, 8, 8]
    for found in (eight, *two):
        assert found["picks"] == alone["picks"]
        assert found["scores"] == alone["scores"]
    assert all(len(set(picks)) == 9 for picks in alone["picks"].values())

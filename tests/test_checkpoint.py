"""A checkpoint is one file: arrays and JSON state of one moment, the old one or the new one."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from enn_finetune import checkpoint
from enn_finetune.errors import InputError

TREE = {
    "weights": jnp.arange(6, dtype=jnp.float32).reshape(2, 3) / 7,
    "half": jnp.asarray([0.1, -0.0, jnp.inf], jnp.bfloat16),
    "step": jnp.int32(7),
    "nested": (np.asarray([True, False]), None),
}
STATE = {"loader": {"step": 7, "bought": [3, 1]}, "words": "ü\n", "seconds": 0.1 + 0.2}


def test_round_trip_is_bit_exact(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    checkpoint.save(path, TREE, STATE)
    blank = jax.tree.map(lambda leaf: np.zeros_like(leaf) if isinstance(leaf, np.ndarray) else
                         jnp.zeros_like(leaf), TREE)  # fmt: skip
    tree, state = checkpoint.restore(path, blank)
    assert state == STATE
    assert jax.tree.structure(tree) == jax.tree.structure(TREE)
    for found, saved in zip(jax.tree.leaves(tree), jax.tree.leaves(TREE), strict=True):
        assert type(found) is type(saved) or isinstance(found, jax.Array)
        assert found.dtype == saved.dtype
        assert np.asarray(found).tobytes() == np.asarray(saved).tobytes()


def test_a_state_without_arrays(tmp_path):
    checkpoint.save(tmp_path / "c", (), STATE)
    assert checkpoint.restore(tmp_path / "c", ()) == ((), STATE)


def test_another_structure_lists_all_the_differences(tmp_path):
    checkpoint.save(tmp_path / "c", {"a": jnp.zeros(2), "b": jnp.zeros(3)}, STATE)
    with pytest.raises(InputError) as error:
        checkpoint.restore(tmp_path / "c", {"a": jnp.zeros(4), "new": jnp.zeros(3)})
    for part in (str(tmp_path / "c"), "missing: new", "unexpected: b", "shape: a"):
        assert part in str(error.value)


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_a_truncated_file_is_an_error_with_its_name(tmp_path, keep):
    checkpoint.save(tmp_path / "c", TREE, STATE)
    data = (tmp_path / "c").read_bytes()
    (tmp_path / "c").write_bytes(data[:keep])
    with pytest.raises(InputError, match="c: found a truncated or damaged"):
        checkpoint.restore(tmp_path / "c", TREE)


def test_arrays_of_another_kind_of_file_are_no_checkpoint(tmp_path):
    from enn_finetune import files

    files.save_arrays(tmp_path / "model", {"a": np.zeros(2, np.float32)})
    with pytest.raises(InputError, match="no checkpoint"):
        checkpoint.restore(tmp_path / "model", {"a": jnp.zeros(2)})


def test_a_failed_save_keeps_the_one_before(tmp_path, monkeypatch):
    path = tmp_path / "c"
    checkpoint.save(path, TREE, STATE)
    before = path.read_bytes()
    with pytest.raises(TypeError):
        checkpoint.save(path, TREE, {"not json": object()})

    def crash(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(OSError, match="disk full"):
        checkpoint.save(path, {"other": jnp.zeros(1)}, {})
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == ["c"]

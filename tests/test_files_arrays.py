"""Arrays, JSON and pytrees on disk."""

import os
import subprocess
import sys
from collections import namedtuple

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from enn_finetune import files
from enn_finetune.errors import InputError

DTYPES = st.sampled_from(
    [np.float32, np.float16, np.float64, ml_dtypes.bfloat16, np.int8, np.uint32, np.int64, np.bool_]
)


# --- arrays --------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_arrays_round_trip_bit_for_bit(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("arrays") / "a.safetensors"
    shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
    arrays = {}
    for name in data.draw(st.sets(st.text(min_size=1, max_size=5), max_size=4)):
        dtype, shape = np.dtype(data.draw(DTYPES)), data.draw(shapes)
        count = int(np.prod(shape)) * dtype.itemsize
        raw = data.draw(st.binary(min_size=count, max_size=count))
        if dtype == np.bool_:
            raw = bytes(b & 1 for b in raw)
        arrays[name] = np.frombuffer(raw, np.uint8).view(dtype).reshape(shape)  # NaNs too
    metadata = data.draw(st.dictionaries(st.text(min_size=1, max_size=5), st.text(max_size=9)))
    if "__metadata__" in arrays:
        return
    files.save_arrays(path, arrays, metadata)
    loaded, text = files.load_arrays(path)
    assert text == metadata
    assert loaded.keys() == arrays.keys()
    for name, array in arrays.items():
        assert loaded[name].dtype == array.dtype
        assert loaded[name].shape == array.shape
        assert loaded[name].tobytes() == array.tobytes()


def test_arrays_in_any_memory_order_and_from_jax(tmp_path):
    base = np.arange(12, dtype=np.float32).reshape(3, 4)
    arrays = {"t": base.T, "s": base[:, ::2], "f": np.asfortranarray(base), "j": jnp.bfloat16(2)}
    files.save_arrays(tmp_path / "a", arrays)
    loaded, _ = files.load_arrays(tmp_path / "a")
    for name, array in arrays.items():
        np.testing.assert_array_equal(loaded[name], np.asarray(array))


def test_all_entries_that_cannot_be_stored_are_listed(tmp_path):
    path = tmp_path / "a"
    bad = {"key": jax.random.key(0), "text": np.array(["a"]), "object": np.array([{}]), "ok": 1.0}
    with pytest.raises(InputError) as error:
        files.save_arrays(path, bad)
    for part in (str(path), "key: key<fry>", "text: <U1", "object: object"):
        assert part in str(error.value)
    assert "ok" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("keep", [0, 7, 30, -1])
def test_a_cut_off_file_is_an_error_that_names_it(tmp_path, keep):
    path = tmp_path / "a.safetensors"
    files.save_arrays(path, {"x": np.arange(10)})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"a\.safetensors: found a truncated or damaged"):
        files.load_arrays(path)


def test_other_files_are_not_taken_for_arrays(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"\x80\x04 a pickle, or anything else that is long enough to have a header")
    with pytest.raises(InputError, match="damaged"):
        files.load_arrays(path)
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(InputError, match="git lfs pull"):
        files.load_arrays(path)
    with pytest.raises(InputError, match="found a folder"):
        files.load_arrays(tmp_path)
    with pytest.raises(InputError, match=r"no such file; its folder holds a\.safetensors"):
        files.load_arrays(tmp_path / "b")
    with pytest.raises(InputError, match="no folder"):
        files.load_arrays(tmp_path / "c" / "b")


@pytest.mark.parametrize(
    ("content", "message"),
    [(b'{"a": 1,\n "b" 2}', "line 2 column 6"), (b"[1]", "found a JSON list"), (b"\xff", "utf-8")],
)
def test_json_errors_say_where(tmp_path, content, message):
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"x\.json.*{message}"):
        files.read_json(path)


def test_sha256(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    assert files.sha256(tmp_path / "x").startswith("ba7816bf8f01cfea")


# --- pytrees -------------------------------------------------------------------------------------

Pair = namedtuple("Pair", "left right")


def tree(scale: float) -> object:
    model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
    return {
        "pair": Pair(np.full(2, scale), jnp.full((2, 2), scale, jnp.bfloat16)),
        "list": [jnp.int32(scale), None, (jnp.zeros((0, 2)),)],
        "state": nnx.state(model),
    }


def test_a_tree_comes_back_from_its_names(tmp_path):
    arrays = files.flatten(tree(3))
    assert {"pair/left", "pair/right", "list/0", "list/2/0"} < arrays.keys()
    files.save_arrays(tmp_path / "t", arrays)
    restored = files.unflatten_like(tree(0), files.load_arrays(tmp_path / "t")[0], "t")
    assert jax.tree.structure(restored) == jax.tree.structure(tree(3))
    for a, b in zip(jax.tree.leaves(restored), jax.tree.leaves(tree(3)), strict=True):
        assert type(a) is type(b)
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    abstract = jax.eval_shape(lambda: (jnp.ones(3), jnp.zeros((), jnp.int32)))
    leaves = files.unflatten_like(abstract, {"0": np.ones(3, np.float32), "1": np.int32(4)}, "t")
    assert leaves[1] == 4


def test_restored_leaves_stand_where_the_old_ones_did():
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("x",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
    like = {"a": jax.device_put(jnp.zeros(8), sharding), "b": jnp.zeros(8)}
    restored = files.unflatten_like(like, {n: np.arange(8, dtype=np.float32) for n in "ab"}, "t")
    assert restored["a"].sharding == sharding
    assert not restored["b"].committed


def test_one_error_lists_everything_that_differs():
    like = {"a": jnp.zeros(2), "b": jnp.zeros((2, 3)), "c": jnp.zeros(2), "d": jnp.int32(1)}
    arrays = {"b": np.zeros((3, 2), np.float32), "c": np.zeros(2, np.int32), "d": np.int32(1)}
    arrays["e"] = np.zeros(1)
    with pytest.raises(InputError) as error:
        files.unflatten_like(like, arrays, "run/checkpoint")
    lines = str(error.value).splitlines()
    assert lines[0].startswith("run/checkpoint: 4 of 5 arrays")
    assert [line.strip() for line in lines[1:]] == [
        "missing: a, float32 (2,)",
        "unexpected: e, float64 (1,)",
        "shape: b is float32 (3, 2), expected float32 (2, 3)",
        "type: c is int32 (2,), expected float32 (2,)",
    ]


def test_two_leaves_of_one_name_are_refused():
    with pytest.raises(ValueError, match="two leaves named 'a/b'"):
        files.flatten({"a": {"b": jnp.zeros(1)}, "a/b": jnp.zeros(1)})


def test_reading_files_needs_no_jax():
    code = "import sys, enn_finetune.files; sys.exit('jax' in sys.modules)"
    environment = {**os.environ, "PYTHONWARNINGS": "error"}
    assert (
        subprocess.run([sys.executable, "-c", code], check=False, env=environment).returncode == 0
    )

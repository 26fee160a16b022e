"""Nothing half-written under its final name; arrays and trees bit for bit."""

import fcntl
import json
import os
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

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

TOKEN = "0123456789abcdef"

DTYPES = st.sampled_from(
    [np.float32, np.float16, np.float64, ml_dtypes.bfloat16, np.int8, np.uint32, np.int64, np.bool_]
)


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


# --- atomic writes -------------------------------------------------------------------------------


@pytest.mark.parametrize("content", ["text ü\n", b"\x00\xff", ""])
def test_a_written_file_holds_its_content_and_nothing_stays_beside_it(tmp_path, content):
    path = tmp_path / "deep" / "file"
    files.atomic_write(path, content)
    files.atomic_write(path, content)
    expected = content.encode() if isinstance(content, str) else content
    assert path.read_bytes() == expected
    assert names(path.parent) == ["file"]


def test_an_exception_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    files.atomic_write(path, "old")
    with pytest.raises(RuntimeError, match="stop"), files.atomic_file(path) as temporary:  # noqa: PT012
        temporary.write_text("half")
        temporary.with_name(temporary.name + ".part").write_text("beside")
        assert path.read_text() == "old"
        raise RuntimeError("stop")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_a_file_is_never_written_over_a_folder(tmp_path):
    with pytest.raises(InputError, match="found a folder where a file"):
        files.atomic_write(tmp_path, "x")


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    files.atomic_write(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"


def test_files_have_the_permissions_of_any_new_file(tmp_path):
    (tmp_path / "plain").touch()
    files.atomic_write(tmp_path / "atomic", "x")
    files.save_arrays(tmp_path / "arrays", {"x": np.zeros(1)})
    modes = {(tmp_path / name).stat().st_mode for name in ("plain", "atomic", "arrays")}
    assert len(modes) == 1


def test_stale_temporaries_are_swept_and_those_of_living_writers_kept(tmp_path):
    stale = tmp_path / f".file.{TOKEN}.new"
    living = tmp_path / f".file.{TOKEN[::-1]}.new"
    others = [tmp_path / name for name in (".file.new", f".other.{TOKEN}.new", ".file.x")]
    for folder in (stale, living, *others):
        folder.mkdir()
        (folder / "part").write_text("half")
    held = os.open(living, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    files.atomic_write(tmp_path / "file", "new")
    os.close(held)
    assert names(tmp_path) == sorted(["file", living.name, *(other.name for other in others)])


def test_two_writers_of_one_name_do_not_disturb_each_other(tmp_path):
    path = tmp_path / "file"
    with files.atomic_file(path) as first:
        files.save_arrays(first, {"x": np.ones(3)})
        with files.atomic_file(path) as second:
            second.write_text("second")
        assert path.read_text() == "second"
    arrays, _ = files.load_arrays(path)
    assert arrays["x"].tolist() == [1, 1, 1]
    assert names(tmp_path) == ["file"]


def fill(folder: Path, text: str) -> None:
    for name in ("a", "sub/b", "mark"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)


def test_a_folder_appears_whole_and_replaces_only_its_kind(tmp_path):
    path = tmp_path / "parent" / "model"
    with files.atomic_folder(path, replace="mark") as temporary:
        fill(temporary, "one")
        assert not path.exists()
    with files.atomic_folder(path, replace="mark") as temporary:
        fill(temporary, "two")
        assert (path / "a").read_text() == "one"
    assert (path / "sub" / "b").read_text() == "two"
    assert names(path.parent) == ["model"]


def test_an_existing_folder_of_another_kind_is_refused_before_any_work(tmp_path):
    path = tmp_path / "home"
    path.mkdir()
    (path / "thesis.tex").write_text("years of work")
    for replace in ("mark", None):
        with (
            pytest.raises(InputError, match=r"holds thesis\.tex"),
            files.atomic_folder(path, replace=replace),
        ):
            pytest.fail("the block must not run")
    assert names(tmp_path) == ["home"]
    (path / "thesis.tex").rename(tmp_path / "file")
    with pytest.raises(InputError, match="found a file"), files.atomic_folder(tmp_path / "file"):
        pytest.fail("the block must not run")
    with files.atomic_folder(path) as temporary:  # empty now
        (temporary / "x").touch()
    assert names(path) == ["x"]


def test_a_folder_that_appears_meanwhile_is_not_lost(tmp_path):
    path = tmp_path / "model"
    with pytest.raises(InputError, match="holds other"), files.atomic_folder(path) as temporary:  # noqa: PT012
        (temporary / "x").touch()
        path.mkdir()
        (path / "other").touch()
    assert names(tmp_path) == ["model"]
    assert names(path) == ["other"]


def test_an_exception_leaves_the_old_folder(tmp_path):
    path = tmp_path / "model"
    with files.atomic_folder(path) as temporary:
        fill(temporary, "old")
    with (  # noqa: PT012
        pytest.raises(KeyboardInterrupt),
        files.atomic_folder(path, replace="mark") as temporary,
    ):
        (temporary / "a").write_text("new")
        raise KeyboardInterrupt
    assert (path / "a").read_text() == "old"
    assert names(tmp_path) == ["model"]


KILLED = """
import json, os, signal, sys
from pathlib import Path
from enn_finetune import files

base, kind = Path(sys.argv[1]), sys.argv[2]
calls = 0

def deadly(call, limit):
    def wrapped(*args, **options):
        global calls
        calls += 1
        if calls == limit:
            os.kill(os.getpid(), signal.SIGKILL)
        result = call(*args, **options)
        return result
    return wrapped

def save(path, text):
    if kind == "file":
        files.atomic_write(path, text * 1000)
    else:
        with files.atomic_folder(path, replace="mark") as temporary:
            for name in ("a", "b", "mark"):
                (temporary / name).write_text(text * 1000)

def read(path):
    if kind == "file":
        return {path.read_text()}, 1
    files.recover(path)
    return {entry.read_text() for entry in path.iterdir()}, len(list(path.iterdir()))

for limit in range(1, 100):
    path = base / str(limit) / "target"
    save(path, "old")
    child = os.fork()
    if child == 0:
        for name in ("open", "fsync", "replace", "rename", "unlink", "rmdir", "mkdir", "close"):
            setattr(os, name, deadly(getattr(os, name), limit))
        save(path, "new")
        os._exit(0)
    _, status = os.waitpid(child, 0)
    killed = os.WIFSIGNALED(status)
    contents, count = read(path)
    left = len(list(path.parent.iterdir())) - 1
    save(path, "last")
    print(json.dumps({
        "killed": killed, "contents": sorted(contents), "count": count, "left": left,
        "then": sorted(read(path)[0]), "beside": len(list(path.parent.iterdir())) - 1,
    }))
    if not killed:
        break
"""


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_kill_9_at_every_system_call_leaves_old_or_new(tmp_path, kind):
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path), kind],
        capture_output=True,
        text=True,
        check=True,
    )
    outcomes = [json.loads(line) for line in done.stdout.splitlines()]
    assert not outcomes[-1]["killed"]
    assert len(outcomes) > 5
    old, new, last = ([text * 1000] for text in ("old", "new", "last"))
    for outcome in outcomes:
        assert outcome["contents"] in (old, new)
        assert outcome["count"] == (1 if kind == "file" else 3)
        assert outcome["then"] == last
        assert outcome["beside"] == 0
    assert any(o["contents"] == old and o["left"] for o in outcomes)  # killed in mid-write
    assert any(o["contents"] == new and o["killed"] for o in outcomes) or kind == "file"


def test_recover_waits_for_a_living_writer(tmp_path):
    """Between the two renames a reader finds no folder: it must not take the new one over."""
    path = tmp_path / "model"
    old, new = (tmp_path / f".model.{TOKEN}{suffix}" for suffix in (".old", ".new"))
    for folder in (old, new):
        folder.mkdir()
    script = (
        "import fcntl, os, sys, time\n"
        "lock = os.open(sys.argv[1], os.O_RDONLY)\n"
        "fcntl.flock(lock, fcntl.LOCK_EX)\n"
        "print('locked', flush=True)\n"
        "time.sleep(0.3)\n"
        "os.rename(sys.argv[1], sys.argv[2])\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(new), str(path)], stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout.readline() == b"locked\n"
        files.recover(path)
        assert path.is_dir()
    assert writer.returncode == 0


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
    assert names(tmp_path) == []


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

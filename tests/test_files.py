"""Nothing half-written under its final name; arrays and trees bit for bit."""

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from enn_finetune import files
from enn_finetune.errors import InputError

TOKEN = "0123456789abcdef"


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

"""The feature cache under damage, crashes, full disks and other processes."""

import json
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import tiny_runs
from cached_texts import SHARD, TEXTS, Told, reader, shards

from enn_finetune.features import reading as cached

# Damage


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def flip_digest(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def swap(path: Path) -> None:
    other = next(p for p in shards(path.parents[1]) if p != path)
    shutil.copyfile(other, path)  # sound in itself, but of other rows


@pytest.mark.parametrize("damage", [flip, flip_digest, cut, empty, swap])
def test_a_damaged_shard_is_noticed_said_and_built_again(bert, tmp_path, encoded, damage):
    cache, told = tmp_path / "cache", Told()
    texts = TEXTS[: 3 * SHARD]
    plain = reader(bert, cache)(texts)
    encoded.clear()
    path = shards(cache)[1]
    good = path.read_bytes()
    damage(path)
    assert path.read_bytes() != good
    np.testing.assert_array_equal(reader(bert, cache, told)(texts), plain)
    assert encoded == [SHARD]
    assert path.read_bytes() == good
    assert sum(f"{path}: found" in line for line in told.said) == 1
    assert any("8 rows are encoded again" in line for line in told.said)


def test_the_cache_may_be_deleted_at_any_time(bert, tmp_path, encoded):
    cache = tmp_path / "cache"
    read = reader(bert, cache)
    plain = read(TEXTS)
    shutil.rmtree(cache)
    np.testing.assert_array_equal(read(TEXTS), plain)
    assert len(shards(cache)) == 4
    shards(cache)[0].unlink()
    encoded.clear()
    np.testing.assert_array_equal(read(TEXTS), plain)
    assert len(encoded) == 1


def test_a_cache_that_cannot_be_written_stops_nothing(bert, tmp_path):
    (tmp_path / "file").write_text("in the way")
    told = Told()
    found = reader(bert, tmp_path / "file", told)(TEXTS)
    np.testing.assert_array_equal(found, reader(bert, None)(TEXTS))
    assert [line.split(":")[0] for line in told.said] == ["no features are kept from here on"]


def test_a_full_disk_in_the_middle_stops_nothing(bert, tmp_path, monkeypatch):
    told, calls = Told(), []
    real = cached.files.save_checked

    def full(*arguments):
        calls.append(arguments)
        if len(calls) > 2:  # a shard and its account were kept
            raise OSError(28, "No space left on device")
        real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(cached.files, "save_checked", full)
        found = reader(bert, tmp_path / "cache", told)(TEXTS)
    np.testing.assert_array_equal(found, reader(bert, None)(TEXTS))
    assert len(calls) == 3
    assert told.said == ["no features are kept from here on: [Errno 28] No space left on device"]
    assert len(shards(tmp_path / "cache")) == 1


def test_what_is_said_names_rows_size_and_place(bert, tmp_path):
    told = Told()
    reader(bert, tmp_path / "cache", told)([*TEXTS, *TEXTS], name="train")
    reader(bert, tmp_path / "cache", told)(TEXTS, name="train")
    place = next((tmp_path / "cache").iterdir())
    kept = f"them read from the cache), 0.0 MB in {place}"
    assert told.said == [
        f"train: features of 60 rows (30 distinct, 0 of {kept}",
        f"train: features of 30 rows (30 distinct, 30 of {kept}",
    ]
    about = json.loads((place / "about.json").read_text())
    assert (about["pooling"], about["layers"], about["max_tokens"]) == ("mean", [2], 16)


# Crashes and other processes


def test_a_crash_loses_the_shard_under_way_and_no_other(bert, tmp_path, encoded):
    plain = reader(bert, None)(TEXTS)
    with (
        pytest.MonkeyPatch.context() as patch,
        tiny_runs.before_call(patch, cached, "encode", 3, tiny_runs.crash),
        pytest.raises(tiny_runs.Crash),
    ):
        reader(bert, tmp_path / "cache")(TEXTS)
    assert len(shards(tmp_path / "cache")) == 2
    encoded.clear()
    np.testing.assert_array_equal(reader(bert, tmp_path / "cache")(TEXTS), plain)
    assert encoded == [8, 6]


def test_two_at_once_share_the_work(bert, tmp_path, encoded, monkeypatch):
    """The first stops in its first shard until the second has nothing left but to wait for it."""
    cache, begun, waited = tmp_path / "cache", threading.Event(), threading.Event()
    counted = cached.encode

    def held(*arguments):
        if threading.current_thread() is not threading.main_thread():
            begun.set()
            assert waited.wait(60)
        return counted(*arguments)

    class Waiting(Told):
        def say(self, text: str) -> None:
            super().say(text)
            if "waiting for it" in text:
                waited.set()

    monkeypatch.setattr(cached, "encode", held)
    first: list[np.ndarray] = []
    thread = threading.Thread(target=lambda: first.append(reader(bert, cache)(TEXTS)))
    thread.start()
    assert begun.wait(60)
    second = reader(bert, cache, Waiting())(TEXTS)
    thread.join(60)
    assert sorted(encoded) == [6, 8, 8, 8]
    np.testing.assert_array_equal(first[0], second)
    np.testing.assert_array_equal(second, reader(bert, None)(TEXTS))
    assert not list(cache.glob("*/*.lock"))


PROGRAM = """
import os, signal, sys
from pathlib import Path
import jax
jax.config.update("jax_platforms", "cpu")
import numpy as np
from enn_finetune.features import reading, shards
from enn_finetune.models.backbone import load_backbone
from enn_finetune.progress import Display

bert, cache, out, dies, *texts = sys.argv[1:]
shards.SHARD = 8
shards.ends_shard = lambda text: False
real, calls = reading.encode, []

def encode(*arguments):
    calls.append(arguments[2])
    if len(calls) == int(dies):
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments)

reading.encode = encode
read = reading.TextFeatures(
    load_backbone(Path(bert)), Path(bert), 16, cache=Path(cache), display=Display(quiet=True)
)
np.save(out, read(texts))
print(sum(calls))
"""


def start(bert: Path, cache: Path, out: Path, dies: int) -> subprocess.Popen:
    command = [sys.executable, "-c", PROGRAM, str(bert), str(cache), str(out), str(dies), *TEXTS]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_kill_9_and_two_processes_at_once(bert, tmp_path):
    cache = tmp_path / "cache"
    killed = start(bert, cache, tmp_path / "0.npy", 2)
    killed.communicate(timeout=300)
    assert killed.returncode == -signal.SIGKILL
    assert len(shards(cache)) == 1
    both = [start(bert, cache, tmp_path / f"{i}.npy", 0) for i in (1, 2)]
    rows = [int(process.communicate(timeout=300)[0]) for process in both]
    assert sum(rows) == 30 - SHARD
    plain = reader(bert, None)(TEXTS)
    for i in (1, 2):
        np.testing.assert_allclose(np.load(tmp_path / f"{i}.npy"), plain, atol=1e-6)
    assert (tmp_path / "1.npy").read_bytes() == (tmp_path / "2.npy").read_bytes()
    assert {path.suffix for path in cache.glob("*/*")} == {".features", ".json", ".work"}

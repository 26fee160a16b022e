"""Mapped arrays that are what their digest says, and locks that spare double work."""

import threading
import time

import numpy as np
import pytest

from enn_finetune import files
from enn_finetune.errors import InputError

ARRAY = np.arange(12, dtype=np.float32).reshape(3, 4)


@pytest.fixture
def path(tmp_path):
    files.save_checked(tmp_path / "a.features", ARRAY, "these rows")
    return tmp_path / "a.features"


def mapped(path, identity="these rows", shape=(3, 4), dtype="float32"):
    return files.map_checked(path, identity, shape, dtype)


def test_what_is_saved_comes_back_mapped_and_read_only(path):
    found = mapped(path)
    np.testing.assert_array_equal(found, ARRAY)
    assert isinstance(found, np.memmap)
    assert not found.flags.writeable
    files.save_checked(path, ARRAY[:0], "none")
    assert mapped(path, "none", (0, 4)).shape == (0, 4)


def test_every_flipped_bit_is_noticed(path):
    good = path.read_bytes()
    for place in range(len(good)):
        path.write_bytes(good[:place] + bytes([good[place] ^ 4]) + good[place + 1 :])
        with pytest.raises(InputError, match="do not have the SHA-256 digest"):
            mapped(path)
    for size in range(len(good)):
        path.write_bytes(good[:size])
        with pytest.raises(InputError, match=r"a\.features: found"):
            mapped(path)


def test_a_sound_array_that_is_another_one_is_refused(path):
    with pytest.raises(InputError, match="SHA-256"):
        mapped(path, "those rows")
    with pytest.raises(InputError, match=r"found float32 \(3, 4\), expected float32 \(4, 3\)"):
        mapped(path, shape=(4, 3))
    with pytest.raises(InputError, match=r"expected float16 \(3, 4\)"):
        mapped(path, dtype="float16")
    with pytest.raises(InputError, match="no such file"):
        mapped(path.with_name("b"))


def test_a_claim_is_held_by_one_block_at_a_time(tmp_path):
    path = tmp_path / "lock"
    with files.claim(path, wait=False) as first:
        assert first
        with files.claim(path, wait=False) as second:
            assert not second
        assert path.exists()
    assert not path.exists()
    with files.claim(path, wait=False) as third:
        assert third


def test_a_claim_waits_for_the_holder(tmp_path):
    order, held = [], threading.Event()

    def waiting() -> None:
        held.wait(60)
        with files.claim(tmp_path / "lock", wait=True) as mine:
            order.append(mine)

    thread = threading.Thread(target=waiting)
    thread.start()
    with files.claim(tmp_path / "lock", wait=False):
        held.set()
        thread.join(0.2)
        order.append("released")
    thread.join(60)
    assert order == ["released", True]


def test_a_claim_is_one_blocks_alone_while_others_come_and_wait(tmp_path):
    """A holder removes the file that others may be waiting for, and the next one makes another."""
    path, inside, most, enough = tmp_path / "lock", [], [], threading.Barrier(8)

    def often() -> None:
        enough.wait(60)
        for _ in range(40):
            with files.claim(path, wait=True) as mine:
                assert mine
                inside.append(1)
                most.append(len(inside))
                time.sleep(1e-4)
                inside.pop()

    threads = [threading.Thread(target=often) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(most) == 320
    assert max(most) == 1
    assert not path.exists()


def test_a_claim_is_given_up_on_an_error(tmp_path):
    with pytest.raises(RuntimeError), files.claim(tmp_path / "lock", wait=False):
        raise RuntimeError
    with files.claim(tmp_path / "lock", wait=False) as mine:
        assert mine


def test_where_nothing_can_be_locked_work_goes_on(tmp_path):
    with files.claim(tmp_path / "no such folder" / "lock", wait=True) as mine:
        assert mine

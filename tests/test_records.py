"""records.jsonl: complete lines only, cut back on resume; and where a run came from."""

import json
import re
import subprocess

import pytest

from enn_finetune import records
from enn_finetune.errors import InputError
from enn_finetune.records import Record, RecordFile


def record(step: int) -> Record:
    return Record(
        step=step, labels_bought=2 * step, split="dév", metrics={"accuracy": 0.1}, seconds=1.5
    )


@pytest.fixture
def path(tmp_path):
    file = RecordFile(tmp_path / "records.jsonl")
    for step in range(4):
        file.append(record(step))
    return tmp_path / "records.jsonl"


def test_every_line_is_there_as_soon_as_it_is_appended(tmp_path):
    path = tmp_path / "records.jsonl"
    file = RecordFile(path)
    assert path.read_bytes() == b""
    for step in range(3):
        file.append(record(step))
        lines = path.read_text(encoding="utf-8").splitlines()
        assert [json.loads(line) for line in lines] == file.records
        assert len(lines) == step + 1


def test_a_new_run_starts_with_no_records(path):
    assert RecordFile(path).records == []
    assert path.read_bytes() == b""


@pytest.mark.parametrize("keep", range(5))
def test_a_resumed_run_cuts_back_to_the_checkpoint(path, keep):
    first = path.read_bytes().splitlines(keepends=True)[:keep]
    file = RecordFile(path, keep)
    assert [r["step"] for r in file.records] == list(range(keep))
    assert path.read_bytes() == b"".join(first)
    file.append(record(9))
    assert [r["step"] for r in records.read(path)] == [*range(keep), 9]


def test_a_last_line_cut_at_any_byte_is_left_out(path):
    data = path.read_bytes()
    last = data.rindex(b"\n", 0, -1) + 1
    for cut in range(last, len(data)):
        path.write_bytes(data[:cut])
        assert [r["step"] for r in records.read(path)] == [0, 1, 2]
        assert [r["step"] for r in RecordFile(path, 3).records] == [0, 1, 2]
        assert path.read_bytes() == data[:last]


def test_records_that_are_gone_are_noticed(path):
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match="found 3 records, the checkpoint was saved after 4"):
        RecordFile(path, 4)
    path.unlink()
    with pytest.raises(InputError, match="found 0 records"):
        RecordFile(path, 1)


def test_a_damaged_line_is_named_unless_it_is_cut_away(path):
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"{oops\n" + lines[2])
    assert len(records.read(path, 1)) == 1
    with pytest.raises(InputError, match=r"records\.jsonl, line 2: not a record"):
        RecordFile(path, 2)
    assert path.read_bytes() == lines[0] + b"{oops\n" + lines[2]


def test_the_commit_is_a_hash_or_a_version(monkeypatch):
    assert re.fullmatch(r"[0-9a-f]{40}(\+dirty)?|enn-finetune .+", records.commit())

    def no_git(*arguments, **options):
        raise FileNotFoundError("git")

    monkeypatch.setattr(subprocess, "run", no_git)
    assert records.commit() == f"enn-finetune {records.version()}"


def test_a_checkout_of_something_else_around_the_package_is_not_its_commit(tmp_path, monkeypatch):
    def git(*arguments):
        subprocess.run(["git", *arguments], cwd=tmp_path, check=True, capture_output=True)

    git("init", "--quiet")
    git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "--allow-empty", "-m", "theirs")
    package = tmp_path / "site-packages"
    package.mkdir()
    (package / "types.py").write_text("")
    monkeypatch.setattr(records, "__file__", str(package / "records.py"))
    assert records.commit() == f"enn-finetune {records.version()}"


def test_an_uninstalled_package_has_no_version(monkeypatch):
    def none(name):
        raise records.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(records.metadata, "version", none)
    assert records.version() == "unknown"

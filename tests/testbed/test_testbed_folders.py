"""`enn-finetune report` of a testbed's folder: packed records, a page elsewhere, refusals."""

import json
import lzma
from pathlib import Path

import pytest

from enn_finetune.errors import InputError
from enn_finetune.report import command, reading

ROOT = Path(__file__).resolve().parents[2]
STUDY = ROOT / "benchmarks" / "records" / "testbed"


def part_of(folder: Path) -> Path:
    """The study that the README tells of, cut to its MLP by random selection and its epinet."""
    folder.mkdir()
    lines = lzma.decompress((STUDY / "records.jsonl.xz").read_bytes()).decode().splitlines()
    kept = [
        line
        for line in map(json.loads, lines)
        if line["part"] == "active" and f"{line['agent']}/{line['rule']}" in ("mlp/random",)
    ]
    text = "".join(json.dumps(line | {"job": "one", "of": len(kept)}) + "\n" for line in kept)
    (folder / "records.jsonl.xz").write_bytes(lzma.compress(text.encode()))
    (folder / "study.json").write_bytes((STUDY / "study.json").read_bytes())
    return folder


def test_packed_records_make_the_page_elsewhere(tmp_path, capsys):
    folder, page = part_of(tmp_path / "study"), tmp_path / "new" / "page.html"
    command.show([folder], page)
    assert "mlp/random" in capsys.readouterr().out
    summary = json.loads((page.parent / reading.SUMMARY).read_text())
    assert summary["active"]["once"]["arms"]["mlp/random"]["problems"] == 16
    assert "mlp/random" in page.read_text("utf-8")
    assert sorted(path.name for path in folder.iterdir()) == ["records.jsonl.xz", "study.json"]
    command.show([folder], page)  # over its own


def test_what_such_a_folder_cannot_give_is_refused(tmp_path):
    folder = part_of(tmp_path / "study")
    with pytest.raises(InputError, match="give it alone"):
        command.show([folder, tmp_path], tmp_path / "page.html")
    with pytest.raises(InputError, match="no such document"):
        command.show([folder], tmp_path / "page.html", tmp_path / "a.md")
    (tmp_path / "summary.json").write_text("{}")
    with pytest.raises(InputError, match="summary of a run"):
        command.show([folder], tmp_path / "page.html")

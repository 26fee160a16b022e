"""benchmarks/score.py at a tiny size."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_rows_are_cycled_and_numbered(tmp_path):
    import score

    score.write_rows(tmp_path / "rows.jsonl", ["ä", "b"], 3)
    lines = (tmp_path / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [
        {"id": 0, "text": "ä"},
        {"id": 1, "text": "b"},
        {"id": 2, "text": "ä"},
    ]


@pytest.mark.slow
def test_the_script_scores_a_file_and_ends_with_one_json_object(tiny_encoder, tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "paraphrase-MiniLM-L3-v2").symlink_to(tiny_encoder)
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "score.py", "--data", tmp_path, "--rows", "400"],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": "", "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
    )
    figures = json.loads(done.stdout.splitlines()[-1])
    assert (figures["rows"], figures["texts"], figures["indices"]) == (400, "messages", 32)
    assert figures["rows_per_s"] > 0
    if Path("/proc/self/status").exists():
        assert figures["peak_mib"] > 50

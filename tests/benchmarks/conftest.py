"""Makes the scripts of benchmarks/ importable, and a tiny encoder for them."""

import sys
from pathlib import Path

import pytest
import tiny_runs

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "tests" / "models")]


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a random two-layer encoder that reads 16 tokens."""
    import tiny_bert

    folder = tmp_path_factory.mktemp("tiny") / "encoder"
    tiny_bert.write(folder)
    return folder


@pytest.fixture(scope="session")
def toy_data(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> Path:
    """An SST-2 of letters, and the tiny encoder under the name of the small one."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "glue" / "SST-2").mkdir(parents=True)
    for name, count, seed in (("train", 60, 1), ("dev", 24, 2)):
        rows = tiny_runs.sentences(count, seed)
        lines = [f"{row['text']}\t{int(row['label'] == 'low')}\n" for row in rows]
        path = folder / "glue" / "SST-2" / f"{name}.tsv"
        path.write_text("sentence\tlabel\n" + "".join(lines), encoding="utf-8")
    (folder / "models").mkdir()
    (folder / "models" / "paraphrase-MiniLM-L3-v2").symlink_to(tiny_encoder)
    return folder

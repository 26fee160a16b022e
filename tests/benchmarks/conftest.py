"""Makes the scripts of benchmarks/ importable, and a tiny encoder for them."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "tests" / "models")]


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a random two-layer encoder that reads 16 tokens."""
    import tiny_bert

    folder = tmp_path_factory.mktemp("tiny") / "encoder"
    tiny_bert.write(folder)
    return folder

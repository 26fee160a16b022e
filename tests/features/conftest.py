"""An encoder's folder, small shards, and a count of what is encoded."""

from pathlib import Path

import pytest
from cached_texts import SHARD
from tiny_runs import tiny_bert

from enn_finetune.features import reading
from enn_finetune.features import shards as cut


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    """Shards of eight rows each, whatever these say."""
    monkeypatch.setattr(cut, "SHARD", SHARD)
    monkeypatch.setattr(cut, "ends_shard", lambda text: False)


@pytest.fixture
def encoded(monkeypatch):
    """How many rows each call of the encoder was for."""
    rows: list[int] = []
    real = reading.encode

    def count(encoder, batches, number, progress=None):
        found = real(encoder, batches, number, progress)
        rows.append(number)
        return found

    monkeypatch.setattr(reading, "encode", count)
    return rows


@pytest.fixture
def bert(tmp_path) -> Path:
    tiny_bert.write(tmp_path / "bert")
    return tmp_path / "bert"

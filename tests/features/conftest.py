"""An encoder's folder, small shards, and a count of what is encoded."""

from pathlib import Path

import pytest
from cached_texts import SHARD
from tiny_runs import tiny_bert

from enn_finetune import features as cached


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(cached, "SHARD", SHARD)


@pytest.fixture
def encoded(monkeypatch):
    """How many rows each call of the encoder was for."""
    rows: list[int] = []
    real = cached.encode

    def count(encoder, batches, number, progress=None):
        found = real(encoder, batches, number, progress)
        rows.append(number)
        return found

    monkeypatch.setattr(cached, "encode", count)
    return rows


@pytest.fixture
def bert(tmp_path) -> Path:
    tiny_bert.write(tmp_path / "bert")
    return tmp_path / "bert"

"""Features of a pool that a proxy chooses on: kept on disk, and charged as if they were not."""

import pytest
import tiny_runs
import worlds

from enn_finetune.features import reading
from enn_finetune.policies.encoders import pretrained, sides
from enn_finetune.progress import Display


@pytest.fixture
def encoded(monkeypatch):
    """How many rows were encoded so far."""
    seen = []
    real = reading.encode

    def watched(encoder, batches, rows, progress=None):
        seen.append(rows)
        return real(encoder, batches, rows, progress)

    monkeypatch.setattr(reading, "encode", watched)
    return seen


def found(config):
    both = sides(tiny_runs.prepared(config), config, Display(quiet=True))
    return pretrained(both, Display(quiet=True))


def test_a_second_run_reads_what_the_first_has_paid_for(world, tmp_path, encoded):
    keys = {"policy": "svpp", "evaluation.every": 24, "backbone.cache": str(tmp_path / "kept")}
    config = worlds.config_of(world, **keys)
    for name in ("first", "second"):
        worlds.course(config, tmp_path / name)
    assert encoded == [tiny_runs.TRAIN_ROWS]
    assert worlds.left_by(tmp_path / "first") == worlds.left_by(tmp_path / "second")
    assert worlds.records(tmp_path / "second")[0]["encoding"]["flops"] > 0


def test_without_a_folder_features_cost_the_same(world, tmp_path, encoded):
    kept = found(worlds.config_of(world, **{"backbone.cache": str(tmp_path)}))
    plain = found(worlds.config_of(world, **{"backbone.cache": "none"}))
    assert len(encoded) == 2
    assert plain[1].flops == kept[1].flops > 0
    assert (plain[0].rows.features == kept[0].rows.features).all()


def test_features_that_nobody_has_counted_are_computed_again_once(world, tmp_path, encoded):
    config = worlds.config_of(world, **{"backbone.cache": str(tmp_path)})
    _, work = found(config)
    accounts = list(tmp_path.rglob("*.work"))
    assert len(accounts) == 1
    bits = accounts[0].read_bytes()
    for damaged in (b"not an account", bits[:-40] + b"1" + bits[-39:], bits[1:]):
        accounts[0].write_bytes(damaged)
        assert found(config)[1].flops == work.flops
        assert found(config)[1].flops == work.flops
    assert len(encoded) == 1 + 3


def test_other_weights_are_other_features(world, smaller, tmp_path, encoded):
    cache = {"backbone.cache": str(tmp_path / "kept")}
    ours, _ = found(worlds.config_of(world, **cache))
    theirs, _ = found(worlds.config_of(world, **cache, **{"backbone.path": str(smaller)}))
    assert len(encoded) == 2
    assert (ours.rows.features != theirs.rows.features).any()


def test_what_a_proxy_makes_of_the_pool_is_charged(world, tmp_path):
    config = worlds.config_of(world, **{"policy": "svpp", "evaluation.every": 24})
    worlds.course(config, tmp_path)
    features_alone = found(config)[1].flops
    assert worlds.records(tmp_path)[0]["encoding"]["flops"] > features_alone

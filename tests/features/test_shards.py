"""Where shards end, and what the weights of an encoder are: what a change leaves as it is."""

import numpy as np
import pytest
import tiny_runs
from cached_texts import SHARD, reader
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_runs import tiny_bert

from enn_finetune.config.schema import BackboneConfig
from enn_finetune.features import shards as cut
from enn_finetune.features.identity import weights_digest
from enn_finetune.models.backbone import load_backbone
from enn_finetune.models.tuning import MODES, adapted

REAL_ENDS = cut.ends_shard


@pytest.mark.parametrize("place", [0, 1, 13, 29])
def test_rows_put_in_or_taken_out_anywhere_leave_most_shards_as_they_are(
    bert, tmp_path, encoded, monkeypatch, place
):
    monkeypatch.setattr(cut, "ends_shard", REAL_ENDS)
    cache, texts = tmp_path / "cache", [str(row["text"]) for row in tiny_runs.sentences(60, 4)]
    reader(bert, cache)(texts)
    assert len(encoded) > 8
    assert max(encoded) <= SHARD
    for changed in (
        [*texts[:place], "hello hello", *texts[place:]],
        texts[:place] + texts[place + 1 :],
    ):
        encoded.clear()
        found = reader(bert, cache)(changed)
        assert 0 < sum(encoded) <= 2 * SHARD
        np.testing.assert_array_equal(found, reader(bert, None)(changed))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.text(max_size=3), max_size=60, unique=True),
    st.sampled_from([4, 8, 64]),
)
def test_shards_are_all_rows_in_order_and_no_longer_than_they_may_be(texts, size):
    rows = [(text, None) for text in texts]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cut, "SHARD", size)
        patch.setattr(cut, "ends_shard", REAL_ENDS)
        found = cut.shards_of(rows)
    assert [row for shard in found for row in shard.rows] == rows
    assert [shard.start for shard in found] == [
        sum(len(one.rows) for one in found[:i]) for i in range(len(found))
    ]
    assert all(size // 4 <= len(shard.rows) <= size for shard in found[:-1])
    assert len({shard.fingerprint for shard in found}) == len(found)


@pytest.mark.parametrize("mode", MODES)
def test_weights_that_a_mode_does_not_train_are_told_apart(bert, mode):
    def digest() -> str:
        encoder = adapted(load_backbone(bert), BackboneConfig(tune=mode), 0)
        return weights_digest(encoder)

    first = digest()
    assert first == digest()
    tensors = tiny_bert.random_tensors()
    tensors["encoder.layer.0.output.dense.bias"][3] += 0.01
    tiny_bert.write(bert, tensors)
    assert digest() != first

"""Pairs as differences: |u - v| of texts encoded alone, in caches, runs and saved classifiers."""

import json

import jax
import numpy as np
import pytest
import tiny_runs
from cached_texts import TEXTS, reader, shards
from flax import nnx

from enn_finetune import scoring
from enn_finetune.config import ConfigError, build
from enn_finetune.data.inputs import TokenRows
from enn_finetune.errors import InputError
from enn_finetune.models.backbone import BertBackbone, load_backbone
from enn_finetune.models.classifier import Classifier, load_classifier
from enn_finetune.models.heads import make_head
from enn_finetune.models.places import load_tokenizer

SECOND = [*TEXTS[7:], "hello", *TEXTS[:6]]  # most texts stand in two pairs


def differences(bert, cache=None, **options):
    """A reader of pairs as differences."""
    return reader(bert, cache, pairs="difference", **options)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tiny_runs.write_world(tmp_path_factory.mktemp("world"))
    for name, count, seed in (("train", tiny_runs.TRAIN_ROWS, 1), ("test", 24, 2)):
        rows, others = tiny_runs.sentences(count, seed), tiny_runs.sentences(count, seed + 7)
        paired = [row | {"pair": other["text"]} for row, other in zip(rows, others, strict=True)]
        tiny_runs.write_rows(folder / f"{name}.jsonl", paired)
    return folder


# Features


def test_features_are_absolute_differences_of_single_texts(bert):
    options = {"layers": "auto", "pooling": "cls"}
    found = differences(bert, **options)(TEXTS, SECOND)
    single = reader(bert, None, **options)
    assert found.shape == (30, 16)
    np.testing.assert_allclose(found, np.abs(single(TEXTS) - single(SECOND)), atol=1e-5)
    assert np.ptp(found, axis=0).min() > 0
    assert not np.allclose(found, reader(bert, None, **options)(TEXTS, SECOND))


def test_a_cache_changes_no_bit_and_each_text_is_encoded_once(bert, tmp_path, encoded):
    plain = differences(bert)(TEXTS, SECOND)
    assert encoded == [8, 8, 8, 7]  # 31 distinct texts
    for _ in range(2):
        found = differences(bert, tmp_path / "cache")(TEXTS, SECOND)
        np.testing.assert_array_equal(found, plain)
        assert len(encoded) == 8
    shards(tmp_path / "cache")[1].unlink()
    np.testing.assert_array_equal(differences(bert, tmp_path / "cache")(TEXTS, SECOND), plain)
    assert len(encoded) == 9


def test_swapped_texts_have_the_same_features_bit_for_bit(bert):
    texts, count = [*TEXTS, *SECOND], len(TEXTS)
    found = differences(bert)(texts, [*SECOND, *TEXTS])
    np.testing.assert_array_equal(found[:count], found[count:])
    np.testing.assert_array_equal(differences(bert)(TEXTS, TEXTS), np.zeros((30, 8)))


def test_single_texts_and_pairs_share_what_is_kept(bert, tmp_path, encoded):
    texts = [part for row in zip(TEXTS[:4], SECOND[:4], strict=True) for part in row]
    reader(bert, tmp_path / "cache")(texts)
    differences(bert, tmp_path / "cache")(TEXTS[:4], SECOND[:4])
    assert encoded == [8]


def test_appended_pairs_leave_full_shards_alone(bert, tmp_path, encoded):
    differences(bert, tmp_path / "cache")(TEXTS[:8], SECOND[:8])
    assert encoded == [8, 7]
    encoded.clear()
    differences(bert, tmp_path / "cache")(TEXTS[:9], SECOND[:9])
    assert encoded == [8]  # the second shard has one text more


def test_rows_without_a_second_text_have_no_difference(bert):
    with pytest.raises(ValueError, match="found one text a row"):
        differences(bert)(TEXTS)
    with pytest.raises(ValueError, match="30 texts but 2 second ones"):
        differences(bert)(TEXTS, SECOND[:2])
    assert differences(bert)([], []).shape == (0, 8)


# The encoder


def test_the_encoder_takes_the_difference_of_examples_side_by_side(bert):
    encoder = load_backbone(bert, layers="auto", pairs="difference")
    rows = TokenRows.read(load_tokenizer(bert), TEXTS, SECOND, 16, 64, apart=True)
    features = nnx.jit(lambda model, inputs: model(inputs))
    expected = differences(bert, layers="auto")(TEXTS, SECOND)
    for places, inputs in rows.batches(np.arange(30)):
        found = features(encoder, inputs)
        assert found.shape == (128, encoder.width) == (128, 16)
        np.testing.assert_allclose(found[: len(places)], expected[places], atol=1e-5)
        np.testing.assert_array_equal(found[len(places) :], 0)
    with pytest.raises(ValueError, match="pairs: found 'both'; use one of joint, difference"):
        BertBackbone(encoder.bert, pairs="both")


# Configs


@pytest.mark.parametrize(
    ("keys", "apart"),
    [
        ({}, True),
        ({"backbone.pairs": "joint"}, False),
        ({"backbone.pairs": "difference"}, True),
        ({"backbone.tune": "full"}, False),
        ({"task.pair": ""}, False),
        ({"task.pair": "", "backbone.pairs": "difference"}, False),
    ],
    ids=str,
)
def test_which_runs_read_pairs_as_differences(world, bert, keys, apart):
    config = tiny_runs.config_of(world, **{"task.pair": "pair", "backbone.cache": "none"} | keys)
    problem = tiny_runs.prepared(config)
    assert problem.encoder.pairs == ("difference" if apart else "joint")
    if config.backbone.tune == "full":
        assert not problem.pool.apart
        return
    rows = [json.loads(line) for line in lines(world / "train.jsonl")]
    pair = [row["pair"] for row in rows] if config.task.pair else None
    expected = (differences if apart else lambda folder: reader(folder, None))(world / "bert")
    np.testing.assert_array_equal(
        problem.pool.features, expected([row["text"] for row in rows], pair)
    )


def test_a_trained_encoder_reads_no_differences():
    with pytest.raises(ConfigError, match=r"backbone\.pairs: only a frozen encoder"):
        build({"backbone.pairs": "difference", "backbone.tune": "full"})


# Whole runs and saved classifiers


@pytest.mark.parametrize("pairs", ["difference", "joint"])
def test_a_run_and_scoring_with_its_model_agree(world, tmp_path, pairs):
    config = tiny_runs.config_of(
        world, **{"task.pair": "pair", "backbone.pairs": pairs, "evaluation.indices": 8}
    )
    summary = tiny_runs.run(config, tmp_path / "out")
    folder = tmp_path / "out" / "model"
    loaded = load_classifier(folder)
    assert (loaded.pairs, loaded.pair, loaded.classifier.backbone.pairs) == (pairs, "pair", pairs)
    assert f"| pairs | {pairs}: " in (folder / "README.md").read_text(encoding="utf-8")

    scored = score(folder, world / "test.jsonl", tmp_path)
    problem = tiny_runs.prepared(config)
    head = loaded.classifier.head
    z = head.sample_index(jax.random.key(0), 32)
    logits = head.many(problem.evaluations[0].rows.features, z)
    expected = np.exp(np.asarray(jax.nn.log_softmax(logits))).mean(0)
    found = [[row["probabilities"][name] for name in loaded.labels] for row in scored]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.ptp(expected, axis=0).max() > 1e-3
    nll = -np.log(expected[problem.evaluations[0].targets > 0]).mean()
    assert nll == pytest.approx(summary["metrics"]["test"]["nll"], abs=0.02)


def score(model, source, folder):
    scoring.run(model, source, folder / "scored.jsonl", batch=8, quiet=True)
    return [json.loads(line) for line in lines(folder / "scored.jsonl")]


def lines(path):
    return path.read_text(encoding="utf-8").splitlines()


def saved(bert, folder, pair="pair"):
    encoder = load_backbone(bert, pairs="difference")
    head = make_head({"kind": "epinet", "features": 8, "classes": 2}, rngs=nnx.Rngs(1))
    Classifier(encoder, head).save_pretrained(
        folder, tokenizer=bert, labels=("a", "b"), max_tokens=16, pair=pair
    )
    return folder


def test_scores_of_swapped_texts_are_the_same(bert, tmp_path):
    model = saved(bert, tmp_path / "model")
    rows = [{"text": a, "pair": b} for a, b in zip(TEXTS, SECOND, strict=True)]
    swapped = [{"text": row["pair"], "pair": row["text"]} for row in rows]
    tiny_runs.write_rows(tmp_path / "rows.jsonl", [*rows, *swapped])
    found = score(model, tmp_path / "rows.jsonl", tmp_path)
    for row, other in zip(found[:30], found[30:], strict=True):
        assert list(row["probabilities"].values()) == pytest.approx(
            list(other["probabilities"].values()), abs=1e-5
        )


def test_differences_are_saved_with_the_column_of_the_second_text(bert, tmp_path):
    with pytest.raises(ValueError, match="pair: found none"):
        saved(bert, tmp_path / "none", pair=None)
    path = saved(bert, tmp_path / "model") / "head.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(values | {"pair": None}))
    with pytest.raises(InputError, match=r"head\.json: pairs: found 'difference'"):
        load_classifier(tmp_path / "model")
    path.write_text(json.dumps(values | {"pairs": "both"}))
    with pytest.raises(InputError, match=r"head\.json: pairs: found 'both'"):
        load_classifier(tmp_path / "model")
    del values["pairs"]  # as files were written before there was a choice
    path.write_text(json.dumps(values))
    assert load_classifier(tmp_path / "model").pairs == "joint"

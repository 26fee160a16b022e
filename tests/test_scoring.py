"""Scored files: every readable row in its place, its uncertainty adding up, its rank."""

import json

import numpy as np
import pytest
import tiny_runs
from flax import nnx
from tiny_runs import write_rows

from enn_finetune import scoring
from enn_finetune.errors import InputError
from enn_finetune.models.backbone import load_backbone
from enn_finetune.models.classifier import Classifier
from enn_finetune.models.heads import make_head

LABELS = ("no", "maybe", "ja, ü")
EPINET = {"kind": "epinet", "hidden": [5], "index_dim": 4, "prior_scale": 3.0}
ROWS = [{**row, "text": row["text"] * (1 + row["id"] % 3)} for row in tiny_runs.sentences(50, 4)]


@pytest.fixture(scope="module")
def save(tmp_path_factory):
    world = tiny_runs.write_world(tmp_path_factory.mktemp("world"))
    encoder = load_backbone(world / "bert")

    def saved(name, *, text="text", pair=None, **head):
        made = make_head({"features": 8, "classes": 3, **head}, rngs=nnx.Rngs(1))
        Classifier(encoder, made).save_pretrained(
            world / name,
            tokenizer=world / "bert",
            labels=LABELS,
            max_tokens=16,
            text=text,
            pair=pair,
        )
        return world / name

    return saved


@pytest.fixture(scope="module")
def model(save):
    return save("epinet", **EPINET)


@pytest.fixture(scope="module")
def pair_model(save):
    return save("pairs", text="sentence1", pair="sentence2", **EPINET)


@pytest.fixture
def score(model, tmp_path):
    """Score rows (or lines) and read what was written."""

    def scored(rows, *, of=None, suffix="jsonl", **options):
        source = tmp_path / f"rows.{suffix}"
        if isinstance(rows, bytes):
            source.write_bytes(rows)
        else:
            write_rows(source, rows)
        counts = scoring.run(of or model, source, tmp_path / "out.jsonl", quiet=True, **options)
        found = read(tmp_path / "out.jsonl")
        assert counts.scored == len(found)
        return found

    return scored


def read(path) -> list[dict]:
    def strictly(pairs):
        assert len({name for name, _ in pairs}) == len(pairs), "a key twice"
        return dict(pairs)

    *lines, _ = path.read_bytes().split(b"\n")
    return [json.loads(line, object_pairs_hook=strictly) for line in lines]


def assert_close(found, expected):
    """The same rows with the same numbers, up to rounding; ranks may swap where scores agree."""
    assert [row["line"] for row in found] == [row["line"] for row in expected]
    for one, other in zip(found, expected, strict=True):
        assert one["label"] == other["label"]
        for name in ("total", "aleatoric", "epistemic"):
            assert one[name] == pytest.approx(other[name], abs=2e-5)
        assert one["probabilities"] == pytest.approx(other["probabilities"], abs=2e-5)


# What is written


def test_every_row_in_order_with_all_its_numbers(score):
    found = score(ROWS)
    assert [row["line"] for row in found] == list(range(1, 51))
    assert [row["id"] for row in found] == list(range(50))
    assert [row["text"] for row in found] == [row["text"] for row in ROWS]
    for row in found:
        probabilities = row["probabilities"]
        assert tuple(probabilities) == LABELS
        assert sum(probabilities.values()) == pytest.approx(1, abs=1e-5)
        assert row["label"] == max(probabilities, key=probabilities.get)
        assert row["total"] == pytest.approx(row["aleatoric"] + row["epistemic"], abs=1e-5)
        assert 0 <= row["epistemic"] <= row["total"] <= np.log(3) + 1e-5
        entropy = -sum(p * np.log(p) for p in probabilities.values() if p > 0)
        assert row["total"] == pytest.approx(entropy, abs=1e-4)
    assert len({row["label"] for row in found}) > 1


def test_ranks_go_by_epistemic_uncertainty(score):
    found = score(ROWS)
    assert sorted(row["rank"] for row in found) == list(range(1, 51))
    by_rank = sorted(found, key=lambda row: row["rank"])
    epistemic = [row["epistemic"] for row in by_rank]
    assert epistemic == sorted(epistemic, reverse=True)
    assert epistemic[0] > epistemic[-1]


def test_equal_rows_are_ranked_in_the_order_of_the_file(score):
    found = score([ROWS[0]] * 3)
    assert [row["rank"] for row in found] == [1, 2, 3]


@pytest.mark.parametrize("indices", [1, 32])
def test_one_index_or_a_plain_head_has_no_epistemic_part(score, save, indices):
    of = save("linear", kind="linear") if indices > 1 else None
    found = score(ROWS[:5], of=of, indices=indices)
    for row in found:
        assert row["epistemic"] == pytest.approx(0, abs=1e-6)
        assert row["total"] == pytest.approx(row["aleatoric"], abs=1e-6)
    by_rank = sorted(found, key=lambda row: row["rank"])
    assert [row["total"] for row in by_rank] == sorted(
        (row["total"] for row in found), reverse=True
    )


def test_more_indices_and_another_seed_are_other_draws(score):
    once = score(ROWS[:5])
    assert score(ROWS[:5]) == once
    assert score(ROWS[:5], seed=1) != once


# Batches and blocks


def test_the_same_numbers_for_every_batch_and_block(score, monkeypatch):
    expected = score(ROWS)
    for batch, block in ((1, 16), (3, 1), (7, 2), (64, 1)):
        monkeypatch.setattr(scoring, "BLOCK", block)
        assert_close(score(ROWS, batch=batch), expected)


def test_a_row_does_not_depend_on_the_others(score):
    expected = score(ROWS)
    order = np.random.default_rng(0).permutation(len(ROWS))
    found = score([ROWS[place] for place in order])
    back = [{**found[i], "line": int(order[i]) + 1} for i in np.argsort(order)]
    assert_close(back, expected)


# Formats and columns


def test_csv(score):
    expected = score(ROWS)
    found = score(ROWS, suffix="csv")
    assert [row["line"] for row in found] == list(range(2, 52)), "the header is line 1"
    assert_close([{**row, "line": row["line"] - 1} for row in found], expected)
    assert found[0]["id"] == "0"


def test_pairs_and_named_columns(score, pair_model):
    named = [{"sentence1": row["text"], "sentence2": row["pair"]} for row in ROWS[:6]]
    expected = score(named, of=pair_model)
    assert expected[0].keys() >= {"sentence1", "sentence2"}
    assert_close(score(ROWS[:6], of=pair_model), expected)
    other = [{"A": row["text"], "b": row["pair"]} for row in ROWS[:6]]
    assert_close(score(other, of=pair_model, text="A", pair="b"), expected)
    swapped = score(other, of=pair_model, text="b", pair="A")
    assert swapped[0]["probabilities"] != expected[0]["probabilities"]


def test_a_column_of_another_name(score):
    renamed = [{"id": row["id"], "utterance": row["text"]} for row in ROWS]
    assert_close(score(renamed, text="utterance"), score(ROWS))


def test_columns_of_the_input_are_kept(score):
    rows = [{**row, "customer": {"since": 2019}, "rank": 7} for row in ROWS]
    found = score(rows)
    assert [row["customer"] for row in found] == [{"since": 2019}] * len(ROWS)
    assert sorted(row["rank"] for row in found) == list(range(1, len(ROWS) + 1)), "scoring's own"


def test_scored_rows_are_no_table(model, tmp_path):
    (tmp_path / "rows.jsonl").write_text(json.dumps(ROWS[0]), "utf-8")
    with pytest.raises(InputError, match=r"such as out\.jsonl"):
        scoring.run(model, tmp_path / "rows.jsonl", tmp_path / "out.csv", quiet=True)


def test_columns_that_are_nowhere_are_listed(score, pair_model, model, tmp_path):
    with pytest.raises(InputError, match=r"line 1: .*columns a, b; .*needs text: .*--text$"):
        score([{"a": "x", "b": "y"}])
    with pytest.raises(InputError, match=r"columns text; .*sentence1 and sentence2: .*--pair$"):
        score([{"text": "x"}], of=pair_model)
    with pytest.raises(InputError, match=r"columns text, pair; .*needs Text"):
        score([{"text": "x", "pair": "y"}], text="Text")
    with pytest.raises(InputError, match="trained on one text"):
        score([{"text": "x", "pair": "y"}], pair="pair")


# Bad rows


def test_bad_rows_are_reported_and_the_others_scored(score, tmp_path, capsys):
    good = [json.dumps(row).encode() for row in ROWS[:4]]
    bad = {
        1: b'{"other": "no text column"}',
        3: b"{oops",
        4: b'{"text": "  "}',
        6: b'{"text": "\xff"}',
        7: b"[1, 2]",
        8: b'{"text": 5}',
        9: b'{"text": "\\ud800"}',
    }
    lines = [bad.get(number, b"") or good.pop(0) for number in range(1, 11) if number != 10]
    found = score(b"\n".join([*lines, *good, b"", b'{"text": "half a li']))
    assert [row["line"] for row in found] == [2, 5, 10, 11]
    assert [row["id"] for row in found] == [0, 1, 2, 3]
    assert sorted(row["rank"] for row in found) == [1, 2, 3, 4]
    errors = capsys.readouterr().err
    reported = [line for line in errors.splitlines() if "the row is skipped" in line]
    assert [line.split(":")[0].split(",")[1] for line in reported] == [
        f" line {number}" for number in (*bad, 13)
    ]
    assert all(str(tmp_path / "rows.jsonl") in line for line in reported)
    for line, part in zip(
        reported,
        ("no column 'text'", "not JSON", "empty", "not UTF-8", "one JSON object", "a string",
         "surrogate", "not JSON"),
        strict=True,
    ):  # fmt: skip
        assert part in line
    assert_close([{**row, "line": i} for i, row in enumerate(found, 1)], score(ROWS[:4]))


def test_bad_csv_rows(score, capsys):
    found = score(b'id,text\n1,a b\n2\n3,"c\nd"\n4,\n5,\xff\n6,e\n', suffix="csv")
    assert [(row["line"], row["id"]) for row in found] == [(2, "1"), (4, "3"), (8, "6")]
    errors = capsys.readouterr().err
    assert [f"line {number}" in errors for number in (3, 6, 7)] == [True] * 3


def test_strange_texts_and_ids_come_out_as_they_went_in(score):
    texts = ["a\u2028b\x85c", 'quote " and \\ and }', "new\nline\r", "日本語 🎉", "x" * 5000]
    ids = [{"deep": [1, None]}, "\ud800", True, 1.5, "ü"]
    rows = [{"id": i, "text": text} for i, text in zip(ids, texts, strict=True)]
    found = score(rows)
    assert [row["text"] for row in found] == texts
    assert [row["id"] for row in found] == ids


# What was there before


@pytest.mark.parametrize("content", [b"", b"{oops\n", b'{"text": ""}\n', b'{"other": "a"}\n'])
def test_a_failure_leaves_the_output_as_it_was(score, tmp_path, content):
    (tmp_path / "out.jsonl").write_text("mine")
    with pytest.raises(InputError, match=r"rows\.jsonl"):
        score(content)
    assert (tmp_path / "out.jsonl").read_text() == "mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.jsonl", "rows.jsonl"]


def test_an_interrupt_leaves_the_output_as_it_was(score, tmp_path, monkeypatch):
    (tmp_path / "out.jsonl").write_text("mine")
    with (
        tiny_runs.before_call(monkeypatch, scoring, "_predict", 2, tiny_runs.crash),
        pytest.raises(tiny_runs.Crash),
    ):
        score(ROWS, batch=4)
    assert (tmp_path / "out.jsonl").read_text() == "mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.jsonl", "rows.jsonl"]


def test_the_input_is_never_the_output(model, tmp_path):
    source = write_rows(tmp_path / "rows.jsonl", ROWS)
    before = source.read_bytes()
    (tmp_path / "link.jsonl").symlink_to(source)
    for output in (source, tmp_path / "link.jsonl"):
        with pytest.raises(InputError, match="is the input too"):
            scoring.run(model, source, output, quiet=True)
    assert source.read_bytes() == before


def test_the_output_folder_is_made_and_the_output_replaced(model, tmp_path):
    source = write_rows(tmp_path / "rows.jsonl", ROWS[:3])
    for _ in range(2):
        scoring.run(model, source, tmp_path / "new" / "out.jsonl", quiet=True)
        assert len(read(tmp_path / "new" / "out.jsonl")) == 3


@pytest.mark.slow
def test_real_weights(minilm, tmp_path):
    """The same rows alone, and among others of all lengths."""
    head = make_head({"features": 384, "classes": 3, **EPINET}, rngs=nnx.Rngs(1))
    Classifier(load_backbone(minilm), head).save_pretrained(
        tmp_path / "model", tokenizer=minilm, labels=LABELS, max_tokens=128
    )
    texts = ["I want my money back", "card " * 100, "hi", "Why was I charged twice for one coffee?"]
    rows = [{"text": texts[i % 4] + " now" * (i % 30)} for i in range(120)]
    found = {}
    for name, part, batch in (("all", rows, 32), ("few", rows[:5], 1)):
        source = write_rows(tmp_path / f"{name}.jsonl", part)
        scoring.run(tmp_path / "model", source, tmp_path / name, batch=batch, quiet=True)
        found[name] = read(tmp_path / name)
    assert_close(found["all"][:5], found["few"])

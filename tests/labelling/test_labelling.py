"""`enn-finetune next`: what is read of the files, what is chosen, what is said, what is kept."""

import json
from pathlib import Path

import numpy as np
import pytest
import tiny_runs
from asked import ROWS, TRUTH, ask, rows_of, session
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from enn_finetune import cli
from enn_finetune.cli import commands
from enn_finetune.data.faults import DataError
from enn_finetune.errors import InputError
from enn_finetune.labelling import run
from enn_finetune.labelling.rows import NONE, read
from enn_finetune.labelling.standing import History, Round, kappa
from enn_finetune.models.classifier import load_classifier

# A session


def test_without_labels_the_rows_are_typical_ones_and_keep_their_columns(pool, tmp_path, encoder):
    out = tmp_path / "first.csv"
    found = ask([pool], out, encoder)
    assert found.rule == "typiclust"
    rows = rows_of(out)
    names = ["id", "text", "label", "enn_label", "enn_probability", "enn_unsettled"]
    assert [list(row) for row in rows] == [names] * 5
    assert [[row[name] for name in names[2:]] for row in rows] == [[""] * 4] * 5
    assert {row["text"] for row in rows} <= TRUTH.keys()
    assert len({row["text"] for row in rows}) == 5


def test_rounds_are_fitted_and_nothing_is_asked_twice(pool, tmp_path, encoder):
    files, found = session(pool, tmp_path, encoder, 4, count=10)
    asked = [row["text"] for path in files[1:] for row in rows_of(path)]
    assert len(asked) == len(set(asked)) == 40
    assert [one.rule for one in found[1:]] == ["margin"] * 3
    last = found[-1].history
    assert [one.labels for one in last.rounds] == [10, 20, 30]
    assert [Path(one.file).name for one in last.rounds] == [f"round{n}.csv" for n in range(3)]
    assert last.rounds[0].agreement is None
    for one in last.rounds:
        assert 1 / 3 < one.expected < 1
        assert 0 <= one.unsettled < 1
    assert all(-1 <= one.agreement <= 1 for one in last.rounds[1:])
    row = rows_of(files[-1])[0]
    assert row["enn_label"] in tiny_runs.CLASSES
    assert 1 / 3 < float(row["enn_probability"]) < 1
    # What a call chooses depends on the files alone.
    again = ask(files[:-1], tmp_path / "again.csv", encoder, count=10)
    assert again.rows == found[-1].rows
    assert again.history.rounds == last.rounds


def test_a_file_that_is_half_labelled_is_a_session_of_one_round(tmp_path, encoder):
    rows = [
        {**row, "label": row["label"] if number < 12 else ""} for number, row in enumerate(ROWS)
    ]
    half = tiny_runs.write_rows(tmp_path / "half.csv", rows)
    apart = [
        tiny_runs.write_rows(tmp_path / "labelled.jsonl", rows[:12]),
        tiny_runs.write_rows(tmp_path / "rest.csv", rows[12:]),
    ]
    one = ask([half], tmp_path / "one.jsonl", encoder)
    two = ask(apart, tmp_path / "two.jsonl", encoder)
    assert one.rows == two.rows
    assert min(one.rows) >= 12
    assert [r["text"] for r in rows_of(tmp_path / "one.jsonl")] == [
        ROWS[n]["text"] for n in one.rows
    ]
    assert len(one.history.rounds) == 1


def test_one_class_is_not_enough_for_a_fit(tmp_path, encoder):
    low = [row for row in ROWS if row["label"] == "low"][:3]
    files = [
        tiny_runs.write_rows(tmp_path / "pool.jsonl", [{"text": row["text"]} for row in ROWS]),
        tiny_runs.write_rows(tmp_path / "low.jsonl", low),
    ]
    found = ask(files, tmp_path / "next.csv", encoder)
    assert found.rule == "typiclust"
    assert not {row["text"] for row in rows_of(tmp_path / "next.csv")} & {r["text"] for r in low}
    with pytest.raises(InputError, match="labels of two classes"):
        ask(files, tmp_path / "b.csv", encoder, model=tmp_path / "model")
    assert not (tmp_path / "b.csv").exists()


def test_pairs_are_known_by_both_texts_and_the_model_scores(tmp_path, encoder, capsys, monkeypatch):
    monkeypatch.setattr(commands, "_set_up_jax", lambda: None)
    rows = [{**row, "pair": f"hello {n % 2}"} for n, row in enumerate(ROWS)]
    half = [{**row, "label": row["label"] if n < 15 else None} for n, row in enumerate(rows)]
    source, model = tiny_runs.write_rows(tmp_path / "pairs.jsonl", half), tmp_path / "model"
    assert cli.main([
        "next", str(source), "--pair", "pair", "--out", str(tmp_path / "next.csv"), "--count", "4",
        "--encoder", encoder, "--max-tokens", "16", "--model", str(model), "--rule", "bald",
    ]) == 0  # fmt: skip
    said = capsys.readouterr().out
    assert "4 rows to label, by bald" in said
    assert "GO ON: stopping asks for 3 agreements" in said
    assert load_classifier(model).labels == tiny_runs.CLASSES
    scored = tmp_path / "scored.jsonl"
    assert cli.main(["score", str(model), "--input", str(source), "--output", str(scored)]) == 0
    asked = rows_of(tmp_path / "next.csv")
    by_text = {(row["text"], row["pair"]): row for row in rows_of(scored)}
    for row in asked:
        assert by_text[row["text"], row["pair"]]["label"] == row["enn_label"]


# What is read


def test_texts_stand_once_and_faulty_rows_are_skipped(tmp_path):
    path = tmp_path / "a.jsonl"
    lines = [
        '{"text": "one", "label": 1}',
        '{"text": "two"}',
        '{"text": ""}',
        "no json",
        '{"text": "one"}',
        '{"text": "three", "label": 10}',
        '{"text": "two", "label": "1"}',
        '{"text": "four", "label": [1]}',
    ]
    path.write_text("\n".join(lines), "utf-8")
    found = read([path])
    assert found.text == ["one", "two", "three"]
    assert found.classes == ("1", "10")
    assert found.labels.tolist() == [0, 0, 1]
    assert found.rounds == [0]
    assert [text.split(":")[0] for text in found.skipped] == [
        f"{path}, line {number}" + (f", column {column!r}" if column else "")
        for number, column in ((3, "text"), (4, None), (8, "label"))
    ]


def test_a_label_wins_over_none_wherever_it_stands(tmp_path):
    one = tiny_runs.write_rows(tmp_path / "one.csv", [{"text": "a", "label": "x"}])
    two = tiny_runs.write_rows(tmp_path / "two.csv", [{"text": "a", "label": ""}, {"text": "b"}])
    for files, file in (([one, two], 0), ([two, one], 1)):
        found = read(files)
        assert found.labels.tolist() == [0, NONE]
        assert found.files.tolist() == [file, NONE]


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([{"text": "a", "label": "x"}, {"text": "a", "label": "y"}], {},
         r"'a' is 'x' in .*a\.csv, line 2 and 'y' in .*a\.csv, line 3"),
        ([{"text": "a", "Labels": "x"}], {}, "line 2: no column 'label' .* there is 'Labels'"),
        ([{"text": "a"}], {"label": "enn_label"}, "enn_label stands for two things"),
        ([{"text": "a"}], {"label": "text"}, "text stands for two things"),
        ([{"text": "a"}], {"text": "body"}, "no column 'body'"),
        ([{"text": ""}], {}, "not one row can be read"),
        ([{"text": "a", "label": "x"}, {"text": "b", "label": "y"}], {}, "all 2 texts have"),
    ],
)  # fmt: skip
def test_faults_are_named(tmp_path, rows, options, message):
    source = tiny_runs.write_rows(tmp_path / "a.csv", rows)
    with pytest.raises(InputError, match=message):
        run([source], tmp_path / "out.csv", quiet=True, **options)
    assert not (tmp_path / "out.csv").exists()


def test_a_label_column_that_stands_twice_is_refused(tmp_path):
    source = tmp_path / "a.csv"
    source.write_text("text,label,label\na,x,y\n")
    with pytest.raises(InputError, match=r"2 columns are called 'label'; rename all but one"):
        run([source], tmp_path / "out.csv", quiet=True)


def test_nothing_is_overwritten(pool, tmp_path):
    there = tmp_path / "answers.csv"
    there.write_text("labels of a whole week", "utf-8")
    with pytest.raises(InputError, match="is there already"):
        run([pool], there)
    assert there.read_text("utf-8") == "labels of a whole week"
    with pytest.raises(InputError, match=r"\.csv or \.jsonl"):
        run([pool], tmp_path / "out.tsv")
    with pytest.raises(InputError, match="no model of `next`"):
        run([pool], tmp_path / "out.csv", model=tmp_path)
    with pytest.raises(DataError, match="no such file"):
        run([tmp_path / "poll.csv"], tmp_path / "out.csv")


def test_what_is_written_is_read_back_as_it_was(tmp_path, encoder):
    odd = ['a "b" c', "a, b", "b\rc", "c\nd", "é ü 漢", " d ", "e;f"]
    rows = [{"id": "\ud800", "text": text} for text in (*odd, *(row["text"] for row in ROWS[:9]))]
    source = tiny_runs.write_rows(tmp_path / "odd.jsonl", rows)
    for name in ("next.csv", "next.jsonl"):
        ask([source], tmp_path / name, encoder, count=len(rows))
        again = read([source, tmp_path / name])
        assert again.text == [row["text"] for row in rows], "none of them is another text now"
        assert not again.skipped


def test_a_session_that_is_over_still_gives_its_model(tmp_path, encoder):
    source = tiny_runs.write_rows(tmp_path / "all.csv", ROWS[:20])
    model = tmp_path / "model"
    found = ask([source], tmp_path / "none.csv", encoder, model=model)
    assert found.rows == []
    assert not (tmp_path / "none.csv").exists()
    assert load_classifier(model).task == "labelling"
    ask([source], tmp_path / "none.csv", encoder, model=model)  # its own may be replaced
    card = json.loads((model / "head.json").read_text("utf-8"))
    (model / "head.json").write_text(json.dumps(card | {"task": "another"}), "utf-8")
    with pytest.raises(InputError, match="no model of `next`"):
        ask([source], tmp_path / "none.csv", encoder, model=model)


# When to stop


def test_a_file_of_a_few_labels_is_no_round_to_compare(pool, tmp_path, encoder):
    """A fit to one label more agrees with the last one whatever it is."""
    last = session(pool, tmp_path, encoder, 4, count=4)[1][-1].history
    assert [one.labels for one in last.rounds] == [4, 8, 12]
    assert [one.agreement for one in last.rounds] == [None] * 3


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 40))
def test_kappa_is_the_librarys(seed, classes, rows):
    rng = np.random.default_rng(seed)
    one, other = rng.integers(classes, size=(2, rows))
    if len(np.union1d(one, other)) == 1:
        assert kappa(one, other) is None, "one class everywhere has settled nothing"
    else:
        assert kappa(one, other) == pytest.approx(cohen_kappa_score(one, other))
        assert kappa(one, other) == pytest.approx(kappa(other, one))


@pytest.mark.parametrize(
    ("agreements", "settled"),
    [
        ([None, 0.995, 0.995], False),
        ([None, 0.5, 0.995, 0.999, 0.98], True),
        ([None, 0.995, 0.995, 0.9, 0.995], False),
        ([None, None, 1.0, 1.0], False),
    ],
)
def test_three_rounds_that_agree_settle_it(agreements, settled):
    rounds = [Round("f", 10 * n, 0.9, 0.1, one) for n, one in enumerate(agreements)]
    assert History(rounds, None, None).settled is settled

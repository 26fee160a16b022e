"""`enn-finetune next`: what is read of the files, what is chosen, what is said, what is kept."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import tiny_runs
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

ROWS = tiny_runs.sentences(tiny_runs.TRAIN_ROWS, 1)
TRUTH = {str(row["text"]): str(row["label"]) for row in ROWS}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return str(tiny_runs.write_world(tmp_path_factory.mktemp("world")) / "bert")


@pytest.fixture
def pool(tmp_path):
    """The texts without labels, and a column that is nobody's business."""
    rows = [{"id": row["id"], "text": row["text"]} for row in ROWS]
    return tiny_runs.write_rows(tmp_path / "pool.csv", rows)


def ask(sources, out, encoder, **options):
    given = {
        "count": 5,
        "rule": "margin",
        "encoder": [encoder],
        "max_tokens": 16,
        "quiet": True,
    } | options
    return run(sources, out, **given)


def rows_of(path: Path) -> list[dict[str, str]]:
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    with open(path, newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def answer(path: Path) -> None:
    """Label every row that is asked about."""
    rows = rows_of(path)
    for row in rows:
        row["label"] = TRUTH[row["text"]]
    tiny_runs.write_rows(path, rows)


def session(pool, folder, encoder, rounds, **options):
    """Ask and answer; the files, and what each call came to."""
    files, found = [pool], []
    for number in range(rounds):
        out = folder / f"round{number}.csv"
        found.append(ask(files, out, encoder, **options))
        answer(out)
        files.append(out)
    return files, found


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


WORDS = ["high: f g h f g", "low: a b c a b", "mid: d e d e d"]


def test_descriptions_say_something_of_every_text_before_the_first_label(
    pool, tmp_path, encoder, capsys
):
    found = ask([pool], tmp_path / "one.csv", encoder, describe=WORDS, quiet=False)
    assert (found.rule, len(found.rows)) == ("typiclust", 5)
    (words,) = found.history.rounds
    assert (words.file, words.labels) == ("descriptions alone", 0)
    assert {row["enn_label"] for row in rows_of(tmp_path / "one.csv")} <= {"high", "low", "mid"}
    assert all(0 < float(row["enn_probability"]) <= 1 for row in rows_of(tmp_path / "one.csv"))
    said = capsys.readouterr().out
    assert "descriptions alone" in said
    assert "fewer than two classes have labels" in said
    answer(tmp_path / "one.csv")
    again = ask([pool, tmp_path / "one.csv"], tmp_path / "two.csv", encoder, describe=WORDS)
    assert again.rule == "margin"
    assert [one.labels for one in again.history.rounds] == [0, 5]
    assert [one.expected is None for one in again.history.rounds] == [True, False]
    guessed = {row["text"]: row["enn_label"] for row in rows_of(tmp_path / "one.csv")}
    right = sum(TRUTH[text] == label for text, label in guessed.items())
    assert again.history.words == (5, right), "what they said before they saw the labels"
    assert not set(again.rows) & set(found.rows)


def test_described_classes_are_known_before_a_row_has_them(pool, tmp_path, encoder):
    first = [row for row in ROWS if row["label"] != "mid"][:8]
    labelled = tiny_runs.write_rows(tmp_path / "first.csv", first)
    model = tmp_path / "model"
    out = tmp_path / "two.csv"
    ask([pool, labelled], out, encoder, describe=WORDS, model=model)
    assert load_classifier(model).labels == ("high", "low", "mid")
    card = (model / "README.md").read_text("utf-8")
    assert "| labels bought | 8 |" in card
    assert f"| described as | {'; '.join(WORDS)} |" in card


def test_words_alone_make_a_model_and_may_stand_in_a_file(pool, tmp_path, encoder):
    model = tmp_path / "model"
    (tmp_path / "words.txt").write_text("\ufeff" + "\r\n\r\n".join(WORDS[1:]), "utf-8")
    words = [WORDS[0], f"@{tmp_path / 'words.txt'}"]
    found = ask([pool], tmp_path / "one.csv", encoder, describe=words, model=model)
    assert load_classifier(model).labels == ("high", "low", "mid")
    assert found.history.standing is not None
    card = (model / "README.md").read_text("utf-8")
    assert "| labels bought | 0 |" in card
    assert f"| described as | {'; '.join(WORDS)} |" in card


@pytest.mark.parametrize(
    ("words", "pair", "message"),
    [
        (WORDS[:2], None, "--describe: no description of 'mid'.*misspelt"),
        (["high"], None, "--describe: 'high' does not describe a class"),
        (WORDS, "pair", "--describe: a sentence about a class is not like two texts"),
        (["@{here}/none.txt"], None, "--describe: .*none.txt: no such file; its folder holds"),
        (["@{here}/empty.txt"], None, "--describe: .*empty.txt: found no line"),
        (["@{here}/latin.txt"], None, "--describe: .*latin.txt: is not UTF-8"),
        (["@{here}/few.txt"], None, "--describe: no description of 'mid'"),
    ],
)
def test_descriptions_that_cannot_be_used_are_refused(tmp_path, words, pair, message):
    rows = tiny_runs.write_rows(tmp_path / "rows.csv", ROWS)
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "latin.txt").write_bytes("high: für\n".encode("latin-1"))
    (tmp_path / "few.txt").write_text("\n".join(WORDS[:2]))
    words = [word.format(here=tmp_path) for word in words]
    with pytest.raises(InputError, match=message):
        run([rows], tmp_path / "out.csv", describe=words, pair=pair, quiet=True)
    assert not (tmp_path / "out.csv").exists()


def test_one_described_class_is_refused_and_words_are_no_round_to_agree_with(
    pool, tmp_path, encoder
):
    with pytest.raises(InputError, match="--describe: found one class, 'low'; describe two"):
        run([pool], tmp_path / "out.csv", describe=["low: a b"], quiet=True)
    files, _ = session(pool, tmp_path, encoder, 2, describe=WORDS, count=12)
    found = ask(files, tmp_path / "next.csv", encoder, describe=WORDS)
    assert [one.agreement is None for one in found.history.rounds] == [True, True, False]


# What looks like a mistake


def test_a_file_that_was_asked_for_and_not_answered_is_named(pool, tmp_path, encoder, capsys):
    out = tmp_path / "round0.csv"
    ask([pool], out, encoder)
    ask([pool, out], tmp_path / "again.csv", encoder, quiet=False)
    said = capsys.readouterr().err
    assert f"warning: {out}: `next` wrote it, and none of its rows has a label" in said
    answer(out)
    ask([pool, out], tmp_path / "round1.csv", encoder, quiet=False)
    assert "warning" not in capsys.readouterr().err


def test_an_edited_text_is_named_with_its_place(pool, tmp_path, encoder):
    out = tmp_path / "round0.csv"
    ask([pool], out, encoder)
    answer(out)
    rows = rows_of(out)
    rows[2]["text"] += " (sic)"
    tiny_runs.write_rows(out, rows)
    (doubt,) = read([pool, out]).doubts
    assert doubt.startswith(f"{out}: texts that stand in no file it was asked of: 1, such as '")
    assert "(sic)' in line 4; a text that was edited is another row" in doubt
    assert read([out]).doubts == [], "the pool need not be there any more"
    assert read([pool]).doubts == []


def test_labelled_rows_may_leave_the_pool_and_a_sheet_may_have_an_answered_copy(
    pool, tmp_path, encoder
):
    blank, done = tmp_path / "round1.csv", tmp_path / "round1-done.csv"
    ask([pool], blank, encoder)
    done.write_bytes(blank.read_bytes())
    answer(done)
    assert read([pool, blank, done]).doubts == []
    asked = {row["text"] for row in rows_of(done)}
    rest = [row for row in rows_of(pool) if row["text"] not in asked]
    assert read([tiny_runs.write_rows(tmp_path / "rest.csv", rest), done]).doubts == []


def test_numbered_files_out_of_order_are_named(pool, tmp_path, encoder):
    files = [tmp_path / f"round{number}.csv" for number in (1, 10, 2)]
    for number, file in enumerate(files):
        ask([pool, *files[:number]], file, encoder)
        answer(file)
    (doubt,) = read([pool, *files]).doubts
    assert doubt.startswith(f"{files[1]} stands before {files[2]}: files count in the order")
    assert read([pool, files[0], files[2], files[1]]).doubts == []

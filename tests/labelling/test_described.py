"""`enn-finetune next --describe`: what the classes are, in words."""

import pytest
import tiny_runs
from asked import ROWS, TRUTH, answer, ask, rows_of, session

from enn_finetune.data.descriptions import entries_of
from enn_finetune.errors import InputError
from enn_finetune.labelling import run
from enn_finetune.models.classifier import load_classifier

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
        (["@{here}/bad.txt"], None, "--describe: .*bad.txt, line 3: 'high' does not describe"),
        (["@{here}"], None, "--describe: .*: found a folder where a file is expected"),
        (["@{here}/few.txt"], None, "--describe: no description of 'mid'"),
    ],
)
def test_descriptions_that_cannot_be_used_are_refused(tmp_path, words, pair, message):
    rows = tiny_runs.write_rows(tmp_path / "rows.csv", ROWS)
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "latin.txt").write_bytes("high: für\n".encode("latin-1"))
    (tmp_path / "bad.txt").write_text(f"{WORDS[1]}\n\nhigh\n")
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


def test_in_a_file_a_class_may_begin_with_the_sign_of_a_file(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("@mention: somebody is spoken to\n#topic: a subject: is named\n")
    assert entries_of([f"@{path}", "other: neither"]) == [
        "@mention: somebody is spoken to",
        "#topic: a subject: is named",
        "other: neither",
    ]

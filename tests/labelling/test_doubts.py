"""What `enn-finetune next` takes for a mistake, and says."""

import tiny_runs
from asked import answer, ask, rows_of

from enn_finetune.labelling.rows import read


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

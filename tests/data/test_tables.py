import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enn_finetune.data.tables import (
    DataError,
    Row,
    RowError,
    read_rows,
    read_table,
    stream_rows,
)

ODD = [
    "\x0b",
    "\x0c",
    "\x1c",
    "\x85",
    "\u2028",
    "\u2029",
    '"',
    "'",
    "\\",
    "\ufeff",
    "é",
    "漢",
    "😀",
]
letters = st.one_of(
    st.sampled_from(ODD), st.characters(exclude_categories=["Cs"], exclude_characters="\t\n\r")
)
texts = st.text(letters, min_size=1, max_size=12).filter(str.strip)


@pytest.fixture
def write(tmp_path: Path):
    def writer(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return writer


def fault(path: Path, **options) -> str:
    with pytest.raises(DataError) as caught:
        list(read_rows(path, **options))
    assert str(path) in str(caught.value)
    return str(caught.value)


def round_trip(tmp_path: Path, suffix: str, content: str, rows: list[tuple[str, str]]) -> None:
    path = tmp_path / f"rows{suffix}"
    path.write_bytes(content.encode())
    got = list(read_rows(path, texts=["a", "b"]))
    assert [(row.columns["a"], row.columns["b"]) for row in got] == rows


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.tuples(texts, texts), min_size=1, max_size=5), end=st.booleans())
def test_tsv_keeps_quotes_and_odd_line_separators(tmp_path_factory, rows, end) -> None:
    ending = "\n" if end else "\r\n"
    content = "".join("\t".join(row) + ending for row in [("a", "b"), *rows])
    round_trip(tmp_path_factory.mktemp("tsv"), ".tsv", content, rows)


csv_texts = st.text(
    st.one_of(letters, st.sampled_from(["\n", "\r", ","])), min_size=1, max_size=12
).filter(str.strip)


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.tuples(csv_texts, csv_texts), min_size=1, max_size=5))
def test_csv_reads_what_the_csv_module_writes(tmp_path_factory, rows) -> None:
    out = io.StringIO(newline="")
    csv.writer(out, quoting=csv.QUOTE_ALL).writerows([("a", "b"), *rows])
    round_trip(tmp_path_factory.mktemp("csv"), ".csv", out.getvalue(), rows)


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.tuples(csv_texts, csv_texts), min_size=1, max_size=5), plain=st.booleans())
def test_jsonl_reads_what_json_writes(tmp_path_factory, rows, plain) -> None:
    content = "".join(json.dumps({"a": a, "b": b}, ensure_ascii=plain) + "\n" for a, b in rows)
    round_trip(tmp_path_factory.mktemp("jsonl"), ".jsonl", content, rows)


def test_a_carriage_return_inside_tsv_text_is_data(write) -> None:
    (row,) = read_rows(write("a.tsv", b"a\tb\none\rtwo\tx\n"))
    assert row.columns == {"a": "one\rtwo", "b": "x"}


def test_a_csv_row_is_known_by_the_line_it_starts_on(write) -> None:
    path = write("a.csv", 'text,label\n"two\nlines",x\n\nshort\n"three\n\nlines",y\nlast\n')
    rows = list(stream_rows(path, texts=["text"]))
    assert [row.line for row in rows] == [2, 5, 6, 9]
    assert [type(row) for row in rows] == [Row, RowError, Row, RowError]
    assert rows[2].columns == {"text": "three\n\nlines", "label": "y"}


def test_csv_goes_on_after_a_broken_quote(write) -> None:
    rows = list(stream_rows(write("a.csv", 'text\n"a"b\nfine\n"open\n'), texts=["text"]))
    assert [(row.line, type(row)) for row in rows] == [(2, RowError), (3, Row), (4, RowError)]
    assert "double the quotes" in rows[0].message


@pytest.mark.parametrize("name", ["a.tsv", "a.csv"])
def test_a_byte_order_mark_is_no_part_of_the_header(write, name: str) -> None:
    (row,) = read_rows(write(name, b"\xef\xbb\xbftext\nhello\n"), texts=["text"])
    assert row == (2, {"text": "hello"})


def test_a_byte_order_mark_before_json(write) -> None:
    (row,) = read_rows(write("a.ndjson", b'\xef\xbb\xbf{"text": "hello"}\n'), texts=["text"])
    assert row == (1, {"text": "hello"})


@pytest.mark.parametrize(
    ("text", "found"), [("text;label", "semicolons"), ("text\tlabel", "tabs"), ("txt", None)]
)
def test_a_header_of_one_field_says_what_separates_it(write, text: str, found: str | None) -> None:
    with pytest.raises(DataError) as caught:
        list(read_rows(write("a.csv", f"{text}\nx;1\n"), texts=["text"]))
    assert ("separated by" in str(caught.value)) == (found is not None)
    assert found is None or f"separated by {found}" in str(caught.value)


def test_wrong_header(write) -> None:
    message = fault(write("a.csv", "id,Txt\n1,a\n"), texts=["text"])
    assert "line 1: no column 'text': the header is 'id', 'Txt'; the nearest is 'Txt'" in message


def test_a_column_named_twice(write) -> None:
    assert "2 columns are called 'a'" in fault(write("a.tsv", "a\ta\n1\t2\n"), texts=["a"])


def test_empty_files(write) -> None:
    assert "the file is empty" in fault(write("a.csv", ""), texts=["text"])
    with pytest.raises(DataError, match="no rows"):
        read_table(write("b.csv", "text,label\n\n"), text="text", label="label")


def test_short_and_long_rows(write) -> None:
    message = fault(write("a.tsv", "a\tb\nx\ny\tz\nx\ty\tz\n"), texts=["a"])
    assert "line 2: a short row: 1 fields where 2 are expected; it begins 'x'" in message
    assert "line 4: a long row: 3 fields" in message


@pytest.mark.parametrize("name", ["a.tsv", "a.csv"])
def test_bad_utf8_names_line_and_byte(write, name: str) -> None:
    path = write(name, b"\xef\xbb\xbftext\ngood\nb\xe9d\nfine\n")
    message = fault(path, texts=["text"])
    assert message.endswith(
        "line 3: byte 14 of the file, 0xe9, is not UTF-8; save the file as UTF-8"
    )
    assert path.read_bytes()[14] == 0xE9
    assert [row.line for row in stream_rows(path) if isinstance(row, Row)] == [2, 4]


def test_bad_utf8_offset_counts_the_byte_order_mark(write) -> None:
    path = write("a.jsonl", b'\xef\xbb\xbf{"text": "\xff"}\n')
    assert path.read_bytes()[13] == 0xFF
    assert "line 1: byte 13 of the file, 0xff" in fault(path, texts=["text"])


def test_utf16_is_named(write) -> None:
    message = fault(write("a.csv", "text\nhello\n".encode("utf-16")), texts=["text"])
    assert "UTF-16" in message


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{oops", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('["text"]', "found ['text']; every line holds one JSON object"),
        ('{"txt": "a"}', "no column 'text': the row has 'txt'; the nearest is 'txt'"),
        ("{}", "no column 'text': the row has nothing"),
        ('{"text": 3}', "column 'text': found 3; text is a string"),
        ('{"text": null}', "column 'text': found None; text is a string"),
        ('{"text": " \\t"}', "column 'text': the text is empty"),
        ('{"text": "\\ud83d"}', "surrogate"),
    ],
)
def test_json_faults(write, line: str, said: str) -> None:
    path = write("a.jsonl", f'{{"text": "fine"}}\n\n{line}\n{{"text": "fine"}}\n')
    message = fault(path, texts=["text"])
    assert "line 3" in message
    assert said in message
    assert len(message) < 600
    assert [row.line for row in stream_rows(path, texts=["text"])] == [1, 3, 4]


def test_all_faults_in_one_error(write) -> None:
    content = "text\tlabel\n" + "".join(f"t{i}\t{'x' if i % 2 else 'good'}\n" for i in range(60))
    with pytest.raises(DataError) as caught:
        read_table(write("a.tsv", content), text="text", label="label", labels=["good", "bad"])
    message = str(caught.value)
    assert len(caught.value.faults) == 30
    assert "30 faulty rows" in message
    assert message.endswith("and 10 more")
    assert "line 3, column 'label': found the label 'x'; the known labels are 'good', 'bad'" in (
        message
    )


def test_strict_rows_stop_at_the_first_fault(write) -> None:
    rows = read_rows(write("a.jsonl", '{"a": 1}\nno\n{"a": 2}\n'))
    assert next(rows) == (1, {"a": 1})
    with pytest.raises(DataError, match="line 2"):
        next(rows)


def test_streaming_reads_no_further_than_asked(write) -> None:
    path = write("a.jsonl", '{"text": "a"}\n' * 200_000)
    rows = stream_rows(path, texts=["text"])
    assert next(rows) == (1, {"text": "a"})
    path.write_bytes(b"")  # most of the file is not in memory yet
    assert sum(1 for _ in rows) < 100_000


def test_missing_file_lists_what_is_near(write) -> None:
    path = write("train.csv", "text\na\n")
    with pytest.raises(DataError, match=r"no such file; beside it are train\.csv"):
        read_table(path.with_name("trian.csv"), text="text")
    with pytest.raises(DataError, match="no folder"):
        read_table(path.parent / "none" / "a.csv", text="text")
    with pytest.raises(DataError, match="a folder where a file"):
        read_table(path.parent, text="text")


def test_unknown_suffix(write) -> None:
    path = write("a.txt", "text\nhello\n")
    with pytest.raises(DataError, match=r"unknown format '\.txt'; use \.tsv"):
        stream_rows(path)
    assert len(list(stream_rows(path, "csv"))) == 1


def test_table_discovers_classes(write) -> None:
    split = read_table(
        write("train.csv", "a,b,y\none,uno,10\ntwo,due,9\nsix,sei,10\n"),
        text="a",
        pair="b",
        label="y",
    )
    assert (split.name, split.classes, len(split)) == ("train", ("9", "10"), 3)
    assert (split.text, split.pair) == (["one", "two", "six"], ["uno", "due", "sei"])
    assert split.lines.tolist() == [2, 3, 4]
    assert split.targets.dtype == np.float32
    np.testing.assert_array_equal(split.targets, [[0, 1], [1, 0], [0, 1]])


def test_json_labels_of_any_plain_type(write) -> None:
    content = "".join(f'{{"text": "a", "label": {y}}}\n' for y in ("1", '" 1 "', "1.0", "0"))
    split = read_table(write("a.jsonl", content), text="text", label="label")
    assert split.classes == ("0", "1")
    assert split.targets.argmax(1).tolist() == [1, 1, 1, 0]
    content = '{"text": "a", "label": true}\n{"text": "a", "label": false}\n'
    split = read_table(write("b.jsonl", content), text="text", label="label")
    assert split.classes == ("false", "true")


@pytest.mark.parametrize("label", ["null", '" "', "NaN", "[1]", '{"a": 1}', '"\\udc00"'])
def test_what_is_no_label(write, label: str) -> None:
    path = write("a.jsonl", f'{{"text": "a", "label": {label}}}\n{{"text": "a", "label": 1}}\n')
    with pytest.raises(DataError, match="line 1, column 'label'"):
        read_table(path, text="text", label="label")


def test_one_label_is_no_task(write) -> None:
    with pytest.raises(DataError, match=r"two labels at least, found \['x'\]"):
        read_table(write("a.csv", "text,label\na,x\nb,x\n"), text="text", label="label")


def test_unlabelled_table(write) -> None:
    split = read_table(write("a.csv", "text\na\nb\n"), text="text")
    assert split.targets is None
    assert split.classes == ()

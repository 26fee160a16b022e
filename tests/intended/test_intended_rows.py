"""Rows with attributes: from files, folders and known tasks; what is left out, what is refused."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import tiny_runs

from enn_finetune.config import SpuriousTask
from enn_finetune.data.faults import DataError
from enn_finetune.intended.rows import MissingError, read_rows

ROWS = [
    {"body": f"{word} {number}", "topic": topic, "shop": shop}
    for number, (word, topic, shop) in enumerate(
        [("good", 1, "books"), ("bad", 0, "kitchen"), ("fine", 1, "kitchen"), ("so", 0, "books")]
    )
]
TASK = SpuriousTask(name="mine", text="body", label="topic", attribute="shop")


def reading(path: Path, **changes: object) -> SpuriousTask:
    return dataclasses.replace(TASK, data=(str(path),), **changes)


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_file_of_the_users_own(tmp_path, suffix):
    path = tiny_runs.write_rows(tmp_path / f"rows.{suffix}", ROWS)
    found = read_rows(reading(path))
    assert found.split.text == [row["body"] for row in ROWS]
    assert found.split.classes == ("0", "1")
    assert found.values == ("books", "kitchen")
    assert found.labels.tolist() == [1, 0, 1, 0]
    assert found.attributes.tolist() == [0, 1, 1, 0]


def test_order_and_names_of_labels_are_as_told(tmp_path):
    path = tiny_runs.write_rows(tmp_path / "rows.jsonl", [*ROWS, {**ROWS[0], "shop": "dvd"}])
    task = reading(
        path, labels=("1", "0"), attributes=("kitchen", "books"), classes=("good", "bad")
    )
    found = read_rows(task)
    assert found.split.classes == ("good", "bad")
    assert found.labels.tolist() == [0, 1, 0, 1]
    assert found.attributes.tolist() == [1, 0, 0, 1]


def test_a_folder_has_a_file_for_each_attribute_value(tmp_path):
    for shop in ("books", "kitchen"):
        own = [{k: v for k, v in row.items() if k != "shop"} for row in ROWS if row["shop"] == shop]
        tiny_runs.write_rows(tmp_path / f"{shop}.jsonl", own)
    nowhere = str(tmp_path / "none")
    task = dataclasses.replace(TASK, data=(nowhere, str(tmp_path)), attributes=("kitchen", "books"))
    found = read_rows(task)
    assert found.split.text == ["bad 1", "fine 2", "good 0", "so 3"]
    assert found.attributes.tolist() == [0, 0, 1, 1]
    with pytest.raises(MissingError, match=r"none: no such file(.|\n)*has no file dvd"):
        read_rows(dataclasses.replace(task, attributes=("kitchen", "dvd")))


def test_attributes_that_the_text_tells():
    task = SpuriousTask(
        name="m",
        source="messages",
        attribute="text:question",
        labels=("track_order", "start_return"),
    )
    found = read_rows(task)
    assert found.values == ("no", "yes")
    assert found.split.classes == ("track_order", "start_return")
    marks = ["?" in text for text in found.split.text]
    assert (found.attributes == np.array(marks)).all()
    assert len(set(found.split.text)) == len(found.split)
    long = read_rows(dataclasses.replace(task, attribute="text:long"))
    assert 0.3 < long.attributes.mean() <= 0.5


@pytest.mark.parametrize(
    ("text", "negated"),
    [("it does n't work", 1), ("Not good", 1), ("nothing here", 1), ("a knot, noted", 0)],
)
def test_negation_is_read_off_words(tmp_path, text, negated):
    texts = [text, "never again", "all is well"]
    rows = [{"body": t, "topic": n % 2} for n, t in enumerate(texts)]
    task = reading(tiny_runs.write_rows(tmp_path / "r.jsonl", rows), attribute="text:negation")
    assert read_rows(task).attributes.tolist() == [negated, 1, 0]


def test_texts_inside_other_texts_and_repeated_ones_are_left_out(tmp_path):
    texts = ["a b c d", "b c", "a b", "c a", "a b c d", "d"]
    rows = [{**ROWS[n % 4], "body": text} for n, text in enumerate(texts)]
    path = tiny_runs.write_rows(tmp_path / "rows.jsonl", rows)
    found = read_rows(reading(path, whole=True))
    assert found.split.text == ["a b c d", "c a"]
    assert found.dropped == {"part of another text": 3, "the same text again": 1}
    assert len(read_rows(reading(path)).split) == 5


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"attribute": "shopp"}, "shop"),
        ({"attribute": "text:questoin"}, "text:question"),
        ({"labels": ("1", "2")}, "task.labels: no row has '2'"),
        ({"attributes": ("books", "kitchens")}, "the nearest is 'kitchen'"),
        ({"classes": ("good",)}, "1 names for 2 labels"),
        ({"source": "rte"}, "two texts a row"),
        ({"source": "sst2"}, "has no column 'shop'"),
    ],
)
def test_what_is_not_there_is_named(tmp_path, changes, told):
    path = tiny_runs.write_rows(tmp_path / "rows.csv", ROWS)
    with pytest.raises(DataError) as raised:
        read_rows(reading(path, **changes))
    assert told in str(raised.value)


def test_faulty_rows_are_told_all_at_once(tmp_path):
    rows = [*ROWS, {**ROWS[0], "shop": ""}, {**ROWS[0], "topic": ""}]
    with pytest.raises(DataError) as raised:
        read_rows(reading(tiny_runs.write_rows(tmp_path / "rows.csv", rows)))
    assert [fault.line for fault in raised.value.faults] == [6, 7]
    assert [fault.column for fault in raised.value.faults] == ["shop", "topic"]


def test_a_file_without_rows_is_refused_by_name(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("body,topic,shop\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"task mine: found no rows in .*rows\.csv"):
        read_rows(reading(path))


def test_an_empty_attribute_is_told_as_one(tmp_path):
    path = tiny_runs.write_rows(tmp_path / "rows.csv", [*ROWS, {**ROWS[0], "shop": ""}])
    with pytest.raises(DataError, match=r"line 6, column 'shop': found ''; an attribute is"):
        read_rows(reading(path))


def test_texts_that_stand_again_are_counted_by_what_they_are_called(tmp_path):
    more = [ROWS[0], {**ROWS[1], "topic": 1}]
    found = read_rows(reading(tiny_runs.write_rows(tmp_path / "rows.jsonl", [*ROWS, *more])))
    assert found.dropped == {"the same text with another label": 1, "the same text again": 1}
    assert found.labels.tolist() == [1, 0, 1, 0]

"""Target rows by file and by filter: what is found, and what every mistake is told."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enn_finetune.data.faults import DataError
from enn_finetune.data.filters import Condition, is_filter, parse_filter
from enn_finetune.data.splits import Split
from enn_finetune.data.targets import at_most, find_targets
from enn_finetune.data.tasks import Task, custom_task, find_task, load_split

DOMAINS = ["books", "dvd", "kitchen"]
STARS = [1, 2.0, "4", None]


def domain(row: int) -> str:
    return DOMAINS[row % 3]


@pytest.fixture
def task(tmp_path: Path) -> Task:
    rows = [
        {
            "text": f"text {row}",
            "label": "ab"[row % 2],
            "domain": domain(row),
            "stars": STARS[row % 4],
            "shop, or site": "rock and roll" if row == 5 else "",
        }
        for row in range(12)
    ]
    del rows[3]["stars"]
    content = "\n".join(map(json.dumps, rows))
    for name in ("train", "test"):
        (tmp_path / f"{name}.jsonl").write_text(content)
    return custom_task(tmp_path / "train.jsonl", tmp_path / "test.jsonl")


def found(task: Task, named: object, pool: np.ndarray | None = None) -> Split | np.ndarray:
    training = load_split(task, "train")
    ids = np.arange(len(training)) if pool is None else pool
    return find_targets(str(named), task, (), training, ids)


def refused(task: Task, named: object, pool: np.ndarray | None = None) -> str:
    with pytest.raises(DataError, match=r"^acquisition.targets: ") as caught:
        found(task, named, pool)
    return str(caught.value)


# ---- filters


@pytest.mark.parametrize(
    ("named", "rows"),
    [
        ("domain=kitchen", [2, 5, 8, 11]),
        (" domain = kitchen ", [2, 5, 8, 11]),
        ("domain=kitchen,books", [0, 2, 3, 5, 6, 8, 9, 11]),
        ("domain!=kitchen,books", [1, 4, 7, 10]),
        ("domain=kitchen and stars=1", [8]),
        ("domain=kitchen AND label!=a", [5, 11]),
        ("stars=2", [1, 5, 9]),  # 2.0 in the file
        ("stars=4", [2, 6, 10]),  # "4" in the file
        ('stars=""', [3, 7, 11]),  # null, and no such cell
        ('"shop, or site"="rock and roll"', [5]),
    ],
)
def test_a_filter_finds_the_rows_whose_cells_it_names(task, named, rows):
    assert found(task, named).tolist() == rows


def test_places_are_those_in_the_pool_and_copies_count_once(task):
    pool = np.tile([11, 4, 2, 0], 3)
    assert found(task, "domain=kitchen", pool).tolist() == [0, 2]


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("domian=kitchen", "train.jsonl: no column 'domian'.*nearest is 'domain'"),
        ("domain=kitchn", "column 'domain': no row has 'kitchn'; the nearest is 'kitchen'"),
        ("domain!=Kitchen", "no row has 'Kitchen'; the nearest is 'kitchen'; there are 'books'"),
        ("domain=kitchen and stars", "'stars': found no operator; a condition is column=value"),
        ("domain=kitchen=books", "found two operators"),
        ("=kitchen", "no column stands before '='"),
        ("domain=", "a value is missing after '='"),
        ("domain=books,,dvd", 'a value is missing .* an empty cell is ""'),
        ('domain="books', "a double quote is not closed"),
        ('domain=a"b"', "quote a whole name or value"),
        ('"shop, or site"=rock and roll', "'roll': found no operator.*in double quotes"),
        ("domain=books and domain=dvd", "none of 12 rows passes domain=books and domain=dvd"),
    ],
)
def test_a_filter_that_cannot_be_right_is_refused(task, named, message):
    assert re.search(message, refused(task, named))


def test_a_cell_that_is_no_single_value_is_named(task):
    path = Path(task.splits[0].file)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[6]["domain"] = ["kitchen"]
    path.write_text("\n".join(map(json.dumps, rows)))
    message = refused(task, "domain=books")
    assert f"{path}, line 7, column 'domain': found ['kitchen']" in message


def test_rows_that_the_pool_leaves_out_are_no_targets(task):
    message = refused(task, "domain=kitchen", np.asarray([0, 1, 3]))
    assert "4 of 12 training rows pass 'domain=kitchen', and none of them is among the 3" in message


def test_a_file_that_changed_under_way_is_refused(task):
    training = load_split(task, "train")
    path = Path(task.splits[0].file)
    path.write_text("\n".join(path.read_text().splitlines()[:5]))
    with pytest.raises(DataError, match="line 6: the row is gone"):
        find_targets("domain=books", task, (), training, np.arange(12))


def test_a_task_with_a_file_in_a_folder_and_a_quarter_carved_off(tmp_path):
    reviews = find_task("reviews-kitchen")
    folder = tmp_path / "reviews"
    folder.mkdir()
    rows = [{"text": f"t{i}", "label": i % 2, "shop": "xy"[i // 20]} for i in range(40)]
    (folder / "kitchen.jsonl").write_text("\n".join(map(json.dumps, rows)))
    training = load_split(reviews, "train", tmp_path)
    places = find_targets("shop=y", reviews, tmp_path, training, np.arange(30))
    assert len(training) == 30
    assert [training.text[row] for row in places] == [
        text for text in training.text if int(text[1:]) >= 20
    ]


def test_a_task_from_the_hub_has_no_columns(task, monkeypatch):
    monkeypatch.setattr("enn_finetune.data.targets.where", lambda *_: "hub: nyu-mll/glue (sst2)")
    assert "read from hub: nyu-mll/glue (sst2), which has no columns" in refused(task, "domain=dvd")


words = st.text("ab ,=!é1", min_size=1, max_size=6).map(str.strip).filter(bool)
conditions = st.builds(Condition, words, st.booleans(), st.lists(words, min_size=1).map(tuple))


@settings(max_examples=60, deadline=None)
@given(st.lists(conditions, min_size=1, max_size=3))
def test_a_quoted_filter_is_read_as_it_was_meant(wanted):
    written = " and ".join(
        f'"{one.column}"{"=" if one.equal else "!="}' + ",".join(f'"{v}"' for v in one.values)
        for one in wanted
    )
    assert is_filter(written)
    assert parse_filter(written) == tuple(wanted)


# ---- files


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.csv", 'text,note\n"one, two",x\nthree,y\n'),
        ("rows.tsv", "text\none, two\nthree\n"),
        ("rows.jsonl", '{"text": "one, two", "label": "unheard of"}\n{"text": "three"}\n'),
        ("a=b.csv", 'text\n"one, two"\nthree\n'),  # a file that exists is no filter
    ],
)
def test_a_file_of_rows_needs_no_labels(task, tmp_path, name, content):
    (tmp_path / name).write_text(content)
    split = found(task, tmp_path / name)
    assert (split.name, split.text, split.targets) == ("targets", ["one, two", "three"], None)


def test_a_pair_task_reads_both_texts(tmp_path):
    path = tmp_path / "pairs.tsv"
    path.write_text("#1 String\t#2 String\na\tb\n")
    training = Split("train", ["x"], ["y"], None, (), np.asarray([2]))
    split = find_targets(str(path), find_task("mrpc"), (), training, np.arange(1))
    assert (split.text, split.pair) == (["a"], ["b"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("txt\nhello\n", "line 1: no column 'text': the header is 'txt'; the nearest is 'txt'"),
        ("text\nhello\n  ,\n", "line 3: a long row: 2 fields where 1 are expected"),
        ('text\nhello\n" "\n', "line 3, column 'text': the text is empty"),
        ("text\n", "no rows"),
        ("", "the file is empty; expected a header with ['text']"),
    ],
)
def test_a_faulty_file_is_told_where(task, tmp_path, content, message):
    path = tmp_path / "rows.csv"
    path.write_text(content)
    told = refused(task, path)
    assert str(path) in told
    assert message in told


def test_a_file_that_is_not_there_names_its_neighbours(task, tmp_path):
    assert "no such file; beside it are" in refused(task, tmp_path / "tran.jsonl")


def test_a_part_of_many_targets_is_one_fixed_draw_in_order():
    rows = np.arange(100, 200)
    some = at_most(rows, 20)
    assert len(set(some)) == 20
    assert (np.diff(some) > 0).all()
    np.testing.assert_array_equal(some, at_most(rows, 20))
    np.testing.assert_array_equal(at_most(rows, 100), rows)
    assert some[:3].tolist() != [100, 101, 102]


def test_the_reviews_have_a_domain(shared):
    task = find_task("reviews-kitchen")
    training = load_split(task, "train", shared)
    places = find_targets("domain=kitchen", task, shared, training, np.arange(len(training)))
    assert len(places) == len(training)

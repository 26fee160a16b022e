import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enn_finetune.data.splits import Split, fingerprint, grid_targets
from enn_finetune.data.tables import DataError
from enn_finetune.data.tasks import (
    GLUE,
    NAMES,
    Task,
    custom_task,
    find_task,
    load_split,
    where,
)

# Rows in train and dev of the real files; None where the file could not be had.
COUNTS = {
    "cola": (8551, 1043),
    "sst2": (67349, 872),
    "mrpc": (3668, 408),
    "qnli": (None, 5463),
    "rte": (2490, 277),
    "wnli": (635, 71),
    "stsb": (5749, 1500),
}
ORIGINAL_HEADERS = {
    "cola": (),
    "sst2": ("sentence", "label"),
    "mrpc": ("Quality", "#1 ID", "#2 ID", "#1 String", "#2 String"),
    "qqp": ("id", "qid1", "qid2", "question1", "question2", "is_duplicate"),
    "mnli": (
        *("index", "promptID", "pairID", "genre", "sentence1_binary_parse"),
        *("sentence2_binary_parse", "sentence1_parse", "sentence2_parse"),
        *("sentence1", "sentence2", "label1", "gold_label"),
    ),
    "qnli": ("index", "question", "sentence", "label"),
    "rte": ("index", "sentence1", "sentence2", "label"),
    "wnli": ("index", "sentence1", "sentence2", "label"),
    "stsb": (
        *("index", "genre", "filename", "year", "old_index", "source1", "source2"),
        *("sentence1", "sentence2", "score"),
    ),
}
every_task = pytest.mark.parametrize("task", GLUE, ids=lambda task: task.name)


def write_task(root: Path, task: Task, rows: list[tuple[str, str, str]]) -> None:
    """Every split of a task in its original form: (text, pair, label) among other columns."""
    header = ORIGINAL_HEADERS[task.name]
    columns = header or task.header
    lines = ["\t".join(header)] if header else []
    for text, pair, label in rows:
        cells = {task.text: text, task.pair: pair, task.label: label}
        lines.append("\t".join(cells.get(column, "-") for column in columns))
    (root / task.folder).mkdir(parents=True)
    for split in task.splits:
        (root / task.folder / split.file).write_text("\n".join(lines) + "\n", encoding="utf-8")


def written(task: Task) -> tuple[str, ...]:
    return task.labels.written or ("0.000", "2.500", "5.000")


@every_task
def test_every_split_of_every_task_reads(tmp_path: Path, task: Task) -> None:
    rows = [(f'a "quoted" text {i}', f"its 'pair {i}", w) for i, w in enumerate(written(task))]
    write_task(tmp_path, task, rows)
    for name in ("train", *task.evaluation):
        split = load_split(task, name, tmp_path)
        assert split.name == name
        assert split.text == [text for text, _, _ in rows]
        assert split.pair == (None if task.pair is None else [pair for _, pair, _ in rows])
        assert split.classes == task.classes
        if task.values is None:
            np.testing.assert_array_equal(split.targets, np.eye(len(task.classes)))
        else:
            np.testing.assert_allclose(split.targets @ np.array(task.values), [0, 2.5, 5])


@every_task
def test_unknown_label_names_row_and_column(tmp_path: Path, task: Task) -> None:
    write_task(tmp_path, task, [("text", "pair", written(task)[0]), ("text", "pair", "7")])
    with pytest.raises(DataError) as caught:
        load_split(task, "train", tmp_path)
    line = 2 if task.header else 3
    assert f"train.tsv, line {line}, column '{task.label}': found" in str(caught.value)


def test_task_records_are_sound() -> None:
    reviews = [f"reviews-{domain}" for domain in ("books", "dvd", "electronics", "kitchen")]
    assert [task.name for task in GLUE] == list(ORIGINAL_HEADERS)
    assert list(NAMES) == [*ORIGINAL_HEADERS, *reviews, "messages"]
    for task in GLUE:
        assert len(set(task.classes)) == len(task.classes) > 1
        assert task.values is not None or len(task.labels.written) == len(task.classes)
        assert hash(task) == hash(dataclasses.replace(task))
        assert task.hub.config == task.name
        assert "test" not in {split.hub for split in task.splits}
    assert find_task("mnli").evaluation == ("dev_matched", "dev_mismatched")
    assert {task.name: task.metrics[0] for task in GLUE} == {
        **dict.fromkeys(["sst2", "mrpc", "qqp", "mnli", "qnli", "rte", "wnli"], "accuracy"),
        **{"cola": "mcc", "stsb": "pearson"},
    }


@pytest.mark.parametrize("name", ["cola", "sst2", "mrpc", "qnli", "rte", "wnli", "stsb"])
def test_real_files(shared: Path, name: str) -> None:
    task = find_task(name)
    for split_name, count in zip(("train", "dev"), COUNTS[name], strict=True):
        if count is None:
            assert where(task, shared / "glue", split_name) is None
            continue
        split = load_split(task, split_name, shared / "glue")
        assert len(split) == count
        assert split.targets.shape == (count, len(task.classes))
        np.testing.assert_allclose(split.targets.sum(1), 1)
        assert (split.pair is None) == (task.pair is None)
        assert split.skipped == ()


def test_real_class_balance_and_scores(shared: Path) -> None:
    balance = {"sst2": [29780, 37569], "cola": [2528, 6023], "mrpc": [1194, 2474]}
    for name, counts in balance.items():
        split = load_split(find_task(name), "train", shared / "glue")
        assert split.targets.sum(0).tolist() == counts
    task = find_task("stsb")
    split = load_split(task, "dev", shared / "glue")
    file = (shared / "glue/STS-B/dev.tsv").read_text(encoding="utf-8").split("\n")
    scores = [float(line.split("\t")[9]) for line in file[1:-1]]
    np.testing.assert_allclose(split.targets @ np.array(task.values), scores, atol=1e-6)


@settings(max_examples=100, deadline=None)
@given(
    grid=st.lists(st.integers(-50, 50), min_size=2, max_size=8, unique=True).map(sorted),
    shares=st.lists(st.floats(0, 1), min_size=1, max_size=6),
)
def test_grid_targets_keep_the_expectation(grid: list[int], shares: list[float]) -> None:
    scores = np.array([grid[0] + share * (grid[-1] - grid[0]) for share in shares])
    targets = grid_targets(scores, grid)
    assert targets.dtype == np.float32
    assert (targets >= 0).all()
    assert ((targets > 0).sum(1) <= 2).all()
    np.testing.assert_allclose(targets.sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(targets @ np.array(grid, float), scores, atol=2e-5)


def test_grid_points_are_one_hot() -> None:
    np.testing.assert_array_equal(grid_targets(np.arange(6.0), range(6)), np.eye(6))


@pytest.mark.parametrize("score", ["-0.1", "5.1", "nan", "inf", "good"])
def test_scores_off_the_grid(tmp_path: Path, score: str) -> None:
    task = find_task("stsb")
    write_task(tmp_path, task, [("a", "b", score)])
    with pytest.raises(DataError, match="expected a score from 0 to 5"):
        load_split(task, "dev", tmp_path)


def test_short_rows_of_qqp_are_skipped_and_told(tmp_path: Path) -> None:
    task = find_task("qqp")
    write_task(tmp_path, task, [("a", "b", "1"), ("a", "", "0"), ("c", "d", "0")])
    path = tmp_path / "QQP/train.tsv"
    path.write_text(path.read_text() + "5\t5\t5\tbroken\n")
    split = load_split(task, "train", tmp_path)
    assert (split.text, split.skipped) == (["a", "c"], (3, 5))
    strict = dataclasses.replace(task, skip=())
    with pytest.raises(DataError, match="2 faulty rows"):
        load_split(strict, "train", tmp_path)


def test_wrong_task_in_the_folder(tmp_path: Path) -> None:
    write_task(tmp_path, find_task("rte"), [("a", "b", "entailment")])
    with pytest.raises(DataError, match="no column 'sentence': the header is 'index', 'sentence1'"):
        load_split(find_task("sst2"), "train", tmp_path / "RTE")


@pytest.mark.parametrize("name", ["SST-2", "sst-2", "sst2", "Sst_2"])
def test_task_names_in_any_spelling(name: str) -> None:
    assert find_task(name).folder == "SST-2"
    assert find_task("sts-b").name == find_task("STSB").name == "stsb"


def test_unknown_task() -> None:
    with pytest.raises(DataError, match="no task 'qnlli': the nearest is qnli; known: cola, sst2"):
        find_task("qnlli")
    with pytest.raises(DataError, match=r"task\.train"):
        find_task("custom")


def test_places_are_tried_in_order(tmp_path: Path) -> None:
    task = find_task("sst2")
    for name, text in (("one", "first"), ("two", "second")):
        write_task(tmp_path / name, task, [(text, "", "0"), (text, "", "1")])
    one, two = tmp_path / "one", tmp_path / "two"
    (one / "SST-2/dev.tsv").unlink()
    places = [tmp_path / "none", one, two / "SST-2"]
    assert load_split(task, "train", places).text[0] == "first"
    assert load_split(task, "dev", places).text[0] == "second"
    assert where(task, places) == str(one / "SST-2/train.tsv")
    assert where(task, places, "dev") == str(two / "SST-2/dev.tsv")
    assert where(task, [tmp_path]) is None


def test_a_faulty_file_is_not_passed_over(tmp_path: Path) -> None:
    task = find_task("sst2")
    write_task(tmp_path / "bad", task, [("a", "", "9")])
    write_task(tmp_path / "good", task, [("a", "", "0")])
    with pytest.raises(DataError, match="bad"):
        load_split(task, "train", [tmp_path / "bad", tmp_path / "good"])


def test_no_place_has_it(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        load_split(find_task("qqp"), "train", [str(tmp_path), "", "nowhere"])
    message = str(caught.value)
    assert f"{tmp_path}: has no QQP/train.tsv and no train.tsv" in message
    assert "'nowhere': no such folder" in message
    assert "'': no such folder" in message
    with pytest.raises(DataError, match="no place at all"):
        load_split(find_task("qqp"), "train", ())


def test_unknown_split() -> None:
    with pytest.raises(DataError, match="has no split 'dev'; it has train, dev_matched"):
        load_split(find_task("mnli"), "dev", "hub")
    with pytest.raises(DataError, match="has no split 'test'"):
        where(find_task("sst2"), "hub", "test")


def user_files(tmp_path: Path, test_label: str = "b") -> tuple[Path, Path]:
    train, test = tmp_path / "train.csv", tmp_path / "test.jsonl"
    train.write_text("say,what\nhello,b\nhi,a\nbye,b\n")
    test.write_text(f'{{"say": "hey", "what": "{test_label}"}}\n')
    return train, test


def test_custom_task(tmp_path: Path) -> None:
    train, test = user_files(tmp_path)
    task = custom_task(train, test, text="say", pair="", label="what", metric="macro_f1")
    assert (task.classes, task.metrics, task.evaluation) == (
        ("a", "b"),
        ("macro_f1", "accuracy"),
        ("test",),
    )
    split = load_split(task, "test", "hub")
    assert isinstance(split, Split)
    np.testing.assert_array_equal(split.targets, [[0, 1]])
    assert len(load_split(task, "train")) == 3
    assert where(task) == str(train)


def test_custom_test_file_has_the_labels_of_train(tmp_path: Path) -> None:
    task = custom_task(*user_files(tmp_path, "c"), text="say", label="what")
    with pytest.raises(DataError, match="found the label 'c'; the known labels are 'a', 'b'"):
        load_split(task, "test")


def test_custom_metrics(tmp_path: Path) -> None:
    files = user_files(tmp_path)
    assert custom_task(*files, text="say", label="what", metric="f1").metrics[0] == "f1"
    with pytest.raises(DataError, match="nearest is accuracy"):
        custom_task(*files, text="say", label="what", metric="accurcy")
    files[0].write_text("say,what\nhello,b\nhi,a\nbye,c\n")
    with pytest.raises(DataError, match="use macro_f1"):
        custom_task(*files, text="say", label="what", metric="f1")


def test_bundled_messages() -> None:
    task = find_task("Messages")
    train, test = (load_split(task, name) for name in ("train", "test"))
    assert task.metrics == ("macro_f1", "accuracy")
    assert (train.targets.sum(0) > 0).all()
    assert len(test) > 100
    assert not set(train.text) & set(test.text)


def test_fingerprint_is_pinned(tmp_path: Path) -> None:
    task = find_task("rte")
    write_task(tmp_path, task, [("a", "é", "entailment"), ("c", "d", "not_entailment")])
    assert fingerprint(load_split(task, "dev", tmp_path)) == "dc5bfc0c9aabf62d"

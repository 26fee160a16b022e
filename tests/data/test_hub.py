import sys
from pathlib import Path

import numpy as np
import pytest

from enn_finetune.data.splits import Labels
from enn_finetune.data.tables import DataError
from enn_finetune.data.tasks import find_task, load_split, where

datasets = pytest.importorskip("datasets", reason="needs the extra hub")


@pytest.fixture
def served(monkeypatch):
    """Serves the given columns for any data set; the calls it got are in the list it returns."""

    def serve(columns: dict, classes: list[str] | None = None) -> list[tuple]:
        data = datasets.Dataset.from_dict(columns)
        if classes is not None:
            data = data.cast_column("label", datasets.ClassLabel(names=classes))
        calls = []

        def load(*args, **options):
            calls.append((args, options))
            return data

        monkeypatch.setattr(datasets, "load_dataset", load)
        return calls

    return serve


def test_pairs_and_declared_classes(served) -> None:
    columns = {"idx": [0, 1], "premise": ["a", "b"], "hypothesis": ["c", "d"], "label": [2, 0]}
    calls = served(columns, ["contradiction", "neutral", "entailment"])
    split = load_split(find_task("mnli"), "dev_mismatched", "hub")
    assert calls == [(("nyu-mll/glue", "mnli"), {"split": "validation_mismatched"})]
    assert (split.text, split.pair) == (["a", "b"], ["c", "d"])
    assert split.classes == ("entailment", "neutral", "contradiction")
    np.testing.assert_array_equal(split.targets, [[1, 0, 0], [0, 0, 1]])  # by name, not by number
    assert split.lines.tolist() == [1, 2]


def test_plain_class_indices(served) -> None:
    served({"sentence": ["a", "b"], "label": [1, 0]})
    split = load_split(find_task("cola"), "train", ["hub"])
    np.testing.assert_array_equal(split.targets, [[0, 1], [1, 0]])


def test_scores(served) -> None:
    served({"sentence1": ["a", "b"], "sentence2": ["c", "d"], "label": [2.75, 5.0]})
    task = find_task("stsb")
    split = load_split(task, "dev", "hub")
    np.testing.assert_allclose(split.targets @ np.array(task.values), [2.75, 5])


def test_hidden_labels_are_an_error(served) -> None:
    served({"sentence": ["a", "b"], "label": [0, -1]}, ["negative", "positive"])
    with pytest.raises(DataError, match="row 2, column 'label': found -1; expected a class index"):
        load_split(find_task("sst2"), "dev", "hub")


def test_faulty_rows(served) -> None:
    served({"sentence": ["a", None, " "], "label": [0, 1, 1]}, ["negative", "positive"])
    with pytest.raises(DataError, match=r"(?s)2 faulty rows.*row 2.*found None.*row 3.*empty"):
        load_split(find_task("sst2"), "dev", "hub")
    served({"sentence1": ["a"], "sentence2": ["c"], "label": [5.5]})
    with pytest.raises(DataError, match=r"row 1, column 'label': found '5\.5'; expected"):
        load_split(find_task("stsb"), "dev", "hub")


def test_other_columns_or_classes(served) -> None:
    served({"sentense": ["a"], "label": [0]})
    with pytest.raises(DataError, match=r"no column 'sentence': .* the nearest is 'sentense'"):
        load_split(find_task("sst2"), "train", "hub")
    served({"sentence": ["a"], "label": [0]}, ["no", "yes"])
    with pytest.raises(DataError, match=r"expected the classes \['negative', 'positive'\]"):
        load_split(find_task("sst2"), "train", "hub")


def test_a_real_folder_of_files(tmp_path: Path, monkeypatch) -> None:
    from enn_finetune.data.hub import HubSource, read_hub

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "train.jsonl").write_text('{"t": "a", "label": "x"}\n{"t": "b", "label": "y"}\n')
    split = read_hub(
        HubSource(str(tmp_path), "default", "t"), "train", Labels(("x", "y"), ("x", "y")), name="s"
    )
    assert (split.name, split.text) == ("s", ["a", "b"])
    np.testing.assert_array_equal(split.targets, np.eye(2))
    assert (tmp_path / "cache").is_dir()


def test_offline_is_said_and_the_next_place_is_tried(tmp_path: Path, monkeypatch) -> None:
    def load(*args, **options):
        raise ConnectionError("Couldn't reach the Hub\nand more")

    monkeypatch.setattr(datasets, "load_dataset", load)
    task = find_task("sst2")
    with pytest.raises(DataError, match=r"cannot be reached and nothing is cached.*task\.data"):
        load_split(task, "train", "hub")
    (tmp_path / "train.tsv").write_text("sentence\tlabel\nfine\t1\n")
    assert load_split(task, "train", ["hub", tmp_path]).text == ["fine"]


def test_without_the_extra(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(
        DataError, match=r"install the extra hub \(pip install 'enn-finetune\[hub\]'"
    ):
        load_split(find_task("sst2"), "train", "hub")


def test_where_on_the_hub(monkeypatch) -> None:
    task = find_task("sst2")
    assert where(task, "hub") == "hub: nyu-mll/glue (sst2)"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert where(task, "hub") is None

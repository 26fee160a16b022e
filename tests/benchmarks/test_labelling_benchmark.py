"""benchmarks/labelling.py at a tiny size."""

import tiny_runs


def test_a_session_is_played_with_the_labels_that_are_known(tmp_path):
    import labelling

    world = tiny_runs.write_world(tmp_path)
    truth = {str(row["text"]): str(row["label"]) for row in tiny_runs.sentences(40, 1)}
    lines = labelling.session(
        truth, 10, 3, tmp_path, rule="margin", encoder=[str(world / "bert")], max_tokens=16
    )
    assert [line.labels for line in lines] == [10, 20, 30]
    assert all(0 <= line.right <= 1 and 1 / 3 < line.expected <= 1 for line in lines)
    assert [line.agreement is None for line in lines] == [True, False, False]
    assert not any(line.stop for line in lines), "three agreements are asked for"


def test_a_text_with_two_labels_has_the_first(tmp_path):
    import labelling

    rows = "sentence\tlabel\nfine\t1\nbad\t0\nfine\t0\n"
    (tmp_path / "glue" / "SST-2").mkdir(parents=True)
    (tmp_path / "glue" / "SST-2" / "train.tsv").write_text(rows, "utf-8")
    truth = labelling.truth_of("sst2", tmp_path, None)
    assert list(truth) == ["fine", "bad"]
    assert truth["fine"] != truth["bad"]

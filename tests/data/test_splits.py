from pathlib import Path

import numpy as np
import pytest

from enn_finetune.data.splits import fingerprint, sort_labels
from enn_finetune.data.tables import read_table


@pytest.fixture
def write(tmp_path: Path):
    def writer(name: str, content: str) -> Path:
        path = tmp_path / name
        path.write_text(content)
        return path

    return writer


def test_labels_sort_by_value_only_when_all_are_integers() -> None:
    assert sort_labels(["10", "9", "-1", "9"]) == ("-1", "9", "10")
    assert sort_labels(["10", "9", "x"]) == ("10", "9", "x")


def test_take_and_without_labels(write) -> None:
    split = read_table(write("a.csv", "text,y\na,0\nb,1\nc,1\n"), text="text", label="y")
    part = split.take(np.array([2, 0]))
    assert (part.text, part.lines.tolist()) == (["c", "a"], [4, 2])
    np.testing.assert_array_equal(part.targets, [[0, 1], [1, 0]])
    assert split.without_labels().targets is None


def test_fingerprint_sees_every_part_and_their_borders(write) -> None:
    def of(*rows: str, pair: str | None = None, label: str | None = "y") -> str:
        path = write("a.csv", "a,b,y\n" + "\n".join(rows))
        return fingerprint(read_table(path, text="a", pair=pair, label=label, labels=["0", "1"]))

    base = of("ab,c,0", "d,e,1")
    assert base == of("ab,c,0", "d,e,1")
    assert len(base) == 16
    others = {
        of("d,e,1", "ab,c,0"),
        of("ab,c,1", "d,e,1"),
        of("a,c,0", "bd,e,1"),
        of("ab,c,0", "d,e,1", pair="b"),
        of("ab,cd,0", "d,e,1", pair="b"),
        of("ab,c,0", "d,e,1", label=None),
    }
    assert len(others | {base}) == 7

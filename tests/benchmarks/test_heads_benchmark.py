"""benchmarks/heads.py at a toy size: what is compared and counted, and the script's last line."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="compares with scikit-learn, which is not installed")

ROOT = Path(__file__).resolve().parents[2]
ALL = ("epinet", "shaped", "linear", "mc_dropout", "ensemble", "lr_cv")


def test_subsets_keep_the_classes_shares_and_differ_by_seed():
    import heads_cells

    labels = np.repeat([0, 1], [970, 30])
    for count, rare in ((50, 1), (10, 1), (100, 3), (1000, 30)):
        rows = heads_cells.stratified(labels, count, seed=0)
        assert len(np.unique(rows)) == count
        assert labels[rows].sum() == rare
    first, second = (heads_cells.stratified(labels, 50, seed) for seed in (0, 1))
    assert not np.array_equal(first, second)


def cell(epinet: dict, other: dict, unconverged: int = 0):
    """A cell of two seeds in which all heads but the epinet score alike."""
    import heads_cells

    scores = {
        head: {
            name: np.array(value) for name, value in (epinet if head == "epinet" else other).items()
        }
        for head in ALL
    }
    return heads_cells.Cell("encoder", "task", 50, scores, unconverged)


def test_figures_are_paired_and_name_the_worst_cell():
    import heads

    flat = {"accuracy": [0.7, 0.5], "nll": [0.5, 0.5], "joint_nll_near": [5.0, 5.0]}
    up = {"accuracy": [0.72, 0.52], "nll": [0.4, 0.4], "joint_nll_near": [4.0, 4.0]}
    down = {"accuracy": [0.69, 0.47], "nll": [0.6, 0.52], "joint_nll_near": [4.0, 6.0]}
    good, bad = cell(up, flat), cell(down, flat)._replace(labels=100)
    found = heads.summary([good, bad])
    assert found["accuracy_minus_lr"] == pytest.approx(0)
    assert found["nll_minus_lr"] == pytest.approx((-0.1 + 0.06) / 2)
    # The differences are -.01 and -.03: a mean of -.02 and a standard error of .01.
    assert found["worst_cell"] == pytest.approx(-0.01)
    assert found["worst_cell_detail"]["cell"] == "encoder task 100"
    assert found["worst_cell_detail"]["standard_error"] == pytest.approx(0.01)
    assert found["below_the_bar"] == ["encoder task 100"]
    assert found["joint_nll_win_share"] == 0.5  # a tie is no win
    assert found["failures"] == []


def test_what_is_not_finite_or_not_converged_is_a_failure():
    import heads

    flat = {"accuracy": [0.7, 0.5], "nll": [0.5, 0.5], "joint_nll_near": [5.0, 5.0]}
    lost = {"accuracy": [0.7, 0.5], "nll": [np.nan, 0.5], "joint_nll_near": [5.0, 5.0]}
    found = heads.summary([cell(lost, flat, unconverged=1)])
    assert len(found["failures"]) == 2
    assert "epinet's nll" in found["failures"][0]
    assert json.loads(json.dumps(heads.finite(found), allow_nan=False))["nll_minus_lr"] is None


@pytest.mark.slow
def test_the_script_ends_with_one_json_object(tiny_encoder, tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "tiny").symlink_to(tiny_encoder)
    (tmp_path / "reviews").mkdir()
    draw = np.random.default_rng(0)
    with (tmp_path / "reviews" / "books.jsonl").open("w", encoding="utf-8") as file:
        for number in range(80):
            words = draw.choice(["good", "bad"], 6, p=[0.8, 0.2] if number % 2 else [0.2, 0.8])
            row = {"text": f"{' '.join(words)} {number}", "label": number % 2}
            file.write(json.dumps(row) + "\n")
    options = ["--encoders", "tiny", "--tasks", "reviews-books", "--labels", "30", "500"]
    options += ["--max-tokens", "16", "--seeds", "2"]
    command = [sys.executable, ROOT / "benchmarks" / "heads.py", "--data", tmp_path]
    done = subprocess.run(
        [*command, *options],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": "", "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
        | {"XDG_CACHE_HOME": str(tmp_path / "cache")},
    )
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["cells"] == 1
    assert figures["left_out"] == ["tiny reviews-books 500: the pool has 60 rows"]
    assert figures["failures"] == []
    assert -1 <= figures["worst_cell"] <= 1
    assert 0 <= figures["joint_nll_win_share"] <= 1
    assert {"accuracy_minus_lr", "nll_minus_lr", "data_fingerprints", "commit"} <= figures.keys()


def test_the_readme_has_the_figures_of_the_kept_cells():
    import heads

    text = (ROOT / "benchmarks" / "records" / "heads" / "cells.jsonl").read_text("utf-8")
    found = [heads.kept_cell(json.loads(line)) for line in text.splitlines()]
    figures = heads.summary(found)
    readme = (ROOT / "README.md").read_text("utf-8").splitlines()
    (line,) = (one for one in readme if "records/heads/cells.jsonl" in one)
    worst = figures["worst_cell_detail"]
    signed = f"{100 * figures['accuracy_minus_lr']:+.2f}".replace("0.", ".")
    assert f"accuracy {signed} points on the mean" in line
    parts = f"{100 * worst['difference']:+.2f} +- {100 * worst['standard_error']:.2f}"
    assert f"worst cell {parts.replace('0.', '.')}" in line
    assert not figures["below_the_bar"]
    assert "none below the bar" in line
    assert all(cell.difference("nll")[0] < 0 for cell in found)
    wins = len(found) - len(figures["joint_nll_lost"])
    assert f"**the lowest joint loss in {wins} of {len(found)}**" in line
    assert not figures["failures"]

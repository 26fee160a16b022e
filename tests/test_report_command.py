"""`report`: folders of records to a page, summary.json and RESULTS.md."""

import io
import json
import re
from pathlib import Path

import pytest
import report_made as made
from rich.console import Console

from enn_finetune.errors import InputError
from enn_finetune.report import summary_table
from enn_finetune.report.command import run

ARMS = {
    name: made.SPEEDS[name]
    for name in ("linear/random", "epinet/random", "epinet/margin", "epinet/bald", "linear/margin")
}
FEW = {"speeds": ARMS, "seeds": range(5), "labels": (20, 50, 100, 200, 400)}


@pytest.fixture(scope="module")
def records() -> list[made.Line]:
    sst2 = made.study_records("sst2", splits=("held", "dev"), **FEW)
    slow = {**ARMS, "epinet/margin": 700.0}
    return sst2 + made.study_records("cola", **{**FEW, "speeds": slow}, metric="mcc")


@pytest.fixture(scope="module")
def folder(records: list[made.Line], tmp_path_factory: pytest.TempPathFactory) -> Path:
    half = len([row for row in records if row["task"] == "sst2"])
    return made.write(
        tmp_path_factory.mktemp("bench"),
        records,
        purchases=made.bought(records),
        sources=[made.source(records), made.source(records[half:], "mcc", seconds=10)],
    )


def quick(folders: list[Path], out: Path, **more: object) -> dict:
    return run(folders, out / "report.html", resamples=100, **more)  # type: ignore[arg-type]


def test_two_pages_in_one_folder_keep_both_summaries(folder: Path, tmp_path: Path) -> None:
    first = run([folder], tmp_path / "a.html", resamples=20)
    second = run([folder], tmp_path / "b.html", resamples=30)
    assert json.loads((tmp_path / "summary.json").read_text()) == first
    assert json.loads((tmp_path / "b.summary.json").read_text()) == second
    assert (first["page"], second["page"]) == ("a.html", "b.html")
    run([folder], tmp_path / "a.html", resamples=40)
    assert json.loads((tmp_path / "summary.json").read_text())["resamples"] == 40
    assert json.loads((tmp_path / "b.summary.json").read_text()) == second
    own = run([folder], tmp_path / "report.html", resamples=50)
    assert json.loads((tmp_path / "summary.json").read_text()) == own, "report.html's, in any case"


def test_the_summary_says_what_the_issue_asks(folder: Path, tmp_path: Path) -> None:
    found = quick([folder], tmp_path)
    assert json.loads((tmp_path / "summary.json").read_text()) == found
    assert list(found["tasks"]) == ["sst2", "cola"]
    for arms in found["tasks"].values():
        assert list(arms) == list(ARMS)
        for arm in arms.values():
            assert arm["seeds"] == 5
            assert isinstance(arm["score_mean"], float)
            for name in ("system_ratio", "acquisition_ratio"):
                assert {"value", "ci95"} <= set(arm[name])
            assert {"labels_to_target", "labels_last", "losses_to_random"} <= set(arm)
        assert arms["linear/random"]["system_ratio"]["value"] == 1.0
    assert found["tasks"]["sst2"]["epinet/margin"]["system_ratio"]["value"] > 1.5
    slow = found["tasks"]["cola"]["epinet/margin"]
    assert slow["labels_to_target"] is None
    assert slow["labels_last"] == 400
    assert slow["losses_to_random"] == 5
    study = found["studies"]["sst2"]
    assert (study["split"], study["splits"]) == ("dev", ["dev", "held"])
    assert study["command"] == ["enn-finetune bench configs/quick.toml --out runs/quick"]
    assert study["seconds"] == 141.4
    assert study["rows"] == {"pool": 67349, "dev": 872}
    both = found["tasks"]["sst2"]["epinet/margin"]["splits"]
    assert both["dev"]["score_mean"] == found["tasks"]["sst2"]["epinet/margin"]["score_mean"]
    assert both["held"]["score_mean"] != both["dev"]["score_mean"]


def test_paired_gains_over_margin(folder: Path, tmp_path: Path) -> None:
    found = quick([folder], tmp_path)["against"]
    assert list(found) == ["linear/random", "linear/margin"]
    row = found["linear/margin"]["epinet/margin"]
    tasks = [row["tasks"][task]["mean"] for task in ("sst2", "cola")]
    assert row["mean"]["mean"] == pytest.approx(sum(tasks) / 2)
    assert row["tasks"]["cola"]["ci95"][1] < 0
    assert row["losses"] == 1


def test_the_page_has_what_the_issue_lists(folder: Path, tmp_path: Path) -> None:
    quick([folder], tmp_path)
    page = (tmp_path / "report.html").read_text()
    for heading in (
        "Labels to reach the target, dev split",
        "Labels to reach the target, held split",
        "Labels random selection needs to match each arm",
        "Area gained over linear/margin",
        "Wins and losses, seed by seed",
        "Calibration, joint calibration and other metrics",
        "What was bought: class balance",
        "The first rows bought by each rule",
        "Seconds and FLOPs",
        "joint NLL, near neighbours",
        "number 7",
        "sha256:53aa5117",
        "2 cores, CPU",
        "pool 67,349, dev 872",
    ):
        assert heading in page
    assert page.count("<h2 ") == 2
    assert "&gt; 400" in page  # censored
    assert 'class="nowrap more"' in page  # a loss, coloured as a win is


@pytest.mark.parametrize("suffix", [".gz", ".xz"])
def test_packed_records_are_the_same(
    records: list[made.Line], folder: Path, tmp_path: Path, suffix: str
) -> None:
    sources = json.loads((folder / "studies.json").read_text())
    packed = made.write(tmp_path / "in", records, sources=sources, suffix=suffix)
    assert quick([packed], tmp_path / "a") == quick([folder], tmp_path / "b")


def test_a_diverged_run_is_named(records: list[made.Line], tmp_path: Path) -> None:
    rows = json.loads(json.dumps(records))
    rows[4]["metrics"]["accuracy"] = float("nan")
    made.write(tmp_path / "in", rows)
    with pytest.raises(InputError, match=r"sst2: arm 'linear/random', seed 0, 400 labels"):
        quick([tmp_path / "in"], tmp_path)


def test_runs_of_train_say_in_their_summary_what_they_are(tmp_path: Path) -> None:
    """A folder a run: no head, rule or seed in the records."""
    rows = made.study_records("rte", **FEW)
    own = ("step", "labels_bought", "split", "metrics", "seconds")
    folders = []
    for arm in ARMS:
        for seed in range(4):
            head, rule = arm.split("/")
            cell = [r for r in rows if (r["head"], r["rule"], r["seed"]) == (head, rule, seed)]
            path = made.write(
                tmp_path / f"{head}-{rule}-{seed}", [{k: r[k] for k in own} for r in cell]
            )
            about = {"task": "rte", "regime": "pool", "head": head, "rule": rule, "seed": seed}
            about |= {"metric": "accuracy", "config_hash": "ab", "wall_seconds": 2.0}
            (path / "summary.json").write_text(json.dumps(about))
            config = {"backbone": {"path": ["a/minilm"], "tune": "full"}, "task": {"name": "rte"}}
            (path / "config.json").write_text(json.dumps(config))
            folders.append(path)
    found = quick(folders, tmp_path / "out")
    assert list(found["tasks"]) == ["rte"]
    assert list(found["tasks"]["rte"]) == list(ARMS)
    assert found["tasks"]["rte"]["epinet/margin"]["seeds"] == 4
    assert found["studies"]["rte"]["tune"] == "full"
    assert found["studies"]["rte"]["seconds"] == 40.0
    lone = quick(folders[:1], tmp_path / "lone")
    assert lone["tasks"]["rte"]["linear/random"]["score_mean"] > 0.5
    with pytest.raises(InputError, match=r"summary\.json is the summary of a run"):
        quick(folders[:1], folders[0])


def test_a_demo_folder_names_its_arms_with_blanks(tmp_path: Path) -> None:
    own = ("head", "rule", "seed", "step", "labels_bought", "split", "metrics", "seconds")
    rows = [{name: row[name] for name in own} for row in made.study_records(**FEW)]
    made.write(tmp_path, [{"arm": f"{r['head']} / {r['rule']}", **r} for r in rows])
    about = {"task": "messages", "baseline": "linear / random", "own": "epinet / random"}
    (tmp_path / "summary.json").write_text(json.dumps({**about, "metric": "accuracy"}))
    found = quick([tmp_path], tmp_path / "out")
    assert list(found["tasks"]["messages"]) == list(ARMS)
    assert found["studies"]["messages"]["own"] == "epinet/random"


def test_a_missing_reference_is_null_with_a_note(tmp_path: Path) -> None:
    arms = {"ensemble/random": 300.0, "epinet/margin": 150.0}
    made.write(tmp_path / "in", made.study_records("sst2", **{**FEW, "speeds": arms}))
    found = quick([tmp_path / "in"], tmp_path)
    assert found["tasks"]["sst2"]["epinet/margin"]["acquisition_ratio"]["value"] is None
    assert found["tasks"]["sst2"]["epinet/margin"]["acquisition_ratio"]["ci95"] is None
    printed = Console(width=100, record=True, file=io.StringIO())
    printed.print(summary_table(found))
    assert "epinet/margin" in printed.export_text()
    notes = " ".join(found["studies"]["sst2"]["notes"])
    assert "no arm linear/random; ensemble/random stands in" in notes
    assert "epinet/margin: acquisition alone is not known" in notes


def test_results_hold_the_summary_s_figures(folder: Path, tmp_path: Path) -> None:
    """Read back from the Markdown, every headline figure is the one in summary.json."""
    found = quick([folder], tmp_path, results=tmp_path / "RESULTS.md")
    text = (tmp_path / "RESULTS.md").read_text()
    for task, arms in found["tasks"].items():
        part = text.split(f"### {task}, {found['studies'][task]['split']} split")[1]
        rows = {}
        for line in part.split("\n\n")[1].splitlines()[2:]:
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            rows[cells[0]] = cells
        assert list(rows) == list(arms)
        for name, arm in arms.items():
            labels = arm["labels_to_target"]
            assert rows[name][1] == ("> 400" if labels is None else f"{labels:,.0f}")
            if arm["role"] != "baseline":
                value = re.match(r"([<>] )?([\d.]+)x", rows[name][2])
                assert value is not None
                ratio = arm["system_ratio"]
                expected = ratio["value"] or ratio["less_than"]
                assert float(value[2]) == pytest.approx(expected, abs=0.006)
                assert rows[name][8].startswith(f"{arm['losses_to_random']} / ")
    for fact in ("`3f9a12c0`", "`sha256:53aa5117`", "seeds 0, 1, 2, 3", "target not reached"):
        assert fact in text
    assert str(tmp_path) not in text


def test_the_table_for_the_terminal(folder: Path, tmp_path: Path) -> None:
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(summary_table(quick([folder], tmp_path)))
    text = console.export_text()
    for words in (*ARMS, "sst2", "cola", "1 (baseline)", "accuracy 0.7", "MCC"):
        assert words in text
    assert re.search(r"epinet/margin +│ +[\d.]+x / [\d.]+x │ +< [\d.]+x / < [\d.]+x", text)

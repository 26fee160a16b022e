"""The report of a testbed study, from records that are made up."""

import io
import json
import re

import numpy as np
import pytest
from testbed_made import LABELS, SPEEDS, TARGET, active_lines, supervised_lines, write

from enn_finetune.errors import InputError
from enn_finetune.report import reading, testbed
from enn_finetune.report.testbed_summary import setting_name
from enn_finetune.testbed import records


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "out"
    once = active_lines(SPEEDS | {"epinet/variance": 50.0})
    again = active_lines({"mlp/random": 100.0, "epinet/variance": 300.0}, "again")
    joint = supervised_lines({"epinet": -0.5, "dropout": 0.5, "ensemble": 0.0})
    weak = supervised_lines({"epinet": -0.5}, ess=20.0, ratio=50.0)
    return folder, write(folder, once, again, joint, weak)


def test_wins_and_losses_are_counted_in_labels(both):
    _, summary = both
    once, again = summary["active"]["once"], summary["active"]["again"]
    assert once["target"] == pytest.approx(TARGET, abs=0.01)
    fast = once["arms"]["epinet/variance"]
    assert fast["labels_to_target"] == pytest.approx(100, abs=1)
    assert fast["system_ratio"]["value"] == pytest.approx(2, abs=0.02)
    assert fast["acquisition_ratio"]["value"] == pytest.approx(2, abs=0.02)
    assert fast["losses"] == 0
    assert min(fast["curves"]["kl_saved"]["low"][:10]) > 0
    assert fast["regret_saved"]["ci95"][0] > 0
    for slow in (once["arms"]["mlp/entropy"], again["arms"]["epinet/variance"]):
        assert slow["labels_to_target"] is None
        assert slow["losses"] == slow["problems"] == 6
        assert slow["regret_saved"]["ci95"][1] < 0
    assert again["arms"]["epinet/variance"]["distinct"] == 150
    expected = np.mean([0.1 + 0.3 * np.exp(-n / 50) for n in LABELS])
    assert fast["regret"]["mean"] + once["target"] == pytest.approx(expected, abs=0.01)


def test_the_recorded_regret_and_the_excess_are_shown(both):
    folder, summary = both
    arms = summary["active"]["once"]["arms"]
    fast, base = arms["epinet/variance"], arms["mlp/random"]
    expected = 10 * np.sum([0.1 + 0.3 * np.exp(-n / 50) for n in LABELS])
    assert fast["selection_regret"]["total"]["mean"] == pytest.approx(expected, abs=2)
    assert fast["selection_regret"]["saved"]["mean"] == pytest.approx(
        base["selection_regret"]["total"]["mean"] - fast["selection_regret"]["total"]["mean"]
    )
    assert fast["selection_regret"]["saved"]["ci95"][0] > 0
    assert base["selection_regret"]["saved"]["mean"] == 0
    assert fast["selection_regret"]["curve"]["mean"][0] == pytest.approx(10 * 0.345, abs=0.2)
    assert fast["kl_excess"] == pytest.approx(fast["kl"] / 50)
    page = re.sub(r"<[^>]+>", " ", (folder / testbed.REPORT).read_text(encoding="utf-8"))
    assert "selection regret" in page
    assert f"{fast['selection_regret']['total']['mean']:.2f}" in page
    assert f"{fast['kl_excess']:.4f}" in page


def test_records_of_before_have_neither(tmp_path):
    old = active_lines({"mlp/random": 100.0, "epinet/variance": 50.0})
    for line in old:
        del line["kl_excess"], line["selection_regret"]
    arm = write(tmp_path / "out", old)["active"]["once"]["arms"]["epinet/variance"]
    assert arm["kl_excess"] is arm["selection_regret"] is None
    assert (tmp_path / "out" / testbed.REPORT).exists()


def test_supervised_scores_are_paired_with_the_reference(both):
    _, summary = both
    assert summary["reference"] == "mlp"
    setting = summary["supervised"]["2 inputs, temperature 0.1, 20 rows"]
    assert setting["agents"]["epinet"]["joint_kl_10"]["against"]["mean"] == pytest.approx(
        -0.5, abs=0.01
    )
    assert setting["agents"]["epinet"]["joint_kl_10"]["bias"] == pytest.approx(0.02)
    assert setting["agents"]["floor"]["joint_kl_10"]["mean"] == pytest.approx(0.1, abs=0.02)
    assert setting["agents"]["floor"]["joint_kl_10"]["ess"] == pytest.approx(500 / 7)
    assert "joint_kl_10_ess" not in setting["agents"]["floor"]
    weak = summary["supervised"]["2 inputs, temperature 0.1, 100 rows"]
    assert weak["floor_ess"] == 20
    assert "floor" not in weak["agents"]  # too few effective particles to be one


def test_the_page_says_what_held_and_what_did_not(both):
    folder, _ = both
    page = (folder / testbed.REPORT).read_text(encoding="utf-8")
    text = re.sub(r"<[^>]+>", "", page)
    assert "epinet/variance needs fewer: 100 (ratio 2.0" in text
    assert "epinet/variance does not reach it: its KL ends at" in text
    assert "target not reached: mlp/entropy" in text
    assert "At 100 labels its KL is 0.14" in text
    assert "epinet against mlp in 2 settings: marginal KL: below 0" in text
    assert "joint KL of 10: below 2, above 0" in text
    assert "excess 0.020, effective size 71" in text
    assert "joint KL of 10: below 0, above 1" in text
    assert "paper" in text
    assert page.count("<svg") >= 2
    assert not re.search(r'(?:src|href)="(?!#)', page)  # one file, no other host


def test_figures_and_numbers_lie_beside_it(both):
    folder, summary = both
    assert json.loads((folder / reading.SUMMARY).read_text()) == json.loads(json.dumps(summary))
    names = sorted(path.name for path in (folder / testbed.FIGURES).iterdir())
    assert names == [
        "active-again-1.svg",
        "active-once-1.svg",
        "supervised-joint-by-tau-1.svg",
        "supervised-joint-by-tau-2.svg",
        "supervised-joint-kl-10-by-rows-1.svg",
        "supervised-kl-by-rows-1.svg",
    ]
    assert 'xmlns="http://www.w3.org/2000/svg"' in (folder / "figures" / names[0]).read_text()


def paths(svg, agent):
    """Places in pixels of an agent's line in a picture, and the bars of its intervals."""
    group = next(g for g in re.findall(r"<g .*?</g>", svg) if f"<title>{agent}</title>" in g)
    line = re.search(r'<polyline points="([^"]*)"', group)[1].split(" ")
    return np.array([[float(v) for v in point.split(",")] for point in line]), group.count("<path")


def test_joint_predictions_are_drawn_against_rows(both):
    """Means of 1, .5 and .1 on a logarithmic scale; the floor ends where it is not trusted."""
    folder, _ = both
    svg = (folder / "figures" / "supervised-joint-kl-10-by-rows-1.svg").read_text()
    for words in ("training rows per input", "Joint KL, tau = 10, nats a group: 2 inputs"):
        assert words in svg
    mlp, bars = paths(svg, "mlp")
    epinet, _ = paths(svg, "epinet")
    floor, of_floor = paths(svg, "floor")
    assert (len(mlp), bars, len(floor), of_floor) == (2, 2, 1, 1)
    heights = [one[0, 1] for one in (mlp, epinet, floor)]
    steps = np.diff(heights) / np.log([2, 5])
    assert steps[0] > 0  # lower is better
    assert steps[0] == pytest.approx(steps[1], rel=0.1)
    assert len({one[0, 0] for one in (mlp, epinet, floor)}) == 3  # side by side


def test_joint_predictions_are_drawn_against_tau(tmp_path):
    """An agent of one function pays for every row anew: over tau, its line is flat."""
    lines = supervised_lines({"epinet": 0.0})
    for line in lines:
        one = line["agent"] == "mlp"
        for tau in (1, 10, 100):
            line["scores"][f"joint_kl_{tau}"] = 0.3 * (tau if one else tau**0.5)
    write(tmp_path / "out", lines)
    svg = (tmp_path / "out" / "figures" / "supervised-joint-by-tau-1.svg").read_text()
    assert "rows predicted together (tau)" in svg
    assert "nats a row: 2 inputs, temperature 0.1, 20 rows" in svg
    mlp, epinet = paths(svg, "mlp")[0], paths(svg, "epinet")[0]
    assert np.ptp(mlp[:, 1]) == 0
    steps = np.diff(epinet[:, 1])
    assert steps[0] > 10
    assert steps[0] == pytest.approx(steps[1], abs=0.2)


def test_supervised_scores_alone_are_drawn_too(tmp_path):
    """One problem at one ratio with one tau, and a KL that is not above 0."""
    lines = supervised_lines({"epinet": -1.5}, problems=1)
    write(tmp_path / "out", lines)
    page = (tmp_path / "out" / testbed.REPORT).read_text(encoding="utf-8")
    assert page.count("<svg") == 3
    assert "nan" not in re.sub(r"<[^>]+>", "", page)
    assert len(list((tmp_path / "out" / testbed.FIGURES).iterdir())) == 3


def test_two_pages_in_one_folder_keep_their_own_figures(tmp_path):
    write(tmp_path / "one", supervised_lines({"epinet": 0.1}, problems=1))
    write(tmp_path / "two", supervised_lines({"epinet": 0.9}, problems=1))
    for name in ("one", "two"):
        testbed.run(tmp_path / name, tmp_path / f"{name}.html", resamples=20)
    first, second = tmp_path / testbed.FIGURES, tmp_path / f"two.{testbed.FIGURES}"
    pictures = {path.name: path.read_text() for path in first.iterdir()}
    assert len(pictures) == 3
    assert pictures != {path.name: path.read_text() for path in second.iterdir()}


def test_the_excess_of_the_marginal_kl_is_shown_where_it_is_recorded(tmp_path):
    lines = supervised_lines({"epinet": -0.5})
    for line in lines:
        if line["agent"] == "epinet":
            line["scores"]["kl_bias"] = 0.03
    mixed = supervised_lines({"epinet": -0.5}, ratio=50.0)
    mixed[8]["scores"]["kl_bias"] = 0.03  # one line of a newer version among old ones
    found = write(tmp_path / "out", lines, mixed)["supervised"]
    name = "2 inputs, temperature 0.1, {} rows"
    assert found[name.format(20)]["agents"]["epinet"]["kl"]["bias"] == pytest.approx(0.03)
    assert "bias" not in found[name.format(20)]["agents"]["mlp"]["kl"]
    assert "bias" not in found[name.format(100)]["agents"]["epinet"]["kl"]
    assert "excess 0.030" in (tmp_path / "out" / testbed.REPORT).read_text()


def test_how_it_was_measured_names_every_score_and_its_biases(both):
    page = (both[0] / testbed.REPORT).read_text(encoding="utf-8")
    terms = re.findall(r"<dt>([^<]*)</dt>", page)
    assert {"KL", "Accuracy", "ECE", "Joint KL", "Problems and seeds"} <= {*terms}
    assert "Too high for finitely many rows" in page


def test_the_terminal_shows_every_arm(both):
    from rich.console import Console

    console = Console(width=140, file=io.StringIO())
    console.print(testbed.terminal(both[1]))
    text = console.file.getvalue()
    for words in ("mlp/entropy", "epinet/variance", "> 200", "6 of 6", "2 / 0 (2)"):
        assert words in text


def test_one_problem_has_no_interval(tmp_path):
    lines = active_lines({"mlp/random": 100.0, "epinet/variance": 50.0}, problems=1)
    summary = write(tmp_path / "out", lines, supervised_lines({"epinet": -0.5}, problems=1))
    arm = summary["active"]["once"]["arms"]["epinet/variance"]
    assert arm["ci95"] is arm["regret"]["ci95"] is arm["system_ratio"]["ci95"] is None
    assert "There is one problem only" in (tmp_path / "out" / testbed.REPORT).read_text()


def test_what_a_crash_cut_short_is_left_out(tmp_path):
    folder = tmp_path / "out"
    write(folder, active_lines({"mlp/random": 100.0}), supervised_lines({"epinet": 0.0}))
    path = folder / records.RECORDS
    path.write_text("\n".join(path.read_text().splitlines()[:-1]) + "\n")
    assert testbed.run(folder, resamples=10)["supervised"] == {}


def test_a_folder_without_a_study_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"found no study\.json"):
        testbed.run(tmp_path)


def test_a_single_row_is_one_row():
    line = supervised_lines({}, problems=1, ratio=0.5)[0]
    assert setting_name(line) == "2 inputs, temperature 0.1, 1 row"

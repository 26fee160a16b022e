"""The report of an intended task, from made records: what held, twins, ranks, one page."""

import copy
import json
import re
from pathlib import Path

import numpy as np
import pytest
from report_made import source, study_records, write
from scipy import stats

from enn_finetune.errors import InputError
from enn_finetune.report import command, intended
from enn_finetune.report.intended_figures import read_figures
from enn_finetune.report.intended_ranks import ranks
from enn_finetune.report.intended_words import beyond_chance, claims, verdict

START = 20
GROUPS = ["bad/books", "bad/kitchen", "good/books", "good/kitchen"]


def lines_of(task: str, weights: str, saves: float, over: float) -> tuple[list, list, dict]:
    """Records, bought rows and entry of a study whose rule is so much quicker than random."""
    backbone = "tiny" if weights == "pretrained" else "tiny-random"
    speeds = {
        "linear/random": 300.0,
        "linear/least_confidence": 300.0 / saves,
        "epinet/random": 280.0,
        "epinet/bald": 260.0 / saves,
    }
    records = study_records(task, speeds, splits=("test",), noise=0.003, backbone=backbone)
    bought = []
    for record in records:
        score = record["metrics"]["accuracy"]
        record["metrics"]["worst_group_accuracy"] = score - 0.1
        bought_for = {name: record[name] for name in ("task", "backbone", "tune", "head", "rule")}
        if record["step"] == 0:
            extra = 1.0 if record["rule"] == "random" else over
            rounds = (20, 120, 1000)
            counts = [round(0.1 * extra * (count - START)) for count in rounds]
            seed = int(record["seed"])
            counts[1:] = [count + seed % 3 for count in counts[1:]]
            rows = [seed, 7 if record["rule"] == "random" else len(str(record["rule"]))]
            bought.append(
                {**bought_for, "seed": seed, "rows": rows, "rounds": rounds, "disagreeing": counts}
            )
    twins = [{**line, "rule": "margin"} for line in bought if line["rule"] == "least_confidence"]
    copies = [{**r, "rule": "margin"} for r in records if r["rule"] == "least_confidence"]
    entry = source(
        records,
        encoder="tiny",
        weights=weights,
        attributes=["books", "kitchen"],
        groups=GROUPS,
        seed_set={"rows": START, "groups": [10, 0, 0, 10]},
        pool_rows=2000,
        pool_groups=[900, 100, 100, 900],
        pool_disagreeing=0.1,
        test_rows=600,
        separability={
            "intended": {"accuracy": 0.5 + saves / 8, "error": 0.01},
            "spurious": {"accuracy": 0.9, "error": 0.01},
        },
        main="linear/least_confidence",
        baseline="linear/random",
        own="epinet/random",
        budget={"labels": 1000, "start": START},
    )
    return [*records, *copies], [*bought, *twins], entry


def made(folder: Path, *studies: tuple[str, str, float, float]) -> Path:
    parts = [lines_of(*study) for study in studies]
    records, bought = ([line for part in parts for line in part[i]] for i in (0, 1))
    return write(folder, records, purchases=bought, sources=[part[2] for part in parts])


AS_CLAIMED = (
    ("reviews", "pretrained", 2.4, 2.5),
    ("reviews", "random", 0.8, 1.0),
    ("sst2", "pretrained", 2.0, 2.0),
    ("sst2", "random", 0.9, 1.1),
    ("messages", "pretrained", 1.6, 1.8),
    ("messages", "random", 0.7, 1.05),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return made(tmp_path_factory.mktemp("made"), *AS_CLAIMED)


@pytest.fixture(scope="module")
def summary(folder):
    return intended.run(folder, resamples=200, quiet=True)


def test_claims_hold_where_the_figures_say_so(summary):
    assert [claim["verdict"] for claim in summary["claims"]] == ["held"] * 6
    assert summary["headline"] == "Of 6 claims of the paper that were put to the test, 6 held."
    first = summary["claims"][0]
    assert first["figure"] == "3 of 3"
    assert "reviews · tiny · frozen" in first["sentence"]


def test_claims_fail_where_the_figures_say_so(tmp_path):
    turned = [
        (task, "random" if weights == "pretrained" else "pretrained", *rest)
        for task, weights, *rest in AS_CLAIMED
    ]
    found = intended.run(made(tmp_path, *turned), resamples=200, quiet=True)
    verdicts = [claim["verdict"] for claim in found["claims"]]
    assert verdicts[0] == "did not hold"
    assert verdicts[2] == "did not hold"
    assert verdicts[3] == "did not hold"
    assert verdicts[4] == "did not hold"


def test_a_target_missed_and_a_study_that_learned_nothing_settle_no_claim(summary):
    def fresh(ratio=(0.6, 1.4), gain=(-0.1, 0.1), learned=(0.1, 0.2)):
        kept = copy.deepcopy(summary["studies"][0]) | {"weights": "random"}
        for score in ("average", "worst_group"):
            missed = {"value": None, "less_than": 0.9, "ci95": ratio}
            kept[score]["ratio"] |= missed
            kept[score]["gain"]["ci95"], kept[score]["learned"]["ci95"] = gain, learned
        return kept

    def told(*studies, weights="random"):
        (found, *_) = claims([study | {"weights": weights} for study in studies], [])
        return found.verdict, found.figure

    open_ended, lost, area = fresh(), fresh(ratio=(None, 0.9)), fresh(gain=(-0.2, -0.1))
    saved, nothing = fresh(ratio=(1.1, 2.0)), fresh(ratio=(None, 0.9), learned=(-0.1, 0.1))
    assert told(open_ended) == ("not settled", "0 of 1")
    assert told(open_ended, weights="pretrained") == ("not settled", "0 of 1")
    assert told(lost, area) == ("held", "2 of 2")
    assert told(lost, weights="pretrained") == ("did not hold", "0 of 1")
    assert told(saved) == ("did not hold", "0 of 1")
    assert told(fresh(ratio=(1.1, 2.0), gain=(-0.2, -0.1))) == ("not settled", "0 of 1")
    for weights in ("random", "pretrained"):
        assert told(nothing, weights=weights) == ("not settled", "0 of 0")
        (claim, *_) = claims([study | {"weights": weights} for study in (saved, nothing)], [])
        assert "Left out: 1 of 2 studies" in claim.sentence
        assert "Left out: 1 of 2 studies" in claim.detail
    assert told(lost, nothing) == ("held", "1 of 1")


def test_figures_of_a_study(summary):
    study = summary["studies"][0]
    assert study["over_representation"]["mean"] == pytest.approx(2.5, abs=0.05)
    assert study["most"] == pytest.approx(2000 / 980)
    assert study["average"]["ratio"]["value"] == pytest.approx(2.4, rel=0.15)
    assert study["average"]["labels"] < study["average"]["random_labels"]
    assert study["average"]["gain"]["ci95"][0] > 0
    assert study["average"]["learned"]["mean"] > 0.05
    worst = study["worst_group"]
    assert worst["target"] == pytest.approx(study["average"]["target"] - 0.1)
    assert worst["ratio"]["value"] == pytest.approx(study["average"]["ratio"]["value"])


def test_rules_that_bought_the_same_rows_stand_together(folder, summary):
    arms = summary["arms"]["reviews · tiny · frozen"]
    assert arms["same"] == {"linear/least_confidence": ("linear/margin",)}
    assert "linear/margin" not in arms["average"]["arms"]
    assert list(arms["over_representation"]) == list(arms["average"]["arms"])
    assert "linear/margin bought the same rows" in (folder / "report.html").read_text("utf-8")


def test_ranks_are_spearmans(folder, summary):
    studies = [one.json for one in read_figures(folder, resamples=1)]
    xs = [study["intended"] for study in studies]
    ys = [study["average"]["gain"]["mean"] for study in studies]
    found = next(r for r in summary["prediction"] if (r["of"], r["by"]) == ("gain", "intended"))
    assert found["spearman"] == pytest.approx(stats.spearmanr(xs, ys).statistic)
    exact = stats.permutation_test(
        (ys,),
        lambda y: stats.spearmanr(xs, y).statistic,
        permutation_type="pairings",
        n_resamples=999,
    )
    assert found["p"] == pytest.approx(float(exact.pvalue), abs=0.01)
    spurious = next(r for r in summary["prediction"] if r["by"] == "spurious")
    assert (spurious["spearman"], spurious["p"]) == (0.0, 1.0)
    assert ranks(studies[:3]) == []


def test_the_page_needs_nothing_else_and_shows_every_study(folder, summary):
    page = (folder / "report.html").read_text("utf-8")
    assert not re.search(r"(src|href)=\"(?!#)", page)
    for study in summary["studies"]:
        assert page.count(study["name"]) >= 2
    for claim in summary["claims"]:
        assert claim["sentence"] in page
    assert json.loads((folder / "summary.json").read_text("utf-8")) == json.loads(
        json.dumps(summary)
    )


def test_a_study_without_its_main_arm_is_shown_and_not_compared(tmp_path):
    folder = made(tmp_path, AS_CLAIMED[0], AS_CLAIMED[3])
    entries = json.loads((folder / "studies.json").read_text())
    entries[0]["main"] = "linear/entropy"
    (folder / "studies.json").write_text(json.dumps(entries))
    found = intended.run(folder, resamples=50, quiet=True)
    assert [study["task"] for study in found["studies"]] == ["sst2"]
    assert len(found["arms"]) == 2
    assert len(claims(found["studies"], [])) == 1


def test_folders_of_other_results_are_refused(tmp_path):
    records = study_records("sst2", {"linear/random": 300.0}, splits=("test",))
    write(tmp_path, records, sources=[source(records)])
    with pytest.raises(InputError, match="use `enn-finetune report`"):
        intended.run(tmp_path, quiet=True)
    with pytest.raises(InputError, match="no such folder"):
        intended.run(tmp_path / "none", quiet=True)


def test_values_without_spread_have_no_infinite_figures(summary):
    text = json.dumps(summary)
    assert "Infinity" not in text
    assert "NaN" not in text
    assert np.isfinite([study["most"] for study in summary["studies"]]).all()


@pytest.mark.parametrize(
    ("good", "bad", "of", "kind"),
    [
        (3, 0, 3, "held"),
        (2, 0, 6, "held in part"),
        (1, 0, 20, "not settled"),  # one of twenty settles by chance
        (1, 9, 10, "did not hold"),
        (3, 3, 10, "not settled"),
        (0, 2, 6, "did not hold"),
        (0, 0, 0, "not settled"),
    ],
)
def test_verdicts_weigh_what_settles_the_contrary_and_chance(good, bad, of, kind):
    assert verdict(good, bad, of) == kind


def test_chance_is_a_binomial_tail():
    assert beyond_chance(1, 2)  # 1 - .975 ** 2 = .049
    assert not beyond_chance(1, 3)  # 1 - .975 ** 3 = .073
    assert not beyond_chance(2, 20)  # 1 - .975 ** 20 - 20 * .025 * .975 ** 19 = .088
    assert beyond_chance(3, 20)


def test_what_was_left_out_is_said_on_the_page(tmp_path):
    folder = made(tmp_path, *AS_CLAIMED[:2])
    path = folder / "studies.json"
    entries = json.loads(path.read_text())
    absent = {"task sst2": "not found in there", "task reviews": "there since"}
    path.write_text(json.dumps([entry | {"left_out": absent} for entry in entries]))
    found = intended.run(folder, resamples=50, quiet=True)
    assert found["left_out"] == {"task sst2": "not found in there"}
    assert "task sst2: not found in there" in (folder / "report.html").read_text()


def test_the_report_command_makes_the_same_page_elsewhere(folder, summary, tmp_path, capsys):
    out, document = tmp_path / "new" / "page.html", tmp_path / "INTENDED.md"
    command.show([folder], out, document)
    assert "6 held" in capsys.readouterr().out
    found = json.loads((out.parent / "summary.json").read_text())
    assert [claim["title"] for claim in found["claims"]] == [
        claim["title"] for claim in summary["claims"]
    ]
    text = document.read_text("utf-8")
    for study in summary["studies"]:
        assert f"## {study['name']}" in text
        assert f"{study['over_representation']['mean']:.2f}x" in text
    random = next(line for line in text.splitlines() if line.startswith("| linear/random"))
    assert random.rstrip(" |").endswith("–")  # noqa: RUF001
    command.show([folder], out, document)  # over its own
    assert document.read_text("utf-8") == text
    other = tmp_path / "run"
    other.mkdir()
    (other / "summary.json").write_text("{}")
    with pytest.raises(InputError, match="summary of a run"):
        command.show([folder], other / "page.html")
    with pytest.raises(InputError, match="give it alone"):
        command.show([tmp_path, folder], out)

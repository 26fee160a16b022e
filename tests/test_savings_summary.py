"""The summary of an experiment: every figure of it, on curves that are known."""

import json
from collections.abc import Callable

import pytest
from savings_made import OWN, RANDOM, experiment, record, straight

from enn_finetune.report.words import headline, outcome, verdicts
from enn_finetune.savings import summarise

ARMS = {
    RANDOM: straight(0.001),
    OWN: straight(0.00125),
    "epinet / margin": straight(0.0025),
    "epinet / bald": straight(0.0005),
}


def test_summary_of_known_curves() -> None:
    summary = summarise(experiment(ARMS), "macro_f1", RANDOM, OWN)
    assert summary["target"] == pytest.approx(0.3 + 0.2 + 0.015)
    assert (summary["budget"], summary["baseline_labels"]) == (200, pytest.approx(200))
    margin, bald = summary["arms"]["epinet / margin"], summary["arms"]["epinet / bald"]
    assert margin["labels_to_target"] == pytest.approx(80)
    assert margin["system_ratio"]["value"] == pytest.approx(2.5)
    assert margin["acquisition_ratio"] is not None
    assert margin["acquisition_ratio"]["value"] == pytest.approx(2.0)
    assert margin["acquisition_reference"] == OWN
    assert (margin["losses_to_random"], margin["losses_final"], margin["seeds"]) == (0, 0, 4)
    assert bald["labels_to_target"] is None
    assert bald["system_ratio"]["value"] is None
    assert (bald["losses_to_random"], bald["losses_final"]) == (4, 4)
    assert margin["final"]["nll"]["mean"] == pytest.approx(2 - margin["score_mean"])
    assert summary["arms"][RANDOM]["role"] == "baseline"
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_the_order_of_records_does_not_matter() -> None:
    rows = experiment(ARMS)
    names = list(ARMS)
    shuffled = sorted(rows, key=lambda row: (-row["labels_bought"], names.index(row["arm"])))
    one, other = (summarise(r, "macro_f1", RANDOM, OWN, resamples=50) for r in (rows, shuffled))
    assert one == other


def test_acquisition_alone_is_against_random_selection_with_the_same_head() -> None:
    arms = {**ARMS, "linear / margin": straight(0.002), "ensemble / bald": straight(0.002)}
    found = summarise(experiment(arms), "macro_f1", RANDOM, OWN, resamples=20)["arms"]
    assert found["linear / margin"]["acquisition_reference"] == RANDOM
    assert found["ensemble / bald"]["acquisition_reference"] is None
    assert found["ensemble / bald"]["acquisition_ratio"] is None
    assert found["ensemble / bald"]["losses_to_same_head"] is None
    assert found["linear / margin"]["losses_to_same_head"] == 0


def test_acquisition_alone_is_against_random_selection_trained_in_the_same_way() -> None:
    more = {"linear / random+epoch": 0.001, "epinet / random+revisit0.5": 0.002}
    more |= {"epinet / margin+revisit0.5": 0.004, "linear / margin+revisit0.5": 0.002}
    arms = {**ARMS, **{name: straight(slope) for name, slope in more.items()}}
    for baseline in (RANDOM, "linear / random+epoch"):
        found = summarise(experiment(arms), "macro_f1", baseline, OWN, resamples=20)["arms"]
        against = {name: arm["acquisition_reference"] for name, arm in found.items()}
        assert against["epinet / margin+revisit0.5"] == "epinet / random+revisit0.5"
        assert against["epinet / margin"] == OWN
        notes = summarise(experiment(arms), "macro_f1", baseline, OWN, resamples=20)["notes"]
        said = [note for note in notes if "trained in another way" in note]
        assert [note.split(":")[0] for note in said] == ["linear / margin+revisit0.5"]
        # Nobody bought at random with the plain head and revisited: its baseline stands in.
        assert against["linear / margin+revisit0.5"] == baseline
        assert found["epinet / margin+revisit0.5"]["acquisition_ratio"] is not None
        chosen = [name for name, arm in found.items() if arm["role"] == "prioritised"]
        assert all("random" not in name for name in chosen)
        assert len(chosen) == 4


def test_random_selection_is_called_so_whatever_its_head() -> None:
    arms = {**ARMS, "linear / random+epoch": straight(0.001)}
    summary = summarise(experiment(arms), "macro_f1", "linear / random+epoch", OWN, resamples=20)
    said = {one.arm: one.detail for one in verdicts(summary)}
    assert said[RANDOM].startswith("This is random selection too.")
    assert said[OWN].startswith("This is the head alone, with random selection.")
    assert "Of 2 prioritised arms" in headline(summary)
    assert "fewer labels than linear / random+epoch" in headline(summary)


def test_ratios_at_fixed_label_counts_by_hand() -> None:
    """Margin scores at n what random scores at 2.5 n, and our head at random at 2 n."""
    summary = summarise(experiment(ARMS), "macro_f1", RANDOM, OWN, resamples=50)
    found = {one["at"]: one for one in summary["arms"]["epinet / margin"]["matching"]}
    assert {at: one["labels"] for at, one in found.items()} == {20: 20, 50: 60, 100: 100, 200: 200}
    for at, labels in ((20, 20), (50, 60)):
        assert found[at]["system_ratio"]["value"] == pytest.approx(2.5)
        assert found[at]["baseline_labels"] == pytest.approx(2.5 * labels)
        assert found[at]["acquisition_ratio"]["value"] == pytest.approx(2.0)  # type: ignore[index]
        assert found[at]["same_head_labels"] == pytest.approx(2 * labels)
    assert found[100]["system_ratio"]["value"] is None  # random would need 250 of its 200
    assert found[100]["system_ratio"]["more_than"] == pytest.approx(2.0)
    assert found[100]["acquisition_ratio"]["value"] == pytest.approx(2.0)  # type: ignore[index]
    slow = {one["at"]: one for one in summary["arms"]["epinet / bald"]["matching"]}
    assert slow[20]["system_ratio"]["less_than"] == pytest.approx(1.0)
    assert slow[100]["system_ratio"]["value"] == pytest.approx(0.5)


def test_the_baseline_against_itself_is_1_everywhere() -> None:
    rows = experiment(ARMS, range(5))
    found = summarise(rows, "macro_f1", RANDOM, OWN, resamples=50)["arms"][RANDOM]
    assert found["system_ratio"]["value"] == 1.0
    assert found["acquisition_ratio"] is not None
    assert found["acquisition_ratio"]["ci95"] == [1.0, 1.0]
    assert [one["system_ratio"]["value"] for one in found["matching"]] == [1.0] * 4
    assert found["auc_gain"]["mean"] == 0.0


def test_costs_and_other_metrics_are_those_of_the_last_evaluation() -> None:
    rows = experiment(ARMS)
    for row in rows:
        labels = row["labels_bought"]
        row["scoring"] = {"seconds": labels / 100, "flops": 5.0 * labels}  # type: ignore[typeddict-unknown-key]
        if row["arm"] == RANDOM:
            row["metrics"]["joint_nll_near"] = labels + row["seed"]
    arms = summarise(rows, "macro_f1", RANDOM, OWN, resamples=20)["arms"]
    assert arms[OWN]["costs"] == pytest.approx(
        {"seconds": 0.1, "scoring_seconds": 2.0, "scoring_flops": 1000.0}
    )
    assert arms[RANDOM]["final"]["joint_nll_near"]["mean"] == pytest.approx(201.5)
    assert "joint_nll_near" in arms[RANDOM]["curves"]
    assert "joint_nll_near" not in arms[OWN]["final"]


def test_a_loss_is_summarised_with_lower_as_better() -> None:
    summary = summarise(experiment(ARMS), "nll", RANDOM, OWN, resamples=20)
    margin = summary["arms"]["epinet / margin"]
    assert summary["target"] == pytest.approx(2 - 0.515)
    assert margin["system_ratio"]["value"] == pytest.approx(2.5)
    assert margin["losses_to_random"] == 0
    assert margin["score_mean"] < summary["target"]


def test_an_interrupted_experiment_is_compared_on_what_is_paired() -> None:
    rows = experiment(ARMS)
    rows = [r for r in rows if not (r["arm"] == "epinet / margin" and r["seed"] == 3)]
    rows = [
        r
        for r in rows
        if not (r["arm"] == "epinet / bald" and r["seed"] == 2 and r["labels_bought"] > 60)
    ]
    rows += [record("epinet / variance", 9, n, 0.4) for n in (20, 200)]
    summary = summarise(rows, "macro_f1", RANDOM, OWN, resamples=50)
    margin = summary["arms"]["epinet / margin"]
    assert margin["seed_ids"] == [0, 1, 2]
    assert margin["system_ratio"]["value"] == pytest.approx(2.5)
    assert summary["arms"]["epinet / bald"]["seed_ids"] == [0, 1, 3]
    assert "epinet / variance" not in summary["arms"]
    notes = " ".join(summary["notes"])
    assert "epinet / bald, seed 2, stopped at 60 labels" in notes
    assert "epinet / margin is compared without the seeds [3]" in notes
    assert "epinet / variance shares no complete seed" in notes
    assert "There are 4 seeds" in notes


def test_an_arm_that_ended_before_the_budget_is_censored_there() -> None:
    rows = [r for r in experiment(ARMS) if r["arm"] != OWN or r["labels_bought"] <= 100]
    summary = summarise(rows, "macro_f1", RANDOM, OWN, resamples=50)
    own = summary["arms"][OWN]
    assert own["labels_last"] == 100
    assert own["system_ratio"]["less_than"] == pytest.approx(2.0)
    assert any("ends at 100 labels" in note for note in summary["notes"])


def test_one_seed_is_said_to_settle_nothing() -> None:
    summary = summarise(experiment(ARMS, seeds=[5]), "macro_f1", RANDOM, OWN)
    assert summary["target_ci95"] is None
    assert summary["arms"]["epinet / margin"]["system_ratio"]["ci95"] is None
    assert summary["notes"][-1].startswith("There is one seed only")


def test_a_few_seeds_have_no_interval_and_settle_nothing() -> None:
    """Two lie on one side of the truth by chance every second time."""
    for seeds in (2, 4):
        summary = summarise(experiment(ARMS, range(seeds)), "macro_f1", RANDOM, OWN, resamples=50)
        ratio = summary["arms"]["epinet / margin"]["system_ratio"]
        assert ratio["value"] == pytest.approx(2.5)
        assert ratio["ci95"] is None
        assert outcome(ratio) == "unsettled"
        assert summary["notes"][0].startswith(f"There are {seeds} seeds: ratios have an interval")


def test_a_missing_baseline_is_named() -> None:
    with pytest.raises(ValueError, match=r"baseline arm 'none / random'; the arms are"):
        summarise(experiment(ARMS), "macro_f1", "none / random", OWN)


def cautions_of(arms: dict[str, Callable[[float], float]], seeds: int = 5) -> list[str]:
    summary = summarise(
        experiment(arms, range(seeds)), "macro_f1", RANDOM, arms.get(OWN) and OWN, resamples=20
    )
    return [note for note in summary["notes"] if "seeds;" not in note]


def test_a_baseline_that_learned_nothing_is_said_to() -> None:
    (note,) = cautions_of({RANDOM: straight(0), "linear / margin": straight(-0.001)})
    assert note.startswith(f"{RANDOM} is not settled to score more with 200 labels than with 20")
    assert cautions_of({RANDOM: straight(0.001), "linear / margin": straight(0.002)}) == []


def test_few_seeds_are_no_sign_of_nothing_learned() -> None:
    (note,) = cautions_of({RANDOM: straight(0), "linear / margin": straight(-0.001)}, seeds=2)
    assert note.startswith("There are 2 seeds")


def test_arms_at_the_target_before_a_rule_chose_are_named() -> None:
    arms = {RANDOM: straight(0.001), "linear / margin": straight(0.002)}
    (note,) = cautions_of(arms | {"linear / entropy": lambda labels: 0.7})
    assert note.startswith("linear / entropy: at the target with the first 20 labels")


def test_another_head_that_is_the_stronger_baseline_is_named() -> None:
    (note,) = cautions_of({RANDOM: straight(0.001), OWN: straight(0.002)})
    # Both are linear in the labels, which average 110 between the first and the last evaluation.
    assert note.startswith(f"{OWN}, random selection too, has +11.0 points of area over {RANDOM}")
    assert "(+11.0 to +11.0)" in note
    assert cautions_of({RANDOM: straight(0.001), OWN: straight(0.0005)}) == []

"""benchmarks/policies.py at a toy size: its rows, its figures, its last line."""

import json
import shutil

import numpy as np
import pytest
from policies_made import record, toy


def test_test_rows_are_in_no_pool(toy_data, tmp_path):
    import policies_cells

    keys = policies_cells.write_material(tmp_path, toy_data, "sst2", toy())
    parts = {
        name: (tmp_path / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        for name in ("train", "test")
    }
    assert [len(parts[name]) for name in ("train", "test")] == [40, 25]
    assert keys["task.metric"] == "accuracy"
    again = policies_cells.write_material(tmp_path / "again", toy_data, "sst2", toy())
    assert [one.read_bytes() for one in sorted(tmp_path.glob("*.jsonl"))] == [
        one.read_bytes() for one in sorted((tmp_path / "again").glob("*.jsonl"))
    ]
    assert again["task.train"] != keys["task.train"]


def test_a_rare_class_is_thinned_in_the_pool_and_the_test_rows(toy_data, tmp_path):
    import policies_cells

    from enn_finetune import problem
    from enn_finetune.progress import Display

    size = toy(rare=0.2, labels=12)
    keys = policies_cells.write_material(tmp_path, toy_data, "sst2", size)
    encoder = toy_data / "models" / "paraphrase-MiniLM-L3-v2"
    arm = policies_cells.Arm("asvp")
    keys |= {"backbone.max_tokens": 16}
    config = policies_cells.config_of(keys, encoder, size, arm, 0, encoder)
    with Display(quiet=True) as display:
        found = problem.prepare(config, display)
    assert found.task.metrics[0] == "f1"
    for targets in (found.oracle.fresh().buy(np.arange(12)), found.evaluations[0].targets):
        assert 0 < targets[:, 1].mean() < 0.35
    plain = policies_cells.write_material(tmp_path / "plain", toy_data, "sst2", toy())
    assert not {"task.pool", "task.rare_share"} & plain.keys()


def test_a_task_with_a_rare_class_has_more_test_rows():
    import policies_cells

    plain = policies_cells.sized("cola", toy())
    assert plain == ("cola", toy())
    name, size = policies_cells.sized("sst2:rare", toy())
    assert name == "sst2"
    assert size.rare > 0
    assert size.held > toy().held
    assert policies_cells.sized("cola", toy(), large=True)[1].every > toy().every


def made(needs):
    """Straight curves that reach .8 with these labels; standard takes ten times the operations."""
    found = {}
    for arm, need in needs.items():
        flops = 1e12 if arm == "standard" else 1e11
        found[arm] = [
            record(arm, seed, n, 0.5 + 0.3 * n / need, flops * n)
            for seed in range(5)
            for n in (50, 100, 200)
        ]
    return found


def test_shares_and_costs_are_what_the_curves_say():
    import policies

    needs = {"random": 200, "standard": 100, "svpp": 160, "asvp": 110, "auto (crowd)": 110}
    found = policies.study(made(needs), "accuracy", 1e11)
    assert found["target"] == pytest.approx(0.8)
    # Between 100 and 200 labels the curve is a line: asvp is there at 110.
    assert found["arms"]["asvp"]["labels_to_target"] == pytest.approx(110)
    assert found["asvp_label_share"] == pytest.approx(0.9)
    assert found["asvp_compute_share"] == pytest.approx(0.1)
    aligned = found["asvp_area_over_svpp"]
    assert aligned["mean"] > 0
    assert aligned["ci95"] == [pytest.approx(aligned["mean"])] * 2
    hours = 3 * 1e11 * 110 / 1e11 / 3600
    cost = found["arms"]["asvp"]["money_to_target"]["crowd"]
    assert cost == pytest.approx(110 * 0.01 + hours)
    assert found["auto_over_best_fixed"]["crowd"] == pytest.approx(1)
    assert found["auto_over_best_fixed"]["experts"] is None


def test_what_is_not_reached_is_null():
    import policies

    needs = {"random": 200, "standard": 100, "svpp": 160, "asvp": 300}
    found = policies.study(made(needs), "accuracy", 1e11)
    assert found["arms"]["asvp"]["labels_to_target"] is None
    assert found["arms"]["asvp"]["money_to_target"]["crowd"] is None
    # With its 200 labels it may have saved none of those that random needs, at most.
    assert found["asvp_label_share"] == pytest.approx(0)
    assert found["asvp_label_share_is_a_bound"]
    assert found["asvp_label_share_ci95"] == [None, pytest.approx(0)]
    assert policies.mean([None, None]) is None
    assert policies.mean([None, 0.5]) == 0.5
    json.dumps(found)


def test_a_seed_that_fails_is_counted_not_dropped():
    import policies

    needs = {"random": 200, "standard": 100, "svpp": 160, "asvp": 110}
    good = made(needs)
    assert policies.study(good, "accuracy", 1e11)["asvp_label_share"] == pytest.approx(0.9)
    bad = made(needs | {"asvp": 600})["asvp"]  # on two seeds nowhere near the target
    mixed = good | {
        "asvp": [a if a["seed"] > 1 else b for a, b in zip(good["asvp"], bad, strict=True)]
    }
    found = policies.study(mixed, "accuracy", 1e11)
    assert found["asvp_label_share"] < 0.5
    assert found["asvp_label_share_ci95"][0] is None, "where the bad seeds are drawn"
    assert not found["asvp_label_share_is_a_bound"]


def test_auto_that_misses_the_target_is_a_bound_and_no_blank():
    import policies
    from policies_page import page, study_lines

    needs = {"random": 200, "standard": 100, "svpp": 160, "asvp": 110, "auto (crowd)": 300}
    found = policies.study(made(needs), "accuracy", 1e11)
    hours = 3 * 1e11 * np.array([110, 200]) / 1e11 / 3600
    best, spent = 0.01 * np.array([110, 200]) + hours
    assert found["auto_over_best_fixed"]["crowd"] == pytest.approx(spent / best)
    assert found["auto_is_a_bound"] == ["crowd"]
    lines = study_lines("made", found)
    assert sum("DID NOT REACH" in line for line in lines) == 1
    row = next(line for line in lines if line.startswith("| auto (crowd)"))
    assert "not reached" in row
    whole = page({"made": {**found, "size": {"labels": 240, "seeds": 2}}})
    assert whole.count("\n## ") == 1
    assert "Size: labels 240, seeds 2." in whole


def test_standard_that_saves_nothing_gives_no_share():
    import policies

    found = policies.study(
        made({"random": 200, "standard": 200, "svpp": 200, "asvp": 150}), "accuracy", 1e11
    )
    assert found["asvp_label_share"] is None


@pytest.mark.slow
def test_the_script_ends_with_one_json_object_and_goes_on(toy_data, tmp_path, monkeypatch, capsys):
    import policies
    import policies_cells

    monkeypatch.setattr(policies, "QUICK", toy())
    config = tmp_path / "policies.toml"
    text = policies_cells.CONFIG.read_text(encoding="utf-8")
    config.write_text(text.replace('tune = "full"', 'tune = "full"\nmax_tokens = 16'), "utf-8")
    monkeypatch.setattr(policies_cells, "CONFIG", config)
    given = ["--data", str(toy_data), "--quick", "--auto", "--out", str(tmp_path / "out")]
    given += ["--tasks", "sst2", "--records", str(tmp_path / "kept")]
    policies.main(given)
    said = capsys.readouterr().out
    line = json.loads(said.splitlines()[-1])
    assert {"asvp_label_share", "asvp_compute_share", "commit", "versions"} <= line.keys()
    assert line["asvp_compute_share"] > 0, "nothing is saved on an encoder of this size"
    assert (tmp_path / "out" / "sst2-paraphrase-MiniLM-L3-v2.png").exists()
    monkeypatch.setattr(policies_cells.policies, "run", None)  # nothing is run again
    policies.main(given)
    again = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert again["studies"] == line["studies"]
    bought = json.loads(
        next((tmp_path / "out").rglob("asvp/0/bought.json")).read_text(encoding="utf-8")
    )
    assert len(np.unique(bought["rows"])) == 20
    shutil.rmtree(tmp_path / "out")  # in a later sitting, from what was kept
    policies.main(given)
    kept = json.loads(capsys.readouterr().out.splitlines()[-1])["studies"]
    for name, one in line["studies"].items():
        labels = {arm: row["labels_to_target"] for arm, row in one["arms"].items()}
        assert labels == {a: r["labels_to_target"] for a, r in kept[name]["arms"].items()}


def test_a_cell_that_another_config_began_is_not_gone_on_with(toy_data, tmp_path, monkeypatch):
    import policies_cells
    from policies_kept import Kept

    from enn_finetune.progress import Display

    encoder = toy_data / "models" / "paraphrase-MiniLM-L3-v2"
    material = policies_cells.write_material(tmp_path, toy_data, "sst2", toy())
    material |= {"backbone.max_tokens": 16}
    arm = policies_cells.Arm("svpp")

    def config_of(**changes):
        return policies_cells.config_of(material, encoder, toy(**changes), arm, 0, encoder)

    def killed(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(policies_cells.policies, "run", killed)
    with Display(quiet=True) as display:
        cells = policies_cells.Cells(config_of(), tmp_path, display, Kept(None, "x"))
        with pytest.raises(KeyboardInterrupt):
            cells.run(arm, config_of())
        with pytest.raises(SystemExit, match="made with another config"):
            cells.run(arm, config_of(epochs=2, min_steps=9))
        with pytest.raises(KeyboardInterrupt):
            cells.run(arm, config_of())

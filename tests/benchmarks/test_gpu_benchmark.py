"""benchmarks/gpu.py at a toy size on whatever there is, and its arithmetic."""

import json

import pytest


class Time:
    """A clock that moves when it is told to."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def test_a_part_gets_its_share_of_what_is_left():
    import gpu_measure

    now = Time()
    clock = gpu_measure.Clock(90, {"a": 1, "b": 2, "c": 3}, now)
    assert clock.allot("a") == pytest.approx(15)
    now.now += 10  # 5 s are left over, for b and c
    assert clock.elapsed == 10
    assert clock.allot("b") == pytest.approx(80 * 2 / 5)
    now.now += 200
    assert clock.allot("c") == 0


def test_what_is_cut_off_is_said_and_the_next_part_runs():
    import gpu
    import gpu_measure

    now, ran, left_out = Time(), [], []
    clock = gpu_measure.Clock(40, {"endless": 1, "quick": 1, "late": 2}, now)
    display = gpu_measure.Watchful(clock)

    def endless():
        while True:
            ran.append("round")
            display.advance(len(ran))
            now.now += 4

    def quick():
        clock.check()
        ran.append("quick")
        now.now += 40

    def late():
        ran.append("late")

    parts = [("endless", endless), ("quick", quick), ("late", late)]
    took = gpu.run_parts(parts, clock, left_out)
    assert ran == ["round"] * 4 + ["quick"], "at 12 s the 10 s are over; nothing is left for late"
    assert left_out == ["endless: cut off after 10 s", "late: cut off after 0 s"]
    assert took == {"endless": 12, "quick": 40, "late": 0}


def test_a_part_that_fails_does_not_take_the_others_with_it(tmp_path, monkeypatch, capsys):
    import gpu

    def broken(self):
        raise ValueError("no such library")

    monkeypatch.setattr(gpu.Bench, "pipeline", broken)
    given = ["--toy", "--data", str(tmp_path), "--encoder", str(tmp_path)]
    with pytest.raises(SystemExit):
        gpu.main([*given, "--out", str(tmp_path / "out"), "--parts", "matmul", "pipeline"])
    line = json.loads((tmp_path / "out" / "gpu.json").read_text(encoding="utf-8"))
    assert "pipeline: failed with ValueError: no such library" in line["left_out"]
    assert line["matmul"].keys() == {"bfloat16", "float32"}
    capsys.readouterr()


def test_utilisation_and_waiting_are_what_the_times_say():
    import gpu_measure

    assert gpu_measure.utilisation(3e12, 0.01, 6e14) == pytest.approx(0.5)
    plan = gpu_measure.Plan(compiled=2.0, traced=8.0, mib=1.0)
    assert (plan.flops(believed=True), plan.flops(believed=False)) == (2, 8)
    beside = gpu_measure.Pipeline(10, 0.2, 0.5, 2.0, 2.0)
    assert (beside.waiting, beside.hidden) == (0, 1)
    in_turn = gpu_measure.Pipeline(10, 0.2, 0.5, 2.0, 2.5)
    assert in_turn.waiting == pytest.approx(0.2)
    assert in_turn.hidden == 0
    starved = gpu_measure.Pipeline(10, 3.0, 4.0, 1.0, 4.0)  # the host is slower, all hidden
    assert starved.waiting == pytest.approx(0.75)
    assert starved.hidden == pytest.approx(1)
    figures = in_turn.figures()
    assert figures["packed_rows_per_second"] == pytest.approx(50)
    assert figures["on_the_fly_rows_per_second"] == pytest.approx(4)


def test_a_product_is_counted_and_figures_are_rounded():
    import gpu
    import gpu_measure

    found = gpu_measure.matmul("bfloat16", (32, 16), 1e-4, gpu_measure.Clock(1, {}))
    assert found.size in (16, 32)
    assert found.flops_a_second > 0
    assert found.counted == pytest.approx(1, abs=0.1)
    assert gpu.rounded({"a": [1.23456789, 3], "b": None}) == {"a": [1.2346, 3], "b": None}


@pytest.mark.slow
def test_the_script_ends_with_one_json_object(tiny_encoder, tmp_path, capsys):
    import gpu

    from enn_finetune.models.tuning import MODES

    parts = ["matmul", "pipeline", "table"]
    given = ["--toy", "--encoder", str(tiny_encoder), "--data", str(tmp_path / "none")]
    gpu.main([*given, "--out", str(tmp_path / "out"), "--parts", *parts])
    last = capsys.readouterr().out.splitlines()[-1]
    line = json.loads(last)
    assert (tmp_path / "out" / "gpu.json").read_text(encoding="utf-8") == last + "\n"
    assert line["left_out"] == ["study: not asked for"]
    assert line["note"] == gpu.NO_CLAIM
    assert line["dtype"] == "bfloat16"
    assert line["seconds"].keys() == {*parts, "all"}
    assert {"device", "commit", "versions"} <= line.keys()
    assert line["matmul"].keys() == {"bfloat16", "float32"}
    assert 0 <= line["pipeline"]["device_waits"] < 1
    modes = line["table"]["modes"]
    assert modes.keys() == set(MODES)
    rate = line["matmul"]["bfloat16"]["flops_a_second"]
    for mode in modes.values():
        for work in ("train", "score"):
            one = mode[work]
            mfu = one["flops"] * one["rows_per_second"] / line["table"]["rows"] / rate
            assert one["mfu"] == pytest.approx(mfu, rel=1e-3)
            assert one["mib"] > 0
    assert modes["frozen"]["trained"] == 0 < modes["lora"]["trained"] < modes["full"]["trained"]
    # Backwards through the same encoder costs more than forwards.
    assert modes["full"]["train"]["flops"] > 1.5 * modes["full"]["score"]["flops"]


def test_a_study_without_its_data_is_left_out(tiny_encoder, tmp_path, capsys):
    import gpu

    given = ["--toy", "--encoder", str(tiny_encoder), "--data", str(tmp_path / "none")]
    gpu.main([*given, "--out", str(tmp_path / "out"), "--parts", "study"])
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert any(what.startswith("study: there is no") for what in line["left_out"])


def record(arm, seed, labels):
    parts = {part: {"flops": 1e9, "seconds": 1.0} for part in ("encoding", "scoring", "training")}
    where = {"step": labels, "labels_bought": labels, "split": "test", "seconds": 1.0}
    names = {"arm": arm.name, "head": "trained", "rule": arm.name, "seed": seed}
    return {**where, "metrics": {"accuracy": labels / 30}, "refreshed": [], **names, **parts}


@pytest.mark.parametrize("run", [pytest.param(True, marks=pytest.mark.slow), False])
def test_the_study_of_policies_is_run_and_concluded(toy_data, tmp_path, monkeypatch, capsys, run):
    import gpu
    import gpu_parts

    if not run:  # its rows, config and figures, without what takes time
        made = lambda _, arm, config: [record(arm, config.seed, labels) for labels in (8, 20)]  # noqa: E731
        monkeypatch.setattr(gpu_parts.Cells, "run", made)
    given = ["--toy", "--data", str(toy_data), "--out", str(tmp_path / "out"), "--parts", "study"]
    gpu.main(given)
    said = capsys.readouterr().out
    line = json.loads(said.splitlines()[-1])
    assert not [what for what in line["left_out"] if what.startswith("study")]
    arms = line["study"]["arms"]
    assert list(arms) == ["random", "standard", "svpp", "asvp", "auto (crowd)"]
    # Not of the proxies: fits of their heads outweigh so small an encoder.
    assert arms["standard"]["flops"] >= arms["random"]["flops"] > 0
    assert "| standard |" in said

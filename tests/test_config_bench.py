"""Configs of benchmarks: tables that match, a command line that wins, tasks of one's own files."""

import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import FEW

from enn_finetune.bench.plan import plan
from enn_finetune.config import Config, ConfigError, build, load, load_bench

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = ("quick", "standard", "wide", "full", "rules", "paper", "described")

TEXT = """
[budget]
labels = 400
[bench]
tasks = ["sst2", "cola", "sst2:rare"]
backbones = ["../models/one|owner/one", "two"]
regimes = ["frozen", "online"]
arms = ["linear/random", "epinet/margin"]
seeds = "2:5"
[[bench.set]]
tasks = ["sst2*"]
"budget.labels" = 300
[[bench.set]]
regimes = "online"
backbones = ["two"]
seeds = 1
arms = ["epinet/bald"]
budget.labels = 200
[[bench.set]]
tasks = ["cola"]
regimes = ["online"]
skip = true
"""


@pytest.fixture
def path(tmp_path):
    found = tmp_path / "bench.toml"
    found.write_text(TEXT)
    return found


def studies(path, *overrides):
    return {str(study.place): study for study in plan(load_bench(path, overrides)).studies}


def test_tables_are_applied_in_order_where_they_match(path):
    found = studies(path)
    labels = {name: study.config.budget.labels for name, study in found.items()}
    assert labels == {
        "sst2 · one · frozen": 300,
        "sst2 · one · online": 300,
        "sst2:rare · one · frozen": 300,
        "sst2:rare · one · online": 300,
        "cola · one · frozen": 400,
        "sst2 · two · frozen": 300,
        "sst2 · two · online": 200,
        "sst2:rare · two · frozen": 300,
        "sst2:rare · two · online": 200,
        "cola · two · frozen": 400,
    }
    online = found["sst2 · two · online"]
    assert [str(arm) for arm in online.arms] == ["epinet/bald"]
    assert list(online.seeds) == [0]
    assert list(found["sst2 · one · online"].seeds) == [2, 3, 4]
    assert (online.config.regime, online.config.backbone.tune) == ("online", "full")
    one = found["sst2:rare · one · frozen"].config
    assert one.backbone.path == ("../models/one", "owner/one")
    assert (one.regime, one.backbone.tune, one.task.pool) == ("pool", "frozen", "rare")


def test_the_command_line_wins_over_all_tables(path):
    told = ("bench.tasks=sst2", "bench.seeds=2", "budget.labels=100", "bench.arms=epinet/margin")
    found = studies(path, *told)
    assert {study.place.task for study in found.values()} == {"sst2"}
    for study in found.values():
        assert study.config.budget.labels == 100
        assert list(study.seeds) == [0, 1]
        assert [str(arm) for arm in study.arms] == ["epinet/margin"]
    assert all(study.config.task.develop for study in studies(path, "bench.develop=true").values())


def test_arms_and_seeds_are_no_part_of_a_study_s_config(path):
    ours, theirs = studies(path), studies(path, "bench.seeds=9", "bench.arms=linear/entropy")
    assert {name: study.config for name, study in ours.items()} == {
        name: study.config for name, study in theirs.items()
    }


def test_files_on_the_command_line_are_the_only_task(path, tmp_path):
    (tmp_path / "tickets.csv").write_text("body,topic\na,x\nb,y\n")
    keys = (f"task.train={tmp_path}/tickets.csv", "task.test=t.csv", "task.text=body")
    found = studies(path, *keys, "task.label=topic", "bench.regimes=frozen")
    assert {study.place.task for study in found.values()} == {"tickets"}
    task = found["tickets · one · frozen"].config.task
    assert (task.text, task.label, task.name) == ("body", "topic", "tickets")
    named = studies(path, *keys, "task.name=mine")
    assert {study.place.task for study in named.values()} == {"mine"}
    more = studies(path, *keys, "bench.tasks=tickets:repeated,cola")
    assert {(s.place.task, s.place.pool) for s in more.values()} == {
        ("tickets", "repeated"),
        ("cola", "plain"),
    }
    assert more["cola · one · frozen"].config.task.train == ""


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ('taks = ["cola"]', "bench.set: taks: no such key"),
        ('"budget.lables" = 3', "bench.set: budget.lables: no such key; the nearest is budget.l"),
        ("seed = 3", "bench.set: seed: a benchmark chooses this itself; say it in bench.seeds"),
        ('tasks = [["cola"]]', "bench.set: tasks: got"),
        ('arms = ["epinet/bold"]', "no rule 'bold'"),
        ("seeds = 0", "bench.seeds: got 0"),
        ('"budget.start" = 900', r"sst2 · one · frozen: .*budget.start: 900 is more than"),
    ],
)
def test_faults_in_tables(path, table, message):
    path.write_text(f"{TEXT}\n[[bench.set]]\n{table}\n")
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        plan(load_bench(path))


def test_keys_that_a_benchmark_sets_have_their_place(path):
    path.write_text('[head]\nkind = "linear"\n' + TEXT)
    with pytest.raises(ConfigError, match=r"head.kind: a benchmark chooses this itself"):
        load_bench(path)
    path.write_text("bench = 3\n")
    with pytest.raises(ConfigError, match=r"write it as a section \[bench\]"):
        load_bench(path)


def test_two_encoders_of_one_name(path):
    with pytest.raises(ConfigError, match=r"bench.backbones: two have the same last part"):
        studies(path, "bench.backbones=a/one,b/one")


def test_a_config_of_a_single_run_is_a_benchmark_of_one_study():
    found = studies(ROOT / "configs" / "sst2.toml")
    assert list(found) == ["sst2 · paraphrase-MiniLM-L3-v2 · online"]
    found = studies(ROOT / "configs" / "messages.toml", "task.name=cola")
    assert list(found) == ["cola · minilm · frozen"]


def test_a_single_run_whose_tuning_no_study_has_is_refused(tmp_path):
    (tmp_path / "run.toml").write_text('[backbone]\ntune = "lora"\n')
    with pytest.raises(ConfigError, match=r"backbone\.tune: got 'lora'; .* frozen or full"):
        load_bench(tmp_path / "run.toml")


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_shipped_benchmark_can_be_planned(name):
    file = load_bench(ROOT / "configs" / f"{name}.toml")
    found = plan(file)
    assert file.bench.baseline == "linear/random" + ("+epoch" if name == "paper" else "")
    for study in found.studies:
        assert {file.bench.baseline, file.bench.own} <= {str(arm) for arm in study.arms}
        carved = ("auto",) if study.place.regime == "frozen" else ("auto", 2000)
        assert study.config.task.carve in carved


@pytest.mark.parametrize(
    ("records", "config"),
    [
        ("quick", "quick"),
        ("quick-fresh", "quick"),
        ("standard-minilm", "standard"),
        ("online", "standard"),
        ("paper", "paper"),
    ],
)
def test_the_committed_records_are_of_the_benchmark_as_shipped(records, config):
    path = ROOT / "benchmarks" / "records" / records / "studies.json"
    known = {one["config_hash"] for one in json.loads(path.read_text("utf-8"))}
    planned = {one.config.hash for one in plan(load_bench(ROOT / f"configs/{config}.toml")).studies}
    assert known <= planned


# Tasks of files, for single runs


def test_a_task_of_files_is_called_after_the_training_file(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text('[task]\nname = "sst2"\n')
    files = ["task.train=some/tickets.csv", "task.test=t.csv"]
    assert load(path, files).task.name == "tickets"
    assert load(path, [*files, "task.name=mine"]).task.name == "mine"
    path.write_text('[task]\ntrain = "a.csv"\ntest = "b.csv"\n')
    assert load(path).task.name == "a"
    path.write_text('[task]\nname = "mine"\ntrain = "a.csv"\ntest = "b.csv"\n')
    assert load(path, ["task.train=c.csv"]).task.name == "mine"
    with pytest.raises(ConfigError, match="names both files"):
        load(path, ["task.test="])
    assert load(path, ["task.name=cola"]).task.train == ""


def test_a_single_run_leaves_the_section_bench_aside(path):
    assert load(path).budget.labels == 400
    with pytest.raises(ConfigError, match=r"bench\.seeds: no such key"):
        load(path, ["bench.seeds=3"])


# Rounds


@FEW
@given(st.integers(1, 3000), st.integers(0, 300), st.integers(1, 200), st.floats(1, 3))
def test_rounds_rise_to_the_budget(labels, start, size, growth):
    start = max(1, min(start, labels))
    keys = {"labels": labels, "start": start, "round": size, "growth": growth}
    budget = build({f"budget.{name}": value for name, value in keys.items()}).budget
    rounds = budget.rounds
    assert (rounds[0], rounds[-1]) == (start, labels)
    for before, after in itertools.pairwise(rounds):
        assert before < after
        assert after == labels or after - before >= size
        assert after == labels or after >= before * growth - 1e-6


def test_without_growth_every_round_is_as_large():
    assert build({"budget.labels": 90}).budget.rounds == (20, 40, 60, 80, 90)
    budget = build({"budget.labels": 90, "budget.growth": 2}).budget
    assert budget.rounds == (20, 40, 80, 90)
    assert Config().budget.growth == 1


@pytest.mark.parametrize("value", ["auto", "0", "17"])
def test_carved_rows_are_a_word_or_a_number(value):
    found = build({"task.carve": value}).task.carve
    assert found == ("auto" if value == "auto" else int(value))
    with pytest.raises(ConfigError, match=r"task\.carve: got '-1'; .*give auto or a number"):
        build({"task.carve": "-1"})

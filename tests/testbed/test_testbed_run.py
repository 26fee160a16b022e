"""A testbed study: what it leaves, kill and resume, folders and configs that are refused."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from enn_finetune import cli
from enn_finetune.cli import commands
from enn_finetune.config import ConfigError, TestbedConfig, load_testbed
from enn_finetune.session import RunStoppedError
from enn_finetune.sittings import command_line
from enn_finetune.testbed import chunks, records, run
from enn_finetune.testbed.growing import together
from enn_finetune.testbed.plan import plan

ROOT = Path(__file__).resolve().parents[2]
SMALL = (
    "active.arms=mlp/random,mlp/entropy",
    "active.again=",
    "active.input_dim=2",
    "active.candidates=8",
    "active.problems=2",
    "active.updates=1",
    "active.batch=4",
    "active.every=4",
    "active.exam_groups=6",
    "supervised.agents=mlp",
    "supervised.input_dims=2",
    "supervised.ratios=1,2",
    "supervised.temperatures=0.5",
    "supervised.problems=2",
    "supervised.steps=3",
    "supervised.batch=4",
    "supervised.functions=4",
    "supervised.groups=4",
    "supervised.particles=0",
    "chunk=3",
)


def study(out, *more, resume=False):
    return run.run(load_testbed(None, [*SMALL, *more]), out, resume=resume, quiet=True)


def lines(out):
    return (out / records.RECORDS).read_text().splitlines()


@pytest.fixture(scope="module", autouse=True)
def compiled_once():
    """Programs are pure functions of config and group: each is compiled for all tests at once."""
    found = {}

    def programs_of(config, group):
        key = config.hash, group
        if key not in found:
            found[key] = chunks.programs_of(config, group)
        return found[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "programs_of", programs_of)
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A study that nothing interrupted."""
    out = tmp_path_factory.mktemp("whole") / "out"
    assert study(out) == (8, 8)
    return out


def test_what_a_study_leaves(whole):
    found = [json.loads(line) for line in lines(whole)]
    active = [line for line in found if line["part"] == "active"]
    assert {(line["rule"], line["problem"]) for line in active} == {
        (rule, problem) for rule in ("random", "entropy") for problem in (0, 1)
    }
    for line in active:
        assert line["labels"] == [4, 8]
        assert len(line["kl"]) == len(line["accuracy"]) == len(line["ece"]) == 2
        assert line["kl_excess"] == [0, 0]  # one function is all that an MLP has
        assert line["selection_regret"] == pytest.approx([4 * line["kl"][0], 4 * sum(line["kl"])])
        assert sorted(line["bought"]) == list(range(8))
    supervised = [line for line in found if line["part"] == "supervised"]
    assert {(line["rows"], line["problem"]) for line in supervised} == {
        (rows, problem) for rows in (2, 4) for problem in (0, 1)
    }
    for line in supervised:
        assert {"kl", "kl_bias", "accuracy", "ece", "joint_kl_100"} <= line["scores"].keys()
        assert line["scores"]["joint_kl_1"] == pytest.approx(line["scores"]["kl"], rel=1e-3)
    about = json.loads((whole / records.STUDY).read_text())
    assert {
        "config",
        "config_hash",
        "streams",
        "commit",
        "machine",
        "command",
        "commands",
        "seconds",
    } == about.keys()


class CrashError(Exception):
    pass


@pytest.mark.parametrize("call", [1, 3])
def test_kill_and_resume_leave_the_same_bits(whole, tmp_path, monkeypatch, call):
    out, calls, real = tmp_path / "out", [], records.append

    def dying(folder, job, given):
        calls.append(job)
        if len(calls) < call:
            return real(folder, job, given)
        real(folder, job, given)
        text = (folder / records.RECORDS).read_bytes()
        (folder / records.RECORDS).write_bytes(text[: -len(text) // (3 * call)])  # mid-line
        raise CrashError

    monkeypatch.setattr(run, "append", dying)
    with pytest.raises(CrashError):
        study(out)
    monkeypatch.setattr(run, "append", real)
    assert study(out, resume=True).complete == 8
    assert lines(out) == lines(whole)


def test_an_interrupt_says_how_to_go_on(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "programs_of", interrupted)
    with pytest.raises(RunStoppedError, match="go on with: enn-finetune testbed --out x --resume"):
        run.run(
            load_testbed(None, SMALL),
            tmp_path / "out",
            command=command_line("testbed", None, [], Path("x")),
            quiet=True,
        )


def test_problems_are_added_later(whole, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    assert study(out, "active.problems=3", "parts=active", resume=True) == (2, 6)
    assert lines(out)[:8] == lines(whole)
    assert {json.loads(line)["problem"] for line in lines(out)[8:]} == {2}


def test_a_study_of_before_a_key_was_one_goes_on(whole, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    about = json.loads((out / records.STUDY).read_text())
    assert about["config"]["supervised"].pop("anchors") == 2
    (out / records.STUDY).write_text(json.dumps(about))
    with pytest.raises(ConfigError, match=r"these keys differ:\n  supervised.anchors\n"):
        study(out, "supervised.anchors=3", resume=True)
    assert study(out, resume=True) == (0, 8)
    assert stored(out) == stored(whole)


def test_anchors_are_the_rows_of_a_group(whole, tmp_path):
    """Of one anchor a group, there are half as many rows to be examined on."""
    more = ("parts=supervised", "supervised.ratios=1", "supervised.problems=1")
    assert study(tmp_path / "out", *more, "supervised.anchors=1") == (1, 1)
    (found,) = (json.loads(line)["scores"] for line in lines(tmp_path / "out"))
    before = json.loads(lines(whole)[4])["scores"]
    assert found["joint_kl_1"] == pytest.approx(found["kl"], rel=1e-3)
    assert found["kl"] != pytest.approx(before["kl"], rel=1e-3)  # 4 rows, and not 8


def stored(out):
    found = json.loads((out / records.STUDY).read_text())
    return found["config"], found["config_hash"]


def test_a_smaller_sitting_keeps_what_the_folder_is_said_to_hold(whole, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    fewer = ("active.arms=mlp/random", "active.problems=1", "supervised.ratios=2")
    assert study(out, *fewer, "supervised.problems=1", resume=True) == (0, 2)
    assert study(out, "parts=supervised", "supervised.temperatures=0.5", resume=True) == (0, 4)
    assert stored(out) == stored(whole)
    assert lines(out) == lines(whole)


def test_sittings_of_a_study_add_up(whole, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    config = load_testbed(None, [*SMALL, "active.arms=mlp/random,mlp/margin", "parts=active"])
    config = dataclasses.replace(
        config, active=dataclasses.replace(config.active, first_problem=1, problems=3)
    )
    found = together(config, stored(out)[0])
    assert found.active.arms == ("mlp/random", "mlp/entropy", "mlp/margin")
    assert (found.active.first_problem, found.active.problems) == (0, 4)
    assert found.supervised == load_testbed(None, SMALL).supervised
    assert found.parts == ("active", "supervised")


def test_a_part_that_never_ran_is_not_said_to_have_run():
    before = dataclasses.asdict(load_testbed(None, ["parts=supervised"]))
    config = load_testbed(None, [*SMALL, "parts=active"])
    assert together(config, before).active == config.active


def test_problems_with_a_gap_are_refused(whole):
    with pytest.raises(
        ConfigError, match=r"active.first_problem: the folder holds problems 0 to 1"
    ):
        study(whole, "active.first_problem=5", resume=True)


def test_folders_that_are_refused(whole, tmp_path):
    with pytest.raises(ConfigError, match="holds a study already; go on with --resume"):
        study(whole)
    with pytest.raises(ConfigError, match=r"these keys differ:\n  active.updates, seed\n"):
        study(whole, "active.updates=2", "seed=1", resume=True)
    old = tmp_path / "old"
    shutil.copytree(whole, old)
    about = json.loads((old / records.STUDY).read_text())
    del about["streams"]
    (old / records.STUDY).write_text(json.dumps(about))
    with pytest.raises(ConfigError, match=r"found streams = None, here 2\); give another --out"):
        study(old, resume=True)
    shutil.rmtree(old)
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"holds thesis.txt but no study.json"):
        study(tmp_path, resume=True)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    ("key", "fault"),
    [
        ("active.candidate=5", r"active.candidate: no such key; the nearest is active.candidates"),
        ("active.every=7", "active.every: 7 does not divide active.candidates = 200"),
        ("active.temperature=0", "active.temperature: got '0'"),
        ("active.baseline=mlp/bald", "active.baseline: mlp/bald is none of active.arms"),
        ("parts=passive", "parts: got 'passive'"),
        ("supervised.ratios=1,-2", "supervised.ratios: got '-2'"),
        ("supervised.particles=700", "supervised.particles: 700 is no multiple of 500"),
        ("agents.l2=1", "agents.l2: write an option as agents.AGENT.OPTION"),
        ("active.arms=mlp", "active.arms: 'mlp': write an arm as AGENT/RULE"),
        ("active.arms=mlp/random,mpl/bald", "no agent 'mpl'; the nearest is mlp"),
        ("active.again=mlp/random,epinet/varance", "no rule 'varance'; the nearest is variance"),
        ("active.arms=mlp/random,mlp/variance", "variance reads the spread over indices, and mlp"),
        ("supervised.agents=laplas", "no agent 'laplas'; the nearest is laplace"),
        ("agents.epinet.prior=1", "agents.epinet.prior: no option 'prior'; the nearest is prior_"),
        ("agents.epi.l2=1", "agents.epi: no agent 'epi'; the nearest is epinet"),
        ("agents.epinet.l2.x=1", "agents.epinet.l2.x: write an option as agents.AGENT.OPTION"),
        ("supervised.temperatures=inf", "supervised.temperatures: got 'inf'"),
        ("supervised.anchors=0", "supervised.anchors: got '0'"),
    ],
)  # fmt: skip
def test_faults_are_named_by_their_key(key, fault):
    with pytest.raises(ConfigError, match=fault):
        load_testbed(None, [key])


def test_the_shipped_config_is_the_default():
    assert load_testbed(ROOT / "configs" / "testbed.toml") == TestbedConfig() == load_testbed()
    groups = plan(TestbedConfig())
    assert all(len(group.runs) >= group.size for group in groups)


def test_a_refused_study_leaves_nothing_behind(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(commands, "_set_up_jax", lambda: None)
    out = tmp_path / "out"
    assert cli.main(["testbed", "--out", str(out), *SMALL, "agents.ensemble.members=0"]) == 2
    assert "agents.ensemble.members: got 0; give a whole" in capsys.readouterr().err
    assert not out.exists()


def test_the_command_reports_and_refuses(whole, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(commands, "_set_up_jax", lambda: None)
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    assert cli.main(["testbed", "--out", str(out), "--resume", *SMALL]) == 0
    assert (out / "report.html").exists()
    assert "mlp/entropy" in capsys.readouterr().out
    assert cli.main(["testbed", "no.toml", "--out", str(out), "--resume"]) == 2
    assert "no.toml: no such config file" in capsys.readouterr().err

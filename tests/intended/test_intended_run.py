"""Small studies end to end: seed sets, what is kept, interruptions, refusals."""

import dataclasses
import json

import numpy as np
import pytest
import tiny_intended
import tiny_runs
from flax import nnx

from enn_finetune import cli, pool
from enn_finetune.bench.store import BOUGHT, RECORDS, STUDIES, Store
from enn_finetune.cli import commands
from enn_finetune.config import ConfigError, load_intended
from enn_finetune.data import oracle
from enn_finetune.errors import InputError
from enn_finetune.intended import material
from enn_finetune.intended import run as intended
from enn_finetune.intended.material import untrained
from enn_finetune.intended.measures import Probe, probe, stratified
from enn_finetune.intended.plan import plan
from enn_finetune.models.backbone import load_backbone
from enn_finetune.progress import Display
from enn_finetune.study.arms import Course, given_orders, uniform_order

PRETRAINED = "intended.weights=pretrained"


@pytest.fixture(autouse=True, scope="module")
def quick_probes():
    """A probe costs two seconds of compiling for each study, and has a test of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(material, "probe", lambda *_, **__: Probe(0.75, 0.02))
        yield


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return tiny_intended.write_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def finished(world, tmp_path_factory):
    """A folder in which everything ran at once."""
    folder = tmp_path_factory.mktemp("finished")
    config = tiny_intended.write_config(folder, world)
    outcome = tiny_intended.run(config, folder / "out")
    assert outcome.failed == ()
    assert outcome.done == 2 * (2 + 2)
    return folder / "out"


def test_records_have_the_groups_their_mean_and_the_worst(finished):
    records = tiny_intended.lines(finished, RECORDS)
    assert len(records) == 2 * (2 * 2 + 2) * 3  # weights x cells x rounds
    for record in records:
        scores = record["metrics"]
        groups = [scores[f"accuracy {a}/{b}"] for a in ("low", "high") for b in ("hello", "world")]
        assert scores["accuracy"] == pytest.approx(np.mean(groups))
        assert scores["worst_group_accuracy"] == min(groups)
        assert scores["agreeing_accuracy"] == pytest.approx((groups[0] + groups[3]) / 2)
        assert scores["disagreeing_accuracy"] == pytest.approx((groups[1] + groups[2]) / 2)
        assert record["split"] == "test"
        assert record["labels_bought"] in (4, 7, 10)


def test_every_arm_of_a_seed_begins_with_its_seed_set(finished):
    rows = tiny_intended.rows()
    firsts: dict[object, set[tuple[int, ...]]] = {}
    for line in tiny_intended.lines(finished, BOUGHT):
        bought = [rows[row] for row in line["rows"]]
        wrong = [(row["label"] == "low") != (row["place"] == "hello") for row in bought]
        assert not any(wrong[:4])
        assert line["disagreeing"] == [sum(wrong[:count]) for count in (4, 7, 10)]
        assert len(set(line["rows"])) == 10
        firsts.setdefault(line["seed"], set()).add(tuple(line["rows"][:4]))
    assert [len(found) for found in firsts.values()] == [1, 1]
    assert len(set.union(*firsts.values())) == 2


def test_studies_say_what_they_are(finished):
    entries = json.loads((finished / STUDIES).read_text())
    assert len(entries) == 4
    for entry in entries:
        assert entry["pool_groups"] == [8, 2, 2, 8]
        assert entry["pool_disagreeing"] == pytest.approx(0.2)
        assert entry["test_rows"] == 40
        assert entry["separability"]["intended"] == {"accuracy": 0.75, "error": 0.02}
        assert entry["arms"][0] == "linear/least_confidence"
    assert [entry["weights"] for entry in entries] == ["pretrained", "random"] * 2
    assert [entry["initialisation"] for entry in entries] == [None, 0] * 2


@pytest.mark.parametrize(
    ("owner", "name", "number"),
    [
        pytest.param(pool, "choose", 2, id="trained"),  # between two rounds, after a checkpoint
        pytest.param(oracle.Oracle, "buy", 9, id="frozen", marks=pytest.mark.slow),
    ],
)
def test_a_run_that_was_cut_off_goes_on_to_the_same_results(
    world, finished, tmp_path, monkeypatch, owner, name, number
):
    config = tiny_intended.write_config(tmp_path, world)
    out = tmp_path / "out"
    crash = tiny_runs.before_call(monkeypatch, owner, name, number, tiny_runs.crash)
    with crash, pytest.raises(tiny_runs.Crash):
        tiny_intended.run(config, out, PRETRAINED)
    with pytest.raises(ConfigError, match="--resume"):
        tiny_intended.run(config, out, PRETRAINED)
    again = tiny_intended.run(config, out, PRETRAINED, resume=True)
    assert again.failed == ()
    assert tiny_intended.left_by(out, "bert") == tiny_intended.left_by(finished, "bert")
    assert tiny_intended.run(config, out, PRETRAINED, resume=True).done == 0


def test_other_settings_are_refused_by_name(world, finished, tmp_path):
    config = tiny_intended.write_config(tmp_path, world)
    for told, part in (
        ("task.pool_agreement=0.9", "task.pool_agreement: was 0.8, is 0.9"),
        ("budget.round=2", "budget.round"),
    ):
        with pytest.raises(ConfigError, match=part):
            tiny_intended.run(config, finished, told, resume=True)


def test_other_fresh_weights_are_refused_by_name(tmp_path):
    config = tiny_intended.write_config(tmp_path, tmp_path / "world")
    told = load_intended(config, ["intended.initialisation=1"])
    wanted = plan(told)
    for kept in (True, False):  # entries of before it was kept are of the default
        store = Store(tmp_path / f"out-{kept}")
        store.folder.mkdir()
        for one in wanted.studies:
            entry = {
                "config": dataclasses.asdict(one.study.config),
                material.SETTINGS: intended.settings_of(one),
            }
            if kept:
                default = wanted.settings.__class__()
                entry[intended.INITIALISATION] = intended.initialisation_of(one, default)
            store.describe(one.study.place, json.loads(json.dumps(entry)))
        with pytest.raises(ConfigError, match=r"intended\.initialisation: was 0, is 1") as raised:
            intended.run(told, store.folder, resume=True, quiet=True)
        assert str(raised.value).count("was 0") == len(wanted.studies) / 2  # the fresh ones


def test_what_cannot_be_split_or_found_is_told_before_anything_runs(world, tmp_path):
    config = tiny_intended.write_config(tmp_path, world)
    out = tmp_path / "out"
    with pytest.raises(InputError, match=r"label low, attribute hello: found \d+ rows, needed 110"):
        tiny_intended.run(config, out, "task.test=100")
    with pytest.raises(InputError, match=r"budget.labels: 99 is more than the 24 rows"):
        tiny_intended.run(config, out, "budget.labels=99")
    with pytest.raises(InputError, match="no such file or folder"):
        tiny_intended.run(config, out, "task.data=nowhere")
    absent = f"intended.encoders={world}/bert,{world}/none"
    with pytest.raises(InputError, match="skip_missing = true would run the rest"):
        tiny_intended.run(config, out, absent)
    assert not out.exists()
    told = load_intended(config, [absent, "intended.skip_missing=true"])
    display = Display(quiet=True)
    wanted = plan(told)
    ready, left_out = material.check_all(wanted, material.Library(wanted, display), display)
    assert [*left_out] == ["encoder none"]
    assert {one.study.place.backbone for one in ready} == {"bert", "bert-random"}
    assert len(ready) == len(wanted.studies) / 2


def test_the_command_writes_the_report_and_goes_on(world, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(commands, "_set_up_jax", lambda: None)
    config = tiny_intended.write_config(tmp_path, world)
    out = tmp_path / "out"
    few = ["intended.regimes=frozen", PRETRAINED, "budget.labels=7"]
    command = ["intended", str(config), *few, "--out", str(out)]
    assert cli.main(command) == 0
    assert "least_confidence" in (out / "report.html").read_text("utf-8")
    summary = json.loads((out / "summary.json").read_text("utf-8"))
    assert summary["keys"].keys() == summary.keys() - {"keys"}
    assert len(summary["studies"]) == 1
    assert "letters" in capsys.readouterr().out
    assert cli.main(command) == 2
    assert "--resume" in capsys.readouterr().err
    assert cli.main([*command, "--resume"]) == 0


def test_fresh_weights_are_of_the_same_size_and_one_draw(world):
    encoder = load_backbone(world / "bert")
    one, again, other = (untrained(encoder, seed) for seed in (0, 0, 1))
    states = [nnx.state(e, nnx.Param) for e in (encoder, one, again, other)]
    shapes = [[leaf.shape for leaf in tiny_runs.leaves(state)] for state in states]
    assert shapes[0] == shapes[1]
    words = [np.asarray(e.bert.word[...]) for e in (encoder, one, again, other)]
    assert (words[1] == words[2]).all()
    assert not np.allclose(words[1], words[0])
    assert not np.allclose(words[1], words[3])
    assert words[1].std() == pytest.approx(0.02, rel=0.2)


def test_a_probe_tells_what_is_there_and_nothing_else():
    rng = np.random.default_rng(0)
    classes, other = rng.integers(0, 2, 200), rng.integers(0, 2, 200)
    features = rng.normal(size=(200, 6)).astype(np.float32)
    features[:, 0] += 4 * classes
    groups = 2 * classes + other
    assert probe(features, classes, groups).accuracy > 0.95
    nothing = probe(features, other, groups)
    assert abs(nothing.accuracy - 0.5) < 4 * nothing.error
    folds = stratified(groups, 5)
    for group in range(4):
        counts = np.bincount(folds[groups == group], minlength=5)
        assert counts.max() - counts.min() <= 1


def test_a_study_has_its_first_rows_from_its_course():
    """The seam in `study`: other seeds and arms are as before."""
    course = Course("random", ("linear",), first={1: [5, 3]})
    given, plain = given_orders(course, [1, 2], 9, 4)
    assert given[:2].tolist() == [5, 3]
    assert sorted(given) == list(range(9))
    assert (plain == uniform_order(9, 2)).all()
    rest = uniform_order(9, 1)
    assert (given[2:] == rest[~np.isin(rest, [5, 3])]).all()


@pytest.mark.parametrize("more", [(), ("frozen.seeds=3",)], ids=["as it is", "grown"])
def test_other_rows_are_refused_before_anything_is_run(world, finished, tmp_path, more):
    moved = tiny_runs.write_rows(tmp_path / "rows.jsonl", tiny_intended.rows(count=252))
    config = tiny_intended.write_config(tmp_path, world)
    config.write_text(config.read_text().replace(f"{world}/rows.jsonl", str(moved)))
    before = (finished / STUDIES).read_bytes()
    with pytest.raises(ConfigError, match="a study of other rows") as raised:
        tiny_intended.run(config, finished, *more, resume=True)
    assert str(raised.value).count("letters: the fingerprint was") == 1
    assert (finished / STUDIES).read_bytes() == before


def test_what_is_left_out_is_kept_with_the_studies(world, tmp_path):
    more = '[[also]]\nname = "second"\ndata = ["nowhere.jsonl"]\n'
    config = tiny_intended.write_config(tmp_path, world, more)
    told = ("intended.skip_missing=true", "intended.regimes=frozen", PRETRAINED, "frozen.seeds=1")
    tiny_intended.run(config, tmp_path / "out", *told)
    (entry,) = json.loads((tmp_path / "out" / STUDIES).read_text())
    (reason,) = entry["left_out"].values()
    assert [*entry["left_out"]] == ["task second"]
    assert reason.startswith("its rows were not found")
    assert "nowhere.jsonl: no such file" in reason

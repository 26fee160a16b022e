"""The config of an intended task: what wins over what, the only task, and faults all at once."""

from pathlib import Path

import pytest
import tiny_intended

from enn_finetune.config import ConfigError, load_intended
from enn_finetune.intended.plan import plan

ROOT = Path(__file__).resolve().parents[2]
MORE = """
[[also]]
name = "second"
source = "messages"
labels = ["track_order", "start_return"]
attribute = "text:question"
"budget.labels" = 8
"""


@pytest.fixture
def config(tmp_path):
    return tiny_intended.write_config(tmp_path, Path("WORLD"), MORE)


def studies(config, *overrides):
    return plan(load_intended(config, overrides)).studies


def test_studies_span_tasks_weights_and_regimes(config):
    names = [(s.task.name, s.study.place.backbone, s.regime) for s in studies(config)]
    assert names == [
        (task, encoder, regime)
        for regime in ("frozen", "trained")
        for task in ("letters", "second")
        for encoder in ("bert", "bert-random")
    ]


def test_task_over_regime_over_file_and_the_command_line_over_all(config):
    def budgets(*overrides):
        return [one.study.config.budget.labels for one in studies(config, *overrides)][::2]

    assert budgets() == [10, 8, 10, 8]
    assert budgets("trained.budget.labels=9") == [10, 8, 9, 9]
    assert budgets("budget.labels=7") == [7, 7, 7, 7]
    assert budgets("budget.labels=7", "trained.budget.labels=9") == [7, 7, 9, 9]
    assert budgets("task.budget.labels=6", "trained.budget.labels=9") == [6, 8, 6, 9]
    assert [s.sizes.start for s in studies(config, "budget.start=5")] == [5] * 8


def test_a_file_on_the_command_line_is_the_only_task(config):
    told = ("task.data=mine.csv", "task.label=topic", "task.attribute=shop")
    found = load_intended(config, told)
    ((task, section),) = found.tasks
    assert (task.name, task.data, task.label, task.labels) == ("mine", ("mine.csv",), "topic", ())
    assert section.keys == {}
    assert {s.task.name for s in studies(config, *told)} == {"mine"}
    places = load_intended(config, ["task.data=folder"])
    assert [task.name for task, _ in places.tasks] == ["letters", "second"]
    assert places.tasks[0][0].labels == ("low", "high")


def test_a_file_on_the_command_line_stands_in_for_tasks_that_a_regime_names():
    shipped = ROOT / "configs" / "intended.toml"
    found = plan(load_intended(shipped, ["task.data=mine.csv"])).studies
    assert {(one.task.name, one.regime) for one in found} == {
        ("mine", "frozen"),
        ("mine", "trained"),
    }
    told = ["intended.tasks=reviews", "intended.regimes=trained"]
    with pytest.raises(ConfigError, match=r"trained\.tasks=reviews-80,messages-q"):
        plan(load_intended(shipped, told))


def test_tasks_encoders_and_regimes_are_chosen_by_name(config):
    found = studies(
        config, "intended.tasks=second", "trained.encoders=x/a,b", "intended.weights=random"
    )
    assert [(s.task.name, s.study.place.backbone) for s in found] == [
        ("second", "bert-random"),
        ("second", "a-random"),
        ("second", "b-random"),
    ]


def test_every_fault_is_told_at_once(config):
    told = (
        "task.attribut=x", "intended.main=linear/bald", "budget.lables=3", "frozen.seed=3",
        "intended.tasks=third", "backbone.tune=full", "task.pool_agreement=2", "policy=asvp",
        "trained.proxy.path=x",
    )  # fmt: skip
    with pytest.raises(ConfigError) as raised:
        load_intended(config, told)
    for part in (
        "task.attribut: no such key; the nearest is task.attribute",
        "budget.lables: no such key; the nearest is budget.labels",
        "frozen.seed: no such key; the nearest is frozen.seeds",
        "no task 'third'; there are letters, second",
        "backbone.tune: the study sets this itself; say it in intended.regimes",
        "task.pool_agreement: got '2'",
        "policy: here the model that is trained chooses its rows itself; leave this key out",
        "proxy.path: here the model that is trained chooses",
    ):
        assert part in str(raised.value)


@pytest.mark.parametrize(
    ("told", "part"),
    [
        (
            "frozen.arms=linear/random,linear/bald",
            "frozen.arms: linear/bald: bald reads the spread",
        ),
        ("frozen.arms=linear/random,epinet/bald", "frozen.arms: epinet/random is not among them"),
        ("trained.arms=linear/random,ensemble/random", "no head 'ensemble'"),
        ("frozen.arms=linear/random,linear/replay:x", "have no seed sets"),
        ("intended.encoders=a/bert,b/bert", "the same last part"),
        ("intended.main=linear/margin", "intended.main: linear/margin is not among frozen.arms"),
        ("trained.backbone.layers=auto", "only a frozen encoder is read at other layers"),
    ],
)
def test_arms_and_encoders_that_cannot_be_run(config, told, part):
    with pytest.raises(ConfigError, match="cannot be run") as raised:
        studies(config, told)
    assert part in str(raised.value)


def test_the_shipped_config_has_all_that_the_study_asks_for():
    found = plan(load_intended(ROOT / "configs" / "intended.toml"))
    assert {one.weights for one in found.studies} == {"pretrained", "random"}
    for regime, seeds, rules in (
        # With two classes margin and entropy buy what least_confidence buys: once is enough there.
        ("trained", 5, {"random", "least_confidence", "bald", "variance", "badge"}),
        ("frozen", 10, {"random", "least_confidence", "margin", "entropy", "bald", "variance",
                        "batchbald", "badge", "logdet", "condvar", "pool_loss",
                        "confident_coreset", "kcenter", "lcmd"}),
    ):  # fmt: skip
        ours = [one for one in found.studies if one.regime == regime]
        assert len({one.task.name for one in ours}) >= 2
        for one in ours:
            assert rules <= {arm.rule for arm in one.study.arms}
            assert {arm.head for arm in one.study.arms} == {"linear", "epinet"}
            assert len(one.study.seeds) >= seeds


def test_told_data_is_of_every_table_that_has_the_same():
    shipped = load_intended(ROOT / "configs" / "intended.toml", ["task.data=rows"])
    places = {task.name: task.data for task, _ in shipped.tasks}
    assert places["reviews"] == places["reviews-80"] == ("rows",)
    assert places["sst2-negation"] != ("rows",)
    assert places["messages-question"] == ()


def test_a_pool_in_which_nothing_settles_the_task_is_refused(config):
    with pytest.raises(ConfigError, match="1 leaves no row") as raised:
        studies(config, "task.pool_agreement=1.0")
    assert str(raised.value).count("pool_agreement") == 1
    others = studies(config, "task.pool_agreement=1.0", "intended.tasks=second")
    assert {one.task.name for one in others} == {"second"}

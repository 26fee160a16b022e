"""Courses of a study: pairing, purchases, records, and what they may not depend on."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
import study_made

from enn_finetune import records
from enn_finetune.costs import Work
from enn_finetune.errors import InputError
from enn_finetune.models.linear_epinet import LinearEpinet, fit_linear_epinet
from enn_finetune.models.solvers import SOLVERS, Solving
from enn_finetune.study import Course, Ground, arm, run_course, uniform_order
from enn_finetune.study.choosing import choosing
from enn_finetune.study.heads import fitting, padded, predicting

SEEDS = (3, 0, 5)


@pytest.fixture(scope="module")
def ground():
    return Ground(study_made.problem())


@pytest.fixture(scope="module")
def margin(ground):
    course = Course("margin", ("epinet",))
    return run_course(course, ground.problem, study_made.config(), SEEDS, ground=ground)


def alike(found):
    """Records without their times."""
    timed = ("seconds", "scoring", "training")
    return [{name: value for name, value in line.items() if name not in timed} for line in found]


def test_arms_of_a_seed_share_the_first_labels_and_the_fits_on_them(ground, margin):
    config = study_made.config()
    random = run_course(
        Course("random", ("epinet", "shaped")), ground.problem, config, SEEDS, ground=ground
    )
    for seed, mine, theirs in zip(SEEDS, margin.rows, random.rows, strict=True):
        order = uniform_order(study_made.POOL, seed).tolist()
        assert mine[:6] == theirs[:6] == order[:6]
        assert theirs == order[:14]  # nested: more labels are more of the same order
        assert len(set(mine)) == 14
        assert mine != theirs
    first = [line["metrics"] for line in margin.records if line["step"] == 0]
    paired = [
        line["metrics"] for line in random.records if line["step"] == 0 and line["head"] == "epinet"
    ]
    assert first == paired


def test_a_seed_does_not_notice_the_others(ground, margin):
    alone = run_course(
        Course("margin", ("epinet",)), ground.problem, study_made.config(), [0], ground=ground
    )
    assert alone.rows[0] == margin.rows[1]
    assert alike(alone.records) == [line for line in alike(margin.records) if line["seed"] == 0]


def test_a_fresh_ground_changes_nothing(margin):
    again = run_course(
        Course("margin", ("epinet",)), study_made.problem(), study_made.config(), SEEDS
    )
    assert again.rows == margin.rows
    assert alike(again.records) == alike(margin.records)


def test_rounds_share_their_programs(ground, margin):
    programs = [
        fitting(fit_linear_epinet),
        predicting(LinearEpinet, 6),
        choosing(LinearEpinet, "margin", 4, 4),
    ]
    before = [program.traces for program in programs]
    assert min(before) == 1
    run_course(
        Course("margin", ("epinet",)),
        ground.problem,
        study_made.config(labels=29, round=4),  # six rounds, the last one of 3 labels
        [11],
        ground=ground,
    )
    assert [program.traces for program in programs] == before


def test_growing_rounds_and_their_progress(ground):
    told = []
    config = study_made.config(growth=1.5, labels=30)
    course = Course("entropy", ("epinet",))
    found = run_course(course, ground.problem, config, [1], told.append, ground=ground)
    assert told == list(config.budget.rounds) == list(found.rounds) == [6, 10, 15, 23, 30]
    assert [line["labels_bought"] for line in found.records] == told
    assert len(set(found.rows[0])) == 30


def test_a_whole_pool_can_be_bought(ground):
    config = study_made.config(start=66, round=3, labels=70)
    for rule in ("margin", "random"):
        found = run_course(Course(rule, ("shaped",)), ground.problem, config, [2], ground=ground)
        assert sorted(found.rows[0]) == list(range(70))


def test_replay_buys_the_rows_it_is_given(ground, margin):
    config = study_made.config()
    rows = dict(zip(SEEDS, margin.rows, strict=True))
    course = Course("replay:margin", ("epinet",), rows)
    again = run_course(course, ground.problem, config, SEEDS, ground=ground)
    assert again.rows == margin.rows
    assert [line["metrics"] for line in again.records] == [
        line["metrics"] for line in margin.records
    ]
    assert {line["arm"] for line in again.records} == {"epinet/replay:margin"}
    for wrong, words in [
        ({3: rows[3]}, "no rows for seed 0"),
        ({**rows, 0: rows[0][:13]}, "13 rows, the budget is 14"),
        ({**rows, 0: [*rows[0][:13], 70]}, "row 70 is not among"),
        ({**rows, 0: [*rows[0][:13], rows[0][0]]}, "more than once"),
    ]:
        with pytest.raises(InputError, match=words):
            run_course(course._replace(rows=wrong), ground.problem, config, SEEDS, ground=ground)


def test_records_say_which_arm_what_it_scored_and_what_it_cost(margin):
    assert len(margin.records) == 3 * len(SEEDS)
    allowed = records.Record.__annotations__.keys()
    for line in margin.records:
        assert line.keys() <= allowed
        assert line["arm"] == arm("epinet", "margin") == "epinet/margin"
        assert line["metrics"].keys() >= {
            "accuracy", "nll", "brier", "ece",
            "joint_nll_dyadic", "joint_nll_near", "joint_nll_random",
        }  # fmt: skip
        assert np.isfinite(list(line["metrics"].values())).all()
    json.dumps(margin.records)
    of_seed = [line for line in margin.records if line["seed"] == 5]
    training = [line["training"]["flops"] for line in of_seed]
    assert training == [training[0], 2 * training[0], 3 * training[0]]  # all padded to one size
    scoring = [line["scoring"]["flops"] for line in of_seed]
    assert scoring[0] == 0
    assert scoring[2] == pytest.approx(2 * scoring[1])
    assert of_seed[2]["scoring"]["seconds"] > of_seed[1]["scoring"]["seconds"] > 0


def test_random_selection_needs_its_last_fit_alone(ground):
    """The others draw the curve: a run that ends there would not have made them."""
    course = Course("random", ("epinet",))
    found = run_course(course, ground.problem, study_made.config(), [0], ground=ground)
    training = [line["training"]["flops"] for line in found.records]
    assert training == [training[0]] * 3
    assert {line["scoring"]["flops"] for line in found.records} == {0}


def test_features_are_charged_to_all_that_look_at_the_pool(ground):
    problem = ground.problem._replace(encoding=Work(7000.0, 70.0))
    for rule, head in (("margin", "linear"), ("random", "epinet"), ("random", "linear")):
        found = run_course(Course(rule, (head,)), problem, study_made.config(), [0])
        encoding = [line["encoding"] for line in found.records]
        share = [1, 1, 1] if (rule, head) != ("random", "linear") else [0.0857, 0.1429, 0.2]
        assert [one["flops"] for one in encoding] == pytest.approx(
            [7000 * s for s in share], rel=1e-3
        )
        assert [one["seconds"] for one in encoding] == pytest.approx(
            [70 * s for s in share], rel=1e-3
        )


def test_a_head_that_only_reads_is_told_apart_from_one_that_buys(ground):
    course = Course("margin", ("epinet", "shaped"))
    found = run_course(course, ground.problem, study_made.config(), [0], ground=ground)
    assert {line["arm"] for line in found.records} == {"epinet/margin", "shaped/margin@epinet"}
    assert Course("random", ("epinet", "shaped")).rule_of("shaped") == "random"


class Nearest:
    """A head that makes no rows of its own: the first feature's sign."""

    classes, epistemic = 2, False

    def __init__(self, fit):
        self.weight = fit[0]

    def sample_index(self, key, count):
        return jnp.zeros((count, 0))

    def many(self, features, z):
        logit = self.weight * features[:, 0]
        return jnp.stack([-logit, logit], axis=-1)[None]


def nearest_fit(features, targets, weights, pool, *, key):
    return (jnp.sum(weights),)


def test_a_head_without_shared_rows_reads_the_features(ground, monkeypatch):
    table = {**SOLVERS, "nearest": Solving(nearest_fit, Nearest)}
    monkeypatch.setattr("enn_finetune.study.course.SOLVERS", table)
    course = Course("margin", ("nearest",))
    found = run_course(course, ground.problem, study_made.config(), [0, 1], ground=ground)
    first = np.abs(ground.pool.features[:, 0])
    for rows in found.rows:
        free = np.setdiff1d(np.arange(study_made.POOL), rows[:6])
        assert rows[6:10] == free[np.argsort(first[free], kind="stable")][:4].tolist()


def test_an_interrupt_ends_a_course(ground):
    def stop(labels):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_course(
            Course("margin", ("epinet",)),
            ground.problem,
            study_made.config(),
            [0],
            stop,
            ground=ground,
        )


@pytest.mark.parametrize(
    ("course", "seeds", "words"),
    [
        (Course("margin", ("epinet",)), [], "at least one"),
        (Course("margin", ("epinet",)), [1, 1], "distinct"),
        (Course("margin", ()), [1], "at least one head"),
        (Course("margin", ("forest",)), [1], "'forest' is not known"),
        (Course("marginal", ("epinet",)), [1], "'marginal' is not known"),
    ],
)
def test_impossible_courses(ground, course, seeds, words):
    with pytest.raises(ValueError, match=words):
        run_course(course, ground.problem, study_made.config(), seeds, ground=ground)


def test_padded_sizes_are_few_and_large_enough():
    sizes = [padded(labels) for labels in range(1, 3001)]
    assert all(size >= labels for labels, size in enumerate(sizes, 1))
    assert sorted(set(sizes)) == [32, 64, 128, 256, 512, 768, 1024, 1536, 2048, 3072]


@pytest.mark.slow
@pytest.mark.parametrize("head", SOLVERS)
def test_every_head_through_a_course_whose_first_labels_are_of_one_class(head):
    problem = study_made.problem(one_class_first=True)
    seed = next(  # whose first labels lie in the half that has one class
        seed for seed in range(1000) if uniform_order(study_made.POOL, seed)[:3].max() < 35
    )
    config = study_made.config(start=3, round=8, labels=11)
    found = run_course(Course("margin", (head,)), problem, config, [seed])
    assert found.oracles[0].buy(found.rows[0][:3]).sum(0).min() == 0
    for line in found.records:
        assert np.isfinite(list(line["metrics"].values())).all(), line

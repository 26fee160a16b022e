"""Label savings: laws of the ratio, its interval, censoring, and what interrupted runs leave."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from savings_made import GRID, OWN, RANDOM, curves_of, laws, record

from enn_finetune.savings import Stack, compare, labels_to_reach, match, read_curves, saving
from enn_finetune.savings.curves import areas, mean_interval, stack, without_interrupted
from enn_finetune.savings.reach import tail_share


@laws
@given(st.integers(0, 10**6), st.integers(2, 12), st.floats(0, 0.2))
def test_an_arm_against_itself_saves_exactly_nothing(seed: int, seeds: int, noise: float) -> None:
    arm = curves_of(seed, 60, seeds, noise)
    ratio = saving(arm, arm, 200).ratio
    assert (ratio.value, ratio.unreached) == (1.0, 0.0)
    assert ratio.ci95 == ((1.0, 1.0) if seeds >= 5 else None)


@laws
@given(st.integers(0, 10**6), st.permutations(range(6)))
def test_numbering_the_seeds_otherwise_changes_nothing(seed: int, order: list[int]) -> None:
    arm, base = curves_of(seed, 40), curves_of(seed + 1, 70)
    before = saving(arm, base, 300)
    after = saving(
        arm._replace(scores=arm.scores[order]), base._replace(scores=base.scores[order]), 300
    )
    assert after.labels == pytest.approx(before.labels)
    assert after.ratio.value == pytest.approx(before.ratio.value)
    assert after.ratio.ci95 == pytest.approx(before.ratio.ci95)


def test_seeds_are_resampled_jointly() -> None:
    """A constant of the seed, shared by both arms, moves scores but not the ratio."""
    luck = np.linspace(-0.2, 0.2, 8)[:, None]
    line = 0.002 * GRID[None]
    base = Stack("random", tuple(range(8)), GRID, line + luck)
    arm = Stack("arm", tuple(range(8)), GRID, 2 * line + luck)
    assert saving(arm, base, 300).ratio.ci95 == pytest.approx((2.0, 2.0))
    unpaired = arm._replace(scores=arm.scores[::-1])
    low, high = saving(unpaired, base, 300).ratio.ci95 or (0, 0)
    assert (low or 0) < 1.5
    assert high is None or high > 2.5


@laws
@given(st.integers(0, 10**6), st.sampled_from([2.0, 4.0]))
def test_needing_half_the_labels_doubles_the_ratio(seed: int, factor: float) -> None:
    arm, base = curves_of(seed, 50), curves_of(seed + 1, 70)
    slow, fast = saving(arm, base, 200), saving(arm._replace(labels=GRID / factor), base, 200)
    if slow.ratio.value is not None:
        assert fast.ratio.value == pytest.approx(factor * slow.ratio.value)
    assert fast.ratio.unreached == slow.ratio.unreached


@laws
@given(st.integers(0, 10**6), st.floats(0.1, 10), st.floats(-5, 5))
def test_the_score_s_scale_does_not_matter(seed: int, scale: float, shift: float) -> None:
    arm, base = curves_of(seed, 45), curves_of(seed + 1, 70)
    scaled = [a._replace(scores=scale * a.scores + shift) for a in (arm, base)]
    assert saving(*scaled, 1).labels == pytest.approx(saving(arm, base, 1).labels, rel=1e-4)


@laws
@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=12),
    st.floats(0, 1),
    st.sampled_from(["first", "sustained", "kept"]),
)
def test_a_reached_target_is_on_the_curve_and_later_readings_come_later(
    scores: list[float], target: float, criterion: str
) -> None:
    labels = 10.0 + 10.0 * np.arange(len(scores))
    found = labels_to_reach(labels, np.array(scores), target, criterion)  # type: ignore[arg-type]
    first = labels_to_reach(labels, np.array(scores), target, "first")
    kept = labels_to_reach(labels, np.array(scores), target, "kept")
    assert first <= found <= kept
    if np.isfinite(found):
        there = np.interp(found, labels, scores)
        assert there >= target - 1e-6
        assert labels[0] <= found <= labels[-1]
    else:
        assert scores[-1] < target


def test_how_noise_is_read() -> None:
    labels = np.array([10.0, 20, 30, 40, 50])
    fluke = np.array([0.1, 0.6, 0.2, 0.3, 0.4])  # touched once by luck
    dip = np.array([0.1, 0.6, 0.7, 0.45, 0.8])  # there for good, one bad evaluation
    read = {
        name: [float(labels_to_reach(labels, curve, 0.5, name)) for curve in (fluke, dip)]
        for name in ("first", "sustained", "kept")  # type: ignore[arg-type]
    }
    assert read["first"] == pytest.approx([18.0, 18.0])
    assert read["sustained"] == pytest.approx([np.inf, 18.0])
    assert read["kept"] == pytest.approx([np.inf, 40 + 10 * 0.05 / 0.35])


def test_interpolation_without_extrapolation() -> None:
    labels, scores = np.array([10.0, 20, 40]), np.array([0.2, 0.4, 0.8])
    targets = np.array([0.1, 0.2, 0.3, 0.6, 0.8, 0.81])
    reached = labels_to_reach(labels, np.tile(scores, (6, 1)), targets)
    assert reached == pytest.approx([10, 10, 15, 30, 40, np.inf])


def test_a_target_that_is_not_reached_bounds_the_ratio() -> None:
    base, arm = curves_of(0, 60), curves_of(1, 60)
    worse = arm._replace(scores=arm.scores - 0.3)
    found = saving(worse, base, 200)
    assert found.labels is None
    assert found.last == 200
    assert found.ratio.value is None
    assert found.ratio.less_than == pytest.approx(found.reference_labels / 200)
    assert found.ratio.ci95 is not None
    assert found.ratio.ci95[0] is None
    assert found.ratio.ci95[1] is not None
    assert found.ratio.unreached == 1.0


def test_the_lower_end_opens_where_resamples_do_not_reach_the_target() -> None:
    """One seed of six never learns: the mean gets there, resamples with several of it do not."""
    base, arm = curves_of(0, 80, noise=0.0), curves_of(1, 30, noise=0.0)
    scores = arm.scores.copy()
    scores[0] = base.scores[0] - 0.1
    ratio = saving(arm._replace(scores=scores), base, 500).ratio
    assert ratio.value is not None
    assert ratio.value > 1
    assert 0 < ratio.unreached < 1
    assert ratio.ci95 is not None
    assert ratio.ci95[0] is None


def test_one_seed_has_no_interval() -> None:
    arm, base = curves_of(0, 30, seeds=1, noise=0), curves_of(0, 60, seeds=1, noise=0)
    assert saving(arm, base).ratio.ci95 is None
    assert saving(arm, base).ratio.value == pytest.approx(2, rel=0.02)
    assert mean_interval(arm.scores).low is None


def test_labels_that_random_needs_to_match() -> None:
    base = Stack("random", tuple(range(5)), GRID, np.tile(0.001 * GRID, (5, 1)))
    arm = Stack("arm", tuple(range(5)), GRID, np.tile(0.002 * GRID, (5, 1)))
    assert match(arm, base, 60, 50).reference_labels == pytest.approx(120)
    beyond = match(arm, base, 200, 50)
    assert beyond.reference_labels is None
    assert beyond.ratio.more_than == pytest.approx(1.0)
    assert beyond.ratio.ci95 == (pytest.approx(1.0), None)


def test_a_reference_that_is_ahead_from_its_first_evaluation_bounds_the_ratio() -> None:
    base = Stack("random", tuple(range(5)), GRID, np.tile(0.5 + 0.001 * GRID, (5, 1)))
    arm = Stack("arm", tuple(range(5)), GRID, np.tile(0.3 + 0.001 * GRID, (5, 1)))
    found = match(arm, base, 40, 50)
    assert found.ratio.value is None
    assert found.ratio.less_than == pytest.approx(20 / 40)
    assert found.ratio.ci95 == (None, pytest.approx(20 / 40))
    level = match(base, base, 20, 50)
    assert (level.ratio.value, level.ratio.ci95) == (1.0, (1.0, 1.0))


@laws
@given(st.integers(0, 10**6), st.floats(20, 200))
def test_all_counts_at_once_are_each_count_alone(seed: int, labels: float) -> None:
    arm, base = curves_of(seed, 45), curves_of(seed + 1, 70)
    found = compare(arm, base, (30.0, labels, 200.0), 100)
    assert found.matches[1] == match(arm, base, labels, 100)
    assert found.saving == saving(arm, base, 100)
    assert found.matches[1].score == pytest.approx(np.interp(labels, GRID, arm.scores.mean(0)))


def test_different_seeds_cannot_be_paired() -> None:
    arm = curves_of(0, 30)
    with pytest.raises(ValueError, match=r"same seeds.*\[0, 1, 2, 3, 4, 5\]"):
        saving(arm, arm._replace(seeds=(1, 2, 3, 4, 5, 6)))


def test_the_interval_s_percentiles_widen_with_few_seeds() -> None:
    shares = [tail_share(seeds) for seeds in (2, 5, 10, 10_000)]
    assert shares == sorted(shares)
    assert shares[2] == pytest.approx(0.0086, abs=1e-4)
    assert shares[-1] == pytest.approx(0.025, abs=1e-4)


def test_the_t_interval_is_scipy_s() -> None:
    from scipy import stats

    values = np.array([0.3, 0.5, 0.4, 0.9])
    low, high = stats.t.interval(0.95, 3, values.mean(), stats.sem(values))
    found = mean_interval(values)
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))


@laws
@given(st.integers(0, 10**6))
def test_area_is_the_mean_height_and_ignores_extra_grid_points(seed: int) -> None:
    arm = curves_of(seed, 60)
    flat = arm._replace(scores=np.full_like(arm.scores, 0.7))
    assert areas(flat, 20, 200) == pytest.approx(0.7)
    fine = np.linspace(20, 200, 91)
    finer = arm._replace(
        labels=fine, scores=np.stack([np.interp(fine, GRID, row) for row in arm.scores])
    )
    assert areas(finer, 30, 170) == pytest.approx(areas(arm, 30, 170))


def test_reading_keeps_the_later_of_two_evaluations_and_sorts() -> None:
    rows = [
        record(RANDOM, 1, 40, 0.5),
        record(RANDOM, 1, 20, 0.4),
        record(RANDOM, 1, 40, 0.9, step=30),  # an earlier step at the same labels, written later
        record(RANDOM, 1, 20, 0.45),  # written again by a resumed run
        record(RANDOM, 0, 20, 0.1),
        record(RANDOM, 0, 20, 0.99, split="dev"),
    ]
    first, second = read_curves(rows, "macro_f1")
    assert (first.seed, second.seed) == (0, 1)
    assert second.labels.tolist() == [20, 40]
    assert second.scores.tolist() == [0.45, 0.5]


def test_arms_are_named_by_head_and_rule_where_they_have_no_name() -> None:
    row = record(OWN, 0, 20, 0.5)
    del row["arm"]
    assert read_curves([row], "macro_f1")[0].arm == "epinet/random"
    del row["head"]
    with pytest.raises(ValueError, match="'head' and 'rule'"):
        read_curves([row], "macro_f1")


def test_bad_records_are_named() -> None:
    rows = [record(RANDOM, 3, 40, float("nan"))]
    with pytest.raises(ValueError, match=r"'linear / random', seed 3, 40 labels: macro_f1 is nan"):
        read_curves(rows, "macro_f1")
    with pytest.raises(ValueError, match=r"no metric 'mcc'; it has \['macro_f1', 'nll'\]"):
        read_curves(rows, "mcc")
    with pytest.raises(ValueError, match=r"no record of split 'dev'.*\['test'\]"):
        read_curves(rows, "macro_f1", "dev")


def test_seeds_on_different_grids_meet_on_their_common_range() -> None:
    rows = [record(RANDOM, 0, n, n / 100) for n in (10, 30, 50)]
    rows += [record(RANDOM, 1, n, n / 100) for n in (20, 40, 48)]
    found = stack(read_curves(rows, "macro_f1"))
    assert found.labels.tolist() == [20, 30, 40, 48]
    assert found.scores == pytest.approx(np.tile(found.labels / 100, (2, 1)))


def test_seeds_that_stopped_early_are_left_out_whole() -> None:
    rows = [record(RANDOM, seed, n, 0.5) for seed in (0, 1) for n in (20, 100)]
    rows += [record(RANDOM, 2, n, 0.5) for n in (20, 60)]
    kept, cut = without_interrupted(read_curves(rows, "macro_f1"))
    assert [curve.seed for curve in kept] == [0, 1]
    assert [curve.seed for curve in cut] == [2]

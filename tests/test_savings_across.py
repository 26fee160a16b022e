"""Means over tasks of paired gains: by hand, and their laws."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from savings_made import OWN, RANDOM, experiment, laws, straight
from scipy import stats

from enn_finetune.savings import mean_interval, mean_of_gains, over_tasks, summarise
from enn_finetune.savings.across import Gain, area_gain
from enn_finetune.savings.arms import matched_counts
from enn_finetune.savings.curves import Stack

ARMS = {
    RANDOM: straight(0.001),
    OWN: straight(0.001),
    "linear / margin": straight(0.0015),
    "epinet / margin": straight(0.002),
}
MARGIN = "linear / margin"


def test_one_task_has_the_t_interval() -> None:
    values = np.array([0.3, 0.5, 0.4, 0.9])
    gain = Gain(values.mean(), float(stats.sem(values)), 4)
    expected = mean_interval(values)
    assert mean_of_gains([gain])["mean"] == pytest.approx(expected.mean)
    assert mean_of_gains([gain])["ci95"] == pytest.approx([expected.low, expected.high])


@laws
@given(st.floats(0.01, 1), st.floats(0.01, 1), st.integers(2, 20), st.integers(2, 20))
def test_two_tasks_have_welch_s_interval(a: float, b: float, m: int, n: int) -> None:
    """The mean of two gains is half of a Welch difference whose second sign is turned."""
    low, high = mean_of_gains([Gain(0.2, a, m), Gain(0.1, b, n)])["ci95"] or (0, 0)
    freedom = (a**2 + b**2) ** 2 / (a**4 / (m - 1) + b**4 / (n - 1))
    half = stats.t.ppf(0.975, freedom) * np.sqrt(a**2 + b**2) / 2
    assert (low, high) == (pytest.approx(0.15 - half), pytest.approx(0.15 + half))


@laws
@given(st.permutations(range(4)), st.integers(0, 1000))
def test_the_order_of_tasks_does_not_matter(order: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    gains = [Gain(rng.normal(), rng.uniform(0.1, 1), 5) for _ in range(4)]
    one, other = mean_of_gains(gains), mean_of_gains([gains[i] for i in order])
    assert one["mean"] == pytest.approx(other["mean"])
    assert one["ci95"] == pytest.approx(other["ci95"])


def test_a_task_of_one_seed_leaves_no_interval() -> None:
    assert mean_of_gains([Gain(0.1, None, 1), Gain(0.3, 0.1, 5)]) == {"mean": 0.2, "ci95": None}
    with pytest.raises(ValueError, match="at least one task"):
        mean_of_gains([])


def test_gains_over_margin_on_the_plain_head() -> None:
    """Areas over 20 to 200 labels: a slope s is worth 110 s more than its start."""
    arms = summarise(experiment(ARMS), "macro_f1", RANDOM, OWN, resamples=10)["arms"]
    gain = area_gain(arms["epinet / margin"], arms[MARGIN])
    assert gain is not None
    assert gain.mean == pytest.approx(110 * 0.0005)
    assert gain.error == pytest.approx(0, abs=1e-9)
    slow = {**ARMS, "epinet / margin": straight(0.001)}
    other = summarise(experiment(slow), "macro_f1", RANDOM, OWN, resamples=10)["arms"]
    rows = over_tasks({"one": arms, "two": other, "three": {RANDOM: arms[RANDOM]}}, MARGIN)
    found = rows["epinet / margin"]
    assert set(found.tasks) == {"one", "two"}  # the third has no margin
    assert found.mean["mean"] == pytest.approx(0, abs=1e-9)
    assert rows[RANDOM].mean["mean"] == pytest.approx(-110 * 0.0005)
    assert over_tasks({"three": {RANDOM: arms[RANDOM]}}, MARGIN) == {}


def test_round_label_counts_find_the_nearest_evaluation() -> None:
    def counts(*labels: float) -> dict[float, float]:
        grid = np.array(labels)
        made = Stack("arm", (0,), grid, grid[None])
        return matched_counts(made, made)

    assert counts(20, 60, 100, 190, 480, 700) == {
        20: 20,
        50: 60,
        100: 100,
        200: 190,
        500: 480,
        700: 700,
    }
    assert counts(40, 300) == {50: 40, 300: 300}  # nothing near 100 or 200
    assert counts(70, 1000) == {50: 70, 1000: 1000}  # by ratio, 70 is nearer to 50 than to 100
    assert counts(0, 20, 30) == {20: 20, 30: 30}
    assert counts(5) == {5: 5}

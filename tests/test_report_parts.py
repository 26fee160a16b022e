"""Parts of the report: what is drawn with what, names that do not overlap, figures in words."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_report import OWN, RANDOM, make_summary

from enn_finetune.report.curves import spread
from enn_finetune.report.looks import FEW, groups, looks
from enn_finetune.report.words import interval_text, match_outcome, outcome, ratio_text
from enn_finetune.savings import RatioJson


def many_arms() -> dict[str, float]:
    heads = {f"{head}/random": 90.0 for head in ("linear", "epinet", "ensemble", "laplace")}
    rules = {f"{head}/rule{n}": 50.0 + n for head in ("linear", "epinet") for n in range(9)}
    return {RANDOM: 90.0, OWN: 88.0} | {
        arm.replace("/", " / "): speed
        for arm, speed in (heads | rules | {"ensemble/bald": 60.0, "laplace/bald": 60.0}).items()
    }


def test_arms_keep_apart_in_the_picture() -> None:
    speeds = {RANDOM: 90.0, OWN: 88.0} | {f"epinet / rule{n}": 50.0 + n for n in range(14)}
    assert len(set(looks(make_summary(2, speeds)).values())) == len(speeds)
    summary = make_summary(2, many_arms())
    found = looks(summary)
    for group in groups(summary):
        assert len({found[arm] for arm in group.arms}) == len(group.arms)
    _, *alone = groups(summary)[-1].arms  # heads with one rule, the same: told apart by colour
    assert len({found[arm].light for arm in alone}) == len(alone) == 2


def test_many_arms_are_drawn_a_few_at_a_time() -> None:
    summary = make_summary(2, many_arms())
    found = groups(summary)
    assert {arm for group in found for arm in group.arms} == set(summary["arms"])
    assert max(len(group.arms) for group in found) <= FEW + 2
    assert [group.title for group in found] == [
        "heads, labels bought at random",
        "rules on the head linear (1 of 2)",
        "rules on the head linear (2 of 2)",
        "rules on the head epinet (1 of 2)",
        "rules on the head epinet (2 of 2)",
        "other heads",
    ]
    assert found[-1].arms == (RANDOM, "ensemble / bald", "laplace / bald")
    assert len(groups(make_summary(2))) == 1


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_names_at_the_curves_ends_do_not_overlap(places: list[float]) -> None:
    moved = np.array(spread(places, 0.05))
    order = np.argsort(places, kind="stable")
    assert (np.diff(moved[order]) >= 0.05 - 1e-9).all()
    assert moved.max() <= 1 + 1e-9
    assert moved.min() >= -1e-9
    if (np.diff(np.sort(places)) >= 0.05).all():
        assert moved == pytest.approx(places)


def ratio(value: float | None, ci95: list[float | None] | None, **bounds: float) -> RatioJson:
    return {
        "value": value,
        "ci95": ci95,
        "less_than": bounds.get("less_than"),
        "more_than": bounds.get("more_than"),
        "unreached": 0.0,
    }


@pytest.mark.parametrize(
    ("found", "kind", "figure", "spread_"),
    [
        (ratio(2.0, [1.5, 2.5]), "fewer", "2.00x", "1.50 to 2.50"),
        (ratio(12.3, [1.0, None]), "unsettled", "12.3x", "from 1.00"),
        (ratio(1.2, [None, 1.4]), "unsettled", "1.20x", "up to 1.40"),
        (ratio(0.8, [0.7, 0.9]), "more", "0.80x", "0.70 to 0.90"),
        (ratio(2.0, None), "unsettled", "2.00x", "no interval"),
        (ratio(None, [None, 1.4], less_than=0.9), "unsettled", "< 0.90x", "up to 1.40"),
        (ratio(None, [None, 1.0], less_than=1.0), "more", "< 1.00x", "up to 1.00"),
        (ratio(None, [1.1, None], more_than=1.3), "fewer", "> 1.30x", "from 1.10"),
        (ratio(None, [0.9, None], more_than=1.3), "unsettled", "> 1.30x", "from 0.90"),
    ],
)
def test_figures_in_words(found: RatioJson, kind: str, figure: str, spread_: str) -> None:
    assert outcome(found) == kind
    assert ratio_text(found) == figure
    assert interval_text(found["ci95"]) == spread_


@pytest.mark.parametrize(
    ("found", "kind"),
    [
        (ratio(2.0, [1.5, 2.5]), "fewer"),
        (ratio(None, [1.0, None], more_than=1.0), "fewer"),  # every resample is at the bound
        (ratio(None, [0.9, None], more_than=1.0), "unsettled"),
        (ratio(None, [None, 1.0], less_than=1.0), "more"),
        (ratio(None, [None, 1.2], less_than=1.0), "unsettled"),
        (ratio(0.9, [0.8, 1.1]), "unsettled"),
        (ratio(0.9, None), "unsettled"),
    ],
)
def test_what_a_matched_ratio_settles(found: RatioJson, kind: str) -> None:
    assert match_outcome(found) == kind

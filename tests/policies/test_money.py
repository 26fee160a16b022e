"""Score against money: costs along a curve, who is the cheapest, the picture."""

import json
import math

import numpy as np
import pytest

from enn_finetune.report.bill import tariff
from enn_finetune.report.command import run
from enn_finetune.report.money import (
    PRICES,
    CostCurve,
    Price,
    Range,
    cheapest,
    cheapest_ranges,
    cost_at,
    draw_money,
    ranges_words,
)

DEAR, FREE = Price("dear", 1.0, 10.0), Price("free", 0.0, 1.0)
CURVE = CostCurve(np.array([10.0, 20, 40]), np.array([0.1, 0.2, 0.6]), np.array([0.5, 0.6, 0.7]))


def test_a_run_costs_its_labels_and_its_hours():
    np.testing.assert_allclose(CURVE.money(DEAR), [11, 22, 46])
    np.testing.assert_allclose(CURVE.money(FREE), CURVE.hours)
    assert cost_at(CURVE, 15, DEAR) == pytest.approx(16.5)
    assert cost_at(CURVE, None, DEAR) is None


def test_the_cheapest_is_named_in_a_sentence():
    said = cheapest({"standard": 120.0, "svpp": None, "asvp": 100.0}, DEAR)
    assert "asvp is the cheapest: 100.00, then standard with 120.00 (+20 %)" in said
    assert "Not reached by svpp" in said
    assert "nobody" in cheapest({"asvp": None}, DEAR)
    assert cheapest({"asvp": 0.012}, DEAR).endswith("asvp is the cheapest: 0.012.")


def test_the_picture_is_a_png_of_a_panel_a_price(tmp_path):
    pytest.importorskip("matplotlib")
    path = tmp_path / "money.png"
    draw_money(
        {"asvp": CURVE, "standard": CURVE}, [DEAR, FREE], path, title="t", score="s", target=0.6
    )
    assert path.read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(ValueError, match="at least one"):
        draw_money({}, [DEAR], path, title="t", score="s")


# Who is the cheapest at which prices


def test_the_cheapest_at_every_price_is_a_hull():
    needs = {"standard": (100, 2.0), "svpp": (200, 0.1), "asvp": (120, 0.5), "dear": (150, 1.9)}
    found = cheapest_ranges(needs)
    assert [one.arm for one in found] == ["svpp", "asvp", "standard"], "dear never is"
    assert [one.high for one in found] == [pytest.approx(0.005), pytest.approx(0.075), math.inf]
    assert [one.low for one in found[1:]] == [one.high for one in found[:-1]]
    for worth in np.geomspace(1e-4, 1, 50):
        costs = {name: labels * worth + hours for name, (labels, hours) in needs.items()}
        here = next(one.arm for one in found if one.low <= worth < one.high)
        assert here == min(costs, key=costs.get)


def test_ranges_of_few():
    assert cheapest_ranges({}) == []
    assert cheapest_ranges({"only": (10, 1.0)}) == [Range("only", 0.0, math.inf)]
    same = cheapest_ranges({"more": (20, 1.0), "fewer": (10, 1.0)})
    assert same == [Range("fewer", 0.0, math.inf)]
    assert ranges_words([])[0].startswith("No arm")
    assert "Whatever the prices, only" in ranges_words([Range("only", 0.0, math.inf)])[0]
    _, lines = ranges_words([Range("a", 0.0, 0.5), Range("b", 0.5, 2.0), Range("c", 2.0, math.inf)])
    assert lines == [
        "a is the cheapest where a label costs less than 30 minutes of computing",
        "b where it costs more than that and less than 2 hours of computing",
        "c where it costs more than that",
    ]


# From the folders of `train` to the page

HOURS = {"standard": 9.0, "svpp": 1.0, "asvp": 2.0}  # at 400 labels, in proportion before
NEEDS = {"random": 400.0, "standard": 200.0, "svpp": 320.0, "asvp": 220.0}
KEPT = {"label": 0.5, "hour": 3.0, "speed": 1e12}


def folder_of(root, policy, seed, *, accounts=True):
    folder = root / f"{policy}-{seed}"
    folder.mkdir()
    rule = "random" if policy == "random" else "margin"
    config = {"policy": "standard" if policy == "random" else policy, "prices": KEPT}
    config |= {"acquisition": {"rule": rule}, "proxy": {"path": []}}
    summary = {"task": "made", "metric": "accuracy", "head": "linear", "rule": rule, "seed": seed}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "summary.json").write_text(json.dumps(summary))
    lines = []
    for step, labels in enumerate((40, 80, 120, 160, 200, 240, 280, 320, 360, 400)):
        score = 0.5 + 0.3 * min(labels / NEEDS[policy], 1.1) + 0.001 * seed
        line = {"step": step, "labels_bought": labels, "split": "test", "seconds": 1.0}
        line["metrics"] = {"accuracy": score}
        flops = HOURS.get(policy, 0.5) * labels / 400 * 3600 * KEPT["speed"]
        for part in ("encoding", "scoring", "training") if accounts else ():
            line[part] = {"flops": flops / 3, "seconds": 1.0}
        lines.append(json.dumps(line) + "\n")
    (folder / "records.jsonl").write_text("".join(lines))
    return folder


@pytest.fixture
def folders(tmp_path):
    return [folder_of(tmp_path, policy, seed) for policy in NEEDS for seed in (0, 1)]


ASVP, SVPP = "linear/margin, asvp", "linear/margin, svpp"


def test_a_report_of_policies_says_who_is_the_cheapest(folders, tmp_path):
    found = run(folders, tmp_path / "out" / "report.html", resamples=50)
    arms = found["tasks"]["made"]
    assert list(arms) == ["linear/random", "linear/margin", SVPP, ASVP]
    money = found["money"]["made"]
    asvp = money["arms"][ASVP]
    assert asvp["labels_to_target"] == pytest.approx(220)
    assert asvp["hours_to_target"] == pytest.approx(2 * 220 / 400)
    own, *others = money["prices"]
    assert (own["label"], own["hour"]) == (0.5, 3.0), "the config's prices come first"
    assert [one["name"] for one in others] == [price.name for price in PRICES]
    assert own["to_target"][ASVP] == pytest.approx(220 * 0.5 + 3 * 1.1)
    assert own["to_target"]["linear/margin"] == pytest.approx(200 * 0.5 + 3 * 4.5)
    # 110 + 3.3 is just less than 100 + 13.5; where a label costs more, standard is the cheapest.
    assert own["cheapest"] == ASVP
    assert own["share"] == {**dict.fromkeys(arms, 0.0), ASVP: 1.0}
    assert others[0]["cheapest"] == "linear/margin"
    ranges = money["ranges"]
    assert [one["arm"] for one in ranges] == ["linear/random", ASVP, "linear/margin"], "svpp never"
    assert ranges[-1]["low"] == pytest.approx((4.5 - 1.1) / 20)
    assert ranges[-1]["high"] is None
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Score against money" in page
    assert page.count(">money</text>") == 4, "a picture a price"
    assert own["sentence"] in page
    json.dumps(found)


def test_records_without_an_account_have_no_bill(tmp_path):
    folders = [folder_of(tmp_path, policy, 0, accounts=False) for policy in NEEDS]
    found = run(folders, tmp_path / "out" / "report.html", resamples=10)
    assert found["money"] == {}
    assert "Score against money" not in (tmp_path / "out" / "report.html").read_text()


def test_an_arm_without_an_account_is_named_and_one_seed_settles_nothing(tmp_path):
    folders = [folder_of(tmp_path, policy, 0, accounts=policy != "svpp") for policy in NEEDS]
    money = run(folders, tmp_path / "out" / "report.html", resamples=10)["money"]["made"]
    assert money["missing"] == [SVPP]
    assert SVPP not in money["arms"]
    assert all(price["share"] is None for price in money["prices"])


def test_prices_of_configs_are_shown_once(tmp_path):
    assert tariff([tmp_path]).prices == PRICES
    folder = folder_of(tmp_path, "asvp", 0)
    assert tariff([folder, folder]).prices[1:] == PRICES
    assert tariff([folder]).speed == KEPT["speed"]
    config = json.loads((folder / "config.json").read_text())
    config["prices"] |= {"label": 0.01, "hour": 1.0}
    (folder / "config.json").write_text(json.dumps(config))
    assert tariff([folder]).prices == PRICES, "crowd's prices are among the three"


def test_auto_and_a_small_selector_are_arms_of_their_own(tmp_path):
    folder = folder_of(tmp_path, "asvp", 0)
    random = folder_of(tmp_path, "random", 0)
    config = json.loads((folder / "config.json").read_text())
    config |= {"policy": "auto", "proxy": {"path": ["models/small", "else/where"]}}
    (folder / "config.json").write_text(json.dumps(config))
    found = run([folder, random], tmp_path / "out" / "report.html", resamples=10)
    assert list(found["tasks"]["made"]) == [
        "linear/margin, auto at 0.5/3 by small",
        "linear/random",
    ]

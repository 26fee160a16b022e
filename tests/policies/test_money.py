"""Score against money: costs along a curve, who is the cheapest, the picture."""

import numpy as np
import pytest

from enn_finetune.report.money import CostCurve, Price, cheapest, cost_at, draw_money

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

"""benchmarks/rules_table.py: the README has the tables that the committed pages ask for."""

from pathlib import Path

import pytest

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")


def test_the_readme_has_the_tables_of_the_pages():
    from rules_table import tables

    everywhere, few, _ = tables()
    assert "\n".join(everywhere) in README, "run benchmarks/rules_table.py and paste its tables"
    assert "\n".join(few) in README, "run benchmarks/rules_table.py and paste its tables"


def test_a_cell_is_settled_where_its_interval_leaves_out_zero():
    from rules_table import settled

    assert settled("+1.20 (+0.3 to +2.1)") == 1
    assert settled("-1.20 (-2.3 to -0.1)") == -1
    assert settled("+0.20 (-0.3 to +0.7)") == 0
    assert settled("+4.00 (+0.0 to +8.0)") == 1
    assert settled("-0.40 (-0.8 to -0.0)") == -1


def test_a_page_without_the_table_is_an_error():
    from rules_table import cells_of

    with pytest.raises(ValueError, match="Area gained over linear/random"):
        cells_of("# Results\n")

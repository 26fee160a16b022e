"""An encoder and a file of texts without labels."""

import pytest
import tiny_runs
from asked import ROWS


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return str(tiny_runs.write_world(tmp_path_factory.mktemp("world")) / "bert")


@pytest.fixture
def pool(tmp_path):
    """The texts without labels, and a column that is nobody's business."""
    rows = [{"id": row["id"], "text": row["text"]} for row in ROWS]
    return tiny_runs.write_rows(tmp_path / "pool.csv", rows)

"""A config's hash, what differs between two, and the files that are shipped."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from enn_finetune.config import (
    Config,
    build,
    differences,
    load,
    load_intended,
    load_testbed,
)

ROOT = Path(__file__).resolve().parents[1]
STUDIES = {"intended": load_intended, "testbed": load_testbed}
FILES = sorted((ROOT / "configs").glob("**/*.toml"))
SHIPPED = [path for path in FILES if path.stem not in STUDIES]


def test_the_hash_is_the_same_in_another_process():
    program = "from enn_finetune.config import build; print(build({'seed': 3}).hash)"
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert found.stdout.strip() == build({"seed": "3"}).hash


def test_a_saved_config_differs_in_nothing_or_in_the_keys_that_changed():
    config = build({"head.hidden": [8], "budget.steps": 7})
    saved = json.loads(json.dumps(config.tree))
    assert differences(config, saved) == []
    saved["seed"] = 1
    saved["head"]["hidden"] = [8, 8]
    saved["budget"]["steps"] = None
    saved["gone"] = {"key": 1}
    assert differences(config, saved) == ["budget.steps", "gone.key", "head.hidden", "seed"]


def test_a_key_that_came_later_is_part_of_a_config_where_it_is_used():
    """So that runs made before it go on, and are known by the hash they have."""
    assert Config().hash == "64094c677622a096"
    assert not {"describe", "rows"} & Config().tree["task"].keys()
    assert "revisit" not in Config().tree["acquisition"]
    again = build({"acquisition.revisit": 0.5})
    assert again.tree["acquisition"]["revisit"] == 0.5
    assert again.hash != Config().hash
    fewer = build({"task.rows": 30})
    assert fewer.tree["task"]["rows"] == 30
    assert fewer.hash != Config().hash
    assert differences(fewer, json.loads(json.dumps(Config().tree))) == ["task.rows"]
    used = build({"task.describe": "a: one, two|b: three"})
    assert used.tree["task"]["describe"] == ("a: one, two", "b: three")
    assert used.hash != Config().hash
    assert differences(used, json.loads(json.dumps(Config().tree))) == ["task.describe"]


def test_a_config_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().seed = 1  # type: ignore[misc]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_config_loads(path):
    assert isinstance(load(path), Config)


@pytest.mark.parametrize("name", STUDIES)
def test_every_shipped_study_loads(name):
    STUDIES[name](ROOT / "configs" / f"{name}.toml", [])


def test_the_package_has_the_example_config():
    assert ROOT / "configs" / "sst2.toml" in SHIPPED

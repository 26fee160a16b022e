"""The world that all tests of policies run in."""

import pytest
import tiny_runs


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    return tiny_runs.write_world(tmp_path_factory.mktemp("policies"))

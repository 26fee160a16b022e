"""The world that all tests of policies run in."""

import pytest
import tiny_runs
import worlds


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    return tiny_runs.write_world(tmp_path_factory.mktemp("policies"))


@pytest.fixture(scope="session")
def smaller(tmp_path_factory):
    """Another encoder: its weights in another order."""
    import tiny_bert

    folder = tmp_path_factory.mktemp("smaller") / "bert"
    every = tiny_bert.random_tensors().items()
    tensors = {name: array[::-1].copy() for name, array in every if "layer.1" not in name}
    tiny_bert.write(folder, tensors, num_hidden_layers=1)
    return folder


@pytest.fixture(scope="session")
def whole(world, tmp_path_factory):
    """Each policy run once, whole: its folder, and what `worlds.course` gives."""
    found = {}
    for name, keys in worlds.CASES.items():
        out = tmp_path_factory.mktemp(name)
        found[name] = (out, *worlds.course(worlds.config_of(world, **keys), out))
    return found

"""benchmarks/policies.py: finished cells that a later sitting goes on from."""

import pytest
import tiny_bert
from policies_made import record, toy


def test_a_page_of_what_is_kept_has_whole_seeds_and_whole_arms():
    import policies
    from policies_cells import Arm

    random, standard, svpp, asvp, auto = arms = [
        Arm(name) for name in ("random", "standard", "svpp", "asvp", "auto")
    ]
    kept = {(seed, arm) for seed in (0, 1, 3) for arm in arms} | {(2, random), (2, svpp), (2, auto)}
    kept -= {(3, auto)}

    class Cells:
        def has(self, config):
            return config in kept

    every = {(seed, arm): (seed, arm) for seed in range(5) for arm in arms}
    found = policies.there(Cells(), every)
    assert {seed for seed, _ in found} == {0, 1, 3}
    assert {arm for _, arm in found} == {random, standard, svpp, asvp}, "auto lacks a seed"
    kept.clear()
    with pytest.raises(SystemExit, match="no seed"):
        policies.there(Cells(), every)


def test_a_page_of_nothing_is_not_written(tmp_path, capsys):
    import policies

    given = ["--kept", "--tasks", "cola", "--encoders", "some/bert", "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit, match="nothing is kept in"):
        policies.main([*given, "--records", str(tmp_path)])
    assert "cola, bert: nothing is kept of it" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()
    with pytest.raises(SystemExit):
        policies.main(given)
    assert "name the folder of packed cells with --records" in capsys.readouterr().err


def test_kept_cells_are_known_by_what_they_depend_on_not_by_where_it_lay(toy_data, tmp_path):
    import policies_cells
    from policies_kept import Cell, Kept, key_of

    encoder = toy_data / "models" / "paraphrase-MiniLM-L3-v2"
    keys = {}
    for name, task, size, rows in (
        ("one", "sst2", toy(), "f"),
        ("elsewhere", "sst2", toy(), "f"),
        ("other rows", "sst2", toy(), "g"),
        ("other size", "sst2", toy(round=5), "f"),
    ):
        material = policies_cells.write_material(tmp_path / name, toy_data, task, size)
        arm = policies_cells.Arm("svpp")
        config = policies_cells.config_of(material, encoder, size, arm, 0, encoder)
        keys[name] = key_of(config, rows)
    assert keys["one"] == keys["elsewhere"]
    assert len({*keys.values()}) == 3
    other = tmp_path / "weights" / encoder.name
    tiny_bert.write(other)
    (other / "model.safetensors").write_bytes(b"other weights")
    config = policies_cells.config_of(material, other, size, arm, 0, other)
    assert key_of(config, "f") != keys["other size"]

    kept = Kept(tmp_path / "kept", "study")
    assert kept.find(keys["one"]) is None
    records = [record("svpp", 0, 20, 0.123456789, 1.0)]
    where = {"commit": "abc", "bought": "def"}
    kept.add(Cell(arm="svpp", seed=0, key=keys["one"], **where, records=records))
    beside = Kept(tmp_path / "kept", "study")
    beside.add(Cell(arm="asvp", seed=0, key="another's", **where, records=records))
    kept.write()
    beside.write()
    assert len(Kept(tmp_path / "kept", "study")) == 2, "processes with other seeds share the file"
    assert len([*(tmp_path / "kept").iterdir()]) == 1
    found = Kept(tmp_path / "kept", "study").find(keys["one"])
    assert found is not None
    assert found["commit"] == "abc"
    assert found["records"][0]["metrics"] == {"accuracy": 0.123457}
    assert Kept(None, "study").find(keys["one"]) is None

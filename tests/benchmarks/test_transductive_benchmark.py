"""benchmarks/transductive.py at a toy size: how rows are divided, what is run, the last line."""

import json

import numpy as np
import pytest
import tiny_runs

HELD = 30


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Four domains of made-up reviews, 60 rows each, of letters that the tiny encoder reads."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "reviews").mkdir()
    for number, domain in enumerate(("books", "dvd", "electronics", "kitchen")):
        rows = [
            {
                "id": f"{domain}-{row['id']}",
                "text": row["text"],
                "label": int(row["label"] == "low"),
            }
            for row in tiny_runs.sentences(60, number)
        ]
        tiny_runs.write_rows(folder / "reviews" / f"{domain}.jsonl", rows)
    return folder


@pytest.mark.parametrize("without", [False, True])
def test_rows_that_are_held_are_not_in_the_pool(data, without):
    import transductive

    rows = transductive.divide(data, "kitchen", HELD, without=without)
    assert (len(rows.targets), len(rows.test)) == (10, 20)
    held = {row["text"] for row in (*rows.targets, *rows.test)}
    assert not held & {row["text"] for row in rows.pool}
    domains = [row["domain"] for row in rows.pool]
    assert (domains.count("kitchen") == 0) == without
    assert {"books", "dvd", "electronics"} <= set(domains)
    assert all(list(row) == ["text"] for row in rows.targets), "a target has no label"
    assert transductive.divide(data, "kitchen", HELD, without=without) == rows


def test_lists_of_the_domain_begin_as_all_arms_do(data):
    import transductive

    rows = transductive.divide(data, "kitchen", HELD)
    size = transductive.Size(40, 2, ())
    lists = transductive.in_domain(rows, "kitchen", size)
    assert [(line["head"], line["seed"]) for line in lists] == [
        ("linear", 0), ("epinet", 0), ("linear", 1), ("epinet", 1)
    ]  # fmt: skip
    for line in lists:
        assert len(set(line["rows"])) == 40
        assert {rows.pool[row]["domain"] for row in line["rows"][20:]} == {"kitchen"}
    assert lists[0]["rows"][:20] != lists[2]["rows"][:20]
    assert transductive.in_domain(rows, "kitchen", size._replace(labels=90)) == []


def test_shares_are_of_what_the_rule_chose(data):
    import transductive

    rows = transductive.divide(data, "kitchen", HELD)
    places = [at for at, row in enumerate(rows.pool) if row["domain"] == "dvd"]
    line = {"head": "epinet", "rule": "itl", "rows": [*range(20), *places[:3], len(rows.pool) - 1]}
    found = transductive.shares(rows, [line])
    assert found == {"epinet/itl": {"books": 0, "dvd": 0.75, "electronics": 0, "kitchen": 0.25}}


@pytest.mark.slow
def test_the_script_ends_with_one_json_object(data, tiny_encoder, tmp_path, monkeypatch, capsys):
    import transductive

    arms = ("linear/random", "epinet/random", "epinet/itl")
    monkeypatch.setattr(transductive, "QUICK", transductive.Size(40, 2, arms))
    monkeypatch.setattr(transductive, "K", 4)
    given = ["--data", data, "--out", tmp_path / "out", "--held", HELD, "--tokens", 16]
    transductive.main([*map(str, given), "--quick", "--encoder", str(tiny_encoder)])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (found["domain"], found["budget"], found["seeds"]) == ("kitchen", 40, 2)
    assert found["rows"]["targets"] == 10
    replays = {"linear/replay:kitchen", "epinet/replay:kitchen"}
    assert found["arms"].keys() == {*arms} | replays
    for name, arm in found["arms"].items():
        np.testing.assert_allclose(sum(arm["bought"].values()), 1, atol=1e-3)
        assert (arm["bought"]["kitchen"] == 1) == (name in replays)
    assert {"commit", "versions"} <= found.keys()
    assert (tmp_path / "out" / "report" / "report.html").stat().st_size > 1000

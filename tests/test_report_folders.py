"""Folders of records read, merged and named; whatever is damaged or contradicts is named."""

import json
from pathlib import Path

import pytest
import report_made as made

from enn_finetune.errors import InputError
from enn_finetune.report.figures import figures_of, summary_json
from enn_finetune.report.pairing import unpaired
from enn_finetune.report.studies import StudyKey, names, read_folders

ARMS = {name: made.SPEEDS[name] for name in ("linear/random", "epinet/random", "epinet/bald")}
FEW = {"speeds": ARMS, "seeds": range(4), "labels": (20, 50, 100, 200)}


@pytest.fixture(scope="module")
def records() -> list[made.Line]:
    return made.study_records("sst2", splits=("held", "dev"), **FEW) + made.study_records(
        "cola", **FEW
    )


def test_folders_are_merged_cell_by_cell(records: list[made.Line], tmp_path: Path) -> None:
    early = made.write(tmp_path / "early", [r for r in records if int(str(r["seed"])) < 3])
    late = made.write(tmp_path / "late", [r for r in records if int(str(r["seed"])) > 1])
    whole = made.write(tmp_path / "whole", records)
    sizes = {"sst2": 4 * 3 * 4 * 2, "cola": 4 * 3 * 4}  # seeds, arms, counts, splits
    found = read_folders([early, late])
    assert {name: len(study.records) for name, study in found.items()} == sizes
    one, other = (
        summary_json(figures_of(read_folders(folders), resamples=50))
        for folders in ([early, late, early], [whole])
    )
    assert one == other


def test_a_cell_that_was_interrupted_gives_way_to_the_whole_one(
    records: list[made.Line], tmp_path: Path
) -> None:
    part = [r for r in records if r["rule"] != "bald" or int(str(r["labels_bought"])) < 100]
    cut = made.write(tmp_path / "cut", part)
    whole = made.write(tmp_path / "whole", records)
    for folders in ([cut, whole], [whole, cut]):
        assert sum(len(study.records) for study in read_folders(folders).values()) == len(records)


def test_other_data_under_the_same_name_is_refused(tmp_path: Path) -> None:
    """Two arms that were never paired must not be compared, though each stands in one folder."""
    rows = made.study_records("sst2", **FEW)
    for name, rule in (("one", "random"), ("two", "bald")):
        part = [row for row in rows if row["rule"] == rule]
        made.write(tmp_path / name, part, sources=[made.source(part, data_fingerprint=name)])
    with pytest.raises(InputError, match=r"two: sst2 has other data here \(two\)"):
        read_folders([tmp_path / "one", tmp_path / "two"])


def test_another_budget_is_another_study(records: list[made.Line], tmp_path: Path) -> None:
    """The same task in rounds of 10 and of 100 on one page, and neither taken for the other."""
    rows = [row for row in records if row["task"] == "cola"]
    for name, step in (("few", 10), ("many", 100)):
        counts = list(range(20, 221, step))
        budget: dict[str, object] = {"labels": 220, "start": 20, "rounds": counts}
        part = [{**row, "metrics": {"mcc": step}} for row in rows]
        made.write(
            tmp_path / name,
            part,
            sources=[made.source(part, budget=budget)],
            purchases=made.bought(rows),
        )
    found = read_folders([tmp_path / "few", tmp_path / "many", tmp_path / "few"])
    assert list(found) == [
        "cola · 220 labels in rounds of 10",
        "cola · 220 labels in rounds of 100",
    ]
    for study, step in zip(found.values(), (10, 100), strict=True):
        assert {row["metrics"]["mcc"] for row in study.records} == {step}
        assert len(study.records) == len(rows)
        assert len(study.bought) == 4 * len(ARMS)
        assert len(study.sources) == 1


def test_an_arm_that_begins_with_other_rows_is_named(
    records: list[made.Line], tmp_path: Path
) -> None:
    rows = [row for row in records if row["task"] == "cola"]
    budget: dict[str, object] = {"labels": 220, "start": 3}
    lists = made.bought(rows)
    for line in lists:  # the same first rows in any order, then what the arm chose
        line["rows"] = [[5, 6, 7], [7, 5, 6], [6, 7, 5]][len(line["rule"]) % 3] + [
            len(line["rule"])
        ]
    source = [made.source(rows, budget=budget)]
    fair = read_folders([made.write(tmp_path / "fair", rows, sources=source, purchases=lists)])
    assert unpaired(fair["cola"]) == []
    lists[2]["rows"] = [5, 6, 8, 1]
    other = read_folders([made.write(tmp_path / "other", rows, sources=source, purchases=lists)])
    arm = f"{lists[2]['head']}/{lists[2]['rule']}"
    assert unpaired(other["cola"]) == [arm]
    (figures,) = figures_of(other, resamples=20)
    assert any(arm in note and "not paired" in note for note in figures.main["notes"])


def test_a_budget_that_grows_and_one_of_steps(tmp_path: Path) -> None:
    named = []
    for regime, counts in (("pool", [20, 40, 80, 100]), ("online", [20, 40, 100])):
        rows = [{**row, "regime": regime} for row in made.study_records("cola", **FEW)]
        budget: dict[str, object] = {"labels": 1100, "rounds": counts}
        folder = made.write(
            tmp_path / regime, rows, sources=[made.source(rows, budget=budget, regime=regime)]
        )
        named += [study.key.budget for study in read_folders([folder]).values()]
    assert named == ["1,100 labels in 3 rounds", "1,100 labels"]


def test_folders_that_disagree_are_both_named(records: list[made.Line], tmp_path: Path) -> None:
    one = made.write(tmp_path / "one", records, purchases=made.bought(records))
    other = json.loads(json.dumps(records))
    other[7]["metrics"]["nll"] += 1e-6
    two = made.write(tmp_path / "two", other)
    with pytest.raises(
        InputError, match=r"one and .*two have other records.*linear/random, seed 0"
    ):
        read_folders([one, two])
    lists = made.bought(records)
    lists[3]["rows"] = [1, 2]
    three = made.write(tmp_path / "three", records, purchases=lists)
    with pytest.raises(InputError, match=r"one and .*three bought other rows.*seed 3"):
        read_folders([one, three])
    slower = [{**row, "seconds": 99.0} for row in records]  # time alone is no disagreement
    read_folders([one, made.write(tmp_path / "slow", slower)])


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (b"{oops}\n", "not a line of JSON"),
        (b"[1]\n", "a JSON list in place of an object"),
        (
            b'{"step": 1, "labels_bought": "9", "split": "dev", "metrics": {}}\n',
            "labels_bought: found '9'",
        ),
        (b'{"step": 1, "labels_bought": 9, "split": "dev"}\n', "metrics: found None"),
        (
            b'{"step": 1, "labels_bought": 9, "split": "dev", "metrics": {"nll": "a"}}\n',
            r"metrics\.nll: found 'a'",
        ),
    ],
)
def test_a_damaged_line_is_named(
    records: list[made.Line], tmp_path: Path, line: bytes, fault: str
) -> None:
    path = made.write(tmp_path, records[:2]) / "records.jsonl"
    path.write_bytes(path.read_bytes() + line)
    with pytest.raises(InputError, match=rf"records\.jsonl, line 3: .*{fault}"):
        read_folders([tmp_path])


def test_a_last_line_cut_off_by_a_crash_is_left_out(
    records: list[made.Line], tmp_path: Path
) -> None:
    path = made.write(tmp_path, records[:10]) / "records.jsonl"
    path.write_bytes(path.read_bytes()[:-30])
    assert len(next(iter(read_folders([tmp_path]).values())).records) == 9
    packed = made.write(tmp_path / "packed", records, suffix=".gz") / "records.jsonl.gz"
    packed.write_bytes(packed.read_bytes()[:-30])
    with pytest.raises(InputError, match=r"records\.jsonl\.gz: cannot be unpacked"):
        read_folders([tmp_path / "packed"])


def test_folders_without_records(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere: no such folder"):
        read_folders([tmp_path / "nowhere"])
    with pytest.raises(InputError, match=r"found no records\.jsonl"):
        read_folders([tmp_path])
    (tmp_path / "records.jsonl").touch()
    with pytest.raises(InputError, match="found no record;"):
        read_folders([tmp_path])
    with pytest.raises(InputError, match="at least one folder"):
        read_folders([])


def test_the_shortest_names() -> None:
    def named(*keys: tuple[str, ...]) -> list[str]:
        return names([StudyKey(*key) for key in keys])

    assert named(("sst2", "plain", "m", "frozen", "pool")) == ["sst2"]
    assert named(("sst2", "rare", "m"), ("sst2", "plain", "m")) == ["sst2:rare", "sst2"]
    assert named(
        ("sst2", "plain", "places/gte-small", "frozen", "pool"),
        ("sst2", "plain", "l3", "full", "online"),
        ("sst2", "plain", "l3", "full", "pool"),
        ("cola", "plain", "l3", "full", "pool"),
    ) == ["sst2 · gte-small", "sst2 · l3 · online", "sst2 · l3 · pool", "cola"]
    assert named(("a", "plain", "m", "full", "pool"), ("a", "plain", "m", "full", "online")) == [
        "a · pool",
        "a · online",
    ]
    assert named(("a", "plain", "x/m"), ("a", "plain", "y/m")) == ["a · x/m", "a · y/m"]


def test_arms_of_other_settings_are_not_paired(records: list[made.Line], tmp_path: Path) -> None:
    """Another layer's features or another length of texts would make a weaker baseline."""
    rows = [row for row in records if row["task"] == "cola"]
    config = {
        "backbone": {"layers": "auto", "path": ["here"]},
        "acquisition": {"indices": 8},
        "budget": {"labels": 220, "steps": None},
    }
    arms = sorted({str(row["rule"]) for row in rows})
    parts = [[row for row in rows if (row["rule"] == arms[0]) == first] for first in (True, False)]

    def folder(name: str, part: list[made.Line], **changes: dict[str, object]) -> Path:
        made_with = {
            section: {**config.get(section, {}), **changes.get(section, {})}
            for section in config | changes
        }
        return made.write(tmp_path / name, part, sources=[made.source(part, config=made_with)])

    one = folder("one", parts[0])
    alike = {"acquisition": {"indices": 32}, "backbone": {"path": ["there"], "rank": 8}}
    two = folder("two", parts[1], **alike)  # keys of a later version are not known of both
    (study,) = read_folders([one, two]).values()
    assert len(study.records) == len(rows)
    three = folder("three", parts[1], backbone={"layers": "last"}, budget={"steps": 5})
    with pytest.raises(InputError, match=r"three: cola .*\(backbone.layers, budget.steps\)"):
        read_folders([one, three])
    four = folder("four", parts[1], task={"rows": 500})  # without the key a pool has all rows
    with pytest.raises(InputError, match=r"four: cola .*\(task.rows\)"):
        read_folders([one, four])


def test_entries_of_one_study_in_one_file_are_all_told(
    records: list[made.Line], tmp_path: Path
) -> None:
    """Seeds that two commands ran side by side, packed together."""
    rows = [row for row in records if row["task"] == "cola"]
    entries = [made.source(rows, command=f"bench {seeds}") for seeds in ("0:2", "2:4")]
    (study,) = read_folders([made.write(tmp_path / "joined", rows, sources=entries)]).values()
    assert [source["command"] for source in study.sources] == ["bench 0:2", "bench 2:4"]
    entries[1]["data_fingerprint"] = "other"
    with pytest.raises(InputError, match=r"joined: cola has other data here .* entry of this one"):
        read_folders([made.write(tmp_path / "mixed" / "joined", rows, sources=entries)])
    entries = [made.source(rows, budget={"labels": labels}) for labels in (50, 60)]
    with pytest.raises(InputError, match="cola has entries of 50 labels and of 60 labels in"):
        read_folders([made.write(tmp_path / "longer", rows, sources=entries)])

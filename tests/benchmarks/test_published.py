"""benchmarks/pack.py and intended_table.py: what is committed is what the README shows."""

import json
import lzma
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"


def test_the_readme_has_the_table_of_the_page():
    from intended_table import PAGE, table

    lines = "\n".join(table(PAGE.read_text("utf-8")))
    readme = README.read_text("utf-8")
    assert lines in readme, "run benchmarks/intended_table.py and paste its table"


def test_the_readme_has_the_table_of_described_classes():
    from described_table import PAGE, table

    lines = "\n".join(table(PAGE.read_text("utf-8")))
    readme = README.read_text("utf-8")
    assert lines in readme, "run benchmarks/described_table.py and paste its table"


def test_points_are_bold_where_their_interval_leaves_out_0():
    from described_table import by_study, gained, rows_after

    assert gained("+2.5 (+1.8 to +3.2)") == "**+2.5**"
    assert gained("-2.5 (-3.8 to -1.2)") == "**-2.5**"
    assert gained("+0.3 (-0.9 to +1.6)") == "+0.3"
    rows = rows_after("# x\n\n| arm | a | mean |\n| -- | -- | -- |\n| b | 1 | 2 |\n", "# x")
    assert by_study(rows) == {"a": {"b": "1"}}
    with pytest.raises(ValueError, match="found no table after '# y'"):
        rows_after("# x\n", "# y")


def test_a_saving_is_bold_where_its_whole_interval_is_one():
    from intended_table import shown, studies

    assert shown("2.17x (1.57 to 2.69)") == "**2.17x (1.57 to 2.69)**"
    assert shown("2.24x (0.74 to 3.83)") == "2.24x (0.74 to 3.83)"
    assert shown("1.14x (up to 4.43)") == "1.14x (up to 4.43)"
    assert shown("5.12x (up to 15.0); nothing learned") == "nothing learned"
    with pytest.raises(ValueError, match="All studies"):
        studies("# The intended task\n")


def policies(page: str) -> list[tuple[str, dict[str, list[str]]]]:
    """(text, row by policy) of each study of POLICIES.md."""
    found = []
    for study in page.split("\n## ")[1:]:
        rows = [line.strip("| ").split(" | ") for line in study.splitlines() if line[:2] == "| "]
        named = {row[0]: row[1:] for row in rows if len(row) > 5}
        found.append((study, {name: row for name, row in named.items() if row[0][:1].isdigit()}))
    return found


def test_the_readme_has_the_figures_of_the_policies_page():
    """A table for each study in which `standard` saved labels, in the page's order."""
    page = (ROOT / "benchmarks" / "POLICIES.md").read_text("utf-8")
    readme = README.read_text("utf-8")
    readme = readme.split("## Who chooses")[1].split("\n## ")[0]
    studies = [one for one in policies(page) if "\n- asvp saves" in one[0]]
    assert studies
    for number, (study, figures) in enumerate(studies):
        for policy in ("random", "standard", "svpp", "asvp"):
            score, area, labels, _, operations, *_ = figures[policy]
            lines = [one for one in readme.splitlines() if one.startswith(f"| `{policy}` |")]
            assert len(lines) == len(studies)
            cells = [cell.strip() for cell in lines[number].strip("|").split("|")]
            assert float(cells[1]) == pytest.approx(float(score), abs=6e-4)
            points = float(area.split(" ")[0])
            assert float(cells[2].split(" ")[0]) == pytest.approx(points, abs=0.06)
            assert cells[3].startswith(labels)
            assert cells[4] == operations.removeprefix("0")
        (share,) = (line for line in study.splitlines() if line.startswith("- asvp saves"))
        saved = share.split(" of the labels")[0].removeprefix("- asvp saves ")
        value, _, spread = saved.partition(" ")
        assert " ".join(f"saves {value} times {spread}".split()) in " ".join(readme.split())


def test_the_readme_says_what_was_found_where_nothing_was_saved():
    page = (ROOT / "benchmarks" / "POLICIES.md").read_text("utf-8")
    readme = README.read_text("utf-8").split("**On SST-2 as it is**")[1]
    sst2, cola = " ".join(readme.split("\n\n")[0].split()).split("**On CoLA**")
    kept = [one for one in policies(page) if "standard saves no label here" in one[0]]
    found = {study.split(",")[0]: (study, figures) for study, figures in kept}
    assert found.keys() == {"cola", "sst2"}

    def scores(task: str) -> dict[str, str]:
        rows = found[task][1]
        return {name: f"{float(row[0]):.3f}".removeprefix("0") for name, row in rows.items()}

    def three(text: str) -> list[str]:
        return [f"{float(x):.1f}" for x in re.findall(r"[-+]\d+\.\d+", text)[:3]]

    assert f"an MCC of {scores('cola')['random']} by random selection" in cola
    assert f"and {max(scores('cola').values())} at the most" in cola
    area, low, high = three(found["cola"][1]["asvp"][1])
    assert f"({area} points of area, {low} to {high})" in cola
    ends = scores("sst2")
    assert f"random selection ends at an accuracy of {ends.pop('random')}" in sst2
    for policy, score in ends.items():
        assert f"`{policy}` at {score}" in sst2
    for text, task in ((sst2, "sst2"), (cola, "cola")):
        (share,) = re.findall(r"it takes 0(\.\d+) of its operations", found[task][0])
        assert f"at {share} of `standard`'s operations" in text
    area, low, high = three(found["sst2"][0].split("features stay as they are: ")[1])
    assert f"{area} points of area ({low} to {high})" in sst2


ARMS = {
    "`confident_coreset`": "epinet/confident_coreset",
    "power sampling by margin": "epinet/power4_margin",
    "margin on the epinet": "epinet/margin",
    "`badge`": "epinet/badge",
    "margin on the plain head": "linear/margin",
}


def spread(text: str) -> tuple[float, ...]:
    """The numbers of "+1.2 points (3.4 to 5.6)"."""
    return tuple(float(number) for number in re.findall(r"[-+]?\d*\.\d+", text)[:3])


def by_arm(name: str, title: str) -> dict[str, dict[str, str]]:
    """The first table after a title of a page: arm -> column -> cell."""
    from described_table import rows_after

    page = (ROOT / "benchmarks" / f"{name}.md").read_text("utf-8")
    header, *body = rows_after(page, title)
    return {row[0]: dict(zip(header, row, strict=True)) for row in body}


@pytest.mark.parametrize("name", ["QUICK", "QUICK-FRESH"])
def test_the_readme_has_the_gains_of_the_quick_benchmark(name):
    lines = README.read_text("utf-8").splitlines()
    (line,) = (one for one in lines if one.startswith("|") and f"[{name}.md]" in one)
    rows = by_arm(name, "### Area gained over linear/random")
    for words, arm in ARMS.items():
        (said,) = re.findall(rf"{words} ([-+][^)]*\))", line)
        found = pytest.approx(spread(rows[arm]["mean over tasks"]), abs=0.051)
        assert spread(said) == found, arm
    behind = [
        spread(rows[f"{head}/margin"]["messages:repeated"])[0] for head in ("epinet", "linear")
    ]
    assert "({:.1f} and {:.1f})".format(*behind) in line


def test_the_readme_has_the_figures_of_the_online_page():
    (line,) = (one for one in README.read_text("utf-8").splitlines() if "[ONLINE.md]" in one)
    dev, held = (by_arm("ONLINE", f"### sst2, {split} split") for split in ("dev", "held"))
    said = {"variance on the epinet": "epinet/variance", "margin on it": "epinet/margin"}
    for words, arm in {**said, "on the plain head": "linear/margin"}.items():
        value, _, ends = held[arm]["system"].partition(" ")
        assert f"{words} {value} fewer {ends}" in line or f"{words} {value} {ends}" in line
    assert f"from {held['linear/random']['labels to 0.857']} labels on" in line
    assert f"does at {dev['epinet/random']['labels to 0.809']}" in line
    rules = [row for arm, row in dev.items() if not arm.endswith("/random")]
    ends_at = sorted(row["accuracy at the end"][1:5] for row in rules)
    assert f"{ends_at[0]} to {ends_at[-1]}" in line
    assert all(row["labels to 0.809"].startswith(">") for row in rules)


def test_the_readme_has_the_figures_of_the_paper_page():
    (line,) = (one for one in README.read_text("utf-8").splitlines() if "[PAPER.md]" in one)
    found = {split: by_arm("PAPER", f"### sst2, {split} split") for split in ("dev", "held")}
    variance, revisiting = "epinet/variance", "epinet/variance+revisit0.5"

    def ratio(split: str, arm: str, column: str) -> str:
        return found[split][arm][column]

    assert (
        f"sees each of the {ratio('held', 'linear/random+epoch', 'labels to 0.940')} rows" in line
    )
    assert f"with {ratio('held', variance, 'labels to 0.940')} labels" in line
    value, _, ends = ratio("held", variance, "system").partition(" ")
    assert f"**{value} fewer {ends}**" in line
    assert f"over random selection with it {ratio('held', variance, 'alone')}" in line
    assert f"variance {ratio('dev', variance, 'system')};" in line
    last = ratio("held", revisiting, "labels to 0.940").removeprefix("> ")
    for split, words in (
        ("held", "it is at {} with {} labels"),
        ("dev", "revisiting {} at {} labels"),
    ):
        end = ratio(split, revisiting, "accuracy at the end")[1:5]
        assert words.format(end, last) in line
    page = (ROOT / "benchmarks" / "PAPER.md").read_text("utf-8")
    dev, held = page.split("### sst2, held split")
    matching = [
        line for line in held.splitlines() if line.startswith("| epinet/") and "alone" in line
    ]
    (mine,) = (line for line in matching if line.startswith(f"| {revisiting} |"))
    at_20k, at_end = (cell.strip().split(";")[0] for cell in mine.split("|")[5:7])
    value, _, ends = at_end.partition(" ")
    assert f"needs {value} as many labels for {ends}, at 20,000 {at_20k};" in line
    (blind,) = (
        line.split("|")
        for line in held.splitlines()
        if line.startswith("| epinet/random+revisit0.5 |") and line.count("x (") == 5
    )
    assert f"too, {blind[6].split()[0]} and {blind[5].split()[0]}." in line
    (mine,) = (
        line.split("|")
        for line in dev.splitlines()
        if line.startswith(f"| {revisiting} |") and line.count("alone") == 5
    )
    value, ends = mine[6].split(";")[0].split("(")
    assert f"({value.strip()} for that score, {ends}" in line


def test_packing_keeps_what_the_page_reads_and_no_text(tmp_path):
    from pack import pack

    place = dict.fromkeys(("task", "pool", "backbone", "tune", "regime", "head", "rule"), "x")
    lines = [
        {**place, "seed": seed, "rows": rows, "rounds": [1, 2], "disagreeing": [0, 1],
         "examples": [["a secret text", "label"]]}
        for seed, rows in enumerate([[3, 1], [3, 1], [1, 3]])
    ]  # fmt: skip
    source = tmp_path / "source"
    source.mkdir()
    (source / "bought.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    record = {**place, "metrics": {"accuracy": 0.123456789}}
    (source / "records.jsonl").write_text(json.dumps(record) + "\n")
    entry = {**place, "seconds": 3}
    (source / "studies.json").write_text(json.dumps([entry, {**entry, "task": "begun only"}]))
    pack([source], tmp_path / "target")

    def read(name: str) -> list[dict]:
        text = lzma.decompress((tmp_path / "target" / name).read_bytes()).decode()
        return [json.loads(line) for line in text.splitlines()]

    assert read("records.jsonl.xz")[0]["metrics"] == {"accuracy": 0.123457}
    found = read("bought.jsonl.xz")
    assert found[0]["rows"] == found[1]["rows"] != found[2]["rows"]
    assert [line["disagreeing"] for line in found] == [[0, 1]] * 3
    assert "secret" not in json.dumps(found)
    for line in lines:  # those of a benchmark
        del line["disagreeing"]
        line["classes"] = {"a": 2}
    (source / "bought.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    pack([source], tmp_path / "target")
    found = read("bought.jsonl.xz")
    assert [line["rows"][0] for line in found] == [3, 3, 1], "no rule chose the first ones"
    assert found[0]["rows"] == found[1]["rows"] != found[2]["rows"]
    assert [len(line["rows"]) for line in found] == [2] * 3
    assert [line["classes"] for line in found] == [{"a": 2}] * 3
    assert "secret" not in json.dumps(found)
    assert json.loads((tmp_path / "target" / "studies.json").read_text()) == [entry]


def test_packing_leaves_out_the_steps_of_an_online_study():
    from pack import without_steps

    budget = {"labels": 9, "start": 3, "rounds": [3, 6, 9]}
    pool = {"regime": "pool", "budget": budget}
    assert without_steps(pool) == pool
    online = without_steps({"regime": "online", "budget": budget})
    assert online == {"regime": "online", "budget": {"labels": 9, "start": 3}}


def test_what_was_run_side_by_side_is_packed_together(tmp_path):
    from pack import pack

    def folder(name: str, task: str, seed: int = 0, labels: int = 50):
        (tmp_path / name).mkdir()
        line = {"task": task, "seed": seed, "metrics": {"accuracy": 0.5}}
        (tmp_path / name / "records.jsonl").write_text(json.dumps(line) + "\n")
        entry = {"task": task, "seeds": [seed], "budget": {"labels": labels}}
        (tmp_path / name / "studies.json").write_text(json.dumps([entry]))
        return tmp_path / name

    one, two, again = folder("one", "cola"), folder("two", "rte"), folder("again", "cola")
    more, longer = folder("more", "cola", 1), folder("longer", "cola", 1, 60)
    pack([one, two, more], tmp_path / "joined")
    found = json.loads((tmp_path / "joined" / "studies.json").read_text())
    assert [(line["task"], line["seeds"]) for line in found] == [
        ("cola", [0]),
        ("rte", [0]),
        ("cola", [1]),
    ]
    with pytest.raises(SystemExit, match=r"one and .*again both have results of cola"):
        pack([one, again], tmp_path / "none")
    with pytest.raises(SystemExit, match="other budgets of cola"):
        pack([one, longer], tmp_path / "none")
    for name in ("more", "longer"):
        (tmp_path / name / "study.json").write_text("{}")
    with pytest.raises(SystemExit, match=r"more, .*longer: of a testbed; pack each by itself"):
        pack([more, longer], tmp_path / "none")
    assert not (tmp_path / "none").exists()
    pack([one, tmp_path / "." / "one"], tmp_path / "once")
    (line,) = lzma.decompress((tmp_path / "once/records.jsonl.xz").read_bytes()).splitlines()
    assert json.loads(line)["task"] == "cola"

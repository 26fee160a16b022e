"""The report: a well-formed page that carries everything it needs, and says losses as loudly."""

import io
import struct
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from enn_finetune import report
from enn_finetune.records import Record
from enn_finetune.report.curves import panels
from enn_finetune.report.elements import document, element
from enn_finetune.report.words import ratio_text
from enn_finetune.savings import Summary, summarise

VOID = {"meta", "img", "source", "br"}
RANDOM, OWN = "linear / random", "epinet / random"
SPEEDS = {RANDOM: 90.0, OWN: 88.0, "epinet / margin": 45.0, "epinet / bald": 160.0}
PROVENANCE = report.Provenance(
    command="enn-finetune demo --out <dir>",
    config_hash="3f9a12c0",
    commit="d791626",
    data="sha256:53aa5117",
    wall_seconds=141.4,
    more={"encoder": "MiniLM & friends"},
)


def make_summary(seeds: int = 6, speeds: dict[str, float] = SPEEDS) -> Summary:
    rng = np.random.default_rng(0)
    records: list[Record] = []
    for arm, speed in speeds.items():
        head, rule = arm.split(" / ")
        for seed in range(seeds):
            for step, labels in enumerate(range(20, 220, 20)):
                score = 0.8 - 0.4 * np.exp(-labels / speed) + rng.normal(0, 0.004)
                records.append(
                    {
                        "arm": arm,
                        "head": head,
                        "rule": rule,
                        "seed": seed,
                        "step": step,
                        "labels_bought": labels,
                        "split": "test",
                        "metrics": {"macro_f1": score, "nll": 1.5 - score, "ece": 0.05},
                        "seconds": 1.0,
                    }
                )
    return summarise(records, "macro_f1", RANDOM, OWN, resamples=200)


@pytest.fixture(scope="module")
def summary() -> Summary:
    return make_summary()


def make_section(summary: Summary, task: str = "messages") -> report.Section:
    return report.Section(
        task,
        summary,
        PROVENANCE,
        description="Short <i>customer</i> messages",
        balance={"pool": {"refund": 90, "privacy": 10}, "epinet / margin": {"refund": 1}},
        examples={"epinet / margin": [report.Bought("<script>alert('x')</script> & \x00", "a<b")]},
    )


@pytest.fixture(scope="module")
def page(summary: Summary, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("report") / "report.html"
    report.write_page(path, "Fewer <labels>", [make_section(summary)])
    return path.read_text(encoding="utf-8")


class Reader(HTMLParser):
    """Checks that every element is closed in order; collects tags, attributes and text."""

    def __init__(self, html: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == [], f"left open: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.text += data


def test_the_page_is_well_formed_and_stands_alone(page: str) -> None:
    found = Reader(page)
    assert page.startswith("<!doctype html>")
    assert not {"script", "link", "iframe", "object", "base"} & set(found.tags)
    for name, value in found.attributes:
        if name in {"src", "srcset", "href"}:
            assert value.startswith("#")
        assert not name.startswith("on")
    for outside in ("http:", "https:", "//", "@import", "url("):
        assert outside not in page


def test_every_text_is_escaped(page: str) -> None:
    text = Reader(page).text
    for given_text in ("Fewer <labels>", "Short <i>customer</i>", "--out <dir>", "& friends"):
        assert given_text in text
    assert "<script>alert('x')</script> & \N{REPLACEMENT CHARACTER}" in text
    assert "a<b" in text
    assert "<script" not in page


@settings(deadline=None, max_examples=50)
@given(st.text(st.characters(codec=None)), st.text())
def test_any_text_comes_back_as_it_was(inside: str, name: str) -> None:
    html = document("t", "", element("body", element("p", inside, title=name)))
    html.encode("utf-8")
    found = Reader(html)
    assert set(found.tags) == {"html", "head", "meta", "title", "style", "body", "p"}
    if inside.isprintable():
        assert inside in found.text


def test_the_page_names_what_was_run_and_found(page: str, summary: Summary) -> None:
    text = Reader(page).text
    for fact in ("3f9a12c0", "d791626", "sha256:53aa5117", "141 s", "0, 1, 2, 3, 4, 5", "MiniLM"):
        assert fact in text
    for found in report.verdicts(summary):
        assert found.sentence in text
    assert f"{summary['target']:.3f} macro-F1" in text
    assert "paired bootstrap over seeds, 200 resamples" in text
    assert "prefers-color-scheme: dark" in page


def test_a_loss_is_shown_like_a_win(page: str, summary: Summary) -> None:
    found = {verdict.arm: verdict for verdict in report.verdicts(summary)}
    assert list(found) == ["epinet / margin", "epinet / bald", OWN]
    assert found["epinet / margin"].outcome == "fewer"
    assert found["epinet / bald"].outcome == "more"
    assert "did not reach" in found["epinet / bald"].sentence
    assert "Lost to random on 6 of 6 seeds" in found["epinet / bald"].detail
    assert '<li class="more">' in page
    assert report.headline(summary).startswith(
        "Of 2 prioritised arms, 1 needed fewer labels than random selection, 1 lost to it"
    )


def test_the_headline_of_a_single_arm_that_loses() -> None:
    speeds = {arm: SPEEDS[arm] for arm in (RANDOM, OWN, "epinet / bald")}
    assert report.headline(make_summary(5, speeds)) == (
        "Prioritised selection lost to random selection."
    )


def test_a_baseline_that_stands_in_for_random_selection_is_called_by_its_name() -> None:
    summary = make_summary(5, {arm: SPEEDS[arm] for arm in (RANDOM, OWN, "epinet / bald")})
    arms = {"linear / margin" if arm == RANDOM else arm: of for arm, of in summary["arms"].items()}
    summary = {**summary, "baseline": "linear / margin", "arms": arms}
    assert report.headline(summary) == "Prioritised selection lost to linear / margin."
    (verdict,) = [one for one in report.verdicts(summary) if one.arm == "epinet / bald"]
    assert "which linear / margin reaches" in verdict.sentence
    assert "Lost to linear / margin on" in verdict.detail


def test_one_seed_makes_a_page_without_intervals(tmp_path: Path) -> None:
    report.write_page(tmp_path / "r.html", "One", [make_section(make_summary(1))])
    text = Reader((tmp_path / "r.html").read_text(encoding="utf-8")).text
    assert "There is one seed only" in text
    assert "95 % interval 1" not in text
    assert "no interval" in text


def test_a_page_of_many_tasks_begins_with_all_of_them(summary: Summary, tmp_path: Path) -> None:
    sections = [make_section(summary, "first task"), make_section(summary, "second task")]
    report.write_page(tmp_path / "r.html", "Tasks", sections)
    html = (tmp_path / "r.html").read_text(encoding="utf-8")
    found = Reader(html)
    links = [value for name, value in found.attributes if name == "href"]
    places = [value for name, value in found.attributes if name == "id"]
    assert {link[1:] for link in links} == set(places) == {"task-1", "task-2"}
    overview = found.text[: found.text.index("Of 2 prioritised arms")]
    assert "Of 4 comparisons of a prioritised arm with the baseline, on 2 tasks, 2" in overview
    assert "2 lost, 0 are not settled" in overview
    for words in ("won / not settled / lost", "mean over tasks"):  # before what may need scrolling
        assert overview.index(words) < overview.index("second task", overview.index(words))
        assert "first task" not in overview[: overview.index(words)].rpartition("arm")[2]
    with pytest.raises(ValueError, match="at least one task"):
        report.write_page(tmp_path / "none.html", "None", [])


def test_without_matplotlib_the_page_has_its_curves(
    summary: Summary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(report.MissingMatplotlibError, match=r"enn-finetune\[report\]"):
        report.draw_curves(summary, tmp_path / "curves.png")
    assert not (tmp_path / "curves.png").exists()
    report.write_page(tmp_path / "r.html", "Bare", [make_section(summary)])
    found = Reader((tmp_path / "r.html").read_text(encoding="utf-8"))
    assert found.tags.count("svg") == 2  # the score and the NLL
    assert found.tags.count("polyline") == found.tags.count("polygon") == 2 * len(SPEEDS)
    assert found.tags.count("circle") == 2  # margin and the head alone reach the target


def test_the_curves_are_a_png_with_both_panels(summary: Summary, tmp_path: Path) -> None:
    report.draw_curves(summary, tmp_path / "curves.png")
    data = (tmp_path / "curves.png").read_bytes()
    assert data.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", data[16:24])
    assert width > 2 * height
    assert [path.name for path in tmp_path.iterdir()] == ["curves.png"]
    assert panels(summary) == ["macro_f1", "nll"]


def test_the_terminal_table(summary: Summary) -> None:
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(report.table(summary, "messages"))
    text = console.export_text()
    for arm in summary["arms"]:
        assert arm in text
    margin = summary["arms"]["epinet / margin"]
    assert f"{margin['labels_to_target']:,.0f}" in text
    assert ratio_text(margin["system_ratio"]) in text
    assert "> 200" in text
    assert "6 / 6 of 6" in text

"""The part of the page about money: who is the cheapest at which prices, pictures, a table."""

from xml.etree.ElementTree import Element

from enn_finetune.report.bill import PARTS, Bill, PriceCost
from enn_finetune.report.blocks import arm_name, details
from enn_finetune.report.chart import Curve, axes_of, chart
from enn_finetune.report.elements import Child, Row, element, grid
from enn_finetune.report.looks import Look, looks
from enn_finetune.report.words import DASH, amount, metric_name
from enn_finetune.savings import CurveJson, Summary


def money_parts(found: Bill, summary: Summary) -> list[Child]:
    """Headline, pictures, table of costs, operations."""
    styles = looks(summary)
    every = (element("li", f"{words}.") for words in found["sentences"])
    sentences = (element("li", one["sentence"]) for one in found["prices"])
    parts: list[Child] = [
        element("h3", "Score against money"),
        element("p", found["sentence"], class_="headline"),
        *([element("ul", *every)] if found["sentences"] else []),
        element("p", "At these prices:"),
        element("ul", *sentences),
        _pictures(found, summary, styles),
        _costs(found, styles),
        details("Operations of encoding, scoring, training and evaluation", _flops(found, styles)),
    ]
    return parts


def _pictures(found: Bill, summary: Summary, styles: dict[str, Look]) -> Element:
    images = [_picture(found, summary, styles, price) for price in found["prices"]]
    note = (
        "Mean score over seeds against the money that a run has cost which ends there: its labels, "
        "and the hours of encoding, scoring and training. Features of the pool are charged to all "
        "arms that read them, whoever computed them; what was computed only to draw the curve is "
        "left out. The dotted line is the target; a ring marks where an arm reached it."
    )
    if any(", " in name for name in found["arms"]):
        note += (
            " Where no policy is named, the model that is trained chooses; 'auto at L/H' decided "
            "at L a label and H an hour, whatever the picture's prices."
        )
    if found["missing"]:
        note += f" Without an account of their costs: {', '.join(found['missing'])}."
    return element("figure", element("div", *images, class_="curves"), element("figcaption", note))


def _picture(found: Bill, summary: Summary, styles: dict[str, Look], price: PriceCost) -> Element:
    lines = []
    for name, arm in found["arms"].items():
        money = [
            price["label"] * labels + price["hour"] * hours
            for labels, hours in zip(arm["labels"], arm["hours"], strict=True)
        ]
        curve = CurveJson(labels=money, mean=arm["scores"], low=None, high=None)
        reached = price["to_target"][name]
        ring = None if name == summary["baseline"] else reached
        lines.append(Curve(name, curve, styles[name], ring))
    axes = axes_of(lines, found["target"])._replace(across="money")
    name = metric_name(summary["metric"])
    title = f"{name[0].upper()}{name[1:]}, {_words(price)}"
    return chart(title, lines, axes, found["target"])


def _words(price: PriceCost) -> str:
    return f"{price['name']}: {price['label']:g} a label, {price['hour']:g} an hour"


def _costs(found: Bill, styles: dict[str, Look]) -> Element:
    """Labels, hours and money to the target."""
    rows: list[Row] = []
    for name, arm in found["arms"].items():
        labels, hours = arm["labels_to_target"], arm["hours_to_target"]
        row: Row = [
            arm_name(styles, name),
            DASH if labels is None else f"{labels:,.0f}",
            DASH if hours is None else amount(hours),
        ]
        rows.append(row + [_cost(name, price) for price in found["prices"]])
    header = ["arm", f"labels to {found['target']:.3f}", "hours of computing"]
    header += [f"money, {_words(price)}" for price in found["prices"]]
    note = (
        f"What a run takes that ends at the target ({DASH}: not reached). Hours are counted at "
        f"{amount(found['speed'])} operations a second. "
    )
    if found["prices"][0]["share"] is None:
        note += "There is one seed only: who is the cheapest is not settled."
    else:
        note += (
            "Under the money: in how many resamples of the seeds the arm is the cheapest, of those "
            "shown here."
        )
    return grid(header, rows, note)


def _cost(name: str, price: PriceCost) -> Element:
    cost, best = price["to_target"][name], price["cheapest"] == name
    figure = DASH if cost is None else amount(cost)
    parts = [element("span", figure, class_="tone fewer" if best else "")]
    if price["share"] is not None:
        parts.append(element("span", f"{100 * price['share'][name]:.0f} %", class_="small"))
    return element("td", *parts)


def _flops(found: Bill, styles: dict[str, Look]) -> Element:
    rows: list[Row] = [
        [arm_name(styles, name), *(amount(arm["flops"][part]) for part in PARTS)]
        for name, arm in found["arms"].items()
    ]
    note = (
        "Of one seed up to its last evaluation, mean over seeds. Nobody is charged for evaluation."
    )
    return grid(["arm", *PARTS], rows, note)

"""HTML elements as a tree, so that every text is escaped by the serialiser and by nobody else."""

import re
from collections.abc import Iterable, Sequence
from xml.etree.ElementTree import Element, tostring

Child = Element | str
Row = list[Child]
UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


def element(tag: str, *children: Child, **attributes: str) -> Element:
    """An element with these children; empty attributes are left out.

    `class_` becomes `class`, and `text_anchor` `text-anchor`.
    """
    made = Element(
        tag,
        {
            name.rstrip("_").replace("_", "-"): clean(value)
            for name, value in attributes.items()
            if value
        },
    )
    for child in children:
        if isinstance(child, Element):
            made.append(child)
        elif len(made):
            made[-1].tail = (made[-1].tail or "") + clean(child)
        else:
            made.text = (made.text or "") + clean(child)
    return made


def clean(text: str) -> str:
    """Text with the control characters that HTML cannot carry shown as a replacement character."""
    return UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def grid(
    header: Sequence[Child],
    rows: Iterable[Sequence[Child]],
    caption: str = "",
    class_: str = "",
) -> Element:
    """A table that scrolls sideways where the screen is narrow; the first cell of a row heads it.

    A cell that is already a `td` or `th` element is taken as it is.
    """
    head = element("tr", *(_cell(cell, "th", "col") for cell in header))
    body = [
        element(
            "tr",
            *(
                _cell(cell, *(("td", "") if index else ("th", "row")))
                for index, cell in enumerate(row)
            ),
        )
        for row in rows
    ]
    table = element("table", class_=class_)
    if caption:
        table.append(element("caption", element("span", caption)))
    table.extend([element("thead", head), element("tbody", *body)])
    return element("div", table, class_="scroll")


def _cell(content: Child, tag: str, scope: str) -> Element:
    if isinstance(content, Element) and content.tag in ("td", "th"):
        return content
    return element(tag, content, scope=scope)


def document(title: str, css: str, body: Element) -> str:
    """A whole HTML file around a body element."""
    viewport = "width=device-width, initial-scale=1"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content=viewport),
        element("title", title),
        element("style", css),
    )
    page = element("html", head, body, lang="en")
    return "<!doctype html>\n" + tostring(page, encoding="unicode", method="html") + "\n"

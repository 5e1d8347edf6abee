"""A page read with the standard library's parser: its elements, and whether its tags are balanced."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "link", "img", "br", "hr", "input", "base", "source", "col", "wbr"}


@dataclass
class Element:
    tag: str
    attributes: dict[str, str | None]
    text: str = ""


@dataclass
class Page(HTMLParser):
    """``elements`` in document order; ``text`` of an element is what it and its children say."""

    elements: list[Element] = field(default_factory=list)
    open: list[Element] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"<{tag}> repeats an attribute: {names}"
        element = Element(tag, dict(attrs))
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag, attrs):
        self.elements.append(Element(tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open and self.open[-1].tag == tag, f"</{tag}> closes <{self.open[-1].tag if self.open else None}>"
        self.open.pop()

    def handle_data(self, data):
        for element in self.open:
            element.text += data

    def all(self, tag: str, name: str = "", value: str | None = None) -> list[Element]:
        """Elements with this tag and, if given, this attribute (one of its words is ``value``)."""
        return [
            element
            for element in self.elements
            if element.tag == tag
            and (not name or name in element.attributes)
            and (value is None or value in (element.attributes[name] or "").split())
        ]


def read(html: str) -> Page:
    page = Page()
    page.feed(html)
    page.close()
    assert not page.open, f"never closed: {[element.tag for element in page.open]}"
    return page

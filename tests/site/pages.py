"""Reading built pages: what a browser would make of them, without one."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

VOID = {"meta", "link", "img", "br", "input"}


@dataclass
class Element:
    """An element with its attributes and all text in it."""

    tag: str
    attributes: dict[str, str]
    parent: Element | None = None
    children: list[Element] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All text in the element, on one line."""
        return " ".join("".join(self.texts).split())

    def every(self, tag: str = "", **attributes: str) -> list[Element]:
        """Return the elements below with a tag and attributes; ``class_`` is one class among several."""
        found = []
        for child in self.children:
            wanted = {k.rstrip("_").replace("_", "-"): v for k, v in attributes.items()}
            fits = all(
                v in child.attributes.get(k, "").split() if k == "class" else child.attributes.get(k) == v
                for k, v in wanted.items()
            )
            if fits and tag in ("", child.tag):
                found.append(child)
            found += child.every(tag, **attributes)
        return found

    def one(self, tag: str = "", **attributes: str) -> Element:
        """Return the only such element."""
        (found,) = self.every(tag, **attributes)
        return found


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Element("", {})
        self.at = self.root

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        made = Element(tag, {k: v or "" for k, v in attrs}, self.at)
        self.at.children.append(made)
        if tag not in VOID:
            self.at = made

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.at.children.append(Element(tag, {k: v or "" for k, v in attrs}, self.at))

    def handle_endtag(self, tag: str) -> None:
        assert self.at.tag == tag, f"</{tag}> closes <{self.at.tag}>"
        assert self.at.parent is not None
        self.at = self.at.parent

    def handle_data(self, data: str) -> None:
        place: Element | None = self.at
        while place is not None:
            place.texts.append(data)
            place = place.parent


def read_page(path: Path) -> Element:
    """Return a page's root; a tag that is left open or closed twice fails."""
    reader = _Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    reader.close()
    assert reader.at is reader.root, f"{path.name}: <{reader.at.tag}> is left open"
    return reader.root


def html_files(site: Path) -> list[Path]:
    """Return every page of a site."""
    return sorted(site.rglob("*.html"))


def model_file(site: Path, start: str) -> Path:
    """Return the only model page whose name begins so."""
    (found,) = (site / "models").glob(f"{start}*.html")
    return found

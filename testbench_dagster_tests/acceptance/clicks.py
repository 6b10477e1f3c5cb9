"""A reader of the board without a browser: follows links and fills forms by what they say."""

from __future__ import annotations

import re
import urllib.request
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import NamedTuple
from urllib.parse import urldefrag, urlencode, urljoin

TIMEOUT_S = 30.0
_HEADINGS = ("h1", "h2", "h3")
#: What is clicked, below which heading; with ``X: `` before it, what is written into the field X.
_STEP = re.compile(r"(?:(?P<label>\w+): )?`(?P<text>[^`]+)`(?: below (?P<heading>\w[\w ]*\w|\w))?")


class Link(NamedTuple):
    """A link: what it says, where it leads, and the last heading before it."""

    text: str
    href: str
    heading: str


@dataclass
class Form:
    """A form: where it leads, what is filled in already, its fields by their labels, and its buttons."""

    action: str
    values: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    buttons: list[str] = field(default_factory=list)


class Page(HTMLParser):
    """What a page offers to its reader: text, links, forms and the rows of its tables."""

    def __init__(self, url: str, html: str) -> None:
        super().__init__()
        self.url = url
        self.html = html
        self.links: list[Link] = []
        self.forms: list[Form] = []
        self.rows: list[list[str]] = []
        self.headings: list[str] = [""]
        self._texts: list[str] = []
        self._begun: dict[str, int] = {}
        self._href: str | None = None
        self.feed(html)
        self.close()

    @property
    def text(self) -> str:
        """All that is written on the page."""
        return _plain(self._texts)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        self._begun[tag] = len(self._texts)
        if tag == "a":
            self._href = attributes.get("href")
        elif tag == "tr":
            self.rows.append([])
        elif tag == "form":
            assert attributes.get("method", "get") == "get"
            self.forms.append(Form(attributes["action"]))
        elif tag in ("input", "select") and self.forms:
            self.forms[-1].values[attributes["name"]] = attributes.get("value", "")
            if attributes.get("type") != "hidden":
                self.forms[-1].labels[_plain(self._texts[self._begun["label"] :])] = attributes["name"]

    def handle_data(self, data: str) -> None:
        self._texts.append(data)

    def handle_endtag(self, tag: str) -> None:
        text = _plain(self._texts[self._begun.get(tag, 0) :])
        if tag == "a" and self._href is not None:
            self.links.append(Link(text, self._href, self.headings[-1]))
        elif tag in ("td", "th"):
            self.rows[-1].append(text)
        elif tag in _HEADINGS:
            self.headings.append(text)
        elif tag == "button":
            self.forms[-1].buttons.append(text)

    def link(self, text: str, heading: str | None) -> str:
        """Where the link of a text leads, or of a text with a count behind it; there must be only one."""
        wanted = re.compile(rf"{re.escape(text)}(?: [\d,]+)?")
        found = {
            link.href
            for link in self.links
            if wanted.fullmatch(link.text) and heading in (None, link.heading)
        }
        said = sorted({link.text for link in self.links})
        assert len(found) == 1, f"{self.url}: {text!r} below {heading!r} leads to {sorted(found)}; {said}"
        return urljoin(self.url, found.pop())


def _plain(texts: list[str]) -> str:
    return " ".join("".join(texts).split())


class Reader:
    """Somebody on the board, who begins at its first page."""

    def __init__(self, url: str) -> None:
        self._url = url

    def follow(self, way: str) -> tuple[Page, int]:
        """The page that a way leads to, such as ``A` → `B` below Tasks``, and the requests after the first.

        A step may be a link, or what is written into a form's fields followed by the text of its button.
        """
        page, requests = _page(f"{self._url}/"), 0
        for step in way.split("→"):
            parts = list(_STEP.finditer(step))
            assert parts, way
            *written, (_, text, heading) = [m.group("label", "text", "heading") for m in parts]
            if written:
                page = _page(_filled(page, {label: said for label, said, _ in written}, text))
            else:
                target = page.link(text, heading)
                if urldefrag(target).url == page.url:
                    continue  # here already
                page = _page(target)
            requests += 1
        return page, requests


def _filled(page: Page, written: dict[str, str], button: str) -> str:
    """The address that a form of a page leads to."""
    (form,) = [f for f in page.forms if button in f.buttons and written.keys() <= f.labels.keys()]
    values = form.values | {form.labels[label]: said for label, said in written.items()}
    return urljoin(page.url, f"{form.action}?{urlencode(values)}")


def _page(url: str) -> Page:
    with urllib.request.urlopen(urldefrag(url).url, timeout=TIMEOUT_S) as response:
        return Page(response.url, response.read().decode())

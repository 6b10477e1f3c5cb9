"""Hooks of MkDocs: what reads well in a checkout reads well on the site too.

Belongs here: files beside ``docs/`` that pages link to (examples, code, the changelog), which a site must
carry; words of code blocks and docstrings that are there for tests and for Sphinx.
Does not: text; that stands in the pages.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

#: ``](FILE``, neither a URL nor a heading of the same page.
_LINK = re.compile(r"\]\((?P<path>(?![a-z]+:|/|#)[^)#\s]+)")
#: A block's language, and words for the tests that run it (``bash background``): no block to MkDocs.
_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w+) .*$", re.M)
#: ``:meth:`name` `` of a docstring, once rendered.
_ROLE = re.compile(r":(?:attr|class|func|meth|mod):<code>\.?")
#: Pages beside ``docs/`` that the site has though no page links to them.
_WANTED = ("CHANGELOG.md",)


def _in_checkout(page: str, files: Files) -> str:
    """The path of a page of the site from the root of the checkout."""
    file = files.get_file_from_path(page)
    return page if file is not None and file.generated_by else f"docs/{page}"


def _links(path: str, text: str) -> Iterator[tuple[str, str]]:
    """The links to files in a page at a path of the checkout, and the paths that they lead to."""
    for found in _LINK.finditer(text):
        yield found["path"], posixpath.normpath(posixpath.join(posixpath.dirname(path), found["path"]))


def on_files(files: Files, config: Any) -> Files:
    """Add what pages link to outside ``docs/``, each file under its own path."""
    root = Path(config.config_file_path).parent
    pages = {f"docs/{file.src_uri}": file.content_string for file in files.documentation_pages()}
    left = [target for path, text in pages.items() for _, target in _links(path, text)]
    left += _WANTED
    added: set[str] = set()
    while left:
        target = left.pop()
        if target in added or target.startswith("docs/") or not (root / target).is_file():
            continue  # what does not exist is told by MkDocs, with the page that links to it
        added.add(target)
        files.append(File.generated(config, target, abs_src_path=str(root / target)))
        if target.endswith(".md"):
            left += [one for _, one in _links(target, (root / target).read_text(encoding="utf-8"))]
    return files


def on_page_markdown(markdown: str, page: Any, files: Files, **_: Any) -> str:
    """Make links of the checkout links of the site; leave of a block's words its language."""
    markdown = _FENCE.sub(r"\g<indent>```\g<language>", markdown)
    here = _in_checkout(page.file.src_uri, files)
    folder = posixpath.dirname(page.file.src_uri) or "."
    targets = dict(_links(here, markdown))

    def on_the_site(found: re.Match[str]) -> str:
        return f"]({posixpath.relpath(targets[found['path']].removeprefix('docs/'), folder)}"

    return _LINK.sub(on_the_site, markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Leave of a role in a docstring the name that it marks."""
    return _ROLE.sub("<code>", html)

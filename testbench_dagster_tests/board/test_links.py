"""Addresses: any name has one, and it is read back as it was."""

from __future__ import annotations

import re
from urllib.parse import parse_qs, urlsplit

from hypothesis import given
from hypothesis import strategies as st

from testbench_dagster.board import links
from testbench_dagster.board.app import PATHS
from testbench_dagster.board.pages.answers import answer
from testbench_dagster.board.pages.docs import doc

NAME = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30) | st.sampled_from(
    ["/", "..", ".", "a/task/b", "a/doc/3", "%", "%2F", "?#", "//evil.example", "a@b/c", "\n"]
)


def told(path: str) -> tuple[object, list[str]]:
    """The page of an address, and the names that it is told."""
    for pattern, view in PATHS:
        if matched := pattern.fullmatch(path):
            return view, links.names(matched.groups())
    raise AssertionError(path)


@given(NAME, NAME, st.integers(0, 10**9))
def test_names_in_addresses_are_read_back(key: str, task: str, number: int) -> None:
    assert told(links.answer(key, task, number)) == (answer, [key, task, str(number)])
    assert told(links.doc(task, number)) == (doc, [task, str(number)])
    for path in (links.answer(key, task, number), links.supplier(key), links.task(task)):
        assert re.fullmatch(r"(/[A-Za-z0-9@:._~%-]+)+", path), "nothing that ends a path, or another host"
        assert not {"..", "."} & set(path.split("/"))


@given(NAME, NAME)
def test_parameters_are_read_back(key: str, words: str) -> None:
    query = parse_qs(urlsplit(links.answers(key, "t", q=words, kind=None, after="")).query)
    assert query == {"q": [words]}

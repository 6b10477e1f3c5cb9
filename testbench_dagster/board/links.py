"""Addresses of pages: how supplier keys and names of tasks stand in a path, and how they are read back.

A key may hold anything: ``@`` stays readable, ``/`` and ``%`` are percent-encoded, so the raw path says where
a key ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import unquote, urlencode

from testbench_dagster.core.addresses import path_segment


def supplier(key: str) -> str:
    """The page of a supplier."""
    return f"/supplier/{path_segment(key)}"


def history(key: str, what: Mapping[str, str]) -> str:
    """The history of one score of a supplier."""
    return with_query(f"/supplier/{path_segment(key)}/history", what)


def service(key: str, **query: object) -> str:
    """The service of a supplier, day by day."""
    return with_query(f"/supplier/{path_segment(key)}/service", query)


def answers(key: str, task: str, **query: object) -> str:
    """What a supplier answered to a task."""
    return with_query(f"/supplier/{path_segment(key)}/task/{path_segment(task)}", query)


def answer(key: str, task: str, doc_id: int) -> str:
    """What a supplier answered to one doc."""
    return f"/supplier/{path_segment(key)}/task/{path_segment(task)}/doc/{doc_id}"


def task(name: str, **query: object) -> str:
    """The page of a task."""
    return with_query(f"/task/{path_segment(name)}", query)


def group(name: str, **query: object) -> str:
    """The page of a group of tasks."""
    return with_query(f"/group/{path_segment(name)}", query)


def doc(name: str, doc_id: int) -> str:
    """The page of a doc; with ``.json`` behind it the same as JSON."""
    return f"/doc/{path_segment(name)}/{doc_id}"


def raw(attempt: str) -> str:
    """The body of an attempt's answer as it was received."""
    return f"/attempt/{path_segment(attempt)}/body"


def compare(**query: object) -> str:
    """The page that compares two suppliers."""
    return with_query("/compare", query)


def with_query(path: str, query: Mapping[str, object]) -> str:
    """A path with those parameters that have a value."""
    given = {name: str(value) for name, value in query.items() if value not in (None, "")}
    return f"{path}?{urlencode(given, errors='replace')}" if given else path


def names(groups: tuple[str, ...]) -> list[str]:
    """The names that segments of a raw path stand for."""
    return [unquote(segment, errors="replace") for segment in groups]

"""How much a store was asked for: what a test counts instead of seconds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from testbench_dagster.stores.documents import Collection, DocumentStore

_READS = ("get", "find", "rows", "count", "group")
_WRITES = ("put_new", "upsert", "claim", "purge")


def operations(documents: DocumentStore, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each operation of a store is called from now on."""
    called = Counter[str]()

    def counted(name: str, operation: Callable[..., Any]) -> Callable[..., Any]:
        def count(*args: Any, **more: Any) -> Any:
            called[name] += 1
            return operation(*args, **more)

        return count

    for name in (*_READS, *_WRITES):
        monkeypatch.setattr(documents, name, counted(name, getattr(documents, name)))
    return called


def documents_read(documents: DocumentStore, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many documents or rows of them a store gives out from now on, by collection."""
    read = Counter[str]()

    def counted(operation: Callable[..., Any]) -> Callable[..., Any]:
        def count(collection: Collection, *args: Any, **more: Any) -> Any:
            found = operation(collection, *args, **more)
            if isinstance(found, Iterator):
                return passed(collection, found)
            read[collection.name] += len(found) if isinstance(found, list) else found is not None
            return found

        return count

    def passed(collection: Collection, found: Iterator[Any]) -> Iterator[Any]:
        for one in found:
            read[collection.name] += 1
            yield one

    for name in ("get", "find", "rows", "group"):
        monkeypatch.setattr(documents, name, counted(getattr(documents, name)))
    return read

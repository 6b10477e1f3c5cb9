"""How much a store was asked for: what a test counts instead of seconds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from testbench_dagster.stores.documents import Collection, DocumentStore


def documents_read(documents: DocumentStore, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many documents are read from now on, by collection, and how often anything is asked (``""``)."""
    read = Counter[str]()

    def counted(name: str) -> Any:
        operation = getattr(documents, name)

        def count(collection: Collection, *args: Any, **more: Any) -> Any:
            read[""] += 1
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
        monkeypatch.setattr(documents, name, counted(name))
    return read

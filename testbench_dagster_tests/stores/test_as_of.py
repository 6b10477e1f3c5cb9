"""A store as it was at an instant: later facts are not there, and nothing is written."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from testbench_dagster.core.errors import StoreError
from testbench_dagster.core.records.collection import Group
from testbench_dagster.stores.documents import DocumentStore, open_documents
from testbench_dagster.stores.documents.as_of import StoreAsOf
from testbench_dagster.stores.documents.collections import ALL, EPOCHS, LANE_ENDS, SUPPLIERS

AT = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def documents(tmp_path: Path) -> Iterator[DocumentStore]:
    store = open_documents(tmp_path, None)
    store.put_new(
        EPOCHS,
        [
            {"_id": str(days), "task": "t", "epoch": 9 - days, "started_at": AT - timedelta(days=days)}
            for days in (2, 1, 0, -1, -2)
        ],
    )
    yield store
    store.close()


def test_of_dated_facts_only_those_up_to_the_instant_are_there(documents: DocumentStore) -> None:
    past = StoreAsOf(documents, AT)
    assert [d["_id"] for d in past.find(EPOCHS, sort=[("started_at", 1)])] == ["2", "1", "0"]
    assert past.count(EPOCHS) == 3
    assert past.count(EPOCHS, {"started_at": {"gt": AT - timedelta(days=2)}}) == 2
    assert past.count(EPOCHS, {"started_at": {"lte": AT - timedelta(days=1)}}) == 2
    assert past.count(EPOCHS, {"started_at": {"lte": AT + timedelta(days=9)}}) == 3
    assert past.count(EPOCHS, {"started_at": AT + timedelta(days=1)}) == 0
    assert past.count(EPOCHS, {"started_at": AT}) == 1
    assert [row[0] for row in past.rows(EPOCHS, ["epoch"], {"task": "t"}, sort=[("epoch", -1)])] == [9, 8, 7]
    assert past.group(EPOCHS, Group(by=["task"], max=["epoch"]))[0]["max_epoch"] == 9
    assert past.get(EPOCHS, "-1") is not None, "by id"
    assert past.size("epochs") == documents.size("epochs")
    assert past.schema_version() == documents.schema_version()


def test_what_is_not_dated_is_there_as_it_is(documents: DocumentStore) -> None:
    documents.upsert(
        SUPPLIERS, [{"_id": "a@x", "address": "a", "service": "x", "joined_at": AT + timedelta(9)}]
    )
    assert StoreAsOf(documents, AT).count(SUPPLIERS) == 1


def test_the_past_is_not_written(documents: DocumentStore) -> None:
    past = StoreAsOf(documents, AT)
    writes: list[Any] = [
        lambda: past.put_new(LANE_ENDS, []),
        lambda: past.upsert(LANE_ENDS, []),
        lambda: past.claim(LANE_ENDS, {}, {}),
        lambda: past.purge(LANE_ENDS, {"_id": "x"}),
        lambda: past.fill(EPOCHS, "epoch", 1),
        lambda: past.move_schema(0, 1),
    ]
    for write in writes:
        with pytest.raises(StoreError, match="cannot be written"):
            write()
    past.close()
    assert documents.count(EPOCHS) == 5, "the store itself is open still"


def test_the_fields_that_date_facts_are_there() -> None:
    from testbench_dagster.stores.documents.as_of import _DATED

    declared = {collection.name: collection.fields for collection in ALL}
    assert all(declared[name][field] is datetime for name, field in _DATED.items())

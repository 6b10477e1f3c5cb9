"""The document contract, the same tests on SQLite and MongoDB."""

from __future__ import annotations

import contextlib
import math
import os
import random
import signal
import sqlite3
import threading
import uuid
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
from bson import Int64, ObjectId
from pymongo import MongoClient

from testbench_dagster.core.errors import StoreError
from testbench_dagster.stores.documents import (
    Collection,
    DuplicateKey,
    Group,
    Minutely,
    UndeclaredField,
    collections,
    open_documents,
)
from testbench_dagster.stores.schema import DOCUMENTS_SCHEMA, SchemaError
from testbench_dagster_tests import servers
from testbench_dagster_tests.stores.workers import (
    JOBS,
    Target,
    claim_all,
    first_open,
    put_same,
    race,
    upsert_same,
)

NOON = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)


@pytest.fixture(scope="module", params=["sqlite", "mongo"])
def filtered(request, tmp_path_factory):
    """A store that holds ``FILTERED``, for tests that change nothing (a new database costs 0.1 s)."""
    home = tmp_path_factory.mktemp("filtered")
    with contextlib.ExitStack() as stack:
        uri = None
        if request.param == "mongo":
            uri = stack.enter_context(servers.mongo_database(request.getfixturevalue("mongo_uri")))
        opened = open_documents(home, uri)
        stack.callback(opened.close)
        opened.put_new(JOBS, FILTERED)
        yield opened


def ids(documents) -> list[str]:
    return sorted(document["_id"] for document in documents)


def test_put_new_leaves_existing_documents_alone(store):
    assert store.put_new(JOBS, [{"_id": "a", "rank": 1}, {"_id": "b", "rank": 2}]) == 2
    assert store.put_new(JOBS, [{"_id": "b", "rank": 9}, {"_id": "c"}, {"_id": "c", "rank": 7}]) == 1
    assert store.get(JOBS, "b") == {"_id": "b", "rank": 2}
    assert store.get(JOBS, "c") == {"_id": "c"}
    assert store.get(JOBS, "d") is None
    assert store.put_new(JOBS, iter(())) == 0


def test_put_new_again_with_a_unique_index(store):
    document = {"_id": "a", "kind": "k", "at": NOON}
    assert store.put_new(JOBS, [document]) == 1
    assert store.put_new(JOBS, [document, {"_id": "b", "kind": "k", "at": NOON + timedelta(1)}]) == 1


@pytest.mark.parametrize("write", ["put_new", "upsert"])
def test_unique_index(store, write):
    store.put_new(JOBS, [{"_id": "a", "kind": "k", "at": NOON}])
    with pytest.raises(DuplicateKey, match="kind"):
        getattr(store, write)(JOBS, [{"_id": "b", "kind": "k", "at": NOON}])
    assert store.get(JOBS, "b") is None


def test_unique_index_lets_nulls_be(store):
    documents = [{"_id": "a", "kind": "k"}, {"_id": "b", "kind": "k", "at": None}, {"_id": "c"}, {"_id": "d"}]
    assert store.put_new(JOBS, documents) == 4


def test_upsert_replaces_wholly(store):
    assert store.upsert(JOBS, [{"_id": "a", "rank": 1, "note": "x"}]) == 1
    assert store.upsert(JOBS, [{"_id": "a", "kind": "k"}, {"_id": "b"}, {"_id": "b", "rank": 3}]) == 3
    assert store.get(JOBS, "a") == {"_id": "a", "kind": "k"}
    assert store.count(JOBS, {"rank": 1}) == 0
    assert store.get(JOBS, "b") == {"_id": "b", "rank": 3}


def test_many_documents_in_one_call(store):
    assert store.put_new(JOBS, ({"_id": f"{n:05}", "rank": n} for n in range(3500))) == 3500
    assert store.upsert(JOBS, ({"_id": f"{n:05}", "rank": -n} for n in range(3500))) == 3500
    assert store.count(JOBS, {"rank": {"lt": 0}}) == 3499


FILTERED = [
    {"_id": "a", "kind": "x", "rank": 1, "cost": 1.5, "done": True, "at": NOON},
    {"_id": "b", "kind": "x", "rank": 2, "cost": 2, "done": False, "at": NOON + timedelta(seconds=1)},
    {"_id": "c", "kind": "y", "rank": 3, "at": None},
    {"_id": "d", "kind": None},
    {"_id": "e"},
]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (None, "abcde"),
        ({}, "abcde"),
        ({"kind": "x"}, "ab"),
        ({"kind": None}, "de"),
        ({"kind": {"eq": "y"}}, "c"),
        ({"kind": {"ne": "x"}}, "cde"),
        ({"kind": {"ne": None}}, "abc"),
        ({"kind": {"in": ["y", "z"]}}, "c"),
        ({"kind": {"in": {"x", None}}}, "abde"),
        ({"kind": {"in": []}}, ""),
        ({"_id": {"in": ["a", "e", "z"]}}, "ae"),
        ({"rank": {"gt": 1}}, "bc"),
        ({"rank": {"gte": 1, "lt": 3}}, "ab"),
        ({"rank": {"lte": 2}, "kind": "x", "done": True}, "a"),
        ({"cost": 2}, "b"),
        ({"cost": {"gt": 1}}, "ab"),
        ({"done": False}, "b"),
        ({"at": NOON}, "a"),
        ({"at": {"gt": NOON}}, "b"),
        ({"at": (NOON + timedelta(microseconds=900)).astimezone(timezone(timedelta(hours=5)))}, "a"),
        ({"_id": {"gte": "d"}}, "de"),
    ],
)
def test_filters(filtered, where, expected):
    assert ids(filtered.find(JOBS, where)) == list(expected)
    assert filtered.count(JOBS, where) == len(expected)


def test_in_with_very_many_values(store):
    store.put_new(JOBS, ({"_id": f"id-{n}", "rank": n} for n in range(2000)))
    wanted = [f"id-{n}" for n in range(1000, 42000)]
    assert store.count(JOBS, {"_id": {"in": wanted}}) == 1000
    found = list(store.find(JOBS, {"_id": {"in": wanted}, "rank": {"in": range(1500)}}, sort=[("rank", -1)]))
    assert [document["rank"] for document in found] == list(range(1499, 999, -1))
    rows = list(store.find(JOBS, {"_id": {"in": wanted}}, fields=["rank"], limit=3, sort=[("rank", 1)]))
    assert rows == [{"rank": 1000}, {"rank": 1001}, {"rank": 1002}]
    (row,) = store.group(JOBS, Group([], max=["rank"]), {"_id": {"in": wanted}})
    assert row == {"count": 1000, "max_rank": 1999}
    assert store.claim(JOBS, {"_id": {"in": wanted}}, {"owner": "me"}, sort=[("rank", -1)])["rank"] == 1999
    assert store.purge(JOBS, {"_id": {"in": wanted}}) == 1000
    with pytest.raises(StoreError, match="several parts"):
        store.count(JOBS, {"rank": {"in": range(300_000)}})


def test_sort_puts_nulls_first_and_limits(store):
    store.put_new(JOBS, FILTERED)
    ascending = [d["_id"] for d in store.find(JOBS, sort=[("rank", 1), ("_id", -1)])]
    assert ascending == ["e", "d", "a", "b", "c"]
    descending = [d["_id"] for d in store.find(JOBS, sort=[("rank", -1), ("_id", 1)], limit=4)]
    assert descending == ["c", "b", "a", "d"]
    assert list(store.find(JOBS, limit=0)) == []
    with pytest.raises(StoreError, match="limit"):
        store.find(JOBS, limit=-1)
    with pytest.raises(StoreError, match="direction"):
        store.find(JOBS, sort=[("rank", 2)])


def test_projection_has_exactly_the_fields_asked_for(store):
    store.put_new(JOBS, FILTERED)
    rows = list(store.find(JOBS, fields=["kind", "at", "done", "cost"], sort=[("_id", 1)]))
    assert rows[1] == {"kind": "x", "at": NOON + timedelta(seconds=1), "done": False, "cost": 2.0}
    assert rows[4] == {"kind": None, "at": None, "done": None, "cost": None}
    assert type(rows[1]["cost"]) is float
    assert type(rows[0]["done"]) is bool
    assert list(store.find(JOBS, {"_id": "a"}, fields=["_id"])) == [{"_id": "a"}]
    assert list(store.find(JOBS, {"_id": "a"}, fields=[])) == [{}]


def test_undeclared_fields_are_refused_everywhere(store):
    store.put_new(JOBS, [{"_id": "a", "colour": "red"}])
    calls = [
        lambda: store.find(JOBS, {"colour": "red"}),
        lambda: store.find(JOBS, sort=[("colour", 1)]),
        lambda: store.find(JOBS, fields=["colour"]),
        lambda: store.count(JOBS, {"colour": "red"}),
        lambda: store.group(JOBS, Group(["colour"])),
        lambda: store.group(JOBS, Group(["kind"], sum=["colour"])),
        lambda: store.group(JOBS, Group(["kind"]), {"colour": "red"}),
        lambda: store.claim(JOBS, {"colour": "red"}, {"owner": "me"}),
        lambda: store.claim(JOBS, {"kind": "x"}, {"owner": "me"}, sort=[("colour", 1)]),
        lambda: store.purge(JOBS, {"colour": "red"}),
    ]
    for call in calls:
        with pytest.raises(UndeclaredField, match=r"jobs\.colour is not a declared field"):
            call()


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"_id": "a", "rank": "one"}, r"jobs\.rank: 'one' is str, but the field is declared int"),
        ({"_id": "a", "rank": True}, r"jobs\.rank: True"),
        ({"_id": "a", "rank": 1.0}, r"jobs\.rank: 1\.0"),
        ({"_id": "a", "rank": 2**63}, "64 bits"),
        ({"_id": "a", "kind": 5}, r"jobs\.kind: 5"),
        ({"_id": "a", "done": 1}, r"jobs\.done: 1"),
        ({"_id": "a", "cost": math.nan}, "finite"),
        ({"_id": "a", "kind": ["x"]}, r"jobs\.kind: \['x'\]"),
        ({"_id": "a", "at": "2026"}, r"jobs\.at"),
        ({"_id": "a", "at": datetime(2026, 1, 1)}, "no time zone"),
        ({"_id": "a", "deep": [{"at": datetime(2026, 1, 1)}]}, "no time zone"),
        ({"_id": "a", "number": 2**64}, "cannot be stored"),
        ({"_id": "a", "thing": object()}, "cannot be stored"),
        ({"_id": "a", "text": "\ud800"}, "cannot be stored"),
        ({"_id": "a", "map": {1: 2}}, "not a string"),
        ({"_id": "a", "$set": 1}, "may not start"),
        ({"_id": 5}, "_id must be a non-empty string"),
        ({"rank": 5}, "_id must be a non-empty string"),
        ({"_id": "a", "blob": b"x" * (16 * 1024 * 1024)}, "a document may take at most"),
    ],
)
@pytest.mark.parametrize("write", ["put_new", "upsert"])
def test_bad_documents_write_nothing(filtered, document, message, write):
    with pytest.raises(StoreError, match=message):
        getattr(filtered, write)(JOBS, [{"_id": "good"}, document])
    assert filtered.count(JOBS) == len(FILTERED)


def test_deep_nesting_is_refused(store):
    deep: list = []
    for _ in range(200):
        deep = [deep]
    with pytest.raises(StoreError, match="deeper than"):
        store.put_new(JOBS, [{"_id": "a", "deep": deep}])


def test_largest_document(store):
    room = 16 * 1024 * 1024 - 100
    assert store.put_new(JOBS, [{"_id": "a", "blob": b"x" * room}]) == 1
    assert len(store.get(JOBS, "a")["blob"]) == room
    assert store.upsert(JOBS, [{"_id": "a", "blob": b"y" * room}]) == 1
    with pytest.raises(StoreError):
        store.claim(JOBS, {"_id": "a"}, {"owner": "x" * 200})
    assert "owner" not in store.get(JOBS, "a")


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"rank": {"near": 1}}, "unknown operator 'near'"),
        ({"rank": {}}, "names no operator"),
        ({"rank": {"gt": None}}, "None has no order"),
        ({"rank": "one"}, r"jobs\.rank: 'one'"),
        ({"rank": {"in": ["one"]}}, r"jobs\.rank: 'one'"),
        ({"kind": {"in": "abc"}}, "takes a list or set"),
        ({"at": datetime(2026, 1, 1)}, "no time zone"),
    ],
)
def test_bad_filters(filtered, where, message):
    for call in (filtered.find, filtered.count, filtered.purge):
        with pytest.raises(StoreError, match=message):
            call(JOBS, where)


def test_group(store):
    store.put_new(JOBS, FILTERED)
    group = Group(["kind"], min=["rank", "at"], max=["cost", "at"], sum=["rank", "cost"])
    assert store.group(JOBS, group) == [
        {
            "kind": None, "count": 2, "min_rank": None, "min_at": None, "max_cost": None, "max_at": None,
            "sum_rank": None, "sum_cost": None,
        },
        {
            "kind": "x", "count": 2, "min_rank": 1, "min_at": NOON, "max_cost": 2.0,
            "max_at": NOON + timedelta(seconds=1), "sum_rank": 3, "sum_cost": 3.5,
        },
        {
            "kind": "y", "count": 1, "min_rank": 3, "min_at": None, "max_cost": None, "max_at": None,
            "sum_rank": 3, "sum_cost": None,
        },
    ]  # fmt: skip
    assert store.group(JOBS, Group([]), {"kind": "x"}) == [{"count": 2}]
    assert store.group(JOBS, Group([]), {"kind": "none"}) == []
    rows = store.group(JOBS, Group(["done", "kind"]), {"kind": {"ne": None}})
    assert rows == [
        {"done": None, "kind": "y", "count": 1},
        {"done": False, "kind": "x", "count": 1},
        {"done": True, "kind": "x", "count": 1},
    ]
    with pytest.raises(StoreError, match="summed"):
        store.group(JOBS, Group(["kind"], sum=["at"]))


def test_group_by_the_hour(store):
    times = [NOON, NOON + timedelta(minutes=59, seconds=59), NOON - timedelta(milliseconds=1), None]
    times.append(datetime(1969, 12, 31, 23, 30, tzinfo=UTC))  # times before 1970 are negative numbers
    store.put_new(JOBS, [{"_id": str(i), "kind": "x", "at": at} for i, at in enumerate(times)])
    rows = store.group(JOBS, Group(["at", "kind"], hourly=["at"]))
    assert [(row["at"], row["count"]) for row in rows] == [
        (None, 1),
        (datetime(1969, 12, 31, 23, tzinfo=UTC), 1),
        (NOON - timedelta(hours=1), 1),
        (NOON, 2),
    ]
    for group in (Group(["kind"], hourly=["at"]), Group(["kind"], hourly=["kind"])):
        with pytest.raises(StoreError, match="hourly"):
            store.group(JOBS, group)


def test_minutes_by_what_they_came_to(store):
    """As Python counts them, also before 1970; an unset time is a minute of its own."""
    draw, start = random.Random(4), datetime(1969, 12, 31, 23, 50, tzinfo=UTC)
    made = [
        {
            "_id": str(number),
            "kind": draw.choice(["x", "y", "z", None]),
            "owner": draw.choice(["a", "b", None]),
            "at": None
            if draw.random() < 0.1
            else start + timedelta(seconds=draw.randrange(1_500), milliseconds=number),
        }
        for number in range(400)
    ]
    store.put_new(JOBS, made)
    minutes: dict[Any, list[int]] = {}
    for one in made:
        minute = None if one["at"] is None else one["at"].timestamp() // 60
        counts = minutes.setdefault((one["owner"], minute), [0, 0])
        counts[0] += one["kind"] in ("x", "y")
        counts[1] += 1
    expected = Counter((owner, counts[0], counts[1]) for (owner, _), counts in minutes.items())
    minutely = Minutely("owner", "at", "kind", ("x", "y"))
    rows = store.minutely(JOBS, minutely)
    assert {row[:3]: row[3] for row in rows} == dict(expected) and len(rows) == len(expected)
    (row,) = store.minutely(JOBS, minutely, {"_id": "0"})
    assert row[2:] == (1, 1)
    assert store.minutely(JOBS, minutely, {"_id": "none"}) == []
    for wrong in (Minutely("owner", "kind", "kind", ("x",)), Minutely("owner", "at", "rank", ("x",))):
        with pytest.raises(StoreError, match="minutes"):
            store.minutely(JOBS, wrong)


def test_claim(store):
    store.put_new(JOBS, [{"_id": "a", "rank": 2, "note": [1]}, {"_id": "b", "rank": 1}])
    changes = {"owner": "me", "at": NOON + timedelta(microseconds=1500), "extra": {"$x": 1, "y.z": 2}}
    claimed = store.claim(JOBS, {"owner": None}, changes, sort=[("rank", -1)])
    moment = NOON + timedelta(milliseconds=1)
    assert claimed == {"_id": "a", "rank": 2, "note": [1], "owner": "me", "at": moment} | {
        "extra": {"$x": 1, "y.z": 2}
    }
    assert store.get(JOBS, "a") == claimed
    assert store.count(JOBS, {"owner": "me", "at": moment}) == 1
    assert store.claim(JOBS, {"owner": None}, {"owner": "me"})["_id"] == "b"
    assert store.claim(JOBS, {"owner": None}, {"owner": "me"}) is None
    for wrong in ({}, {"_id": "z"}, {"a.b": 1}, {"$inc": 1}, {"rank": "x"}):
        with pytest.raises(StoreError):
            store.claim(JOBS, {"owner": "me"}, wrong)


def test_claim_may_not_break_a_unique_index(store):
    store.put_new(JOBS, [{"_id": "a", "kind": "k", "at": NOON}, {"_id": "b", "kind": "k"}])
    with pytest.raises(DuplicateKey):
        store.claim(JOBS, {"_id": "b"}, {"at": NOON})


def test_amend(store):
    store.put_new(JOBS, ({"_id": str(n), "rank": n, "note": [n]} for n in range(2_500)))
    changes = {str(n): {"owner": f"o{n}", "extra": {"$x": n}} for n in range(2_400)}
    assert store.amend(JOBS, changes | {"nobody": {"owner": "me"}, "2499": {"rank": None}}) == 2_401
    assert store.count(JOBS) == 2_500
    assert store.get(JOBS, "7") == {"_id": "7", "rank": 7, "note": [7], "owner": "o7", "extra": {"$x": 7}}
    assert [one["_id"] for one in store.find(JOBS, {"owner": "o2399"})] == ["2399"]
    assert store.get(JOBS, "2450") == {"_id": "2450", "rank": 2450, "note": [2450]}
    assert store.get(JOBS, "2499") == {"_id": "2499", "rank": None, "note": [2499]}
    assert store.amend(JOBS, {}) == 0
    for wrong in ({}, {"_id": "z"}, {"a.b": 1}, {"$inc": 1}, {"rank": "x"}):
        with pytest.raises(StoreError):
            store.amend(JOBS, {"1": {"owner": "somebody"}, "2": wrong})
    assert store.get(JOBS, "1")["owner"] == "o1", "what is wrong is seen before anything is written"


def test_amend_may_not_break_a_unique_index(store):
    store.put_new(JOBS, [{"_id": "a", "kind": "k", "at": NOON}, {"_id": "b", "kind": "k"}])
    with pytest.raises(DuplicateKey):
        store.amend(JOBS, {"b": {"at": NOON}})
    assert store.get(JOBS, "b") == {"_id": "b", "kind": "k"}


def test_purge(store):
    store.put_new(JOBS, ({"_id": str(n), "rank": n % 3} for n in range(12_000)))
    for nothing in ({}, None):
        with pytest.raises(StoreError, match="purge needs a filter"):
            store.purge(JOBS, nothing)
    assert store.purge(JOBS, {"rank": {"gt": 0}}) == 8000
    assert store.count(JOBS) == 4000


class Colour(StrEnum):
    RED = "red"


def test_exact_round_trip(store):
    document = {
        "_id": "a",
        "kind": "ünï\0cödé 🜁",
        "rank": Int64(2**53 + 1),
        "at": datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
        "oid": ObjectId("65a000000000000000000001"),
        "bytes": b"\x00\xff",
        "int64": -(2**63),
        "uuid": uuid.UUID(int=7),
        "floats": [math.inf, -math.inf, -0.0, 0.1, 5e-324, 1.7976931348623157e308],
        "moment": datetime(2026, 1, 1, 1, 1, 1, 5999, tzinfo=timezone(timedelta(hours=2))),
        "nested": {"": None, "a.b": [True, {"$ref": "#/x"}], "colour": Colour.RED},
    }
    store.put_new(JOBS, [document, {"_id": "b", "nan": math.nan}])
    expected = document | {
        "at": datetime(1969, 12, 31, 23, 59, 59, 999000, tzinfo=UTC),
        "moment": datetime(2025, 12, 31, 23, 1, 1, 5000, tzinfo=UTC),
    }
    found = store.get(JOBS, "a")
    assert found == expected
    assert math.copysign(1, found["floats"][2]) == -1
    assert found["moment"].utcoffset() == timedelta(0)
    assert math.isnan(store.get(JOBS, "b")["nan"])
    (row,) = store.find(JOBS, {"kind": document["kind"]}, fields=["kind", "rank", "at"])
    assert row == {"kind": document["kind"], "rank": 2**53 + 1, "at": expected["at"]}
    assert type(row["rank"]) is int
    store.upsert(JOBS, [found])
    assert store.get(JOBS, "a") == expected


def test_declared_values_lose_their_subclass(store):
    store.put_new(JOBS, [{"_id": "a", "kind": Colour.RED, "cost": 3}])
    found = store.get(JOBS, "a")
    assert type(found["kind"]) is str
    assert type(found["cost"]) is float
    assert ids(store.find(JOBS, {"kind": Colour.RED})) == ["a"]


def test_a_field_declared_later_is_found_in_old_documents(target, store):
    store.put_new(JOBS, [{"_id": "a", "colour": "red", "size": 3}, {"_id": "b", "colour": "blue"}])
    wider = replace(JOBS, fields={**JOBS.fields, "colour": str, "size": float}, indexes=(("colour",),))
    later = target.open()
    assert ids(later.find(wider, {"colour": "red"})) == ["a"]
    assert list(later.find(wider, {"colour": "red"}, fields=["size"])) == [{"size": 3.0}]
    # The old declaration goes on for a while; what it wrote is found when the new one opens again.
    store.put_new(JOBS, [{"_id": "c", "colour": "red"}])
    narrow = target.open()
    narrow.put_new(JOBS, [{"_id": "d", "colour": "red"}])
    again = target.open()
    assert ids(again.find(wider, {"colour": "red"})) == ["a", "c", "d"]
    for opened in (later, narrow, again):
        opened.close()


def test_a_bad_declaration_is_refused(store):
    for wrong in (
        Collection("Jobs", {}),
        Collection("jobs", {"_seq": int}),
        Collection("jobs", {"kind": list}),
        Collection("jobs", {"kind": str}, indexes=(("colour",),)),
    ):
        with pytest.raises(StoreError):
            store.count(wrong)


def test_all_collections_of_the_package(store):
    for collection in collections.ALL:
        assert store.put_new(collection, [{"_id": "a", **dict.fromkeys(collection.fields)}]) == 1
        (row,) = store.find(collection, fields=list(collection.fields))
        assert row == dict.fromkeys(collection.fields)


def test_a_stream_survives_writes_and_leaves_room_for_them(store):
    store.put_new(JOBS, ({"_id": f"{n:05}", "rank": n, "text": "x" * 100} for n in range(2500)))
    stream = store.find(JOBS, {"owner": None}, sort=[("rank", 1)])
    first = next(stream)
    assert store.upsert(JOBS, [{"_id": "new", "rank": -1}]) == 1
    assert store.purge(JOBS, {"_id": "02400"}) == 1
    rest = [document["rank"] for document in stream]
    assert first["rank"] == 0
    assert set(range(1, 2400)) <= set(rest)
    assert rest == sorted(set(rest))


def test_threads_share_a_store(store):
    def work(number: int) -> None:
        for turn in range(20):
            store.put_new(JOBS, [{"_id": f"{number}-{turn}", "rank": number}])
            assert store.count(JOBS, {"rank": number}) == turn + 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.count(JOBS) == 160


def test_a_closed_store_says_so(store):
    store.put_new(JOBS, [{"_id": "a"}])
    store.close()
    store.close()
    with pytest.raises(StoreError, match="closed"):
        store.get(JOBS, "a")


def in_child(work) -> None:
    """Run ``work`` in a forked child; its failure is this test's."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            signal.alarm(30)
            work()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def test_parent_and_forked_child_share_a_store(store):
    store.put_new(JOBS, [{"_id": str(n), "rank": n} for n in range(1200)])
    stream = store.find(JOBS, sort=[("rank", 1)])
    next(stream)

    def child() -> None:
        assert store.count(JOBS) == 1200
        assert store.put_new(JOBS, [{"_id": "child"}]) == 1
        store.close()

    in_child(child)
    assert len(list(stream)) == 1199
    assert store.put_new(JOBS, [{"_id": "child"}, {"_id": "parent"}]) == 1


def test_a_child_keeps_its_writes_when_the_parent_closes(target, store):
    """SQLite deletes its log with the last connection; a child must count as one."""
    store.put_new(JOBS, [{"_id": "parent"}])
    closed, close = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            signal.alarm(30)
            store.put_new(JOBS, [{"_id": "before"}])
            os.read(closed, 1)
            store.put_new(JOBS, [{"_id": "after"}])
            code = 0
        finally:
            os._exit(code)
    while store.count(JOBS) < 2:
        pass
    store.close()
    os.write(close, b"x")
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    reader = target.open()
    assert ids(reader.find(JOBS)) == ["after", "before", "parent"]
    reader.close()


def test_forks_while_other_threads_write(store):
    done = threading.Event()
    failures: list[BaseException] = []
    written = Counter()

    def work(number: int) -> None:
        try:
            while not done.is_set():
                written[number] += store.put_new(JOBS, [{"_id": f"{number}-{written[number]}"}])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    try:
        for turn in range(5):
            in_child(lambda turn=turn: store.put_new(JOBS, [{"_id": f"child-{turn}"}]))
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert not failures
    assert store.count(JOBS) == sum(written.values()) + 5


def test_four_processes_claim_each_job_once(target, store):
    store.put_new(JOBS, [{"_id": str(n), "rank": n} for n in range(300)])
    claimed = [id_ for ids_ in race(claim_all, target) for id_ in ids_]
    assert sorted(claimed, key=int) == [str(n) for n in range(300)]
    assert store.count(JOBS, {"owner": None}) == 0


def test_four_processes_put_the_same_documents(target, store):
    assert sum(race(put_same, target)) == 500
    assert store.count(JOBS) == 500


def test_four_processes_upsert_the_same_documents(target, store):
    assert race(upsert_same, target) == [500] * 4
    for document in store.find(JOBS):
        assert document["rank"] == 4
        assert document["owner"] == f"worker-{document['by']}"
    assert store.count(JOBS) == 100


def test_four_processes_open_a_new_store_at_once(target):
    counts = race(first_open, target)
    assert max(counts) <= 4
    store = target.open()
    assert ids(store.find(JOBS)) == ["from-0", "from-1", "from-2", "from-3"]
    store.close()


# ------------------------------------------------------------------------- schema version, new fields


def test_fill_sets_what_is_null_and_leaves_the_rest(target):
    with contextlib.closing(target.open()) as store:
        store.put_new(JOBS, [{"_id": f"{n:04d}", "rank": n, "more": b"x" * n} for n in range(1_100)])
    gained = replace(JOBS, fields={**JOBS.fields, "maker": int})
    with contextlib.closing(target.open()) as store:
        store.put_new(gained, [{"_id": "own", "rank": 5, "maker": 9}])
        assert store.fill(gained, "maker", 4) == 1_100
        assert store.fill(gained, "maker", 7) == 0
        assert store.count(gained, {"maker": 4}) == 1_100
        assert store.get(gained, "own") == {"_id": "own", "rank": 5, "maker": 9}
        assert store.get(gained, "0003") == {"_id": "0003", "rank": 3, "more": b"xxx", "maker": 4}
        with pytest.raises(StoreError, match="maker"):
            store.fill(gained, "maker", "four")


def test_a_field_that_was_stored_before_it_was_declared_is_found(target):
    with contextlib.closing(target.open()) as store:
        store.put_new(JOBS, [{"_id": "a", "maker": 3}, {"_id": "b"}, {"_id": "c", "note": "maker"}])
    gained = replace(JOBS, fields={**JOBS.fields, "maker": int})
    with contextlib.closing(target.open()) as store:
        assert ids(store.find(gained, {"maker": 3})) == ["a"]
        assert ids(store.find(gained, {"maker": None})) == ["b", "c"]


def test_a_store_begins_at_the_current_schema_version(target):
    with contextlib.closing(target.open()) as store:
        assert store.schema_version() is None
        assert store.size(collections.SUPPLIERS.name) == 0
        store.put_new(collections.SUPPLIERS, [{"_id": "a@b"}])
        assert store.schema_version() == DOCUMENTS_SCHEMA
        assert store.size(collections.SUPPLIERS.name) == 1


def test_only_one_of_several_moves_the_schema(target):
    with contextlib.closing(target.open()) as store:
        store.count(collections.SUPPLIERS)
        moved = [store.move_schema(DOCUMENTS_SCHEMA, DOCUMENTS_SCHEMA + 1) for _ in range(2)]
        assert moved == [True, False]
        assert store.schema_version() == DOCUMENTS_SCHEMA + 1
    with contextlib.closing(target.open()) as store:
        with pytest.raises(SchemaError, match="newer version"):
            store.count(collections.SUPPLIERS)
        assert not store.move_schema(0, 1)


# ------------------------------------------------------------------------------------------- indexes


def indexes(target) -> set[str]:
    """The fields of each index of the jobs, but that of ids."""
    if target.mongo_uri is None:
        with contextlib.closing(sqlite3.connect(Path(target.home) / "documents.sqlite3")) as connection:
            names = connection.execute(
                "SELECT name FROM sqlite_master WHERE tbl_name = 'jobs' AND type = 'index' AND sql NOT NULL"
            ).fetchall()
        return {name.partition(".")[2] for (name,) in names}
    with MongoClient(target.mongo_uri) as client:
        return client.get_default_database()["jobs"].index_information().keys() - {"_id_"}


def test_indexes_of_an_earlier_declaration_go_and_what_is_new_is_told(target):
    wide = replace(JOBS, indexes=(*JOBS.indexes, ("rank", "kind"), ("rank",)))
    with contextlib.closing(target.open()) as store:
        store.put_new(wide, [{"_id": f"{n}", "kind": "k", "rank": n, "more": n} for n in range(30)])
    assert {"index_rank__kind", "index_rank"} <= indexes(target)
    now = replace(JOBS, fields={**JOBS.fields, "more": int}, indexes=(*JOBS.indexes, ("more",), ("rank",)))
    said: list[str] = []
    with contextlib.closing(target.open()) as store:
        store.reindex(now, said.append)
        # MongoDB serves the first field of a unique key by an index of its own, where no other does
        told = [f"jobs: indexing 30 documents by {by}" for by in ("more", "kind")]
        assert told[0] in said and set(said) <= set(told)
        assert {name for name in indexes(target) if name.startswith("index_")} >= {"index_more", "index_rank"}
        assert "index_rank__kind" not in indexes(target)
        store.reindex(now, said.append)
        assert len(said) == len(set(said)), "what is there is not built again"
        assert [one["_id"] for one in store.find(now, {"more": 7})] == ["7"]


def test_nothing_is_indexed_where_nothing_is_stored(target):
    said: list[str] = []
    with contextlib.closing(target.open()) as store:
        store.reindex(JOBS, said.append)
        assert said == [] and store.schema_version() is None


def test_indexes_that_others_made_stay(mongo_database_uri, tmp_path):
    with contextlib.closing(open_documents(tmp_path, mongo_database_uri)) as store:
        store.put_new(JOBS, [{"_id": "a", "kind": "k", "rank": 1}])
        with MongoClient(mongo_database_uri) as client:
            client.get_default_database()["jobs"].create_index([("kind", 1), ("_id", 1)])
        store.reindex(JOBS, print)
    assert "kind_1__id_1" in indexes(Target(str(tmp_path), mongo_database_uri))


@pytest.mark.parametrize("ids", [["from-0", "from-3"], ["from-0"], []])
def test_ids_are_found_by_their_index_whatever_else_is_asked(store, ids):
    store.put_new(JOBS, [{"_id": f"from-{n}", "kind": "k", "rank": n % 2} for n in range(4)])
    found = store.find(JOBS, {"_id": {"in": ids}, "kind": "k", "rank": {"in": [0, 1]}})
    assert [one["_id"] for one in found] == ids
    assert store.count(JOBS, {"_id": {"in": ids}, "kind": "other"}) == 0

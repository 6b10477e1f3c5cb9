"""Both document stores against a plain Python model, on random documents and queries."""

from __future__ import annotations

import itertools
import math
from datetime import UTC, datetime, timedelta
from functools import cmp_to_key

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from testbench_dagster.stores.documents import Collection, Group

FIELDS = {"name": str, "number": int, "weight": float, "flag": bool, "at": datetime}
THINGS = Collection("things", fields=FIELDS, indexes=(("name", "number"), ("at",)))
START = datetime(2026, 1, 1, tzinfo=UTC)

# Few distinct values, so that filters match and groups have several members.
VALUES = {
    "_id": st.sampled_from([f"id-{n}" for n in range(12)]),
    "name": st.sampled_from(["", "a", "A", "ab", "é", "\U0001f701", "a\0", "\uffff", "10", "9"]),
    "number": st.sampled_from([-(2**63), -1, 0, 1, 2, 2**40]),
    "weight": st.sampled_from([-1.5, -0.0, 0.0, 0.25, 1e300, 3]),
    "flag": st.booleans(),
    "at": st.sampled_from([START + timedelta(milliseconds=n) for n in (-(10**13), 0, 1, 2)]),
}
DOCUMENTS = st.lists(
    st.fixed_dictionaries({}, optional={name: st.none() | VALUES[name] for name in FIELDS}), max_size=12
).map(lambda found: [{"_id": f"id-{n}", **document} for n, document in enumerate(found)])


def conditions(name: str):
    value = VALUES[name]
    return st.one_of(
        st.none() | value,
        st.dictionaries(st.sampled_from(["gt", "gte", "lt", "lte"]), value, min_size=1, max_size=2),
        st.dictionaries(st.sampled_from(["eq", "ne"]), st.none() | value, min_size=1, max_size=2),
        st.lists(st.none() | value, max_size=4).map(lambda listed: {"in": listed}),
    )


WHERE = st.fixed_dictionaries({}, optional={name: conditions(name) for name in VALUES})
SORT = st.lists(
    st.tuples(st.sampled_from(sorted(FIELDS)), st.sampled_from([1, -1])),
    max_size=3,
    unique_by=lambda key: key[0],
)
BY = st.lists(st.sampled_from(sorted(FIELDS)), max_size=2, unique=True)

_TESTS = {
    "eq": lambda value, operand: value == operand,
    "ne": lambda value, operand: value != operand,
    "in": lambda value, operand: value in operand,
    "gt": lambda value, operand: value is not None and value > operand,
    "gte": lambda value, operand: value is not None and value >= operand,
    "lt": lambda value, operand: value is not None and value < operand,
    "lte": lambda value, operand: value is not None and value <= operand,
}


def matches(document, where) -> bool:
    for name, condition in where.items():
        terms = condition if isinstance(condition, dict) else {"eq": condition}
        if not all(_TESTS[op](document.get(name), operand) for op, operand in terms.items()):
            return False
    return True


def compare(one, other) -> int:
    """Nulls before everything."""
    if one is None or other is None:
        return (one is not None) - (other is not None)
    return (one > other) - (one < other)


def ordered(documents, sort):
    def difference(one, other) -> int:
        for name, direction in sort:
            if order := compare(one.get(name), other.get(name)):
                return order * direction
        return 0

    return sorted(documents, key=cmp_to_key(difference))


def grouped(documents, by):
    keyed = ordered(documents, [(name, 1) for name in by])
    rows = []
    for key, members in itertools.groupby(keyed, key=lambda document: [document.get(name) for name in by]):
        members = list(members)
        row = dict(zip(by, key, strict=True)) | {"count": len(members)}
        for name in FIELDS:
            present = [m[name] for m in members if m.get(name) is not None]
            row[f"min_{name}"] = min(present, default=None)
            row[f"max_{name}"] = max(present, default=None)
        weights = [m["weight"] for m in members if m.get("weight") is not None]
        row["sum_weight"] = math.fsum(weights) if weights else None
        rows.append(row)
    return rows


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(documents=DOCUMENTS, where=WHERE, sort=SORT, by=BY, limit=st.none() | st.integers(0, 5))
def test_find_count_and_group_agree_with_the_model(store, documents, where, sort, by, limit):
    store.purge(THINGS, {"_id": {"ne": None}})
    store.put_new(THINGS, documents)
    expected = [document for document in documents if matches(document, where)]
    assert store.count(THINGS, where) == len(expected)
    by_id = [*sort, ("_id", 1)]
    found = list(store.find(THINGS, where, sort=by_id, limit=limit))
    assert found == ordered(expected, by_id)[:limit]
    columns = list(store.find(THINGS, where, sort=by_id, limit=limit, fields=["_id", *FIELDS]))
    assert columns == [{name: document.get(name) for name in ("_id", *FIELDS)} for document in found]
    rows = store.group(THINGS, Group(by, min=list(FIELDS), max=list(FIELDS), sum=["weight"]), where)
    for row, model in zip(rows, grouped(expected, by), strict=True):
        assert row.pop("sum_weight") == pytest.approx(model.pop("sum_weight"))
        assert row == model

"""Our check of plain schemas says what the library says, and leaves all others to it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from testbench_dagster.tasks.tools import TASKS, read_docs
from testbench_dagster.tasks.tools.rows import parameters_of
from testbench_dagster.tasks.tools.schemas import Schemas, _plain

KINDS = ["string", "boolean", "null", "array", "object", "number", "integer"]
NAMES = st.sampled_from("abc")
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from([1.0, 0.5, "x", "1"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)


def schemas(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(KINDS)
            | st.lists(st.sampled_from(KINDS), min_size=1, max_size=3, unique=True),
            "enum": st.lists(st.sampled_from(["x", "1", "y"]), min_size=1, unique=True),
            "properties": st.dictionaries(NAMES, inner, max_size=3),
            "required": st.lists(NAMES, max_size=2, unique=True),
            "additionalProperties": st.booleans(),
            "items": inner,
            "default": VALUES,
            "minimum": st.sampled_from([0, 0.5, 1]),
            "maximum": st.sampled_from([0, 0.5, 1]),
            **{
                f"{bound}{what}": st.integers(0, 2)
                for bound in ("min", "max")
                for what in ("Items", "Length")
            },
        },
    )


@settings(max_examples=300)
@given(st.recursive(schemas(st.just({})), schemas, max_leaves=4), VALUES)
def test_plain_schemas_are_checked_as_the_library_does(schema: Any, value: Any) -> None:
    check = _plain(schema)
    assert check is not None
    assert check(value) == Draft202012Validator(schema).is_valid(value)


@pytest.mark.parametrize(
    "schema",
    [
        True,
        {"exclusiveMinimum": 1},
        {"enum": [1, True]},
        {"items": {"pattern": "x"}},
        {"additionalProperties": {"type": "string"}},
        {"properties": {"a": {"$ref": "#"}}},
        {"items": False},
    ],
)
def test_all_other_schemas_are_the_librarys(schema: Any) -> None:
    assert _plain(schema) is None
    values: list[Any] = [0, 1, True, ["x"], ["y"], {"a": {}}, {"a": 1}]
    for value in values:
        assert Schemas().is_valid(schema, value) == Draft202012Validator(schema).is_valid(value)


def test_most_tools_of_our_own_have_plain_schemas() -> None:
    offered = {
        name: schema
        for task in TASKS[:4]
        for row in read_docs(task)
        for name, schema in parameters_of(row).items()
    }
    plain = [name for name, schema in offered.items() if _plain(schema) is not None]
    assert len(plain) > 0.8 * len(offered), {n: offered[n] for n in offered.keys() - set(plain)}

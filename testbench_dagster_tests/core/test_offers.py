"""Tools and response formats that are held once: equal ones, and nothing else."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbench_dagster.core.ids import canonical_json
from testbench_dagster.core.offers import with_shared_offers
from testbench_dagster.core.records.prompts import AskedPrompt, PromptRecord, PromptRequests
from testbench_dagster.stores.documents import typed
from testbench_dagster.stores.documents.sqlite import SqliteDocuments

NOW = datetime(2031, 1, 1, tzinfo=UTC)


def tool(**parameters: Any) -> dict[str, Any]:
    schema = {"type": "object", "properties": {"a": {"type": "number", **parameters}}}
    return {"type": "function", "function": {"name": "add", "parameters": schema}}


def offered(*tools: Any) -> list[Any]:
    """The tools of a prompt's request, as they are held."""
    [request] = with_shared_offers([{"type": "chat", "tools": list(tools)}])
    found: list[Any] = request["tools"]
    return found


def nested(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"a": value}
    return value


def test_equal_tools_of_two_prompts_are_one_object() -> None:
    (one, two), (other,) = offered(tool(), tool(default=1)), offered(tool())
    assert one is other and one == tool()
    assert two == tool(default=1)


def test_response_formats_are_held_once_too() -> None:
    forms = [with_shared_offers([{"response_format": tool()}])[0]["response_format"] for _ in range(2)]
    assert forms[0] is forms[1] and forms[0] == tool()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (tool(default=1), tool(default=1.0)),
        (tool(default=1), tool(default=True)),
        (tool(default=0.0), tool(default=-0.0)),
        (tool(default=None), tool(default=float("nan"))),
        (tool(default=None), tool(default=float("inf"))),
        (tool(default=NOW.isoformat()), tool(default=NOW)),
        (tool(default="1"), tool(default=b"1")),
        (tool(a=1, b=2), tool(b=2, a=1)),  # suppliers see the order
        (tool(default=[1]), tool(default=(1,))),
    ],
)
def test_what_would_be_sent_or_stored_otherwise_is_another(one: Any, other: Any) -> None:
    for first, second in ((one, other), (other, one)):
        kept = offered(copy.deepcopy(first)), offered(copy.deepcopy(second))
        assert kept[0][0] is not kept[1][0]
        assert (repr(kept[0]), repr(kept[1])) == (repr([first]), repr([second]))


@pytest.mark.parametrize(
    "odd",
    [
        None,
        "requests",
        7,
        {"tools": [tool()]},
        [None, 7, "x", [tool()]],
        [{"tools": "all"}, {"tools": None}, {"tools": {"a": 1}}, {"response_format": "json"}],
        [{"tools": [7, None, "x", [], {}, 1 << 70, "half \ud800", nested(300)]}],
        [{"tools": [tool(description="x" * 100_000)]}],
    ],
)
def test_whatever_a_bundle_holds_stays_what_it_is(odd: Any) -> None:
    before = copy.deepcopy(odd)
    assert with_shared_offers(odd) is odd
    assert odd == before


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)


@given(st.lists(st.dictionaries(st.text(max_size=5), values, max_size=3), max_size=4))
def test_nothing_changes_in_what_identifies_a_prompt(tools: list[Any]) -> None:
    before = canonical_json(tools), repr(tools)
    kept = offered(*tools)
    assert (canonical_json(kept), repr(kept)) == before


def document(position: int) -> dict[str, Any]:
    """A prompt as every version so far stored it."""
    request = {
        "type": "chat",
        "idx": 0,
        "messages": [{"role": "user", "content": f"{position} + 2?"}],
        "generation": {"until": [], "max_gen_toks": 99, "temperature": 0},
        "tools": [tool(), tool(default=position)],
        "tool_choice": "auto",
    }
    return {
        "_id": f"p{position}", "task": "t", "task_hash": "h", "epoch": 1, "api": "chat", "position": position,
        "doc_id": position, "doc_hash": "d", "calls": 1, "relayable": True, "requests": [request],
        "target": {"calls": []}, "context_chars": 9, "created_at": NOW, "repeats": 1,
    }  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteDocuments]:
    opened = SqliteDocuments(tmp_path / "documents.sqlite3")
    yield opened
    opened.close()


def test_stored_prompts_keep_their_shape(store: SqliteDocuments) -> None:
    """What earlier versions stored is read, and what is stored now they could read."""
    documents = [document(n) for n in range(3)]
    store.put_new(PromptRecord.collection, copy.deepcopy(documents[:2]))
    typed.put_new(store, PromptRecord, [PromptRecord.from_document(copy.deepcopy(documents[2]))])
    assert list(store.find(PromptRecord.collection, sort=[("position", 1)])) == documents
    for of in (PromptRecord, PromptRequests, AskedPrompt):
        read: Any = typed.by_id(store, of, ["p0", "p1", "p2"])
        assert [read[f"p{n}"].requests for n in range(3)] == [one["requests"] for one in documents]
        common = {id(prompt.requests[0]["tools"][0]) for prompt in read.values()}
        own = {id(prompt.requests[0]["tools"][1]) for prompt in read.values()}
        assert (len(common), len(own)) == (1, 3), of

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbench_dagster.core.answer_prefix import ANSWER_PREFIX_CHARS, answer_prefix, prefix_of_answer
from testbench_dagster.core.chat_message import ChatMessage, ToolCall
from testbench_dagster.core.faults import Fault
from testbench_dagster.core.records.attempts import AttemptRecord
from testbench_dagster.core.relay import Attempt, Relay
from testbench_dagster.stages.relay.writer import attempt_record, fenced_out
from testbench_dagster.stores.documents import DocumentStore, open_documents, typed
from testbench_dagster.stores.documents.collections import ATTEMPTS
from testbench_dagster_tests.endpoints import relay


@given(st.text(alphabet=st.sampled_from("ab \n\t\u00a0\u3000é"), max_size=900))
def test_prefixes_are_the_head_of_the_collapsed_text(text: str):
    assert answer_prefix(text) == " ".join(text.split())[:ANSWER_PREFIX_CHARS]


def test_white_space_before_the_text_does_not_hide_it():
    assert answer_prefix(" \n" * 5_000 + "late  answer") == "late answer"


def test_prefixes_cost_next_to_nothing():
    """Well below the engine's 0.15 ms a request, also for answers of megabytes."""
    text = "The answer is, as far as I can see, forty-two. " * 50_000
    started = time.process_time()
    for _ in range(1_000):
        answer_prefix(text)
    assert time.process_time() - started < 1  # about 0.01 s; all of the text would be half a minute


def _attempt(text: str | None, fault: Fault = Fault.OK) -> Attempt:
    now = datetime.now(UTC)
    return Attempt(fault, now, now, 1.5, text=text)


def _relay(**generation: Any) -> Relay:
    made = relay()
    made.request = {**made.request, "generation": generation}
    return made


@pytest.mark.parametrize(
    ("asked", "attempt", "opening"),
    [
        (_relay(), _attempt("One\n\n two  "), "One two"),
        (_relay(temperature=0), _attempt("One"), "One"),
        (_relay(temperature=0.0), _attempt("One", Fault.TRUNCATED), "One"),
        (_relay(temperature=0.7), _attempt("One"), None),
        (_relay(temperature=0), _attempt(None, Fault.EMPTY), None),
        (_relay(temperature=0), _attempt("cut", Fault.SUPPLIER_REFUSED), None),
    ],
)
def test_only_answers_at_temperature_0_have_one(asked: Relay, attempt: Attempt, opening: str | None):
    assert attempt_record(asked, 1, attempt).opening == opening


def test_choices_have_none():
    asked = relay()
    asked.request = {"type": "loglikelihood", "idx": 0, "context": "a", "continuation": " b"}
    assert attempt_record(asked, 1, _attempt(None)).opening is None


def test_who_lost_the_lease_gives_no_evidence():
    record = attempt_record(_relay(), 1, _attempt("One"), lease=3)
    assert record.opening == "One" and fenced_out(record).opening is None


@pytest.mark.parametrize(
    ("content", "calls", "prefix"),
    [
        (None, [("weather", '{"city": "Oslo"}')], "weather city Oslo"),
        (None, [("weather", '{"city":"Oslo"}'), ("noon", "")], "weather city Oslo noon"),
        ("I  look.", [("noon", "{}")], "I look. noon"),
        ('{"sum": 5}', [], '{"sum": 5}'),
        (None, [], ""),
        ("x" * 100, [("noon", "{}")], "x" * ANSWER_PREFIX_CHARS),
        (None, [("f" * 9_000, "[" * 100_000)] * 100, "f" * ANSWER_PREFIX_CHARS),
    ],
)
def test_messages_begin_with_what_they_say_and_call(content, calls, prefix):
    text = ChatMessage(content, tuple(ToolCall(*call) for call in calls), "stop").text
    assert prefix_of_answer({"type": "chat"}, text) == prefix
    assert prefix_of_answer({"type": "generate_until"}, text) == answer_prefix(text)


@pytest.fixture(params=["sqlite", "mongo"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    uri = request.getfixturevalue("mongo_database_uri") if request.param == "mongo" else None
    opened = open_documents(tmp_path, uri)
    yield opened
    opened.close()


def test_stores_give_prefixes_without_bodies(store: DocumentStore):
    texts = {1: "One", 2: "zero\0byte", 3: "\U0001f600 𝒳 café"}
    typed.put_new(
        store,
        AttemptRecord,
        [attempt_record(_relay(), number, _attempt(text)) for number, text in texts.items()]
        + [attempt_record(_relay(temperature=1), 4, _attempt("hot"))],
    )
    found = store.find(ATTEMPTS, {"prompt_id": "p0"}, fields=["attempt", "opening"])
    assert {d["attempt"]: d["opening"] for d in found} == {**texts, 4: None}

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from testbench_dagster.core.faults import Fault
from testbench_dagster.core.generation import SupplierGeneration
from testbench_dagster.core.text import MAX_ERROR_CHARS, escaped
from testbench_dagster.transports.answers import parse_answer
from testbench_dagster.transports.readings import PLAINLY, reading_of
from testbench_dagster.transports.reasoning import split_text
from testbench_dagster_tests.endpoints import chat_body
from testbench_dagster_tests.tasks.layouts import REPOSITORY

GENERATE = {"type": "generate_until", "idx": 0, "messages": [], "generation": {}}
SHARED = Path(os.environ.get("TESTBENCH_SHARED", REPOSITORY.parent / "shared"))


def chat(body: bytes | Any, status: int = 200) -> Any:
    return parse_answer(
        GENERATE, "chat", status, body if isinstance(body, bytes) else json.dumps(body).encode()
    )


def test_answer():
    answer = chat(chat_body(" \n "))
    assert (answer.fault, answer.text, answer.finish_reason) == (Fault.OK, " \n ", "stop")
    assert (answer.prompt_tokens, answer.completion_tokens, answer.error) == (3, 2, None)


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (chat_body("x", "length"), Fault.TRUNCATED),
        (chat_body("", "length"), Fault.TRUNCATED),
        (chat_body(None, "length"), Fault.TRUNCATED),
        (chat_body(None), Fault.OK),
        (chat_body(""), Fault.OK),
        (chat_body("", "eos"), Fault.OK),
        (chat_body(None, tool_calls=[{"id": "a"}]), Fault.SUPPLIER_PROTOCOL),
        (chat_body(None, "tool_calls"), Fault.SUPPLIER_PROTOCOL),
        (chat_body("x", "tool_calls", tool_calls=[{"id": "a"}]), Fault.OK),
        (chat_body("It is", "error"), Fault.SUPPLIER_HTTP),
        (chat_body("It is", "abort"), Fault.SUPPLIER_HTTP),
        (chat_body("x", None), Fault.OK),
        (chat_body("x", tool_calls=None), Fault.OK),
        (chat_body("x", refusal=None), Fault.OK),
        (chat_body(None, refusal="I will not"), Fault.SUPPLIER_REFUSED),
        (chat_body("x", "content_filter"), Fault.SUPPLIER_REFUSED),
        ({"choices": [{"message": {"content": "x"}}]}, Fault.OK),
        ({"choices": [{"message": {}}]}, Fault.OK),
        ({"error": None, "choices": [{"index": 0, "message": {"content": "x"}}]}, Fault.OK),
        ({"error": "no", "choices": [{"index": 0, "message": {"content": "x"}}]}, Fault.SUPPLIER_PROTOCOL),
        ({"error": {"message": "no"}}, Fault.SUPPLIER_PROTOCOL),
        ({"choices": []}, Fault.SUPPLIER_PROTOCOL),
        ({"choices": {}}, Fault.SUPPLIER_PROTOCOL),
        ({"choices": ["x"]}, Fault.SUPPLIER_PROTOCOL),
        ({"choices": [{"index": n, "message": {"content": "x"}} for n in (1, 2)]}, Fault.SUPPLIER_PROTOCOL),
        ({"choices": [{"index": 1, "message": {"content": "x"}}]}, Fault.OK),
        ({"choices": [{"index": "0", "message": {"content": "x"}}]}, Fault.OK),
        ({"choices": [{"index": 0, "message": {"content": ["x"]}}]}, Fault.OK),
        ({"choices": [{"index": 0, "message": {"content": [7]}}]}, Fault.SUPPLIER_PROTOCOL),
        ({"choices": [{"index": 0, "message": {"content": [{"type": "image"}]}}]}, Fault.SUPPLIER_PROTOCOL),
        ({"choices": [{"index": 0, "message": {"content": []}}]}, Fault.OK),
        ({"choices": [{"index": 0, "message": "x"}]}, Fault.SUPPLIER_PROTOCOL),
        ({"choices": [{"index": 0, "message": {"content": "x"}, "finish_reason": 3}]}, Fault.OK),
        ([], Fault.SUPPLIER_PROTOCOL),
        (b"", Fault.SUPPLIER_PROTOCOL),
        (b"<html>", Fault.SUPPLIER_PROTOCOL),
        (b"\xff\xfe", Fault.SUPPLIER_PROTOCOL),
        (b"[" * 100_000, Fault.SUPPLIER_PROTOCOL),
        (b'{"error":' + b"[" * 1000 + b"1" + b"]" * 1000 + b"}", Fault.SUPPLIER_PROTOCOL),
    ],
)
def test_rows_of_the_fault_table(body: Any, fault: Fault):
    answer = chat(body)
    assert answer.fault is fault, answer
    assert (answer.error is None) == fault.answered


@pytest.mark.parametrize(
    ("status", "fault"),
    [
        (101, Fault.SUPPLIER_PROTOCOL),
        (301, Fault.SUPPLIER_HTTP),
        (304, Fault.SUPPLIER_HTTP),
        (400, Fault.CLIENT_REQUEST),
        (401, Fault.CREDENTIALS),
        (402, Fault.QUOTA),
        (403, Fault.CREDENTIALS),
        (404, Fault.CREDENTIALS),
        (405, Fault.CLIENT_REQUEST),
        (408, Fault.UNAVAILABLE),
        (409, Fault.UNAVAILABLE),
        (413, Fault.CLIENT_REQUEST),
        (422, Fault.CLIENT_REQUEST),
        (423, Fault.UNAVAILABLE),
        (424, Fault.SUPPLIER_HTTP),
        (425, Fault.UNAVAILABLE),
        (429, Fault.RATE_LIMITED),
        (451, Fault.SUPPLIER_REFUSED),
        (498, Fault.UNAVAILABLE),
        (499, Fault.UNAVAILABLE),
        (500, Fault.SUPPLIER_HTTP),
        (501, Fault.SUPPLIER_HTTP),
        (502, Fault.UNAVAILABLE),
        (503, Fault.UNAVAILABLE),
        (504, Fault.UNAVAILABLE),
        (505, Fault.SUPPLIER_HTTP),
        (520, Fault.UNAVAILABLE),
        (529, Fault.UNAVAILABLE),
        (530, Fault.UNAVAILABLE),
        (531, Fault.SUPPLIER_HTTP),
        (599, Fault.UNAVAILABLE),
        (600, Fault.SUPPLIER_PROTOCOL),
        (999, Fault.SUPPLIER_PROTOCOL),
    ],
)
def test_statuses(status: int, fault: Fault):
    answer = chat(chat_body("would be fine"), status)
    assert (answer.fault, answer.text) == (fault, None)
    assert answer.error.startswith(f"HTTP {status}")


@pytest.mark.parametrize("status", [200, 201, 202, 226, 299])
def test_any_2xx_with_an_answer_is_one(status: int):
    assert chat(chat_body("fine"), status).text == "fine"
    nothing = chat(b"", status)
    assert nothing.fault is Fault.SUPPLIER_PROTOCOL and (status == 200 or f"HTTP {status}" in nothing.error)


@pytest.mark.parametrize("count", [7, 7.0, "7"])
def test_token_counts_of_any_type(count: Any):
    usage = {"completion_tokens": count, "completion_tokens_details": {"reasoning_tokens": count}}
    body = {"choices": [{"message": {"content": "x"}}], "usage": usage}
    answer = chat(body)
    assert (answer.completion_tokens, answer.reasoning_tokens) == (7, 7)


def test_an_answer_in_the_form_of_the_other_api_is_one():
    for api in ("chat", "completions"):
        for choice in ({"text": "x"}, {"message": {"content": "x"}}, {"text": "x", "message": None}):
            assert parse_answer(GENERATE, api, 200, json.dumps({"choices": [choice]}).encode()).text == "x"
        both = {"text": "t", "message": {"content": "m"}}
        answer = parse_answer(GENERATE, api, 200, json.dumps({"choices": [both]}).encode())
        assert answer.text == ("m" if api == "chat" else "t")
    assert parse_answer(GENERATE, "completions", 200, b'{"choices": [{}]}').text == ""
    assert chat({"choices": [{}]}).fault is Fault.SUPPLIER_PROTOCOL


def asked(stops: Any, **rules: Any) -> dict[str, Any]:
    return {**GENERATE, "generation": {"until": stops}, **rules}


@pytest.mark.parametrize("how", ["client", 0, 2])
@pytest.mark.parametrize(
    ("said", "text", "fault"),
    [
        ("one\n\ntwo", "one", Fault.OK),
        ("one Q: two\n\n", "one ", Fault.OK),
        ("<think>a\n\nQ: b</think>one\n\ntwo", "one", Fault.OK),
        ("one", "one", Fault.TRUNCATED),
        ("<think>one\n\n", "", Fault.TRUNCATED),
        ("\n\n", "", Fault.OK),
    ],
)
def test_stop_strings_that_were_not_sent_cut_here(how: Any, said: str, text: str, fault: Fault):
    """Once the thoughts are gone; a server would have ended the answer there, within the limit."""
    request, body = asked(["\n\n", "Q:", ""]), chat_body(said, "length")
    wanted = SupplierGeneration(stop=how)
    answer = parse_answer(request, "chat", 200, body, generation=wanted)
    assert (answer.text, answer.fault) == (text, fault)
    assert parse_answer(request, "chat", 200, body).fault is Fault.TRUNCATED


def test_stop_strings_that_were_all_sent_are_the_servers_business():
    request, body = asked(["\n\n", "Q:"]), chat_body("one\n\ntwo")
    for how, text in ((1, "one"), (2, "one\n\ntwo"), (4, "one\n\ntwo"), (None, "one\n\ntwo")):
        answer = parse_answer(request, "chat", 200, body, generation=SupplierGeneration(stop=how))
        assert answer.text == text


def test_stop_strings_are_those_that_the_task_itself_would_send():
    """lm-eval sends four to chat APIs; a text cut at others would not equal its plain twin's."""
    body, wanted = chat_body("1a2b3c4d5e6"), SupplierGeneration(stop="client")
    request = asked(["v", "w", "x", "y", "b"])
    assert parse_answer(request, "chat", 200, body, generation=wanted).text == "1a2b3c4d5e6"
    completion = json.dumps({"choices": [{"text": "1a2b3c"}]}).encode()
    assert parse_answer(request, "completions", 200, completion, generation=wanted).text == "1a2"
    assert parse_answer(asked("c"), "completions", 200, completion, generation=wanted).text == "1a2b3"


@pytest.mark.parametrize(
    ("rule", "said", "text", "thought"),
    [
        (None, "<think>a</think> b", "b", True),
        (False, "<think>a</think> b", "<think>a</think> b", False),
        ("</think>", " a</think>b</think>\n c ", "c ", True),
        ("X", " <think>a</think> b", "<think>a</think> b", False),
        ("X", "aXbX", "", True),
        ("", "<think>a</think> b", "b", True),  # no rule at all: nobody can have configured it
        (True, "<think>a</think> b", "b", True),
        (7, "<think>a</think> b", "b", True),
    ],
)
def test_the_rule_of_the_task_says_what_is_thought(rule: Any, said: str, text: str, thought: bool):
    from lm_eval.models.utils import postprocess_generated_text

    answer = parse_answer(asked([], think_end_token=rule), "chat", 200, chat_body(said))
    assert (answer.text, bool(answer.reasoning_chars)) == (text, thought)
    if isinstance(rule, str) and rule:
        assert text == postprocess_generated_text(said, None, rule)


def test_answers_of_earlier_classifiers_are_read_with_their_tags():
    """As they were scored, and as they were compared with others."""
    attempts = [SimpleNamespace(evidence={}, classifier=number) for number in (None, 1, 2, 3)]
    for attempt, text in zip(attempts, ["<think>a</think> b"] * 3 + ["b"], strict=True):
        body = chat_body("<think>a</think> b", reasoning_content="c")
        answer = parse_answer(GENERATE, "chat", 200, body, **reading_of(attempt))
        assert answer.text == text and answer.reasoning_chars
    ruled = parse_answer(
        asked([], think_end_token="</think>"), "chat", 200, chat_body("a</think>b"), **reading_of(attempts[0])
    )
    assert ruled.text == "b"
    lies = SimpleNamespace(evidence={"charset": "punycode", "generation": {"budget": -1}}, classifier=3)
    assert reading_of(lies) == PLAINLY


def test_an_answer_without_text_is_the_empty_text():
    for body in (chat_body(None), chat_body(""), chat_body("", "length")):
        assert chat(body).text == ""
    completion = {"choices": [{"index": 0, "text": None, "finish_reason": "stop"}]}
    assert parse_answer(GENERATE, "completions", 200, json.dumps(completion).encode()).text == ""


@pytest.mark.parametrize(
    ("status", "body", "fault"),
    [
        (429, {"error": {"code": "insufficient_quota", "message": "You exceeded"}}, Fault.QUOTA),
        (429, {"error": {"type": "insufficient_quota", "code": None}}, Fault.QUOTA),
        (429, {"error": {"type": "exceeded_current_quota_error"}}, Fault.QUOTA),
        (429, {"error": "insufficient_quota"}, Fault.QUOTA),
        (429, {"code": "Insufficient_Quota", "message": "x"}, Fault.QUOTA),
        (429, {"detail": {"type": "billing_not_active"}}, Fault.QUOTA),
        (429, [{"error": {"code": "insufficient_quota"}}], Fault.QUOTA),
        (403, {"error": {"code": "insufficient_user_quota"}}, Fault.QUOTA),
        (
            429,
            {"error": {"code": "rate_limit_exceeded", "message": "insufficient_quota"}},
            Fault.RATE_LIMITED,
        ),
        (429, {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED"}}, Fault.RATE_LIMITED),
        (429, {"error": {"code": ["insufficient_quota"]}}, Fault.RATE_LIMITED),
        (429, b"insufficient_quota", Fault.RATE_LIMITED),
        (403, {"error": {"code": "model_not_allowed"}}, Fault.CREDENTIALS),
        (500, {"error": {"code": "insufficient_quota"}}, Fault.SUPPLIER_HTTP),
    ],
)
def test_a_quota_that_is_used_up_is_told_from_a_rate(status: int, body: Any, fault: Fault):
    assert chat(body, status).fault is fault


def test_long_errors_are_not_searched_for_a_quota():
    body = {"error": {"code": "insufficient_quota", "message": "x" * 70_000}}
    assert chat(body, 429).fault is Fault.RATE_LIMITED


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ({"error": {"message": "slow down", "code": 429}, "choices": None}, Fault.RATE_LIMITED),
        ({"error": {"message": "overloaded", "code": 502}}, Fault.UNAVAILABLE),
        ({"error": {"message": "no", "code": "429"}}, Fault.RATE_LIMITED),
        ({"error": {"message": "no", "status": 500}}, Fault.SUPPLIER_HTTP),
        ({"error": {"message": "no", "status_code": 401}}, Fault.CREDENTIALS),
        ({"error": "too long", "code": 400}, Fault.CLIENT_REQUEST),
        ({"error": "no", "status": 503}, Fault.UNAVAILABLE),
        ({"error": {"code": 429, "type": "insufficient_quota"}}, Fault.QUOTA),
        ({"error": {"code": 451}}, Fault.SUPPLIER_REFUSED),
        ({"error": {"message": "no", "code": 200}}, Fault.SUPPLIER_PROTOCOL),
        ({"error": {"message": "no", "code": 600}}, Fault.SUPPLIER_PROTOCOL),
        ({"error": {"message": "no", "code": True}}, Fault.SUPPLIER_PROTOCOL),
        ({"error": {"message": "no", "code": "context_length_exceeded"}}, Fault.CLIENT_REQUEST),
        ({"error": {"message": "no", "code": 429.0}}, Fault.RATE_LIMITED),
        ({"error": {"message": "no", "code": 429.5}}, Fault.SUPPLIER_PROTOCOL),
    ],
)
def test_an_error_inside_a_200_counts_as_the_status_in_it(body: Any, fault: Fault):
    answer = chat(body)
    assert answer.fault is fault and answer.text is None
    assert answer.error.startswith("HTTP 200 with an error: ")


def test_an_answer_that_broke_off_counts_as_the_error_its_choice_holds():
    choice = {"index": 0, "message": {"content": "It is"}, "finish_reason": "error"}
    upstream = {**choice, "error": {"code": 502, "message": "upstream died"}}
    assert chat({"choices": [upstream]}).fault is Fault.UNAVAILABLE
    assert chat({"choices": [{**choice, "error": {"message": "?"}}]}).fault is Fault.SUPPLIER_HTTP
    found = chat({"choices": [choice]})
    assert (found.fault, found.finish_reason, found.text) == (Fault.SUPPLIER_HTTP, "error", None)


def test_nothing_makes_the_fault_of_old_attempts_without_text():
    """``empty`` is a fact of earlier versions: whatever the body, an answer without text is "" now."""
    bodies = [chat_body(text, reason) for text in (None, "") for reason in ("stop", "length", None, "eos")]
    assert Fault.EMPTY not in {chat(body).fault for body in bodies}


def test_the_choice_with_index_0_counts():
    choices = [{"index": n, "message": {"content": str(n)}} for n in (2, 1, 0)]
    assert chat({"choices": choices}).text == "0"


@pytest.mark.parametrize("count", [-1, 2**63, 1.5, True, "-7", "7.0", None, [], float("nan")])
def test_implausible_token_counts_are_unknown(count: Any):
    body = {"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": count}}
    answer = chat(body)
    assert (answer.fault, answer.prompt_tokens) == (Fault.OK, None)


@settings(deadline=None)
@given(st.text())
def test_foreign_text_is_bounded_and_printable(text: str):
    shown = escaped(text)
    assert len(shown) <= MAX_ERROR_CHARS and shown.isprintable()
    assert not text.isprintable() or len(text) > MAX_ERROR_CHARS or shown == text


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
#: JSON that has the right keys with anything in them
shaped = st.fixed_dictionaries(
    {},
    optional={
        "error": json_values,
        "usage": json_values | st.fixed_dictionaries({"prompt_tokens": json_values}),
        "choices": st.lists(
            st.fixed_dictionaries(
                {},
                optional={
                    "index": st.integers(-1, 1) | json_values,
                    "finish_reason": st.sampled_from(["stop", "length", "content_filter"]) | json_values,
                    "text": json_values,
                    "message": st.fixed_dictionaries(
                        {}, optional={"content": json_values, "refusal": json_values}
                    ),
                    "logprobs": st.fixed_dictionaries(
                        {},
                        optional={
                            "tokens": st.lists(st.text(max_size=3), max_size=4) | json_values,
                            "token_logprobs": st.lists(json_values, max_size=4),
                            "top_logprobs": st.lists(json_values, max_size=4),
                            "text_offset": st.lists(st.integers(-1, 9), max_size=4) | json_values,
                        },
                    ),
                },
            )
            | json_values,
            max_size=3,
        )
        | json_values,
    },
)
LOGLIKELIHOOD = {"type": "loglikelihood", "idx": 0, "context": "ab", "continuation": "c"}
requests = st.sampled_from([(GENERATE, "chat"), (GENERATE, "completions"), (LOGLIKELIHOOD, "completions")])


@settings(deadline=None)
@given(requests, st.integers(0, 999) | st.just(200), st.binary())
def test_never_raises_on_bytes(request_: Any, status: int, body: bytes):
    answer = parse_answer(*request_, status, body)
    assert answer.error is None or (len(answer.error) <= MAX_ERROR_CHARS and answer.error.isprintable())


@settings(deadline=None)
@given(requests, shaped | json_values)
def test_never_raises_on_json(request_: Any, value: Any):
    answer = parse_answer(*request_, 200, json.dumps(value).encode())
    assert (answer.fault is Fault.OK and request_[0]["type"] == "loglikelihood") == (
        answer.logprob is not None
    )
    assert answer.fault.answered == (answer.error is None)


@settings(deadline=None)
@given(st.text(min_size=1), st.text())
def test_texts_equal_lm_eval(content: str, other: str):
    assume(split_text(content) == ("", content))  # else a part of it is no answer
    from lm_eval.models.openai_completions import LocalChatCompletion

    choices = [
        {"index": 1, "message": {"content": other}},
        {"index": 0, "message": {"content": content}},
    ]
    body = json.dumps({"choices": choices}).encode("utf-8")
    theirs = LocalChatCompletion.parse_generations(
        SimpleNamespace(think_end_token=None),
        json.loads(body),  # type: ignore[arg-type]
    )
    assert chat(body).text == theirs[0]

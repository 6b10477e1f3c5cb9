from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbench_dagster.core.faults import Fault
from testbench_dagster.core.text import MAX_ERROR_CHARS, escaped
from testbench_dagster.transports.answers import parse_answer
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
        ({"choices": [{"index": 1, "message": {"content": "x"}}]}, Fault.SUPPLIER_PROTOCOL),
        ({"choices": [{"index": "0", "message": {"content": "x"}}]}, Fault.SUPPLIER_PROTOCOL),
        ({"choices": [{"index": 0, "message": {"content": ["x"]}}]}, Fault.SUPPLIER_PROTOCOL),
        ({"choices": [{"index": 0, "message": "x"}]}, Fault.SUPPLIER_PROTOCOL),
        (
            {"choices": [{"index": 0, "message": {"content": "x"}, "finish_reason": 3}]},
            Fault.SUPPLIER_PROTOCOL,
        ),
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
        (201, Fault.SUPPLIER_PROTOCOL),
        (204, Fault.SUPPLIER_PROTOCOL),
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
        (425, Fault.UNAVAILABLE),
        (429, Fault.RATE_LIMITED),
        (451, Fault.SUPPLIER_REFUSED),
        (500, Fault.SUPPLIER_HTTP),
        (501, Fault.SUPPLIER_HTTP),
        (502, Fault.UNAVAILABLE),
        (503, Fault.UNAVAILABLE),
        (504, Fault.UNAVAILABLE),
        (505, Fault.SUPPLIER_HTTP),
        (520, Fault.UNAVAILABLE),
        (529, Fault.UNAVAILABLE),
        (530, Fault.SUPPLIER_HTTP),
        (599, Fault.SUPPLIER_HTTP),
        (600, Fault.SUPPLIER_PROTOCOL),
        (999, Fault.SUPPLIER_PROTOCOL),
    ],
)
def test_statuses(status: int, fault: Fault):
    answer = chat(chat_body("would be fine"), status)
    assert (answer.fault, answer.text) == (fault, None)
    assert answer.error.startswith(f"HTTP {status}")


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
        ({"error": {"message": "no", "code": "context_length_exceeded"}}, Fault.SUPPLIER_PROTOCOL),
        ({"error": {"message": "no", "code": 429.0}}, Fault.SUPPLIER_PROTOCOL),
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


@pytest.mark.parametrize("count", [-1, 2**63, 1.5, True, "7", None])
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


# -- log-probabilities --------------------------------------------------------------------------------


def echo(tokens: list[str], logprobs: list[Any] | None = None, **changes: Any) -> dict[str, Any]:
    """A correct echo of ``tokens``, the last one generated."""
    values = logprobs if logprobs is not None else [None, *(-0.5 * n for n in range(1, len(tokens)))]
    offsets, at = [], 0
    for token in tokens:
        offsets.append(at)
        at += len(token)
    found = {
        "tokens": tokens,
        "token_logprobs": values,
        "top_logprobs": [None if v is None else {t: v} for t, v in zip(tokens, values, strict=True)],
        "text_offset": offsets,
        **changes,
    }
    return {"choices": [{"index": 0, "text": "".join(tokens), "logprobs": found, "finish_reason": "length"}]}


def loglikelihood(context: str, continuation: str, body: Any) -> Any:
    request = {"type": "loglikelihood", "idx": 0, "context": context, "continuation": continuation}
    return parse_answer(request, "completions", 200, json.dumps(body).encode())


def lm_eval_parse(body: Any, context_tokens: int) -> tuple[float, bool]:
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    return LocalCompletionsAPI.parse_logprobs(body, ctxlens=[context_tokens])[0]


PLAIN = ["The", " sky", " is", " blue", ".", " So"]


@pytest.mark.parametrize(
    ("context", "continuation", "tokens", "start"),
    [
        ("The sky is", " blue.", PLAIN, 3),
        ("The sky is ", "blue.", PLAIN, 3),  # trailing space moves to the continuation
        ("The sky is blue", ".", PLAIN, 4),
        ("The sky is", " blue.", ["<s>", *PLAIN], 4),  # BOS counted in the offsets
        ("The sky is", " blue.", ["", *PLAIN], 4),  # BOS without text
        ("", "The sky is blue.", ["<s>", *PLAIN], 1),
        ("<s>The sky is", " blue.", ["<s>", "<s>", *PLAIN], 5),  # BOS before a prompt that has one
        ("<s>The sky is", " blue.", ["<s>", *PLAIN], 4),
    ],
)
def test_logprob_equals_lm_eval(context: str, continuation: str, tokens: list[str], start: int):
    body = echo(tokens)
    answer = loglikelihood(context, continuation, body)
    assert answer.fault is Fault.OK, answer
    assert (answer.logprob, answer.greedy) == lm_eval_parse(body, start)


def test_sglang_has_no_offsets():
    body = echo(PLAIN, text_offset=[-1] * len(PLAIN))
    assert loglikelihood("The sky is", " blue.", body).logprob == lm_eval_parse(body, 3)[0]


def test_not_greedy():
    body = echo(PLAIN)
    body["choices"][0]["logprobs"]["top_logprobs"][4] = {".": -2.0, "!": -1.0}
    answer = loglikelihood("The sky is", " blue.", body)
    assert (answer.logprob, answer.greedy) == lm_eval_parse(body, 3) == (-3.5, False)


@settings(deadline=None)
@given(
    st.lists(st.text(min_size=1, max_size=3), min_size=2, max_size=6),
    st.lists(st.text(min_size=1, max_size=3), min_size=1, max_size=4),
    st.data(),
)
def test_any_tokens_equal_lm_eval(context: list[str], continuation: list[str], data: Any):
    count = len(context) + len(continuation)
    values = [None, *data.draw(st.lists(st.floats(-30, 0), min_size=count, max_size=count))]
    body = echo([*context, *continuation, "!"], values)
    text = "".join(context)
    answer = loglikelihood(text, "".join(continuation), body)
    if text == text.rstrip():  # otherwise the boundary lies elsewhere
        assert answer.fault is Fault.OK, answer
        assert (answer.logprob, answer.greedy) == lm_eval_parse(body, len(context))


def changed(index: int, value: Any) -> list[Any]:
    values: list[Any] = [None, -1.0, -1.0, -1.0, -1.0, -1.0]
    values[index] = value
    return values


@pytest.mark.parametrize(
    "body",
    [
        echo([" So"], [-0.1]),  # echo ignored: the generated token alone
        echo(PLAIN[:-1]),  # nothing generated
        echo([*PLAIN, " it"]),  # two generated
        echo(["The", " sky", " is bl", "ue", ".", " So"]),  # straddles the boundary
        echo(PLAIN[1:]),  # the beginning is missing
        echo(PLAIN, changed(3, None)),
        echo(PLAIN, changed(3, 0.5)),
        echo(PLAIN, changed(4, float("nan"))),
        echo(PLAIN, changed(4, float("-inf"))),
        echo(PLAIN, changed(4, "-1")),
        echo(PLAIN, changed(4, True)),
        echo(PLAIN, top_logprobs=[None] * 6),
        echo(PLAIN, top_logprobs=[{}] * 6),
        echo(PLAIN, top_logprobs=None),
        echo(PLAIN, text_offset=[0, 3, 7, 10, 15]),
        echo(PLAIN, text_offset=[0, 3, 2, 10, 15, 16]),
        echo(PLAIN, text_offset=["0", "3", "7", "10", "15", "16"]),
        {"choices": [{"index": 0, "text": "x", "logprobs": None}]},
    ],
)
def test_invalid_logprobs(body: Any):
    answer = loglikelihood("The sky is", " blue.", body)
    assert answer.fault is Fault.SUPPLIER_PROTOCOL
    assert answer.error


def test_rounding_above_zero_is_tolerated():
    assert loglikelihood("The sky is", " blue.", echo(PLAIN, changed(3, 1e-4))).fault is Fault.OK


def test_real_bodies_of_2021():
    path = SHARED / "data/logprobs_truthfulqa/openai_ada_2021_completions.jsonl.gz"
    if not path.exists():
        pytest.skip(f"{path} is absent (set TESTBENCH_SHARED)")
    checked = 0
    for line in gzip.decompress(path.read_bytes()).splitlines():
        body = json.loads(line)
        for choice in body["choices"]:
            found = choice["logprobs"]
            tokens, offsets = found["tokens"], found["text_offset"]
            single = {"choices": [{**choice, "index": 0}]}
            if found["token_logprobs"][0] is not None:  # not echoed
                answer = loglikelihood("Some question", " answer", single)
                assert answer.fault is Fault.SUPPLIER_PROTOCOL
                continue
            for start in range(1, len(tokens) - 1):
                # these bodies have no generated token: take the last one for it
                prompt = choice["text"][: offsets[-1]]
                context = prompt[: offsets[start]]
                if context != context.rstrip():
                    continue
                answer = loglikelihood(context, prompt[offsets[start] :], single)
                assert (answer.logprob, answer.greedy) == lm_eval_parse(single, start)
                checked += 1
    assert checked > 200


@settings(deadline=None)
@given(st.text(min_size=1), st.text())
def test_texts_equal_lm_eval(content: str, other: str):
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

"""`testbench check` says who takes tools and response formats, where tasks offer them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from testbench_dagster.stages.relay.probe import ProbeResult
from testbench_dagster_tests.endpoints import chat_body
from testbench_dagster_tests.stages.relay.test_probe_forms import Body, Supplier, checked, nothing

__all__ = ["checked"]

Check = Callable[..., ProbeResult]
TASKS: dict[str, Any] = {"tasks": [{"name": "tools_one", "framework": "tools", "samples": 4}]}
CALLED = json.dumps(
    {
        "choices": [
            {
                "index": 0,
                "finish_reason": "tool_calls",
                "message": {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [{"id": "1", "function": {"name": "say", "arguments": '{"word": "OK"}'}}],
                },
            }
        ]
    }
).encode()


class Calling(Supplier):
    """Calls the tool where one is offered."""

    def __init__(self, refusal: Callable[[Body], str | None] = nothing, status: int = 400) -> None:
        def answering(body: Body) -> str | None:
            self.answer = CALLED if "tools" in body else plain
            return refusal(body)

        super().__init__(answering, status=status)
        plain = self.answer


def refusing(parameter: str, said: str) -> Callable[[Body], str | None]:
    return lambda body: json.dumps({"error": {"message": said}}) if parameter in body else None


def test_who_takes_both_is_well(checked: Check) -> None:
    supplier = Calling()
    told = checked(supplier, TASKS)
    assert told.ok and told.detail.endswith(", takes tools, takes response formats")
    tools, form = supplier.asked[-2:]
    assert tools["tool_choice"] == "auto" and tools["tools"][0]["function"]["name"] == "say"
    assert form["response_format"]["json_schema"]["strict"] is True


def test_who_takes_tools_and_calls_none_is_told(checked: Check) -> None:
    told = checked(Supplier(nothing), TASKS)
    assert told.ok and "takes tools but called none" in told.detail


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (400, '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'),
        (422, "tools: extra fields not permitted"),
        (500, "tools param requires --jinja flag"),
        (404, "No endpoints found that support the tools parameter"),
    ],
)
def test_who_refuses_tools_gets_a_warning_with_a_remedy(checked: Check, status: int, said: str) -> None:
    told = checked(Calling(refusing("tools", said), status=status), TASKS)
    assert (told.ok, told.warning) == (False, True)
    assert "; does not take tools (" in told.detail and "tasks[].suppliers" in told.detail
    assert told.detail.endswith(", takes response formats")


def test_who_refuses_response_formats_is_told_so(checked: Check) -> None:
    told = checked(Calling(refusing("response_format", "response_format is not supported")), TASKS)
    assert (told.ok, told.warning) == (False, True)
    assert ", takes tools; does not take response formats (" in told.detail


def test_a_server_that_fails_says_nothing_of_what_it_takes(checked: Check) -> None:
    told = checked(Calling(refusing("tools", "out of memory"), status=500), TASKS)
    assert told.ok and ", tools unknown, takes response formats" in told.detail


@pytest.mark.parametrize(("more", "keys"), [({}, {}), (TASKS, {"api": "completions"})])
def test_who_is_asked_no_such_task_is_not_asked_for_it(
    checked: Check, more: dict[str, Any], keys: dict[str, str]
) -> None:
    supplier = Supplier(nothing, answer=chat_body("OK").replace(b'"message"', b'"text": "OK", "message"'))
    assert checked(supplier, more, **keys).ok
    assert not any(body.keys() & {"tools", "response_format"} for body in supplier.asked)

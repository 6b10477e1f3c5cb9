"""Asking a chat supplier whether it takes tools and response formats, where tasks of theirs offer them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from testbench_dagster.core.chat_message import ChatMessage
from testbench_dagster.core.errors import TaskError
from testbench_dagster.core.frameworks import framework_plug
from testbench_dagster.core.relay import Attempt
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.transports.payload import OFFERED
from testbench_dagster.transports.refusals import named_parameters, refuses_form

_WORD = {
    "type": "object",
    "properties": {"word": {"type": "string", "description": "The word."}},
    "required": ["word"],
    "additionalProperties": False,
}
_TOOL = {"name": "say", "description": "Say a word.", "parameters": _WORD}
_FORM = {"name": "say", "strict": True, "schema": _WORD}
#: Statuses that tell of keys, accounts and rates, whatever a request holds.
_NOT_OF_THE_REQUEST = frozenset({401, 402, 403, 429})


@dataclass(frozen=True)
class Offer:
    """Something beside the messages: its name, a request that has it, what follows from a refusal."""

    name: str
    request: Mapping[str, Any]
    remedy: str


def _asking(question: str, **offered: Any) -> dict[str, Any]:
    generation = {"max_gen_toks": 64, "temperature": 0.0, "until": []}
    messages = [{"role": "user", "content": question}]
    return {"type": "chat", "idx": 0, "messages": messages, "generation": generation, **offered}


TOOLS = Offer(
    "tools",
    _asking(
        "Call the tool with the word OK.",
        tools=[{"type": "function", "function": _TOOL}],
        tool_choice="auto",
    ),
    "tasks that offer tools cannot be asked of it: start its server with tool calls (vLLM: "
    "--enable-auto-tool-choice and a parser, llama.cpp: --jinja), or leave it out with tasks[].suppliers",
)
RESPONSE_FORMAT = Offer(
    "response formats",
    _asking(
        "Answer with the word OK, as JSON.", response_format={"type": "json_schema", "json_schema": _FORM}
    ),
    "tasks that ask for JSON of a schema cannot be asked of it: leave it out with tasks[].suppliers",
)


def wants_offers(specs: list[TaskSpec], supplier: Supplier) -> bool:
    """Whether a task that a supplier is asked may offer tools or response formats."""
    return supplier.api == "chat" and any(_offers(spec) and spec.asked_of(supplier) for spec in specs)


def _offers(spec: TaskSpec) -> bool:
    try:
        return framework_plug(spec.framework).output_type == "chat"
    except TaskError:  # said of the task
        return False


def is_taken(attempt: Attempt) -> bool | None:
    """What the outcome of an offer's request says; None where it says nothing."""
    if attempt.fault.answered:
        return True
    if attempt.status is None or attempt.status in _NOT_OF_THE_REQUEST:
        return None
    # some servers fail at what they were not started with: 500, and a text that names it
    refused = attempt.status >= 400 and bool(named_parameters(attempt.body, list(OFFERED)))
    return False if refused or refuses_form(attempt) else None


def calls_none(offer: Offer, attempt: Attempt) -> bool:
    """Whether a supplier that takes tools did not call the one that it was asked to call."""
    if offer is not TOOLS or not attempt.fault.answered or attempt.text is None:
        return False
    return not ChatMessage.read(attempt.text).tool_calls

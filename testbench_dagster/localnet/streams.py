"""Event streams as OpenAI-compatible servers write them (``stream: true``), made from a finished answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from testbench_dagster.localnet.logprobs import tokenize
from testbench_dagster.localnet.personas import Api

#: What ends a stream.
DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class Spoken:
    """What one choice of an answer says, why it ends, and the ``thoughts`` before it, in their field.

    ``calls`` are tool calls as a whole answer has them.
    """

    text: str
    reason: str
    thoughts: str = ""
    thoughts_field: str = ""
    calls: Sequence[Mapping[str, Any]] = ()


def event(payload: Any) -> bytes:
    """One event of a stream."""
    return b"data: " + orjson.dumps(payload) + b"\n\n"


def events(
    api: Api, head: Mapping[str, Any], choices: Sequence[Spoken], usage: Mapping[str, Any] | None
) -> Iterator[bytes]:
    """The stream of an answer, a token an event, one choice after another; ``usage`` as an event of its own.

    ``head`` holds ``id``, ``created`` and ``model``, which every event repeats.
    """
    kind = "chat.completion.chunk" if api == "chat" else "text_completion"

    def chunk(
        index: int, said: str | None, reason: str | None, field: str = "content", **delta: Any
    ) -> bytes:
        if api == "chat":
            told: dict[str, Any] = {"delta": delta if said is None else {**delta, field: said}}
        else:
            told = {"text": said or ""}
        choice = {"index": index, **told, "logprobs": None, "finish_reason": reason}
        return event({**head, "object": kind, "choices": [choice]})

    for index, choice in enumerate(choices):
        if api == "chat":
            begun = {"content": None} if choice.calls and not choice.text else {"content": ""}
            yield chunk(index, None, None, role="assistant", **begun)
        if choice.thoughts_field:
            for token, _ in tokenize(choice.thoughts):
                yield chunk(index, token, None, field=choice.thoughts_field)
        for token, _ in tokenize(choice.text):
            yield chunk(index, token, None)
        for place, call in enumerate(choice.calls):
            function = call["function"]
            named = {**call, "function": {**function, "arguments": ""}}
            yield chunk(index, None, None, tool_calls=[{"index": place, **named}])
            for token, _ in tokenize(function["arguments"]):
                part = {"index": place, "function": {"arguments": token}}
                yield chunk(index, None, None, tool_calls=[part])
        yield chunk(index, None, choice.reason)
    if usage is not None:
        yield event({**head, "object": kind, "choices": [], "usage": usage})
    yield DONE

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
    """What one choice of an answer says, and why it ends."""

    text: str
    reason: str


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

    def chunk(index: int, said: str | None, reason: str | None, first: bool = False) -> bytes:
        if api == "chat":
            delta: dict[str, Any] = {"role": "assistant"} if first else {}
            told: dict[str, Any] = {"delta": delta if said is None else {**delta, "content": said}}
        else:
            told = {"text": said or ""}
        choice = {"index": index, **told, "logprobs": None, "finish_reason": reason}
        return event({**head, "object": kind, "choices": [choice]})

    for index, choice in enumerate(choices):
        if api == "chat":
            yield chunk(index, "", None, first=True)
        for token, _ in tokenize(choice.text):
            yield chunk(index, token, None)
        yield chunk(index, None, choice.reason)
    if usage is not None:
        yield event({**head, "object": kind, "choices": [], "usage": usage})
    yield DONE

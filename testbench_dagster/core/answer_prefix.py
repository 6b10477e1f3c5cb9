"""How an answer begins: the short text of an attempt by which suppliers are compared without their bodies."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import islice
from typing import Any

from testbench_dagster.core.chat_message import ChatMessage
from testbench_dagster.core.generation import AS_THE_TASK_SAYS, SupplierGeneration
from testbench_dagster.core.prompt import GENERATED

#: Characters of an answer kept beside it; identity evidence compares 20 of them, signatures all.
ANSWER_PREFIX_CHARS = 64
#: What is looked at first: nearly always enough, and an answer may have megabytes.
_HEAD_CHARS = 4 * ANSWER_PREFIX_CHARS
#: Signs of JSON: in the arguments of a call they would be half of what is compared.
_JSON_SIGNS = re.compile(r'[{}\[\]":,]+')


def answer_prefix(text: str) -> str:
    """First :data:`ANSWER_PREFIX_CHARS` characters of ``text`` once every run of white space is one space.

    White space at both ends is dropped, so the prefix of a text of white space alone is empty.
    """
    # what the head of a text collapses to is a prefix of what all of it collapses to
    collapsed = " ".join(text[:_HEAD_CHARS].split())
    if len(collapsed) < ANSWER_PREFIX_CHARS and len(text) > _HEAD_CHARS:
        collapsed = " ".join(text.split())
    return collapsed[:ANSWER_PREFIX_CHARS]


def prefix_of_answer(request: Mapping[str, Any], text: str) -> str:
    """The prefix of an answer to a stored request.

    Of a message it is what the message says, then its calls: all messages as they are stored begin alike.
    """
    if request.get("type") != "chat":
        return answer_prefix(text)
    message = ChatMessage.read(text)
    prefix = answer_prefix(message.content or "")
    if len(prefix) < ANSWER_PREFIX_CHARS:
        called = (
            f"{call.name[:_HEAD_CHARS]} {_JSON_SIGNS.sub(' ', call.arguments[:_HEAD_CHARS])}"
            for call in islice(message.tool_calls, ANSWER_PREFIX_CHARS)
        )
        prefix = answer_prefix(" ".join((prefix, *called)))
    return prefix


def is_deterministic(request: Mapping[str, Any], generation: SupplierGeneration = AS_THE_TASK_SAYS) -> bool:
    """Whether a stored request asks for text at temperature 0 (which is what none given means).

    ``generation`` is how its supplier is asked, which may leave the temperature to the supplier.
    """
    if request.get("type") not in GENERATED:
        return False
    wanted = generation.extra_body.get("temperature", generation.temperature)
    if wanted is not None:
        return bool(wanted == 0)
    return bool((request.get("generation") or {}).get("temperature", 0) == 0)

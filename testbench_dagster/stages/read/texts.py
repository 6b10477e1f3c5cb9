"""Prompts and answers as texts for people: what was asked, expected and said, in words."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from itertools import takewhile
from string import ascii_uppercase
from typing import Any

from testbench_dagster.core.prompt import TEXT_KINDS
from testbench_dagster.core.task_flags import TaskFlags
from testbench_dagster.stages.read.calls import calls_text, message_text, wanted_text, with_offer
from testbench_dagster.transports.answers import Answer

#: Most characters of a question that is the end of a longer text.
MAX_QUESTION_CHARS = 2_000
#: What parts the answers to several calls, and several right targets.
_BETWEEN_CALLS, _BETWEEN_TARGETS = "\n\n", " | "
_LOGLIKELIHOOD = "loglikelihood"
_SHOTS_END = "\n\n"


def question_of(requests: Sequence[Mapping[str, Any]], shots: int) -> str | None:
    """What the requests of a prompt ask: the last message, the page, or the end of the text to go on with.

    Tools, or a form that the answer is to have, stand below a message.

    ``shots``: few-shot examples that stand before it; they are left out where it can be told where they end.
    """
    if not requests:
        return None
    first = requests[0]
    if first.get("type") == "get":
        return f"GET {first.get('path')}"
    messages = first.get("messages")
    if isinstance(messages, list):
        return with_offer(_content(messages[-1]), requests) if messages else None
    text = first.get("prompt", first.get("context"))
    if not isinstance(text, str):
        return None
    if shots:
        parts = text.split(_SHOTS_END)
        # a description may stand before the examples; with more parts than that, some are split themselves
        if shots < len(parts) <= shots + 2 and parts[-1].strip():
            return parts[-1]
    return text if len(text) <= MAX_QUESTION_CHARS else f"…{text[-MAX_QUESTION_CHARS:]}"


def _content(message: Any) -> str | None:
    content = message.get("content") if isinstance(message, Mapping) else None
    return content if content is None or isinstance(content, str) else _json(content)


def options_of(requests: Sequence[Mapping[str, Any]], flags: TaskFlags) -> list[str]:
    """The options of a choice, in order; empty where the prompt is no choice between several.

    They are the texts to go on with; where these are all the same (a pronoun's two readings, say) the ends of
    what stands before them.
    """
    if len(requests) == 1 and isinstance(requests[0].get("options"), list):
        return [str(option) for option in requests[0]["options"]]  # of a chat: they stand in its last message
    asked = [request for request in requests if request.get("type") == _LOGLIKELIHOOD]
    if "acc_mutual_info" in flags.metrics:  # each option stands there twice, without context at the end
        asked = asked[: len(asked) // 2]
    if flags.output_type != "multiple_choice" or len(asked) < 2:
        return []
    options = [str(request.get("continuation", "")).strip() for request in asked]
    if len(set(options)) > 1:
        return options
    contexts = [str(request.get("context", "")) for request in asked]
    alike = takewhile(lambda letters: len(set(letters)) == 1, zip(*contexts, strict=False))
    common = sum(1 for _ in alike)
    return [context[common:].strip() for context in contexts]


def target_of(target: Any, options: Sequence[str]) -> str | None:
    """What is expected: of a choice the right option, of several right ones all, of tools the calls.

    Anything else is its JSON.
    """
    if target is None:
        return None
    if isinstance(target, Mapping) and (wanted := wanted_text(target)) is not None:
        return wanted
    if isinstance(target, (list, tuple)):
        return _BETWEEN_TARGETS.join(target_of(one, options) or "" for one in target)
    if options and not isinstance(target, bool):
        place = (
            int(target) if isinstance(target, int) or (isinstance(target, str) and _is_place(target)) else -1
        )
        if place < 0 and isinstance(target, str) and len(target) == 1:
            place = ascii_uppercase.find(target)
        if 0 <= place < len(options) and target not in options:
            return options[place]
    return target if isinstance(target, str) else _json(target)


def extracted_of(
    extracted: str | None, options: Sequence[str], requests: Sequence[Mapping[str, Any]] = ()
) -> str | None:
    """What a filter took from an answer; of a choice the chosen option, where tools are offered the calls."""
    if extracted is not None and requests and requests[0].get("tools"):
        return calls_text(extracted)
    if extracted is not None and options and _is_place(extracted) and int(extracted) < len(options):
        return options[int(extracted)]
    return extracted


def _is_place(text: str) -> bool:
    return len(text) <= 4 and text.isascii() and text.isdigit()


def answer_text(
    requests: Sequence[Mapping[str, Any]],
    options: Sequence[str],
    answers: Sequence[tuple[int, int, Answer]],
) -> str | None:
    """The answers to the calls of a prompt as one text; each comes with its request and repeat.

    Texts stand one below another, numbered where there are several; of log-probabilities there is a line per
    option. None where nothing was answered.
    """
    said = []
    for idx, repeat, answer in answers:
        if idx < len(requests) and requests[idx].get("type") not in TEXT_KINDS:
            if answer.logprob is not None:
                said.append(_logprob_line(idx, requests, options, answer))
        elif (text := said_text(requests[idx] if idx < len(requests) else {}, answer)) is not None:
            several = len(answers) > 1
            said.append(f"[{repeat + 1 if len(requests) == 1 else idx + 1}] {text}" if several else text)
    if not said:
        return None
    texts = requests and requests[0].get("type") in TEXT_KINDS
    return (_BETWEEN_CALLS if texts else "\n").join(said)


def said_text(request: Mapping[str, Any], answer: Answer) -> str | None:
    """What an answer to a request says as people read it; None where it has no text."""
    return message_text(answer.text) if answer.text and request.get("type") == "chat" else answer.text


def reasoning_text(answers: Sequence[tuple[int, int, Answer]]) -> str | None:
    """What was thought before the answers; None where nothing is shown."""
    return _BETWEEN_CALLS.join(answer.reasoning for _, _, answer in answers if answer.reasoning) or None


def _logprob_line(
    idx: int, requests: Sequence[Mapping[str, Any]], options: Sequence[str], answer: Answer
) -> str:
    name = options[idx] if idx < len(options) else str(requests[idx].get("continuation", "")).strip()
    number = -math.inf if answer.logprob is None else answer.logprob
    greedy = " (likeliest)" if answer.greedy and not options else ""
    return f"{name}: {number:.4f}{greedy}"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)

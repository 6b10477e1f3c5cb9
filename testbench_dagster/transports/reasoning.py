"""Telling what a model thought from what it answered: pure functions of the parts of an answer.

Reasoning comes in fields of its own (``reasoning_content`` of DeepSeek, vLLM and SGLang, ``reasoning`` and
``reasoning_details`` of OpenRouter), in parts of the content (Mistral, Anthropic's form), or within the text,
between tags. It is counted and kept in the evidence, and is no part of the answer.

Tags are looked for where models put them: a block at the beginning, or a closing ``</think>`` alone, whose
opening was part of the prompt. A tag that an answer mentions later is part of the answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

#: Opening and closing tags of a block of thoughts.
_TAGS: tuple[tuple[str, str], ...] = (
    ("<think>", "</think>"),  # DeepSeek, Qwen, GLM and most others
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("[think]", "[/think]"),  # Mistral, in capitals
    ("<seed:think>", "</seed:think>"),
    ("◁think▷", "◁/think▷"),  # Kimi
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|start_thinking|>", "<|end_thinking|>"),  # Cohere, in capitals
    ("<thoughts>", "</thoughts>"),
    ("<longcat_think>", "</longcat_think>"),  # LongCat
    ("<mm:think>", "</mm:think>"),  # MiniMax
    ("<|think|>", "<|/think|>"),
    ("<|think_start|>", "<|think_end|>"),
    ("<|inner_prefix|>", "<|inner_suffix|>"),  # Apertus
    ("<unused94>thought", "<unused95>"),  # MedGemma
    ("<|channel>thought", "<channel|>"),  # Gemma
)
#: Closing tags that end thoughts also where the prompt opened them; no other text is likely to hold them.
_ALONE = frozenset(
    {
        *("</think>", "[/think]", "</seed:think>", "◁/think▷", "<|end_of_thought|>"),
        *("</longcat_think>", "</mm:think>"),
    }
)
_CLOSING = dict(_TAGS)
#: All of them; what follows the first character is looked at once, since a hostile text may be nothing else.
_TAG = re.compile(
    r"[<\[◁](?=[/|tsrlmuc])(?:"
    + "|".join(re.escape(tag[1:]).replace(">", r"\s{0,8}>") for pair in _TAGS for tag in pair)
    + ")"
)
_SPACE = re.compile(r"\s+")
_HINTS = ("think", "thought", "reasoning", "inner_")
#: A message of gpt-oss in its own format, whose special tokens a server failed to take away.
_HARMONY = re.compile(r"\s*(?:<\|start\|>assistant)?<\|channel\|>(?:analysis|commentary|final)\b")
_CHANNEL = re.compile(
    r"<\|channel\|>(?P<name>[a-z]++)(?:(?!<\|message\|>|<\|channel\|>).)*+<\|message\|>"
    r"(?P<text>(?:(?!<\|(?:end|return|call|start|channel)\|>).)*+)",
    re.DOTALL,
)
#: The same once the special tokens were taken away and the names of the channels were not.
_BARE_HARMONY, _BARE_FINAL = "analysis", "assistantfinal"
#: Types of a content's parts that hold thoughts, and the keys their text stands under.
_THINKING_TYPES = frozenset(
    {"think", "thinking", "reasoning", "reasoning_text", "summary_text", "thought", "redacted_thinking"}
)
_TEXT_TYPES = frozenset({"text", "output_text"})
_TEXT_KEYS = ("text", "thinking", "reasoning", "summary", "content")
#: Fields of a message that hold reasoning.
_FIELDS = ("reasoning_content", "reasoning", "reasoning_details", "thinking")
_WITHOUT = frozenset(_FIELDS).isdisjoint
_MAX_LEVELS = 4
#: An opening tag at the beginning of a text ends before that, blanks included.
_MAX_TAG = 100


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of a content, joined by kind. ``other``: there are parts that are none of these."""

    text: str
    reasoning: str
    refusal: str
    other: bool


def split_text(text: str, think_end_token: str | bool | None = None) -> tuple[str, str]:
    """Thoughts and answer in a text; without thoughts the text is the answer, as it is.

    ``think_end_token`` is the task's rule: a text makes what follows its last occurrence, without white space
    before it, the answer (lm-eval's ``postprocess_generated_text``), False leaves every text as it is, None
    looks for the tags that are known.
    """
    if think_end_token is False:
        return "", text
    if isinstance(think_end_token, str):
        thoughts, found, answer = text.rpartition(think_end_token)
        return (thoughts, answer.lstrip()) if found else ("", text.lstrip())
    head = text.lstrip()
    if head.startswith(_BARE_HARMONY) and _BARE_FINAL in head:
        thoughts, _, answer = head.removeprefix(_BARE_HARMONY).partition(_BARE_FINAL)
        return thoughts, answer
    if "<" not in text and "[" not in text and "◁" not in text:  # what tags begin with
        return "", text
    if _HARMONY.match(text):
        return _channels(text)
    end = _end_of_thoughts(text)
    return ("", text) if end is None else (text[:end], text[end:].lstrip())


def opening_tag(text: str) -> int:
    """Where the tag ends that opens thoughts at the beginning of a text; 0 where none stands there."""
    head = text[:_MAX_TAG]
    if "<" not in head and "[" not in head and "◁" not in head:
        return 0
    begun = len(head) - len(head.lstrip())
    found = _TAG.match(head.lower(), begun)
    return found.end() if found and _SPACE.sub("", found[0]) in _CLOSING else 0


def _end_of_thoughts(text: str) -> int | None:
    """Where the answer begins in a text with thoughts; None in one without. Looks at each tag once."""
    lowered = text.lower()
    if not any(hint in lowered for hint in _HINTS):
        return None
    if len(lowered) != len(text):  # of a letter that is two in lower case: places would shift
        lowered = text
    end: int | None = None
    waited_for = ""
    for tag in _TAG.finditer(lowered):
        name = _SPACE.sub("", tag[0])
        if waited_for:
            if name == waited_for:
                end, waited_for = tag.end(), ""
        elif name in _CLOSING:
            if text[end or 0 : tag.start()].strip():
                break  # an answer, which mentions a tag
            waited_for = _CLOSING[name]
        elif name in _ALONE:
            end = tag.end()
    return len(text) if waited_for else end


def _channels(text: str) -> tuple[str, str]:
    """Thoughts and answer of a message in gpt-oss's own format: the channel ``final`` is the answer."""
    said: dict[bool, list[str]] = {False: [], True: []}
    for channel in _CHANNEL.finditer(text):
        said[channel["name"] == "final"].append(channel["text"])
    return "".join(said[False]), "".join(said[True])


def split_parts(content: list[Any]) -> Parts:
    """The parts of a content that came as a list; what is neither text nor thought is passed over."""
    texts: list[str] = []
    thoughts: list[str] = []
    refusals: list[str] = []
    other = False
    for part in content:
        if isinstance(part, str):
            texts.append(part)
            continue
        kind = part.get("type") if isinstance(part, dict) else None
        kind = kind.lower() if isinstance(kind, str) else None
        # Gemini marks what was thought with a flag
        if kind in _THINKING_TYPES or (isinstance(part, dict) and part.get("thought") is True):
            thoughts += _texts(part)
        elif kind == "refusal" and isinstance(part.get("refusal"), str):
            refusals.append(part["refusal"])
        elif isinstance(part, dict) and (text := _plain_text(part.get("text"))) is not None:
            texts.append(text)
        elif isinstance(part, dict) and kind in _TEXT_TYPES and part.get("text", 0) is None:
            continue  # a text of nothing
        else:
            other = True
    return Parts("".join(texts), "".join(thoughts), "".join(refusals), other)


def _plain_text(value: Any) -> str | None:
    """A part's text, which some servers write as an object with its value."""
    if isinstance(value, dict):
        value = value.get("value")
    return value if isinstance(value, str) else None


def reasoning_of(message: dict[str, Any]) -> str:
    """What the fields of a message, or of a chunk of it, hold of reasoning.

    Some servers say the same in two fields: the longer counts.
    """
    if _WITHOUT(message):
        return ""
    found = ["".join(_texts(message[name])) for name in _FIELDS if message.get(name) is not None]
    return max(found, key=len, default="")


def _texts(value: Any, level: int = 0) -> Iterator[str]:
    """The texts in a field of reasoning, of whatever shape; nothing in it is an error."""
    if isinstance(value, str):
        yield value
    elif level < _MAX_LEVELS:
        if isinstance(value, list):
            for item in value:
                yield from _texts(item, level + 1)
        elif isinstance(value, dict):
            for key in _TEXT_KEYS:
                if value.get(key) is not None:
                    yield from _texts(value[key], level + 1)
                    return

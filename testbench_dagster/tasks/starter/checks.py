"""Decides whether an answer follows the rules of a `starter_instructions` doc.

Every rule is a JSON object ``{"kind": ..., ...}``; a doc holds them as JSON text in ``rules``. The checks
are pure, exact and take microseconds. lm-eval executes this file by its path, so it imports nothing from
this project.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Rule = Mapping[str, Any]

_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
_NUMBERED = re.compile(r"(\d+)\. \S")


def words(text: str) -> list[str]:
    """Words of ``text``; hyphens and apostrophes inside a word do not split it."""
    return _WORD.findall(text)


def _word_count(text: str, rule: Rule) -> bool:
    return bool(len(words(text)) == rule["count"])


def _avoid_letter(text: str, rule: Rule) -> bool:
    return rule["letter"] not in text.lower()


def _include_words(text: str, rule: Rule) -> bool:
    return set(rule["words"]) <= {word.lower() for word in words(text)}


def _repeat_word(text: str, rule: Rule) -> bool:
    return bool(sum(word.lower() == rule["word"] for word in words(text)) == rule["count"])


def _starts_with(text: str, rule: Rule) -> bool:
    return text.lower().startswith(rule["phrase"].lower())


def _ends_with(text: str, rule: Rule) -> bool:
    return text.lower().endswith(rule["phrase"].lower())


def _json_list(text: str, rule: Rule) -> bool:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, list) and len(value) == rule["count"] and all(isinstance(v, str) for v in value)


def _numbered_lines(text: str, rule: Rule) -> bool:
    numbers = [found.group(1) if (found := _NUMBERED.match(line)) else None for line in text.splitlines()]
    return numbers == [str(i) for i in range(1, rule["count"] + 1)]


# Upper and lower case are only meaningful where there are letters, so an answer without any fails both.
_CHECKS: dict[str, Callable[[str, Rule], bool]] = {
    "word_count": _word_count,
    "avoid_letter": _avoid_letter,
    "include_words": _include_words,
    "repeat_word": _repeat_word,
    "starts_with": _starts_with,
    "ends_with": _ends_with,
    "json_list": _json_list,
    "numbered_lines": _numbered_lines,
    "lower_case": lambda text, rule: text.islower(),
    "upper_case": lambda text, rule: text.isupper(),
    "no_commas": lambda text, rule: "," not in text,
}


def follows(answer: str, rules: Sequence[Rule]) -> bool:
    """Whether ``answer``, without surrounding white space, obeys every rule; an empty answer never does."""
    text = answer.strip()
    return bool(text) and all(_CHECKS[rule["kind"]](text, rule) for rule in rules)


def process_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """lm-eval's hook: the metric ``follows``, 1.0 when all rules of the doc are obeyed, else 0.0."""
    return {"follows": float(follows(results[0], json.loads(doc["rules"])))}

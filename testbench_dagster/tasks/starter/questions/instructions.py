"""Requests with checkable rules on the form of the answer; :mod:`..checks` decides whether they are obeyed.

Every draft is built around an example answer, so that each combination of rules can be satisfied.
"""

from __future__ import annotations

import json
from random import Random
from typing import Any

from testbench_dagster.tasks.starter.checks import follows, words
from testbench_dagster.tasks.starter.questions import WRONG_ANSWERS, Draft, Maker

_TOPICS: dict[str, tuple[str, ...]] = {
    "rivers": ("wide", "cold", "winding", "muddy", "calm", "long", "deep", "swift"),
    "markets": ("busy", "loud", "colourful", "crowded", "cheap", "old", "lively", "open"),
    "mountains": ("high", "silent", "steep", "rocky", "cold", "grand", "distant", "white"),
    "libraries": ("quiet", "warm", "tidy", "useful", "public", "large", "old", "friendly"),
    "trains": ("fast", "long", "heavy", "modern", "noisy", "punctual", "cheap", "green"),
    "gardens": ("green", "calm", "sunny", "wild", "small", "fragrant", "tidy", "useful"),
    "clocks": ("precise", "round", "loud", "old", "small", "golden", "useful", "simple"),
    "islands": ("remote", "warm", "green", "small", "windy", "calm", "rocky", "sandy"),
    "bridges": ("long", "strong", "narrow", "old", "high", "wooden", "grand", "busy"),
    "storms": ("dark", "loud", "sudden", "cold", "violent", "brief", "distant", "grey"),
}
_ENDINGS = ("That is all.", "End of story.", "I am sure of it.", "Nothing more to say.")
_OPENINGS = ("Honestly", "In short", "As we know", "Without doubt")
_COMMON_LETTERS = "etaoinsrhl"

Rule = dict[str, Any]


def _sentence(rng: Random, topic: str) -> str:
    chosen = rng.sample(_TOPICS[topic], rng.randint(2, 4))
    return f"{topic.capitalize()} are {' and '.join(chosen)}."


def _wrong(answer: str, topic: str, rules: list[Rule]) -> tuple[str, ...]:
    """Answers a careless model gives: chatty, cut off, shouting, or formless; each breaks a rule."""
    candidates = (
        f"Sure, here is something about {topic}: they are fascinating, and people everywhere like to look "
        "at them, though some, I think, just want to have a quiet hour.",
        f"{answer} I hope this helps, just tell me what else you would like to know",
        f"well, {topic} are {_TOPICS[topic][0]}, {_TOPICS[topic][1]} and, to be exact, thoroughly likeable",
        f"I'd say: {topic}, of course, the best there is",
    )
    return tuple(text for text in candidates if not follows(text, rules))[:WRONG_ANSWERS]


def _draft(kind: str, request: str, topic: str, answer: str, rules: list[Rule]) -> Draft:
    if not follows(answer, rules):
        raise ValueError(f"the example answer breaks its own rules: {answer!r} {rules}")
    extra = {"rules": json.dumps(rules)}
    return Draft(kind, min(3, len(rules)), request, answer, _wrong(answer, topic, rules), extra)


def _rule_for(rng: Random, kind: str, answer: str) -> tuple[str, Rule] | None:
    """A rule of ``kind`` that ``answer`` obeys, with its wording; None where the answer allows none."""
    present = words(answer.lower())
    if kind == "word_count":
        return f"Use exactly {len(present)} words.", {"kind": kind, "count": len(present)}
    if kind == "avoid_letter":
        absent = [letter for letter in _COMMON_LETTERS if letter not in answer.lower()]
        if not absent:
            return None
        letter = rng.choice(absent)
        return f'Do not use the letter "{letter}" anywhere.', {"kind": kind, "letter": letter}
    if kind == "include_words":
        chosen = rng.sample(sorted({word for word in present if len(word) > 3}), 2)
        return f'Include the words "{chosen[0]}" and "{chosen[1]}".', {"kind": kind, "words": chosen}
    if kind == "no_commas":
        return "Do not use any commas.", {"kind": kind}
    raise ValueError(f"no wording for rule kind {kind!r}")


def _sentence_rules(rng: Random) -> Draft:
    """One sentence under one to three content rules, possibly with a rule on case."""
    topic = rng.choice(tuple(_TOPICS))
    answer = _sentence(rng, topic)
    request, rules = [f"Write one sentence about {topic}."], []
    case = rng.choice(("", "", "lower_case", "upper_case"))
    if case:
        answer = answer.lower() if case == "lower_case" else answer.upper()
        request.append(f"Write everything in {case.replace('_', ' ')} letters.")
        rules.append({"kind": case})
    for kind in rng.sample(("word_count", "avoid_letter", "include_words", "no_commas"), rng.randint(1, 2)):
        if (made := _rule_for(rng, kind, answer)) is not None:
            request.append(made[0])
            rules.append(made[1])
    if not rules:
        request.append("Do not use any commas.")
        rules.append({"kind": "no_commas"})
    return _draft("sentence", " ".join(request), topic, answer, rules)


def _ending(rng: Random) -> Draft:
    topic, ending = rng.choice(tuple(_TOPICS)), rng.choice(_ENDINGS)
    answer = f"{_sentence(rng, topic)} {ending}"
    request = f'Say something about {topic} and end with the exact phrase "{ending}"'
    rules: list[Rule] = [{"kind": "ends_with", "phrase": ending}]
    if rng.random() < 0.5:
        wording, rule = _rule_for(rng, "include_words", answer.removesuffix(ending)) or ("", {})
        request, rules = f"{request} {wording}", [*rules, rule]
    return _draft("ending", request, topic, answer, rules)


def _opening(rng: Random) -> Draft:
    topic, opening = rng.choice(tuple(_TOPICS)), rng.choice(_OPENINGS)
    sentence = _sentence(rng, topic)
    answer = f"{opening} {sentence[0].lower()}{sentence[1:]}"
    count = len(words(answer))
    request = f'Write a remark about {topic} that begins with "{opening}" and has exactly {count} words.'
    rules: list[Rule] = [
        {"kind": "starts_with", "phrase": opening},
        {"kind": "word_count", "count": count},
    ]
    return _draft("opening", request, topic, answer, rules)


def _json_list(rng: Random) -> Draft:
    topic, count = rng.choice(tuple(_TOPICS)), rng.randint(2, 6)
    answer = json.dumps(rng.sample(_TOPICS[topic], count))
    request = (
        f"Give {count} adjectives that fit {topic}. "
        f"Answer with nothing but a JSON list of exactly {count} strings."
    )
    rules: list[Rule] = [{"kind": "json_list", "count": count}]
    if rng.random() < 0.5 and (made := _rule_for(rng, "avoid_letter", answer)) is not None:
        request, rules = f"{request} {made[0]}", [*rules, made[1]]
    return _draft("json_list", request, topic, answer, rules)


def _numbered(rng: Random) -> Draft:
    topic, count = rng.choice(tuple(_TOPICS)), rng.randint(2, 5)
    chosen = rng.sample(_TOPICS[topic], count)
    answer = "\n".join(f"{i}. They can be {word}." for i, word in enumerate(chosen, start=1))
    request = (
        f"List {count} facts about {topic}. Write exactly {count} lines and start each with its number, "
        'like "1. ".'
    )
    rules: list[Rule] = [{"kind": "numbered_lines", "count": count}]
    if rng.random() < 0.5:
        request, rules = f"{request} Do not use any commas.", [*rules, {"kind": "no_commas"}]
    return _draft("numbered", request, topic, answer, rules)


def _repeated_word(rng: Random) -> Draft:
    topic, count = rng.choice(tuple(_TOPICS)), rng.randint(2, 4)
    word = rng.choice(_TOPICS[topic])
    answer = f"{topic.capitalize()} are {' and '.join([word] * count)}."
    request = f'Write about {topic} and use the word "{word}" exactly {count} times.'
    rules: list[Rule] = [{"kind": "repeat_word", "word": word, "count": count}]
    return _draft("repeated_word", request, topic, answer, rules)


def _echo(rng: Random) -> Draft:
    topic = rng.choice(tuple(_TOPICS))
    adjective = rng.choice(_TOPICS[topic])
    phrase = f"Why are {topic} {adjective}?"
    answer = f"{phrase} {_sentence(rng, topic)}"
    request = f'First repeat this question word for word, then answer it: "{phrase}"'
    rules: list[Rule] = [{"kind": "starts_with", "phrase": phrase}]
    if rng.random() < 0.5:
        request, rules = f"{request} Do not use any commas.", [*rules, {"kind": "no_commas"}]
    return _draft("echo", request, topic, answer, rules)


KINDS: tuple[Maker, ...] = (
    _sentence_rules,
    _ending,
    _opening,
    _json_list,
    _numbered,
    _repeated_word,
    _echo,
)

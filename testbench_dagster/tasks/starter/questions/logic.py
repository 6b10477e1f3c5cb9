"""Three-valued inference: does a statement follow (yes), is it ruled out (no), or is it open (unknown)?"""

from __future__ import annotations

from itertools import pairwise
from random import Random

from testbench_dagster.tasks.starter.questions import Draft, Maker, distinct_wrong
from testbench_dagster.tasks.starter.questions.words import NAMES, OBJECTS

VERDICTS = ("yes", "no", "unknown")

_RELATIONS = ("taller", "older", "faster", "heavier", "richer", "stronger")
_SYLLABLES = (
    "bli", "dra", "fen", "gor", "hul", "kam", "lor", "mip", "nex", "pol", "quo", "rud", "sil", "tev",
)  # fmt: skip

# (holds, does not hold, question)
_FACTS = (
    ("the lamp is on", "the lamp is not on", "Is the lamp on?"),
    ("the door is locked", "the door is not locked", "Is the door locked?"),
    ("the bell rings", "the bell does not ring", "Does the bell ring?"),
    ("the shop is open", "the shop is not open", "Is the shop open?"),
    ("the train is late", "the train is not late", "Is the train late?"),
    ("the street is wet", "the street is not wet", "Is the street wet?"),
    ("the flag is raised", "the flag is not raised", "Is the flag raised?"),
    ("the pump runs", "the pump does not run", "Does the pump run?"),
    ("the bridge is closed", "the bridge is not closed", "Is the bridge closed?"),
    ("the cake is ready", "the cake is not ready", "Is the cake ready?"),
)


def _draft(kind: str, level: int, question: str, verdict: str) -> Draft:
    return Draft(kind, level, question, verdict, distinct_wrong(verdict, VERDICTS))


def _creatures(rng: Random, count: int) -> list[str]:
    """Different invented nouns, so that nothing is known about them beyond the question."""
    found: dict[str, None] = {}
    while len(found) < count:
        found["".join(rng.sample(_SYLLABLES, 2))] = None
    return list(found)


def _ordering(rng: Random) -> Draft:
    size, verdict, relation = rng.randint(3, 5), rng.choice(VERDICTS), rng.choice(_RELATIONS)
    chain = rng.sample(NAMES, size)
    pairs = list(pairwise(chain))
    low, high = rng.choice([(i, j) for i in range(size) for j in range(i + 2, size)])
    first, second = chain[low], chain[high]
    if verdict == "no":
        first, second = second, first
    elif verdict == "unknown":
        # a side branch: both hang below the same person, and nothing compares them
        outsider = rng.choice([name for name in NAMES if name not in chain])
        pairs.append((chain[0], outsider))
        first, second = rng.sample((outsider, chain[-1]), 2)
    rng.shuffle(pairs)
    story = " ".join(f"{a} is {relation} than {b}." for a, b in pairs)
    return _draft("ordering", min(3, size - 2), f"{story} Is {first} {relation} than {second}?", verdict)


def _membership(rng: Random) -> Draft:
    kind, other = _creatures(rng, 2)
    name, verdict = rng.choice(NAMES), rng.choice(VERDICTS)
    story, question = {
        "yes": (f"Every {kind} is a {other}. {name} is a {kind}.", f"Is {name} a {other}?"),
        "no": (f"No {kind} is a {other}. {name} is a {kind}.", f"Is {name} a {other}?"),
        "unknown": (f"Every {kind} is a {other}. {name} is a {other}.", f"Is {name} a {kind}?"),
    }[verdict]
    return _draft("membership", 1, f"{story} {question}", verdict)


def _syllogism(rng: Random) -> Draft:
    a, b, c = _creatures(rng, 3)
    verdict = rng.choice(VERDICTS)
    story, question = {
        "yes": (f"Every {a} is a {b}. Every {b} is a {c}.", f"Is every {a} a {c}?"),
        "no": (f"Every {a} is a {b}. No {b} is a {c}.", f"Is any {a} a {c}?"),
        "unknown": (f"Every {a} is a {b}. Some but not all {b}s are {c}s.", f"Is any {a} a {c}?"),
    }[verdict]
    return _draft("syllogism", 2, f"{story} {question}", verdict)


def _conditional(rng: Random) -> Draft:
    (cause, no_cause, ask_cause), (effect, no_effect, ask_effect) = rng.sample(_FACTS, 2)
    verdict = rng.choice(VERDICTS)
    observed, question = {
        "yes": ((cause, ask_effect),),
        "no": ((no_effect, ask_cause),),
        "unknown": ((effect, ask_cause), (no_cause, ask_effect)),
    }[verdict][rng.randrange(2 if verdict == "unknown" else 1)]
    story = f"If {cause}, then {effect}. We see that {observed}."
    return _draft("conditional", 2, f"{story} {question}", verdict)


def _two_conditionals(rng: Random) -> Draft:
    (first, no_first, ask_first), (middle, _, _), (last, no_last, ask_last) = rng.sample(_FACTS, 3)
    verdict = rng.choice(VERDICTS)
    observed, question = {
        "yes": ((first, ask_last),),
        "no": ((no_last, ask_first),),
        "unknown": ((last, ask_first), (no_first, ask_last)),
    }[verdict][rng.randrange(2 if verdict == "unknown" else 1)]
    story = f"If {first}, then {middle}. If {middle}, then {last}. We see that {observed}."
    return _draft("two_conditionals", 3, f"{story} {question}", verdict)


def _exclusive(rng: Random) -> Draft:
    first, second, third = rng.sample(OBJECTS, 3)
    verdict = rng.choice(VERDICTS)
    story = f"Exactly one of two things is in the box: the {first} or the {second}."
    seen, asked = {
        "yes": (f"The {first} is not in the box.", second),
        "no": (f"The {first} is in the box.", second),
        "unknown": (f"The {third} is not in the box.", second),
    }[verdict]
    return _draft("exclusive", 1, f"{story} {seen} Is the {asked} in the box?", verdict)


KINDS: tuple[Maker, ...] = (
    _ordering,
    _membership,
    _syllogism,
    _conditional,
    _two_conditionals,
    _exclusive,
)

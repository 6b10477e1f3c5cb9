"""Handling of letters and words: reversing, counting, picking, sorting. Answers are one word or number."""

from __future__ import annotations

from random import Random

from testbench_dagster.tasks.starter.questions import Draft, Maker, distinct_wrong, near
from testbench_dagster.tasks.starter.questions.words import WORDS

_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth")


def _swapped(rng: Random, text: str) -> str:
    """``text`` with two neighbouring letters exchanged."""
    i = rng.randrange(len(text) - 1)
    return text[:i] + text[i + 1] + text[i] + text[i + 2 :]


def _scrambled(rng: Random, answer: str, *slips: str) -> tuple[str, ...]:
    return distinct_wrong(answer, (*slips, *(_swapped(rng, answer) for _ in range(4)), answer[:-1]))


def _reverse(rng: Random) -> Draft:
    word = rng.choice(WORDS)
    answer = word[::-1]
    question = f'Spell the word "{word}" backwards.'
    return Draft("reverse", 2, question, answer, _scrambled(rng, answer))


def _count_letter(rng: Random) -> Draft:
    phrase = " ".join(rng.sample(WORDS, 3))
    letter = rng.choice(sorted(set(phrase) - {" "}))
    count = phrase.count(letter)
    question = f'How many times does the letter "{letter}" occur in "{phrase}"?'
    return Draft("count_letter", 3, question, str(count), near(count, count + 1, max(count - 1, 0)))


def _nth_letter(rng: Random) -> Draft:
    word = rng.choice([w for w in WORDS if len(w) >= 6])
    index = rng.randrange(len(_ORDINALS))
    answer = word[index]
    question = f'What is the {_ORDINALS[index]} letter of the word "{word}"?'
    return Draft("nth_letter", 1, question, answer, distinct_wrong(answer, (*word[index - 1 :], *word)))


def _initials(rng: Random) -> Draft:
    chosen = rng.sample(WORDS, rng.randint(4, 6))
    answer = "".join(word[0] for word in chosen)
    question = f"Join the first letters of these words into one string: {', '.join(chosen)}."
    return Draft("initials", 2, question, answer, _scrambled(rng, answer, "".join(w[-1] for w in chosen)))


def _count_vowels(rng: Random) -> Draft:
    phrase = " ".join(rng.sample(WORDS, 2))
    count = sum(letter in "aeiou" for letter in phrase)
    question = f'How many of the letters in "{phrase}" are vowels (a, e, i, o or u)?'
    return Draft("count_vowels", 2, question, str(count), near(count, count - 1, count + 1))


def _sorted_letters(rng: Random) -> Draft:
    word = rng.choice(WORDS)
    answer = "".join(sorted(word))
    question = f'Write the letters of the word "{word}" in alphabetical order, without spaces.'
    return Draft("sorted_letters", 3, question, answer, _scrambled(rng, answer, word))


def _without_letter(rng: Random) -> Draft:
    word = rng.choice(WORDS)
    letter = rng.choice(sorted(set(word)))
    answer = word.replace(letter, "")
    question = f'What remains of the word "{word}" when every "{letter}" is removed?'
    return Draft("without_letter", 2, question, answer, _scrambled(rng, answer, word))


def _alphabetical(rng: Random) -> Draft:
    chosen = rng.sample(WORDS, 5)
    end, pick = rng.choice((("first", min), ("last", max)))
    answer = pick(chosen)
    question = f"Which of these words comes {end} in alphabetical order: {', '.join(chosen)}?"
    return Draft("alphabetical", 1, question, answer, distinct_wrong(answer, chosen))


KINDS: tuple[Maker, ...] = (
    _reverse,
    _count_letter,
    _nth_letter,
    _initials,
    _count_vowels,
    _sorted_letters,
    _without_letter,
    _alphabetical,
)

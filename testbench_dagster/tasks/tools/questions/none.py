"""Requests that no tool is for: to be answered in words."""

from __future__ import annotations

from random import Random

from testbench_dagster.tasks.tools.questions.words import CITIES, FIRST_NAMES, PRODUCTS, STREETS

_WORDS = (
    "swim", "bring", "choose", "forget", "lie", "ring", "seek", "shrink", "spring", "teach", "tear", "throw",
    "weave", "write", "freeze", "grow",
)  # fmt: skip
_TOPICS = (
    "glaciers", "honeybees", "tides", "rainbows", "volcanoes", "magnets", "yeast", "antibodies", "inflation",
    "photosynthesis", "earthquakes", "lighthouses", "sourdough", "the seasons", "fireflies", "compasses",
)  # fmt: skip
_WORKS = (
    "Don Quixote", "Moby-Dick", "The Metamorphosis", "Pride and Prejudice", "Crime and Punishment", "Hamlet",
    "The Divine Comedy", "Frankenstein", "Les Misérables", "The Trial", "Dracula", "Middlemarch",
)  # fmt: skip
_COUNTRIES = (
    "Peru", "Norway", "Kenya", "Vietnam", "Portugal", "Canada", "Hungary", "Morocco", "Chile", "Iceland",
    "Thailand", "Egypt", "Finland", "Cuba", "Nepal", "Greece",
)  # fmt: skip
_FORMS = ("haiku", "limerick", "two-line rhyme", "short toast", "riddle", "proverb")
_QUALITIES = ("patience", "honesty", "curiosity", "courage", "thrift", "kindness", "humour", "doubt")


def chat(rng: Random) -> str:
    """A request to think, explain or write."""
    return rng.choice(_CHATS)(rng)


_CHATS = (
    lambda rng: f"What is the past tense of the verb “{rng.choice(_WORDS)}”?",
    lambda rng: f"Explain {rng.choice(_TOPICS)} to a child of {rng.randint(6, 11)} in a few sentences.",
    lambda rng: f"Who wrote {rng.choice(_WORKS)}, and what is it about?",
    lambda rng: f"What is the capital of {rng.choice(_COUNTRIES)}?",
    lambda rng: f"Write a {rng.choice(_FORMS)} about a {rng.choice(PRODUCTS)}.",
    lambda rng: f"Make up a name for a cat that lives in {rng.choice(STREETS)}, and say why it fits.",
    lambda rng: (
        f"Is {rng.choice(_QUALITIES)} more important than {rng.choice(_QUALITIES[:4])} in a friend? "
        "Give me one argument."
    ),
    lambda rng: (
        f"{rng.choice(FIRST_NAMES)} says that {rng.choice(_TOPICS)} are boring. What would you reply?"
    ),
    lambda rng: f"What is {rng.choice(CITIES)} best known for?",
    lambda rng: (
        f"Which word rhymes with “{rng.choice(('light', 'stone', 'river', 'cold', 'bread'))}” and has to "
        f"do with {rng.choice(_TOPICS)}?"
    ),
)

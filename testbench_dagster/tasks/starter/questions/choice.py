"""Multiple choice: four options of which exactly one fits (categories, opposites, pairs, order, capitals)."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from testbench_dagster.tasks.starter.questions import Draft, Maker
from testbench_dagster.tasks.starter.questions.words import WORDS

# No word stands in two categories or could be taken for a member of another one.
_CATEGORIES = {
    "a fruit": ("apple", "pear", "banana", "cherry", "peach", "mango", "grape", "apricot"),
    "an animal": ("badger", "donkey", "lizard", "beaver", "camel", "otter", "hedgehog", "giraffe"),
    "a tool": ("hammer", "screwdriver", "chisel", "wrench", "drill", "pliers", "saw", "axe"),
    "a musical instrument": ("violin", "trumpet", "piano", "flute", "cello", "guitar", "banjo", "oboe"),
    "a metal": ("copper", "platinum", "zinc", "nickel", "aluminium", "titanium", "tungsten", "cobalt"),
    "a piece of clothing": ("shirt", "jacket", "trousers", "glove", "scarf", "sock", "blouse", "skirt"),
    "a vehicle": ("bicycle", "lorry", "tram", "helicopter", "tractor", "scooter", "canoe", "bus"),
    "a part of the body": ("elbow", "ankle", "shoulder", "wrist", "knee", "thumb", "forehead", "chin"),
    "a piece of furniture": ("wardrobe", "armchair", "sofa", "bookcase", "desk", "stool", "cupboard", "bed"),
}
_OPPOSITES = (
    ("hot", "cold"), ("early", "late"), ("empty", "full"), ("narrow", "wide"), ("ancient", "modern"),
    ("generous", "stingy"), ("rough", "smooth"), ("victory", "defeat"), ("arrive", "depart"), ("buy", "sell"),
    ("accept", "refuse"), ("shallow", "deep"), ("noisy", "quiet"), ("increase", "decrease"),
    ("expensive", "cheap"), ("bright", "dim"), ("brave", "cowardly"), ("strong", "weak"),
    ("public", "private"), ("float", "sink"),
)  # fmt: skip
_CAPITALS = (
    ("France", "Paris"), ("Japan", "Tokyo"), ("Egypt", "Cairo"), ("Peru", "Lima"), ("Norway", "Oslo"),
    ("Kenya", "Nairobi"), ("Portugal", "Lisbon"), ("Austria", "Vienna"), ("Cuba", "Havana"),
    ("Greece", "Athens"), ("Thailand", "Bangkok"), ("Poland", "Warsaw"), ("Ireland", "Dublin"),
    ("Hungary", "Budapest"), ("Canada", "Ottawa"), ("Senegal", "Dakar"), ("Finland", "Helsinki"),
    ("Iran", "Tehran"),
)  # fmt: skip
_YOUNG = (
    ("puppy", "dog"), ("kitten", "cat"), ("calf", "cow"), ("foal", "horse"), ("lamb", "sheep"),
    ("chick", "hen"), ("cub", "bear"), ("tadpole", "frog"), ("duckling", "duck"), ("kid", "goat"),
)  # fmt: skip


def _draft(rng: Random, kind: str, level: int, stem: str, right: str, others: Sequence[str]) -> Draft:
    """Shuffles the options into the question and keeps the right one's position in ``gold``."""
    choices = [right, *others]
    rng.shuffle(choices)
    question = f"{stem}: {', '.join(choices[:-1])} or {choices[-1]}?"
    extra = {"choices": choices, "gold": choices.index(right)}
    return Draft(kind, level, question, right, tuple(others), extra)


def _category(rng: Random) -> Draft:
    wanted, *rest = rng.sample(tuple(_CATEGORIES), 4)
    right, *others = (rng.choice(_CATEGORIES[name]) for name in (wanted, *rest))
    return _draft(rng, "category", 1, f"Which of these is {wanted}", right, others)


def _opposite(rng: Random) -> Draft:
    (word, right), *rest = rng.sample(_OPPOSITES, 4)
    others = [rng.choice(pair) for pair in rest]
    return _draft(rng, "opposite", 1, f'Which word is the opposite of "{word}"', right, others)


def _capital(rng: Random) -> Draft:
    (country, right), *rest = rng.sample(_CAPITALS, 4)
    others = [city for _, city in rest]
    return _draft(rng, "capital", 2, f"Which city is the capital of {country}", right, others)


def _analogy(rng: Random) -> Draft:
    (young, right), (known, known_old), *rest = rng.sample(_YOUNG, 5)
    stem = f"{known.capitalize()} is to {known_old} as {young} is to"
    return _draft(rng, "analogy", 2, stem, right, [old for _, old in rest])


def _largest(rng: Random) -> Draft:
    # same number of digits, so that length tells nothing and no option begins another
    numbers = [str(n) for n in sorted(rng.sample(range(1000, 9999), 4))]
    return _draft(rng, "largest", 2, "Which of these numbers is the largest", numbers[-1], numbers[:-1])


def _divisible(rng: Random) -> Draft:
    divisor = rng.randint(3, 9)
    multiples = [n for n in range(100, 999) if n % divisor == 0]
    others = rng.sample([n for n in range(100, 999) if n % divisor], 3)
    stem = f"Which of these numbers can be divided by {divisor} without a remainder"
    return _draft(rng, "divisible", 3, stem, str(rng.choice(multiples)), [str(n) for n in others])


def _alphabetical(rng: Random) -> Draft:
    chosen = sorted(rng.sample(WORDS, 4))
    return _draft(rng, "alphabetical", 3, "Which word comes first in a dictionary", chosen[0], chosen[1:])


KINDS: tuple[Maker, ...] = (
    _category,
    _opposite,
    _capital,
    _analogy,
    _largest,
    _divisible,
    _alphabetical,
)

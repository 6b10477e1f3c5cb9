"""Short passages with one question each: following people and things, looking up facts, order of events."""

from __future__ import annotations

from itertools import pairwise
from random import Random

from testbench_dagster.tasks.starter.questions import Draft, Maker, distinct_wrong, near
from testbench_dagster.tasks.starter.questions.words import COLOURS, FRUITS, NAMES, OBJECTS, ROOMS

_COUNTS = ("two", "three", "four", "five", "six", "seven", "eight", "nine")


def _draft(kind: str, level: int, passage: str, question: str, answer: str, wrong: tuple[str, ...]) -> Draft:
    # one line, so that the question with its passage is a single recognisable text
    return Draft(kind, level, f"Read this: {passage} {question}", answer, wrong)


def _walk(rng: Random) -> Draft:
    """Who is where after some moves: the person's last move decides."""
    people = rng.sample(NAMES, 3)
    level = rng.randint(1, 3)
    where: dict[str, str] = {}
    story = []
    for step in range(2 + 2 * level):
        person = people[step] if step < len(people) else rng.choice(people)
        where[person] = rng.choice([room for room in ROOMS if room != where.get(person)])
        story.append(f"{person} goes to the {where[person]}.")
    asked = rng.choice(people)
    answer = where[asked]
    wrong = distinct_wrong(answer, (*where.values(), *ROOMS))
    return _draft("walk", level, " ".join(story), f"In which room is {asked} at the end?", answer, wrong)


def _carry(rng: Random) -> Draft:
    """Where a thing is: it moves with the person who took it until it is put down."""
    carrier, other = rng.sample(NAMES, 2)
    thing, decoy = rng.sample(OBJECTS, 2)
    start, middle, last, elsewhere = rng.sample(ROOMS, 4)
    dropped = rng.random() < 0.5
    story = [
        f"{carrier} takes the {thing} in the {start}.",
        f"{other} takes the {decoy} in the {elsewhere}.",
        f"{carrier} walks to the {middle} with everything that {carrier} holds.",
    ]
    if dropped:
        story.append(f"There {carrier} puts the {thing} down.")
    story.append(f"Then {carrier} walks to the {last} with everything that {carrier} holds.")
    answer = middle if dropped else last
    wrong = distinct_wrong(answer, (last, start, middle, elsewhere))
    question = f"In which room is the {thing} now?"
    return _draft("carry", 3 if dropped else 2, " ".join(story), question, answer, wrong)


def _stalls(rng: Random) -> Draft:
    """A fact stated once among similar ones."""
    people, fruits = rng.sample(NAMES, 4), rng.sample(FRUITS, 4)
    prices = rng.sample(range(2, 30), 4)
    stalls = list(zip(people, fruits, prices, strict=True))
    facts = [f"{person} sells {fruit} for {price} coins" for person, fruit, price in stalls]
    passage = f"At the market {', '.join(facts[:-1])} and {facts[-1]}"
    person, fruit, price = rng.choice(stalls)
    form = rng.randrange(4)
    if form == 0:
        question, answer, wrong = f"Who sells {fruit}?", person, distinct_wrong(person, people)
    elif form == 1:
        question, answer, wrong = f"What does {person} sell?", fruit, distinct_wrong(fruit, fruits)
    elif form == 2:
        question, answer = f"For how many coins does {person} sell {fruit}?", str(price)
        wrong = distinct_wrong(answer, map(str, prices))
    else:
        answer = min(stalls, key=lambda stall: stall[2])[0]
        question, wrong = "Who has the lowest price?", distinct_wrong(answer, people)
    return _draft("stalls", 2 if form == 3 else 1, f"{passage}.", question, answer, wrong)


def _arrivals(rng: Random) -> Draft:
    """Order of events told out of order."""
    order = rng.sample(NAMES, 4)
    told = [f"{later} arrives right after {earlier}." for earlier, later in pairwise(order)]
    rng.shuffle(told)
    position = rng.randrange(4)
    question = f"Who arrives {('first', 'second', 'third', 'last')[position]}?"
    passage = f"Four people come to a party one by one. {' '.join(told)}"
    answer = order[position]
    wrong = distinct_wrong(answer, (name for name in rng.sample(order, 4)))
    return _draft("arrivals", 3, passage, question, answer, wrong)


def _inventory(rng: Random) -> Draft:
    """Counts written as words that change once."""
    room, thing = rng.choice(ROOMS), rng.choice(OBJECTS)
    colour, other = rng.sample(COLOURS, 2)
    before, added, decoy = rng.randrange(2, 8), rng.randrange(2, 8), rng.randrange(2, 8)
    carrier = rng.choice(NAMES)
    story = (
        f"In the {room} there are {_COUNTS[before - 2]} {colour} boxes and {_COUNTS[decoy - 2]} {other} "
        f"boxes, and on a shelf lies a {thing}. "
        f"{carrier} carries {_COUNTS[added - 2]} more {colour} boxes in."
    )
    question = f"How many {colour} boxes are in the {room} now? Answer with a number in digits."
    right = before + added
    return _draft("inventory", 2, story, question, str(right), near(right, right + decoy, before))


KINDS: tuple[Maker, ...] = (_walk, _carry, _stalls, _arrivals, _inventory)

"""The probes of the identity task: short, ordinary requests to which every model begins its own answer.

Requests to make something up tell models apart soonest. Measured on the AlpacaEval answers of 13 models to
805 instructions, two models share the first 20 characters in 3 to 7 % of the requests for a poem, a title, a
sentence or a story, and in 18 to 31 % of those that begin with what, why, how or explain: what is known is
told alike. Hence families of small creative requests, filled from word lists: over a hundred million probes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from itertools import count

_BEFORE_VOWEL = re.compile(r"\b([Aa]) (?=[aeiou]|hour)")

#: Words by the name a template calls them; each list is drawn from once per probe.
WORDS: Mapping[str, tuple[str, ...]] = {
    "trait": (
        "absent-minded", "ambitious", "bashful", "bitter", "cautious", "cheerful", "clumsy", "curious",
        "dreamy", "eager", "elderly", "forgetful", "frugal", "generous", "gloomy", "grumpy", "homesick",
        "impatient", "jealous", "lonely", "lucky", "nervous", "patient", "polite", "proud", "reckless",
        "restless", "retired", "sarcastic", "shy", "sleepless", "stubborn", "superstitious", "talkative",
        "thrifty", "tired", "vain", "wealthy", "witty", "young",
    ),
    "person": (
        "accountant", "actor", "archivist", "astronomer", "baker", "barber", "beekeeper", "blacksmith",
        "bus driver", "carpenter", "cellist", "chess player", "clockmaker", "conductor", "cook", "dentist",
        "diver", "farmer", "ferryman", "fisherman", "florist", "gardener", "geologist", "glassblower",
        "goalkeeper", "innkeeper", "janitor", "judge", "librarian", "lighthouse keeper", "locksmith",
        "magician", "mapmaker", "mayor", "midwife", "miner", "nurse", "painter", "perfumer", "pharmacist",
        "photographer", "piano tuner", "pilot", "plumber", "poet", "postman", "potter", "sailor", "sculptor",
        "shepherd", "shoemaker", "tailor", "teacher", "translator", "umbrella maker", "violinist",
        "watchman", "weaver", "welder", "zookeeper",
    ),
    "thing": (
        "accordion", "anchor", "apron", "barometer", "bicycle", "birdcage", "broom", "candle", "chandelier",
        "compass", "cuckoo clock", "diary", "doorbell", "drum", "envelope", "fountain pen", "globe",
        "hammock", "harmonica", "hourglass", "ice skate", "jar of honey", "kettle", "kite", "ladder",
        "lantern", "letter", "lighthouse lamp", "magnet", "map", "mirror", "music box", "needle",
        "paintbrush", "parachute", "piano stool", "pocket watch", "postcard", "puppet", "raincoat", "recipe",
        "rocking chair", "rope", "rowing boat", "saddle", "scarf", "scissors", "sextant", "snow globe",
        "suitcase", "teapot",
        "telescope", "thimble", "train ticket", "trumpet", "typewriter", "umbrella", "violin case",
        "wheelbarrow", "whistle",
    ),
    "place": (
        "abandoned theatre", "airport", "apple orchard", "art museum", "attic", "bakery", "botanical garden",
        "bus station", "canal lock", "castle ruin", "circus tent", "coal mine", "desert town", "ferry",
        "fish market", "football stadium", "frozen lake", "glass factory", "greenhouse", "harbour",
        "hospital corridor", "hotel lobby", "island without trees", "laundrette", "library", "lighthouse",
        "marsh", "mountain hut", "night train", "observatory", "oil rig", "opera house", "paper mill",
        "petrol station", "post office", "quarry", "railway bridge", "river delta", "salt mine",
        "school kitchen",
        "shipyard", "ski lift", "submarine", "subway platform", "tea plantation", "tollbooth", "town hall",
        "tunnel", "vineyard", "volcano", "waiting room", "water tower", "weather station", "wedding hall",
        "windmill", "workshop", "zoo",
    ),
    "mood": (
        "a comic", "a cosy", "a dry", "a formal", "a gloomy", "a hopeful", "a laconic",
        "a matter-of-fact", "a melancholy", "a mysterious", "a nostalgic", "a playful", "a sceptical",
        "a serious", "a solemn", "a tender", "an ironic", "an old-fashioned", "an overexcited",
    ),
    "animal": (
        "badger", "bat", "beaver", "camel", "cat", "crab", "crow", "donkey", "eel", "ferret", "fox", "frog",
        "goat", "goose", "hedgehog", "heron", "horse", "lizard", "magpie", "mole", "moth", "octopus", "otter",
        "owl", "parrot", "penguin", "pigeon", "raccoon", "seal", "snail", "spider", "squirrel", "stork",
        "swan", "toad", "tortoise", "walrus", "wasp", "weasel", "woodpecker",
    ),
    "season": (
        "a cold morning in March", "a foggy evening", "a hot afternoon", "a long weekend", "a moonless night",
        "a rainy Tuesday", "a stormy night", "a windless day", "an early spring morning", "Christmas Eve",
        "market day", "Midsummer", "New Year's Day", "the day after the harvest", "the day of the flood",
        "the first day of school", "the first snow", "the last day of the holidays", "the longest night",
        "the night of the power cut",
    ),
}  # fmt: skip

#: Families of probes. None asks for what is usually begun in one way (a fairy tale, a letter, a toast, a
#: diary) or answered in the words of the question.
TEMPLATES = (
    "Write the first sentence of a crime story about a {trait} {person} who finds a {thing} in a {place}.",
    "Write the opening line of a novel set in a {place} on {season}, told by a {trait} {person}.",
    "Give me one sentence overheard in a {place} on {season}, spoken by a {trait} {person}.",
    "What does a {trait} {person} shout when a {animal} steals the {thing}? Only the words, please.",
    "Invent a name for a shop in a {place} that sells nothing but a single {thing}, and say in {mood} tone "
    "who runs it.",
    "A {person} and a {animal} argue about a {thing} in a {place}. Write the first reply of the {animal} in "
    "{mood} tone.",
    "Invent a village where every {person} keeps a {animal}: what is it called, and what is its motto in "
    "{mood} tone?",
    "Finish the saying in {mood} tone, writing only what follows: never trust a {animal} with a {thing}, for",
    "Write a two-line poem, in {mood} tone, about a {thing} left behind in a {place} on {season}.",
    "Name a board game in which a {trait} {person} and a {animal} race through a {place}, and sum it up in "
    "{mood} tone.",
    "Make up a nickname for a {trait} {person} who always carries a {thing}, and explain it in {mood} tone.",
    "You are a {thing} in a {place}. Say in {mood} tone what you think of the {trait} {person} who owns you.",
    "Write a haiku, in {mood} tone, about a {animal} in a {place} on {season}.",
    "Give a title to a painting of a {trait} {person} holding a {thing} in a {place}, and say what hangs "
    "next to it.",
    "Leaving a {place} on {season}, a {trait} {person} packs one thing last. Which? Begin with the thing.",
    "Think up a password that a {trait} {person} shares with a {animal}, and hint at it in {mood} tone.",
)

#: How a probe is put: as the starter task ``starter_instructions`` puts its own requests, so that neither its
#: parameters nor its form tell it apart. What stands before it is chosen among :data:`EXAMPLES`.
DESCRIPTION = "Do exactly what each request asks for and write nothing else.\n\n"
REQUEST, RESPONSE = "Request:", "Response:"
UNTIL = (REQUEST, "</s>", "<|im_end|>")
#: Requests like the probes, with answers. None is a probe, nor begins as an answer to many of them would.
EXAMPLES = (
    ("Name a ship that carries nothing but clocks.", "The Late Arrival"),
    ("Write one sentence that a snail might say about a staircase.", "Nobody told me it had a second floor."),
    ("What would a retired wizard write on a door mat?", "Wipe your spells, please."),
    ("Give a title to a book about a cook who is afraid of onions.", "Forty Layers of Doubt"),
    ("Make up a proverb about bread and patience.", "Dough keeps no calendar."),
    ("Describe the moon to a goldfish in one sentence.", "Think of a lamp that forgot its room."),
    ("Invent a street on which only tailors live.", "Hemline Row"),
    ("What does a bridge think of a river?", "Always leaving, never a word of thanks."),
    ("Write the last line of a letter from a lost glove.", "P.S. My left regards to your right hand."),
    ("Name a dance for people who are late.", "The Two-Minute Shuffle"),
    ("Say in one sentence why a cat would buy a boat.", "Fish deliver themselves to whoever floats."),
    ("Coin a word for the silence after a door has slammed.", "Slamber"),
)


def draw_examples(seed: str, number: int) -> list[tuple[str, str]]:
    """The two requests with answers that stand before a probe, by the numbers that ``seed`` gives."""
    numbers = _numbers(f"{seed}:example:{number}")
    first = next(numbers) % len(EXAMPLES)
    second = (first + 1 + next(numbers) % (len(EXAMPLES) - 1)) % len(EXAMPLES)
    return [EXAMPLES[first], EXAMPLES[second]]


def draw_probes(seed: str, n: int) -> list[str]:
    """Return ``n`` different probes: always the same for a seed, and the first of them for a smaller ``n``.

    Anyone who knows the seed can recompute them: number k is made from the numbers that the SHA-256 of
    ``seed:probe:k`` gives, and k grows past those that repeat an earlier probe.
    """
    drawn: dict[str, None] = {}
    for number in count():
        if len(drawn) >= n:
            return list(drawn)
        drawn.setdefault(_probe(f"{seed}:probe:{number}"))
    raise AssertionError("unreachable")


def _probe(source: str) -> str:
    numbers = _numbers(source)
    template = TEMPLATES[next(numbers) % len(TEMPLATES)]
    words = {name: words[next(numbers) % len(words)] for name, words in WORDS.items()}
    return _BEFORE_VOWEL.sub(r"\1n ", template.format_map(words))


def _numbers(source: str) -> Iterator[int]:
    """Endless evenly spread numbers of 64 bits, four to a hash."""
    for block in count():
        digest = hashlib.sha256(f"{source}:{block}".encode()).digest()
        for start in range(0, len(digest), 8):
            yield int.from_bytes(digest[start : start + 8], "big")

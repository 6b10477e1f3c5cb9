"""What service probes ask: a new text each time, as long as the workload says.

The text begins with a nonce, so that nothing of it can have been kept from an earlier request (prefix
caches compare from the first token on; what a chat template puts before it is the same for everybody). Then
come sentences in plain English, since what a tokenizer makes of noise is no measure of anything, and at last
the request: for an answer as long as the limit allows, or for a word that was hidden halfway.

Temperature 0, as nearly all tasks have it: then a supplier is measured as it is evaluated, and its own
``generation`` settings apply to both. Whoever guesses ahead (speculative decoding) may profit from it, as in
the evaluation.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any

from testbench_dagster.core.relay import Api
from testbench_dagster.core.workloads import HIDDEN_QUESTION, HIDDEN_WORDS, LONG_ANSWER
from testbench_dagster.tasks.starter.questions.words import COLOURS, FRUITS, NAMES, OBJECTS, ROOMS, WORDS

#: Bytes of English that a token of present vocabularies stands for, about: tokens are estimated by it where
#: nobody counts them.
BYTES_PER_TOKEN = 4
#: Different sentences of one prompt; a longer one repeats some, in an order of its own.
_SENTENCES = 400
_NONCE_BITS = 64
#: Tokens that the answer with a hidden word may have, thinking aside.
HIDDEN_ANSWER_TOKENS = 64

_FORMS = (
    "{name} carried {number} {fruit} from the {room} to the old {word} and left the {object} behind.",
    "In the {room} stood a {colour} {object}, which {name} had bought near the {word} last {season}.",
    "After the rain {name} looked for the {word}, but there was only a {colour} {other} on the table.",
    "{name} told {friend} that the {object} belongs in the {room}, not beside the {word}.",
    "For years the {word} at the end of the street had been {colour}, and nobody knew why.",
    "When {friend} arrived with {number} {fruit}, the {room} was empty and the {object} was gone.",
    "The {other} from the {word} was worth more than all the {fruit} that {name} had sold.",
    "Every evening {name} wrote a few lines about the {word} and put the {object} back into the {room}.",
)
_NUMBERS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "twelve")
_SEASONS = ("spring", "summer", "autumn", "winter")
_TASK = (
    "Write a story that goes on from these notes, with many details about people and places. It should be as "
    f"long as you can make it. {LONG_ANSWER}"
)


@dataclass(frozen=True, slots=True)
class Prompt:
    """One request of a probe: ``text`` is what is asked, ``hidden`` the word that its answer must hold."""

    text: str
    answer_tokens: int
    hidden: str | None = None

    @property
    def tokens(self) -> int:
        """Tokens of the text, estimated by its bytes."""
        return estimated_tokens(self.text)

    def request(self, api: Api) -> dict[str, Any]:
        """The same as a request of a :class:`~testbench_dagster.core.relay.Relay`."""
        generation = {"until": [], "max_gen_toks": self.answer_tokens, "temperature": 0}
        asked: dict[str, Any] = {"prompt": self.text}
        if api == "chat":
            asked = {"messages": [{"role": "user", "content": self.text}]}
        return {"type": "generate_until", "idx": 0, **asked, "generation": generation}


def estimated_tokens(text: str) -> int:
    """Tokens of a text by its bytes; 0 of an empty one."""
    return -(-len(text.encode("utf-8", "surrogatepass")) // BYTES_PER_TOKEN)


def long_prompt(tokens: int, answer_tokens: int, rng: Random) -> Prompt:
    """About so many tokens of text that ask for an answer of so many; ``rng`` should be a new one."""
    end = f"\n\n{_TASK}\n\nStory:\n"
    start = _start(rng)
    room = tokens * BYTES_PER_TOKEN - len(start) - len(end)
    return Prompt(f"{start}{_filler(room, rng)}{end}", answer_tokens)


def hiding_prompt(tokens: int, rng: Random) -> Prompt:
    """About so many tokens of text with a sign in the middle whose words nobody could guess."""
    sign = "-".join((*rng.sample(WORDS, 3), str(rng.randrange(1_000, 10_000))))
    hidden = f" {HIDDEN_WORDS} {sign}. "
    end = f"\n\n{HIDDEN_QUESTION}\n\nThe sign says:"
    start = _start(rng)
    half = (tokens * BYTES_PER_TOKEN - len(start) - len(hidden) - len(end)) // 2
    text = f"{start}{_filler(half, rng)}{hidden}{_filler(half, rng)}{end}"
    return Prompt(text, HIDDEN_ANSWER_TOKENS, sign)


def _start(rng: Random) -> str:
    """The nonce: no two prompts have a token in common before it."""
    return f"{rng.getrandbits(_NONCE_BITS):016x}: notes of this day.\n\n"


def _filler(size: int, rng: Random) -> str:
    """About so many bytes of sentences, whole ones; nothing of a size below that of one."""
    pool = [_sentence(rng) for _ in range(min(_SENTENCES, size // 50))]
    if not pool:
        return ""
    each = sum(map(len, pool)) / len(pool) + 1
    chosen = rng.choices(pool, k=round(size / each)) if len(pool) == _SENTENCES else pool
    made = " ".join(chosen)
    while len(made) > size and (end := made.rfind(". ", 0, size)) > 0:
        made = made[: end + 1]
    while size - len(made) > each:
        made = f"{made} {_sentence(rng)}"
    return made


def _sentence(rng: Random) -> str:
    name, friend = rng.sample(NAMES, 2)
    thing, other = rng.sample(OBJECTS, 2)
    return rng.choice(_FORMS).format(
        name=name,
        friend=friend,
        object=thing,
        other=other,
        room=rng.choice(ROOMS),
        fruit=rng.choice(FRUITS),
        colour=rng.choice(COLOURS),
        word=rng.choice(WORDS),
        number=rng.choice(_NUMBERS),
        season=rng.choice(_SEASONS),
    )

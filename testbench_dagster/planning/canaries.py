"""Canaries: docs that a supplier has answered before, asked again where another one stays unanswered.

They show whether the supplier answers at all, so that a doc which it leaves open is told from an outage.
Which ones they are is drawn at random: a supplier that could foresee them would answer them and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from random import Random

from testbench_dagster.planning.due import CallOutcome, Lives, PromptRef

#: How many are sent with a run that asks open docs again: first, between and last.
CANARIES = 3
#: How many more are at hand in any run, to be sent where it seems that nothing is answered any more.
SPARES = 4


@dataclass(frozen=True, slots=True)
class Canary:
    """A call to make again: of which task and prompt, in which round, under which number."""

    task: str
    prompt: PromptRef
    round: int
    idx: int
    repeat: int
    attempt: int


Answered = tuple[PromptRef, int, dict[tuple[int, int], int]]
"""A prompt that was answered whole, in which round, with the number of the last attempt at each call."""


def answered_docs(
    prompts: Sequence[PromptRef], outcomes: Iterable[CallOutcome], lives: Lives
) -> Iterator[Answered]:
    """Yield the prompts of a sequence that the supplier has answered, each round of theirs, the last last."""
    by_id = {prompt.id: prompt for prompt in prompts}
    numbers: dict[tuple[str, int], dict[tuple[int, int], int]] = {}
    for outcome in outcomes:
        key = (outcome.prompt_id, outcome.round)
        if outcome.prompt_id in by_id and key not in lives:
            numbers.setdefault(key, {})[outcome.idx, outcome.repeat] = outcome.attempt
    for (prompt_id, round_), calls in sorted(numbers.items(), key=lambda item: item[0][1]):
        prompt = by_id[prompt_id]
        if len(calls) == prompt.requests * prompt.repeats:
            yield prompt, round_, calls


def drawn(
    known: Sequence[tuple[str, PromptRef, int, dict[tuple[int, int], int]]], most: int, chance: Random
) -> tuple[Canary, ...]:
    """Draw so many docs at random, one call of each.

    ``known`` are tasks with what :func:`answered_docs` gives. Where there are fewer docs, fewer are drawn:
    the same one is not asked twice in a run.
    """
    docs = {(task, prompt.id): (task, prompt, round_, calls) for task, prompt, round_, calls in known}
    chosen = chance.sample(sorted(docs), min(most, len(docs)))
    found = []
    for key in chosen:
        task, prompt, round_, calls = docs[key]
        idx, repeat = chance.choice(sorted(calls))
        found.append(Canary(task, prompt, round_, idx, repeat, calls[idx, repeat] + 1))
    return tuple(found)

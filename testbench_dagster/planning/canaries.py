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


@dataclass(frozen=True, slots=True)
class Answerable:
    """A task of which canaries may be: its sequence, and what became of it."""

    task: str
    prompts: Sequence[PromptRef]
    outcomes: Sequence[CallOutcome]
    lives: Lives


def drawn(tasks: Sequence[Answerable], most: int, chance: Random) -> tuple[Canary, ...]:
    """Draw so many answered docs at random over all tasks, one call of each.

    Where there are fewer docs, fewer are drawn: the same one is not asked twice in a run. Only of tasks that
    the draw comes upon, about by how many docs they have, it is looked up what was answered.
    """
    answered: dict[int, dict[str, Answered]] = {}

    def docs(place: int) -> dict[str, Answered]:
        if place not in answered:
            task = tasks[place]
            found = answered_docs(task.prompts, task.outcomes, task.lives)
            answered[place] = {doc[0].id: doc for doc in found}
        return answered[place]

    left = {
        place: len(task.outcomes) / (task.prompts[0].requests * task.prompts[0].repeats)
        for place, task in enumerate(tasks)
        if task.outcomes and task.prompts
    }
    taken: dict[int, set[str]] = {}
    canaries: list[Canary] = []
    while left and len(canaries) < most:
        (place,) = chance.choices(list(left), list(left.values()))
        free = sorted(docs(place).keys() - taken.setdefault(place, set()))
        if not free:
            del left[place]
            continue
        prompt_id = chance.choice(free)
        taken[place].add(prompt_id)
        prompt, round_, calls = docs(place)[prompt_id]
        idx, repeat = chance.choice(sorted(calls))
        canaries.append(Canary(tasks[place].task, prompt, round_, idx, repeat, calls[idx, repeat] + 1))
    return tuple(canaries)

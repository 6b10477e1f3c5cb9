"""Registers, asks and scores fresh items; runs in the framework's worker."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from testbench_dagster.core.extracted import bounded_extract
from testbench_dagster.core.prompt import Answered, BuiltPrompt, DocScore, Registered, TaskData
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.core.task_flags import MetricFlags
from testbench_dagster.tasks.adapter import TaskAdapter, identified, registered
from testbench_dagster.tasks.fresh.answers import (
    INSTRUCTION,
    MOST_CHARS,
    final_answer,
    is_equal,
    may_be_right,
)
from testbench_dagster.tasks.fresh.generators import OWN_CHECK, generator_of, items_of
from testbench_dagster.tasks.fresh.items import Item, draw, require_package
from testbench_dagster.tasks.fresh.judge import Judge, JudgeFailed, why_none
from testbench_dagster.tasks.fresh.version import FRESH_REQUESTS, FRESH_VERSION, PACKAGE, PACKAGE_VERSION

#: The metrics: whether the final answer is right, and whether there is one in the form that was asked for.
CORRECT, ANSWERED = "correct", "answered"
FILTER = "last"
#: Tokens that an answer may have where the task does not say: steps, and a short answer.
MAX_TOKENS = 2048


class Fresh(TaskAdapter):
    """The framework's adapter."""

    def __init__(self) -> None:
        self._judge = Judge()
        # what scores here is part of what a task is: a machine that asks no checks gives other scores
        self._asks_checks = why_none() is None

    def register(self, spec: TaskSpec) -> Registered:
        """Describe a task: its docs are the numbers of the items of an epoch."""
        generator = generator_of(spec.name, spec.leaf)
        require_package(spec.name)
        binary = MetricFlags(aggregation="mean", higher_is_better=True, binary=True)
        return registered(
            spec,
            [{"generator": generator, "number": number} for number in range(items_of(spec.options))],
            asked=_asked(spec),
            scored=self._scored_by(),
            version=f"{PACKAGE} {PACKAGE_VERSION}",
            metrics={CORRECT: binary, ANSWERED: binary},
            filters=[FILTER],
            questions_of_epoch=True,
        )

    def build_prompts(
        self, spec: TaskSpec, data: TaskData, doc_ids: Sequence[int], api: str, seed: str
    ) -> list[BuiltPrompt]:
        """Draw the items of an epoch; question and answer stand in the prompt from now on."""
        generator = generator_of(spec.name, spec.leaf)
        require_package(spec.name)
        return [
            _prompt(spec, doc_id, generator, draw(seed, generator, doc_id), api)
            for doc_id in sorted(set(doc_ids))
        ]

    def score(self, spec: TaskSpec, data: TaskData, answers: Sequence[Answered]) -> Iterator[DocScore]:
        """Score answers by what stands in their prompts, one after the other in the order given."""
        generator = generator_of(spec.name, spec.leaf)
        if self._asks_checks and generator in OWN_CHECK:
            require_package(spec.name)
        return (self._score(generator, answer) for answer in answers)

    def identify(self, spec: TaskSpec, data: TaskData, fingerprint: str) -> tuple[str, str]:
        """The hashes that a registration of as many items gets here."""
        return identified(spec, data.flags, fingerprint, asked=_asked(spec), scored=self._scored_by())

    def _scored_by(self) -> list[Any]:
        return [FRESH_VERSION, "checks" if self._asks_checks else "equality alone"]

    def _score(self, generator: str, answer: Answered) -> DocScore:
        reply, gold = answer.responses[0][0], answer.target
        if not isinstance(gold, str):  # of evidence that somebody else made
            return DocScore(answer.doc_id, error="the prompt's target is no text, so that no answer is right")
        found = final_answer(reply) if isinstance(reply, str) else None
        try:
            right = found is not None and self._is_right(generator, answer.requests[0], gold, found)
        except JudgeFailed as error:
            return DocScore(answer.doc_id, error=str(error)[:300], unavailable=True)
        metrics = {CORRECT: float(right), ANSWERED: float(found is not None)}
        return DocScore(answer.doc_id, {FILTER: metrics}, extracted={FILTER: bounded_extract(found or "")})

    def _is_right(self, generator: str, request: Mapping[str, Any], gold: str, found: str) -> bool:
        if not 0 < len(found) <= MOST_CHARS:
            return False
        if is_equal(found, gold):
            return True
        seed = request.get("item_seed")
        if not self._asks_checks or generator not in OWN_CHECK or type(seed) is not int:
            return False
        # ours first: it costs nothing, and what it refuses need not be run
        return may_be_right(generator, found, gold) and self._judge.is_right(generator, seed, gold, found)


def _asked(spec: TaskSpec) -> list[Any]:
    """What decides the requests beside the epoch's seed."""
    return [FRESH_REQUESTS, PACKAGE, PACKAGE_VERSION, INSTRUCTION, _generation(spec)]


def _generation(spec: TaskSpec) -> dict[str, Any]:
    return spec.generation.over({"until": [], "max_gen_toks": MAX_TOKENS, "temperature": 0})


def _prompt(spec: TaskSpec, doc_id: int, generator: str, item: Item, api: str) -> BuiltPrompt:
    text = f"{item.question.strip()}\n\n{INSTRUCTION}"
    system = spec.generation.system
    asked: dict[str, Any]
    if api == "chat":
        messages = [{"role": "user", "content": text}]
        asked = {
            "messages": messages if system is None else [{"role": "system", "content": system}, *messages]
        }
    else:
        asked = {"prompt": "\n\n".join(part for part in (system, f"Question: {text}\nReply:") if part)}
    request = {
        "type": "generate_until",
        "idx": 0,
        **asked,
        "generation": _generation(spec),
        # the question and what it was drawn by, for who scores and who reads
        "question": item.question,
        "item_seed": item.seed,
    }
    if spec.generation.think_end_token is not None:
        request["think_end_token"] = spec.generation.think_end_token
    return BuiltPrompt(doc_id, [request], item.answer, len(text) + len(system or ""), True)

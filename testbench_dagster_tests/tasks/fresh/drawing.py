"""Tasks of the framework fresh as they are configured, their prompts and the scores of made-up answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from testbench_dagster.core.prompt import Answered, BuiltPrompt, DocScore
from testbench_dagster.core.sampling import SampleRule
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.sandbox.landlock import probe
from testbench_dagster.tasks.fresh.adapter import Fresh
from testbench_dagster.tasks.fresh.generators import GENERATORS
from testbench_dagster.tasks.fresh.items import problem_of_package

needs_package = pytest.mark.skipif(
    problem_of_package() is not None, reason=f"nothing can be drawn: {problem_of_package()}"
)
needs_sandbox = pytest.mark.skipif(probe() is not None, reason=f"checks are not asked here: {probe()}")

#: 160 items: the generators in turn, and the numbers of their items.
ITEMS = [(GENERATORS[place % len(GENERATORS)], place // len(GENERATORS)) for place in range(160)]


def spec(name: str, **options: object) -> TaskSpec:
    """A task as it is configured."""
    return TaskSpec(
        name, name, name, None, None, None, None, None, {}, SampleRule(), framework="fresh", options=options
    )


def prompts(adapter: Fresh, generator: str, numbers: Sequence[int], seed: str = "seed") -> list[BuiltPrompt]:
    """Prompts of items of an epoch."""
    task = spec(f"fresh_{generator}")
    return adapter.build_prompts(task, adapter.register(task).data, numbers, "chat", seed)


def tagged(text: str) -> Callable[[BuiltPrompt], str]:
    """Replies whose final answer is this text; ``{}`` in it is the right answer."""
    return lambda prompt: f"<answer>{text.replace('{}', prompt.target)}</answer>"


def scores(
    adapter: Fresh, generator: str, asked: Sequence[BuiltPrompt], reply: Callable[[BuiltPrompt], str]
) -> list[DocScore]:
    """What the framework makes of replies to prompts."""
    task = spec(f"fresh_{generator}")
    answers = [Answered(p.doc_id, p.requests, [[reply(p)]], p.target) for p in asked]
    return list(adapter.score(task, adapter.register(task).data, answers))


def correct(score: DocScore) -> float:
    """Whether an answer was right."""
    assert score.error is None, score.error
    value = score.metrics["last"]["correct"]
    assert isinstance(value, float)
    return value

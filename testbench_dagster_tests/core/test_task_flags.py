"""What flags say of a task's requests and questions."""

from __future__ import annotations

import pytest

from testbench_dagster.core.capabilities import cannot_answer
from testbench_dagster.core.task_flags import TaskFlags, request_forms


def flags(**said: object) -> TaskFlags:
    plain = {
        "output_type": "generate_until",
        "features": [],
        "multiple_input": False,
        "multiple_target": False,
        "repeats": 1,
        "num_fewshot": 0,
        "version": "1",
        "metrics": {},
        "filters": ["none"],
    }
    return TaskFlags(**{**plain, **said})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "named", "forms"),
    [
        ("generate_until", None, ("chat", "completions")),
        ("get", None, ("chat", "completions")),
        ("chat", None, ("chat",)),
        ("multiple_choice", None, ("completions",)),
        ("loglikelihood", None, ("completions",)),
        ("generate_until", ["chat"], ("chat",)),
        ("generate_until", ["completions", "chat"], ("chat", "completions")),
    ],
)
def test_request_forms_follow_from_the_kind_unless_named(
    kind: str, named: list[str] | None, forms: tuple[str, ...]
) -> None:
    assert request_forms(kind, named) == flags(output_type=kind, forms=named).request_forms == forms


@pytest.mark.parametrize(
    ("api", "kind", "named", "echo", "cannot"),
    [
        ("completions", "generate_until", ["chat"], True, True),
        ("completions", "chat", None, True, True),
        ("chat", "chat", None, None, False),
        ("chat", "multiple_choice", None, None, True),
        ("completions", "multiple_choice", None, None, False),
        ("completions", "multiple_choice", None, False, True),
    ],
)
def test_who_cannot_be_asked_follows_from_forms_and_echo(
    api: str, kind: str, named: list[str] | None, echo: bool | None, cannot: bool
) -> None:
    assert cannot_answer(api, kind, request_forms(kind, named), echo) is cannot


def test_questions_are_told_apart_by_epoch_where_they_are_drawn() -> None:
    assert flags().question(1, 5) == flags().question(2, 5)
    drawn = flags(questions_of_epoch=True)
    assert drawn.question(1, 5) != drawn.question(2, 5) != drawn.question(2, 6)

"""What a supplier is sent, in which order: open docs, new ones, canaries between them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from testbench_dagster.core.records.prompts import PromptRequests
from testbench_dagster.core.registration import Registration
from testbench_dagster.core.relay import Endpoint
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.core.task_flags import TaskFlags
from testbench_dagster.planning.canaries import Canary
from testbench_dagster.planning.due import DueCall, DuePrompt, PromptRef, TaskPlan
from testbench_dagster.stages.relay.requests import (
    DueRelays,
    PlannedCanary,
    PlannedSupplier,
    PlannedTask,
    Prompts,
    canary_places,
)

TARGET = Endpoint("s@here", "here", "http://127.0.0.1:9", "chat", "m")


class Stored(Prompts):
    """Prompts whose requests say their id; those named are not stored any more."""

    def __init__(self, gone: Sequence[str] = ()) -> None:
        self._gone = gone

    def get(self, ids: Sequence[str]) -> dict[str, PromptRequests]:
        return {
            i: PromptRequests(i, [{"type": "generate_until", "idx": n, "prompt": i} for n in range(3)])
            for i in ids
            if i not in self._gone
        }


def registration(task: str) -> Registration:
    flags = TaskFlags(
        output_type="generate_until", features=[], multiple_input=False, multiple_target=False, repeats=1,
        num_fewshot=0, version="1.0", metrics={}, filters=[], metric_order=[],
    )  # fmt: skip
    return Registration(
        task=task, task_hash=f"hash of {task}", framework="lm_eval", lm_task=task, engine_version="0.0",
        config_hash="c", fingerprint="f", eval_split="test", splits={"test": 9}, flags=flags,
        n_docs=9, n_fewshot=0, registered_at=datetime(2026, 3, 1, tzinfo=UTC),
    )  # fmt: skip


def spec(task: str) -> TaskSpec:
    return TaskSpec(task, task, task, None, None, None, None, None, {}, None)


def ref(task: str, position: int) -> PromptRef:
    return PromptRef(f"{task}{position}", position, position, 1, 1)


def doc(task: str, position: int, **more: object) -> DuePrompt:
    return DuePrompt(ref(task, position), (DueCall(0, 0, 1),), **more)  # type: ignore[arg-type]


def planned(task: str, due: list[DuePrompt], epoch: int = 5) -> PlannedTask:
    return PlannedTask("s@here", spec(task), registration(task), epoch, TaskPlan(1, due))


def canary(task: str, position: int) -> PlannedCanary:
    return PlannedCanary(registration(task), 5, Canary(task, ref(task, position), 1, 2, 0, 7))


def test_open_docs_of_all_tasks_come_first_in_their_round_and_epoch() -> None:
    again = {"open": True, "occasion": 3, "round": 2}
    work = DueRelays(
        TARGET,
        PlannedSupplier(
            [
                planned("a", [doc("a", 4, epoch=3, **again), doc("a", 5, **again), doc("a", 0)]),
                planned("b", [doc("b", 0), doc("b", 1)]),
            ],
            spares=[canary("a", 8)],
        ),
        Stored(),
    )
    relays = list(work)
    assert [relay.prompt_id for relay in relays] == ["a4", "a5", "a0", "b0", "b1"]
    assert [(r.epoch, r.round, r.occasion, r.canary) for r in relays[:3]] == [
        (3, 2, 3, False),
        (5, 2, 3, False),
        (5, 1, 1, False),
    ]
    assert len(work) == 5


def test_who_answered_nothing_yet_is_asked_new_docs_between_the_open_ones() -> None:
    """Else a run that leaves it after a few docs would ask it the same ones for good."""
    again = {"open": True, "occasion": 2}
    first = planned("a", [*(doc("a", n, **again) for n in range(5)), doc("a", 5), doc("a", 6)])
    work = DueRelays(TARGET, PlannedSupplier([first, planned("b", [doc("b", 0)])]), Stored())
    relays = iter(work)
    assert [next(relays).prompt_id for _ in range(4)] == ["a5", "a0", "b0", "a1"]
    assert [one.prompt.id for _, docs in work.left() for one in docs] == ["a6"]
    assert [relay.prompt_id for relay in relays] == ["a6", "a2", "a3", "a4"]


def test_canaries_stand_first_between_and_last() -> None:
    due = [doc("a", 9, open=True, occasion=2), *(doc("a", n) for n in range(3))]
    planned_canaries = [canary("b", 0), canary("b", 1), canary("a", 8)]
    work = DueRelays(
        TARGET, PlannedSupplier([planned("a", due)], planned_canaries, [canary("c", 2)]), Stored()
    )
    relays = list(work)
    assert [relay.prompt_id for relay in relays] == ["b0", "a9", "a0", "b1", "a1", "a2", "a8"]
    assert [relay.canary for relay in relays] == [True, False, False, True, False, False, True]
    first = relays[0]
    assert (first.task, first.idx, first.attempt, first.request["idx"]) == ("b", 2, 7, 2)
    assert len(work) == len(relays)
    (spare,) = work.spares
    assert (spare.task, spare.prompt_id, spare.canary) == ("c", "c2", True)


def test_a_canary_whose_prompt_is_gone_is_left_out() -> None:
    work = DueRelays(
        TARGET,
        PlannedSupplier([planned("a", [doc("a", 0)])], [canary("b", 0), canary("b", 1)]),
        Stored(gone=["b0"]),
    )
    assert [relay.prompt_id for relay in work] == ["b1", "a0"]


@pytest.mark.parametrize(
    ("relays", "canaries", "places"),
    [(10, 3, [0, 5, 10]), (1, 3, [0, 0, 1]), (0, 3, [0, 0, 0]), (4, 1, [0]), (4, 2, [0, 4]), (4, 0, [])],
)
def test_places_of_canaries(relays: int, canaries: int, places: list[int]) -> None:
    assert canary_places(relays, canaries) == places


def test_new_docs_of_which_nothing_was_taken_are_known() -> None:
    """Open ones that were not reached are open anyhow."""
    again = {"open": True, "occasion": 2}
    first = planned("a", [doc("a", 7, **again), doc("a", 8, **again), doc("a", 0), doc("a", 1)])
    known = PlannedSupplier([first, planned("b", [doc("b", 0)])], spares=[canary("b", 8)])
    work = DueRelays(TARGET, known, Stored())

    def left() -> list[str]:
        return [one.prompt.id for _, docs in work.left() for one in docs]

    relays = iter(work)
    assert next(relays).prompt_id == "a7"
    assert left() == ["a0", "a1", "b0"]
    assert [next(relays).prompt_id for _ in range(3)] == ["a8", "a0", "b0"]
    assert left() == ["a1"]

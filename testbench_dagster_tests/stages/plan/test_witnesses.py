"""Planning takes witnesses from the answers it has read already, and comes to the same as reading them."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from random import Random

import pytest

from testbench_dagster.core.faults import Fault
from testbench_dagster.stages.attempts import history
from testbench_dagster.stages.plan.lives import lives_of
from testbench_dagster.stages.score.states import Answers, AnswersRead, Supplied
from testbench_dagster_tests.stages.plan.stage import GATED, GATING, NOW, Stage
from testbench_dagster_tests.stages.score.facts import ALPHA


@pytest.mark.parametrize("seed", range(8))
def test_states_are_those_of_all_stored_answers(tmp_path: Path, seed: int) -> None:
    """Of other tasks, of the same tasks as registered before, of other epochs, canaries among them."""
    chance, made = Random(seed), Stage(tmp_path, {})
    before = made.facts.registration("starter_units", n_docs=50)
    older = made.facts.registration(GATING, n_docs=49)
    current = made.facts.registration(GATING, n_docs=50)
    for number in range(120):
        registration = chance.choice([made.registrations[GATED], current, older, before])
        made.facts.attempt(
            registration,
            chance.randrange(10),
            chance.choice([Fault.OK, Fault.OK, Fault.TRANSPORT, Fault.SUPPLIER_HTTP, Fault.TRUNCATED]),
            NOW - timedelta(hours=chance.uniform(0, 80)),
            prompt_id=f"p{chance.randrange(6)}",
            epoch=1,
            number=number + 1,
            lease=chance.randrange(4),
            latency_ms=chance.uniform(10, 90_000),
            canary=chance.random() < 0.1,
        )
    supplier, documents = made.supplier(), made.workspace.documents
    pasts = {
        task: history(
            documents,
            ALPHA,
            task,
            registration.task_hash,
            epoch=1,
            began=NOW,
            since=NOW - timedelta(days=35),
            now=NOW,
        )
        for task, registration in ((GATED, made.registrations[GATED]), (GATING, current))
    }
    unanswered = {key: attempts for past in pasts.values() for key, attempts in past.unanswered.items()}
    assert unanswered
    known = Supplied(made.workspace, supplier, NOW).known(unanswered)
    found = lives_of(made.workspace, supplier, pasts, NOW, lambda task: {})
    assert found == {key: doc.outcome for key, doc in known.items()}
    made.workspace.close()


def test_what_was_read_only_in_part_is_read_again(tmp_path: Path) -> None:
    made = Stage(tmp_path, {})
    registration = made.registrations[GATED]
    for hours in (1, 30, 60):
        made.facts.attempt(registration, hours, at=NOW - timedelta(hours=hours))
    supplied = Supplied(made.workspace, made.supplier(), NOW)
    read = AnswersRead({(GATED, registration.task_hash)}, NOW - timedelta(hours=40), [])

    def times(given: AnswersRead | None, first: float) -> int:
        answers = Answers(made.workspace.documents, ALPHA, supplied._deadline, supplied._clock, given)
        answers.read(NOW - timedelta(hours=first), NOW)
        return len(answers._answers)

    assert (times(None, 10), times(read, 10)) == (2, 0), "a day more is looked at, and the caller is believed"
    assert (times(None, 50), times(read, 50)) == (3, 3), "beyond what the caller read"
    made.workspace.close()

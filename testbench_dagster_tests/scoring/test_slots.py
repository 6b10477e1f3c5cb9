"""Which docs fill the slots of a score: by when they were closed, never by what they were worth."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from testbench_dagster.core.doc_states import DocState
from testbench_dagster.core.faults import Fault
from testbench_dagster.core.window import Sample
from testbench_dagster.scoring.slots import fill_slots

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def closed(doc: int, hours: float, value: float = 1.0) -> Sample:
    return Sample(doc, NOW + timedelta(hours=hours), 1, 1, Fault.OK, {"none": {"acc": value}})


def opened(doc: int, hours: float, position: int = 0) -> Sample:
    at = NOW + timedelta(hours=hours)
    return Sample(doc, at, 1, 1, Fault.TRANSPORT, state=DocState.OPEN, position=position)


def docs(samples: list[Sample]) -> list[int]:
    return sorted(sample.doc_id for sample in samples)


def test_young_outcomes_come_first_and_of_these_the_newest() -> None:
    samples = [closed(1, 1), closed(2, 2), closed(3, 3), closed(4, -1)]
    assert docs(fill_slots(samples, 2, NOW)) == [2, 3]
    assert docs(fill_slots(samples, 9, NOW)) == [1, 2, 3, 4]


def test_an_older_outcome_keeps_its_slot_that_of_a_doc_asked_again_first() -> None:
    samples = [closed(1, 1), closed(2, -1), closed(3, -2), closed(4, -3)]
    assert docs(fill_slots(samples, 2, NOW)) == [1, 2]
    assert docs(fill_slots(samples, 3, NOW, {4})) == [1, 2, 4]


def test_open_docs_have_the_empty_slots_and_count_beyond_where_nothing_stands_for_them() -> None:
    assert docs(fill_slots([closed(1, 1), opened(2, 1), opened(3, 1)], 9, NOW)) == [1, 2, 3]
    assert docs(fill_slots([closed(1, 1), opened(2, 1)], 1, NOW)) == [1, 2]
    due = [closed(1, -1), closed(2, -1)]
    assert docs(fill_slots([*due, opened(3, 1), opened(4, 1)], 2, NOW)) == [1, 2]
    assert docs(fill_slots([*due, opened(4, 1, 5), opened(3, 1, 9), opened(5, 1, 7)], 2, NOW)) == [1, 2, 4]
    assert docs(fill_slots([opened(1, -1)], 2, NOW)) == [], "asked too long ago"


@given(
    st.lists(st.tuples(st.floats(-9, 9), st.booleans(), st.floats(0, 1)), max_size=30),
    st.integers(0, 12),
    st.sets(st.integers(0, 30)),
)
def test_values_have_no_say(told: list[tuple[float, bool, float]], most: int, again: set[int]) -> None:
    def made(values: list[float]) -> list[Sample]:
        return [
            closed(doc, hours, value) if is_closed else opened(doc, hours)
            for (doc, (hours, is_closed, _)), value in zip(enumerate(told), values, strict=True)
        ]

    values = [value for _, _, value in told]
    found = docs(fill_slots(made(values), most, NOW, again))
    assert docs(fill_slots(made([1 - value for value in values])[::-1], most, NOW, again)) == found
    samples = made(values)
    filled = fill_slots(samples, most, NOW, again)
    n_closed = sum(s.closed for s in filled)
    assert n_closed == min(most, sum(s.closed for s in samples))
    n_open = sum(not s.closed and s.at > NOW for s in samples)
    kept = sum(s.closed and s.at <= NOW for s in filled)
    assert len(filled) - n_closed == min(n_open, max(most - n_closed, n_open - kept))

"""Which docs fill the slots of a score: by their places, not by worth or time of answer."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from testbench_dagster.core.doc_states import DocState
from testbench_dagster.core.faults import Fault
from testbench_dagster.core.sampling import Slots, kept_docs
from testbench_dagster.core.window import Sample
from testbench_dagster.scoring.slots import fill_slots

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def closed(
    doc: int, hours: float, value: float = 1.0, *, position: int = 0, epoch: int = 1, round_: int = 1
) -> Sample:
    at = NOW + timedelta(hours=hours)
    return Sample(doc, at, epoch, round_, Fault.OK, {"none": {"acc": value}}, position=position)


def opened(doc: int, hours: float, position: int = 0) -> Sample:
    at = NOW + timedelta(hours=hours)
    return Sample(doc, at, 1, 1, Fault.TRANSPORT, state=DocState.OPEN, position=position)


def docs(samples: list[Sample]) -> list[int]:
    return sorted(sample.doc_id for sample in samples)


def test_young_outcomes_come_first_and_of_these_those_with_the_first_places() -> None:
    samples = [
        closed(1, 1, position=7), closed(2, 2, position=5), closed(3, 3, position=6),
        closed(4, -1, position=0),
    ]  # fmt: skip
    assert docs(fill_slots(samples, Slots(2), NOW)) == [2, 3]
    assert docs(fill_slots(samples, Slots(9), NOW)) == [1, 2, 3, 4]


def test_newer_epochs_come_first_and_of_one_the_docs_that_were_asked_again() -> None:
    samples = [
        closed(1, 9, position=0), closed(2, 1, position=3, epoch=2), closed(3, 5, position=2, round_=2),
        closed(4, 3, position=1, epoch=2), closed(5, 8, position=1),
    ]  # fmt: skip
    orders = [docs(fill_slots(samples, Slots(most), NOW)) for most in range(1, 5)]
    assert orders == [[4], [2, 4], [2, 3, 4], [1, 2, 3, 4]]
    due = [replace(sample, at=NOW - (sample.at - NOW)) for sample in samples]
    assert [docs(fill_slots(due, Slots(most), NOW)) for most in range(1, 5)] == orders


def test_who_answers_slowly_where_it_is_sure_does_not_choose_its_docs() -> None:
    """The common number of docs falls from 93 to 49: which stay is no matter of when they were answered."""
    right = [doc % 5 < 3 for doc in range(93)]
    for slow in (right, [not value for value in right]):
        samples = [
            closed(doc, 1 + late, float(value), position=doc)
            for doc, (value, late) in enumerate(zip(right, slow, strict=True))
        ]
        kept = fill_slots(samples, Slots(49), NOW)
        assert docs(kept) == list(range(49))
        assert sum(s.metrics["none"]["acc"] for s in kept if s.metrics) == 30, "30 of 49, not 49"


def test_an_older_outcome_keeps_its_slot_that_of_a_doc_asked_again_first() -> None:
    samples = [closed(1, 1), closed(2, -1), closed(3, -2), closed(4, -3)]
    assert docs(fill_slots(samples, Slots(2), NOW)) == [1, 2]
    assert docs(fill_slots(samples, Slots(3), NOW, {4})) == [1, 2, 4]


def test_open_docs_have_the_empty_slots_and_count_beyond_where_nothing_stands_for_them() -> None:
    assert docs(fill_slots([closed(1, 1), opened(2, 1), opened(3, 1)], Slots(9), NOW)) == [1, 2, 3]
    assert docs(fill_slots([closed(1, 1), opened(2, 1)], Slots(1), NOW)) == [1, 2]
    due = [closed(1, -1), closed(2, -1)]
    assert docs(fill_slots([*due, opened(3, 1), opened(4, 1)], Slots(2), NOW)) == [1, 2]
    without = [opened(4, 1, 5), opened(3, 1, 9), opened(5, 1, 7)]
    assert docs(fill_slots([*due, *without], Slots(2), NOW)) == [1, 2, 4]
    assert docs(fill_slots([opened(1, -1)], Slots(2), NOW)) == [], "asked too long ago"


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
    found = docs(fill_slots(made(values), Slots(most), NOW, again))
    assert docs(fill_slots(made([1 - value for value in values])[::-1], Slots(most), NOW, again)) == found
    samples = made(values)
    filled = fill_slots(samples, Slots(most), NOW, again)
    n_closed = sum(s.closed for s in filled)
    assert n_closed == min(most, sum(s.closed for s in samples))
    n_open = sum(not s.closed and s.at > NOW for s in samples)
    kept = sum(s.closed and s.at <= NOW for s in filled)
    assert len(filled) - n_closed == min(n_open, max(most - n_closed, n_open - kept))


@given(
    st.lists(st.tuples(st.integers(1, 3), st.integers(1, 2), st.integers(0, 9)), max_size=30),
    st.integers(0, 30),
    st.randoms(use_true_random=False),
)
def test_the_time_of_an_answer_has_no_say_among_young_ones(
    places: list[tuple[int, int, int]], most: int, chance: Random
) -> None:
    def told() -> list[Sample]:
        return [
            closed(doc, chance.uniform(0.1, 9), position=position, epoch=epoch, round_=round_)
            for doc, (epoch, round_, position) in enumerate(places)
        ]

    assert docs(fill_slots(told(), Slots(most), NOW)) == docs(fill_slots(told()[::-1], Slots(most), NOW))


BEFORE = Slots(6, 2, "draw")


def test_docs_from_before_the_number_was_set_have_half_of_the_slots() -> None:
    older = [closed(doc, 1 + doc, position=doc) for doc in range(10)]
    kept = kept_docs("draw", range(10), 3)
    new = [closed(20 + doc, 20, epoch=2, position=doc) for doc in range(3)]
    assert docs(fill_slots([*older, *new], BEFORE, NOW)) == sorted({*kept, 20, 21, 22})
    more = [closed(30, 20, epoch=3), *new, *older]
    four = kept_docs("draw", range(10), 4)
    stays = min(set(range(10)) - four)
    found = docs(fill_slots(more, replace(BEFORE, docs=9), NOW))
    assert found == sorted({*four, stays, 20, 21, 22, 30}), "where there are no others, the rest keep theirs"


def test_they_keep_their_slots_until_the_others_close() -> None:
    """No dip, no gain: an outcome stands for a doc that is open, as where slots fall due."""
    older = [closed(doc, 1, position=doc) for doc in range(6)]
    assert docs(fill_slots(older, BEFORE, NOW)) == [0, 1, 2, 3, 4, 5]
    assert docs(fill_slots([*older, replace(opened(20, 2), epoch=2)], BEFORE, NOW)) == [0, 1, 2, 3, 4, 5]
    kept = kept_docs("draw", range(6), 3)
    two = [closed(20, 9, epoch=2), replace(opened(21, 2), epoch=2)]
    stays = min(set(range(6)) - kept), sorted(set(range(6)) - kept)[1]
    assert docs(fill_slots([*older, *two], BEFORE, NOW)) == sorted({*kept, *stays, 20})
    many = [replace(opened(20 + doc, 2, doc), epoch=2) for doc in range(5)]
    found = docs(fill_slots([*older, *many], BEFORE, NOW))
    assert found == [0, 1, 2, 3, 4, 5, 20, 21], "of five open docs three are stood for"


@given(
    st.lists(st.tuples(st.integers(-50, 50), st.integers(1, 3), st.booleans(), st.booleans()), max_size=40),
    st.integers(1, 30),
)
def test_which_are_kept_follows_from_no_answer(drawn: list[tuple[int, int, bool, bool]], most: int) -> None:
    def made(right: bool) -> list[Sample]:
        return [
            closed(doc, hours, float(value is right), position=doc, epoch=epoch)
            if is_closed
            else replace(opened(doc, abs(hours) + 1, doc), epoch=epoch)
            for doc, (hours, epoch, value, is_closed) in enumerate(drawn)
        ]

    slots = Slots(most, 2, "draw")
    found = fill_slots(made(True), slots, NOW)
    assert docs(fill_slots(made(False)[::-1], slots, NOW)) == docs(found)
    outcomes = [s for s in made(True) if s.closed]
    assert sum(s.closed for s in found) == min(most, len(outcomes)), "no slot is empty without need"
    young = [s for s in outcomes if s.at > NOW]
    if sum(s.epoch >= 2 for s in young) >= most - most // 2:
        assert sum(s.epoch < 2 for s in found if s.closed) <= most // 2

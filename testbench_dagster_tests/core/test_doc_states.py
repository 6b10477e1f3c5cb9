"""The life of a doc: what closes it, what leaves it open, and what neither silence nor the clock decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbench_dagster.core.doc_states import (
    CallAttempt,
    DocClock,
    DocOutcome,
    DocState,
    Occasion,
    PeerOutcome,
    Witness,
    doc_outcome,
    is_void,
    linked_units,
    median_of_sorted,
    own_faults_hold_up,
    refused_shapes,
)
from testbench_dagster.core.faults import Closing, Fault

START = datetime(2026, 3, 1, tzinfo=UTC)
CLOCK = DocClock()
WINDOW = timedelta(seconds=60)
THEIRS = [fault for fault in Fault if fault.row.occasions]
OURS = [fault for fault in Fault if fault.row.closes is Closing.OPEN]
HOUR = timedelta(hours=1)


def at(minutes: float) -> datetime:
    return START + timedelta(minutes=minutes)


def attempt(
    minutes: float,
    fault: Fault,
    *,
    run: int | None = None,
    call: int = 0,
    occasion: int = 1,
    seconds: float = 1,
) -> CallAttempt:
    end = at(minutes) + timedelta(seconds=seconds)
    return CallAttempt(call, 0, fault, at(minutes), end, int(minutes) if run is None else run, occasion)


def outcome(
    attempts: Sequence[CallAttempt],
    answers: Sequence[float] = (),
    now: float = 0.0,
    calls: int = 1,
    clock: DocClock = CLOCK,
    window: timedelta = WINDOW,
) -> DocOutcome:
    return doc_outcome(attempts, calls, Witness([at(m) for m in answers], window), clock, at(now))


# ------------------------------------------------------------------------------------- the rows of the table


@pytest.mark.parametrize("fault", THEIRS)
def test_as_many_witnessed_occasions_as_the_fault_says_close_a_doc(fault: Fault) -> None:
    times = [0.0, 15.0, 120.0][: fault.row.occasions]
    attempts = [attempt(minutes, fault) for minutes in times]
    assert outcome(attempts, times, 121).state is DocState.FAILED
    for left_out in times:
        seen = [minutes for minutes in times if minutes != left_out]
        found = outcome(attempts, seen, 123)
        assert (found.state, found.fault, found.ours) == (DocState.OPEN, fault, False), (
            "an outage says nothing"
        )
    if len(attempts) > 1:
        assert outcome(attempts[:-1], times, 121).state is DocState.OPEN


@pytest.mark.parametrize("fault", OURS)
def test_our_own_faults_hold_a_doc_up_and_never_close_it(fault: Fault) -> None:
    found = outcome([attempt(m, fault) for m in (0, 15, 120, 9000)], [0, 15, 120, 9000], 10_000)
    assert (found.state, found.ours, found.occasions, found.unreachable) == (DocState.OPEN, True, (), False)


def test_an_answer_settles_a_doc_whatever_was_before() -> None:
    failed = [attempt(0, Fault.SUPPLIER_REFUSED), attempt(0.5, Fault.SUPPLIER_REFUSED, run=0, occasion=2)]
    assert outcome(failed, [0], 1).state is DocState.FAILED
    found = outcome([*failed, attempt(1, Fault.OK, run=0, occasion=3)], [0], 2)
    assert (found.state, found.late) == (DocState.SCORED, False), "in the same run"
    found = outcome([*failed, attempt(15, Fault.TRUNCATED)], [0], 16)
    assert (found.state, found.late, len(found.occasions)) == (DocState.SCORED, True, 2)


def test_what_we_held_up_ourselves_is_not_late() -> None:
    assert not outcome([attempt(0, Fault.INTERNAL), attempt(15, Fault.OK)]).late


def test_a_doc_of_several_calls_needs_all_of_them() -> None:
    """Of four choices one is withheld: the answers to the other three witness it."""
    attempts = [
        attempt(minutes, Fault.OK if call else Fault.SUPPLIER_HTTP, call=call)
        for minutes in (0, 15, 120)
        for call in range(4)
    ]
    answers = [0, 15, 120]
    assert outcome(attempts[:8], answers, 16, calls=4).state is DocState.OPEN
    assert outcome(attempts, answers, 121, calls=4).state is DocState.FAILED
    done = [*attempts[:8], attempt(120, Fault.OK, call=0)]
    assert outcome(done, answers, 121, calls=4).state is DocState.SCORED
    partly = outcome([attempt(0, Fault.OK, call=0)], [0], 100, calls=4)
    assert (partly.state, partly.ours) == (DocState.OPEN, True), "nobody asked for the rest"


def test_at_the_end_of_its_life_it_takes_no_witness_near_each_occasion() -> None:
    attempts = [attempt(m, Fault.TRANSPORT) for m in (0, 15, 120)]
    answered = [120 + 23 * 60]
    assert outcome(attempts, answered, 4319).state is DocState.OPEN
    assert outcome(attempts, answered, 4320).state is DocState.FAILED
    silent = outcome(attempts, [], 4320)
    assert (silent.state, silent.unreachable) == (DocState.OPEN, True)
    assert not outcome(attempts, [], 4319).unreachable


@pytest.mark.parametrize("answers", [[], [0.2], [-30.0]])
def test_after_one_bad_run_the_clock_alone_says_nothing(answers: list[float]) -> None:
    """One run, then nothing for 80 h, or a year."""
    attempts = [attempt(0, Fault.SUPPLIER_HTTP), attempt(0.2, Fault.SUPPLIER_HTTP, run=0)]
    for hours in (1, 80, 9000):
        found = outcome(attempts, answers, hours * 60)
        assert (found.state, found.unreachable) == (DocState.OPEN, False)


def test_attempts_of_earlier_versions_have_one_occasion_per_run() -> None:
    old = [
        CallAttempt(0, 0, Fault.SUPPLIER_HTTP, at(m), at(m + 0.1), run)
        for m, run in ((0, 1), (0.2, 1), (0.4, 1), (15, 2), (15.2, 2), (120, 3))
    ]
    assert len(outcome(old[:5]).occasions) == 2
    assert outcome(old[:3], [0], 1).state is DocState.OPEN
    assert outcome(old, [0, 15, 120], 121).state is DocState.FAILED


# ---------------------------------------------------------------------------------------------- the witness


@pytest.mark.parametrize(
    ("median_s", "deadline_s", "expected_s"),
    [(None, 300, 60), (1, 300, 60), (100, 300, 200), (200, 300, 300), (1, 30, 30), (0, 0.5, 2)],
)
def test_how_near_a_witness_must_be(median_s: float | None, deadline_s: float, expected_s: float) -> None:
    median = None if median_s is None else timedelta(seconds=median_s)
    window = CLOCK.witness_window(median, timedelta(seconds=deadline_s))
    assert window == timedelta(seconds=expected_s)


@pytest.mark.parametrize(("off_s", "seen"), [(-60.0, True), (-60.001, False), (61.0, True), (61.001, False)])
def test_a_witness_counts_up_to_the_end_of_its_window(off_s: float, seen: bool) -> None:
    (occasion,) = outcome([attempt(0, Fault.TRANSPORT)], [off_s / 60]).occasions
    assert occasion.witnessed is seen


def test_medians() -> None:
    assert median_of_sorted([]) is None
    assert median_of_sorted([1000.0, 3000.0]) == timedelta(seconds=2)
    assert median_of_sorted([1000.0, 1500.0, 3000.0]) == timedelta(seconds=1.5)


# ------------------------------------------------------------------------------------------------ properties

FAULTS = st.sampled_from([*THEIRS, *OURS, Fault.OK])


@st.composite
def lives(draw: st.DrawFn) -> tuple[list[CallAttempt], list[float], float, int]:
    """Attempts over up to eight runs, answers to other calls, an instant, and the number of calls."""
    calls = draw(st.integers(1, 3))
    attempts = []
    begin = 0.0
    for run in range(draw(st.integers(1, 8))):
        minutes = begin
        for _ in range(draw(st.integers(1, 4))):
            call, occasion = draw(st.integers(0, calls - 1)), draw(st.integers(1, 2))
            attempts.append(attempt(minutes, draw(FAULTS), run=run, call=call, occasion=run * 2 + occasion))
            minutes += draw(st.floats(0.02, 2))
        begin = minutes + draw(st.sampled_from([15.0, 120.0, 720.0, 1440.0]))
    answers = draw(st.lists(st.floats(-100, begin + 3000), max_size=8))
    near = draw(st.lists(st.sampled_from(attempts), max_size=5))
    answers += [(a.started_at - START) / timedelta(minutes=1) for a in near]
    return attempts, answers, begin + draw(st.floats(0, 9000)), calls


@given(lives())
@settings(max_examples=200)
def test_states_are_those_of_the_rules(life: tuple[list[CallAttempt], list[float], float, int]) -> None:
    """Written down once more from the rules, occasion by occasion, as an open doc lives through them."""
    attempts, answers, now, calls = life
    found = outcome(attempts, answers, now, calls)
    groups: dict[tuple[int | None, int | None], list[CallAttempt]] = {}
    for one in attempts:
        groups.setdefault((one.run, one.occasion), []).append(one)
    answered: set[int] = set()
    unanswered: list[list[CallAttempt]] = []
    for _, own in sorted(groups.items(), key=lambda item: min(a.started_at for a in item[1])):
        answered |= {a.idx for a in own if a.fault is Fault.OK}
        blamed = [a for a in own if a.idx not in answered and a.fault in THEIRS]
        if len(answered) < calls and blamed:
            unanswered.append(own)
    if len(answered) == calls:
        assert found.state is DocState.SCORED
        return
    assert len(found.occasions) == len(unanswered)
    if not unanswered:
        assert (found.state, found.ours) == (DocState.OPEN, True)
        return
    times = [at(minutes) for minutes in answers]
    closed = False
    seen = 0
    for place, occasion in enumerate(found.occasions, 1):
        own = unanswered[place - 1]
        first, last = min(a.started_at for a in own), max(a.finished_at for a in own)
        seen += any(first - WINDOW <= t <= last + WINDOW for t in times)
        following = found.occasions[place].started_at if place < len(found.occasions) else at(now)
        k = occasion.fault.row.occasions
        old = following - found.occasions[0].started_at >= 72 * HOUR
        closed |= seen >= k or (old and place >= k and any(abs(t - last) <= 24 * HOUR for t in times))
    assert found.state is (DocState.FAILED if closed else DocState.OPEN)


@given(lives(), st.randoms())
@settings(max_examples=60)
def test_the_order_of_facts_does_not_matter(
    life: tuple[list[CallAttempt], list[float], float, int], dice: object
) -> None:
    attempts, answers, now, calls = life
    shuffled = [*attempts]
    dice.shuffle(shuffled)  # type: ignore[attr-defined]
    assert outcome(shuffled, answers[::-1], now, calls) == outcome(attempts, answers, now, calls)


@given(lives(), st.sampled_from(THEIRS))
@settings(max_examples=100)
def test_a_failed_doc_stays_so_until_it_is_answered(
    life: tuple[list[CallAttempt], list[float], float, int], fault: Fault
) -> None:
    attempts, answers, now, calls = life
    if outcome(attempts, answers, now, calls).state is not DocState.FAILED:
        return
    more = [*attempts, attempt(now + 1, fault, run=99)]
    assert outcome(more, answers, now + 2, calls).state is DocState.FAILED
    done = [*more, *(attempt(now + 3, Fault.OK, run=100, call=call) for call in range(calls))]
    assert outcome(done, answers, now + 4, calls).state is DocState.SCORED


@given(lives(), st.floats(0, 30_000))
@settings(max_examples=100)
def test_a_state_holds_as_long_as_it_says(
    life: tuple[list[CallAttempt], list[float], float, int], later: float
) -> None:
    """Without a new fact until the instant it names, and for ever where it names none and nothing comes."""
    attempts, answers, now, calls = life
    found = outcome(attempts, answers, now, calls)
    if found.holds_until is None or at(now + later) < found.holds_until:
        assert outcome(attempts, answers, now + later, calls) == found


@given(lives(), st.floats(0.01, 1))
@settings(max_examples=60)
def test_a_compressed_clock_comes_to_the_same(
    life: tuple[list[CallAttempt], list[float], float, int], factor: float
) -> None:
    attempts, answers, now, calls = life
    clock = DocClock(tuple(o * factor for o in CLOCK.occasions))
    squeezed = [
        replace(
            a,
            started_at=START + (a.started_at - START) * factor,
            finished_at=START + (a.finished_at - START) * factor,
        )
        for a in attempts
    ]
    # beside the instants at which a state changes, where microseconds decide
    slack = timedelta(milliseconds=1)
    edges = [
        abs(abs(at(m) - edge) - WINDOW)
        for m in answers
        for a in attempts
        for edge in (a.started_at, a.finished_at)
    ]
    edges += [abs(abs(at(m) - a.finished_at) - 24 * HOUR) for m in answers for a in attempts]
    edges += [abs(at(now) - a.started_at - 72 * HOUR) for a in attempts]
    edges += [abs(a.started_at - b.started_at - 72 * HOUR) for a in attempts for b in attempts]
    if min(edges, default=slack) < slack:
        return
    usual = outcome(attempts, answers, now, calls)
    quick = outcome(squeezed, [m * factor for m in answers], now * factor, calls, clock, WINDOW * factor)
    assert (quick.state, quick.unreachable, quick.late) == (usual.state, usual.unreachable, usual.late)


@given(
    st.lists(st.floats(0.001, 1e6), min_size=1, max_size=9, unique=True),
    st.floats(0, 1e6),
    st.integers(1, 20),
)
def test_occasions_follow_each_other(minutes: list[float], last: float, begun: int) -> None:
    clock = DocClock.from_minutes([0, *sorted(minutes)])
    for daily in (False, True):
        now, after = (clock.next_occasion(START, n, at(last), daily=daily) for n in (begun, begun + 1))
        assert at(last) < now <= after


# ------------------------------------------------------------------------------------------------- of others


REFUSED = Fault.CLIENT_REQUEST


def peer(
    name: str,
    state: DocState,
    fault: Fault | None = None,
    group: str = "",
    others: bool = True,
    owner: str | None = None,
    occasions: tuple[tuple[Fault, bool], ...] = ((REFUSED, True), (REFUSED, True)),
) -> PeerOutcome:
    seen = tuple(Occasion(START, START, *occasion) for occasion in occasions)
    return PeerOutcome(name, group or name, DocOutcome(state, START, fault, seen), others, owner)


def test_at_most_one_unit_in_ten_may_be_asked_yet() -> None:
    """What three alone were asked they could agree to refuse where they are wrong."""
    three = [peer(name, DocState.FAILED, REFUSED) for name in "abc"]
    assert not is_void(three, unasked=[("d", None)])
    assert is_void(three, unasked=[("a", None)]), "a member of a group that refused it"
    linked = [replace(p, owner="o") if p.supplier == "a" else p for p in three]
    assert is_void(linked, unasked=[("d", "o")]) and not is_void(linked, unasked=[("d", "p")])
    asked = [(name, None) for name in "abcdefghi"]
    assert is_void(three, asked, [("x", None)]) and not is_void(three, asked[1:4], [("x", None)])
    assert not is_void(three, asked, [("x", None), ("y", None)])
    assert is_void(three, asked, [("x", None), ("x", None)]), "of one group"
    assert not is_void(three[:2], asked), "three have to refuse it"


def test_units_are_linked_by_groups_and_owners_also_through_others() -> None:
    placed = {"a": ("g", None), "b": ("g", "o"), "c": ("c", "o"), "d": ("d", "p"), "e": ("e", None)}
    assert linked_units(placed) == [["a", "b", "c"], ["d"], ["e"]]
    chain = {str(n): (f"g{n // 2}", f"o{(n + 1) // 2}") for n in range(50)}
    assert linked_units(chain) == [list(chain)]
    assert linked_units({}) == []


def test_a_doc_is_void_if_three_units_refuse_it_and_nobody_answers() -> None:
    three = [peer(name, DocState.FAILED, REFUSED) for name in "abc"]
    assert is_void(three)
    assert not is_void(three[:2]), "two suppliers"
    assert not is_void([*three, peer("d", DocState.SCORED)]), "one honest answer"
    assert not is_void([replace(p, group="g") for p in three]), "one group"
    assert not is_void([*three[:2], peer("c", DocState.FAILED, Fault.SUPPLIER_HTTP)]), "an other failure"
    assert not is_void([*three[:2], peer("c", DocState.OPEN, REFUSED)]), "not closed yet"
    assert not is_void([*three[:2], peer("c", DocState.FAILED, REFUSED, others=False)]), (
        "answers nothing else"
    )
    assert is_void([replace(p, owner=f"owner of {p.supplier}") for p in three])
    assert not is_void([replace(p, owner="o") for p in three]), "one owner"
    linked = [
        peer("a", DocState.FAILED, REFUSED, owner="x"),
        peer("b", DocState.FAILED, REFUSED, owner="y"),
        peer("c", DocState.FAILED, REFUSED),
        peer("d", DocState.FAILED, REFUSED, group="a", owner="y"),
    ]
    assert is_void(linked[:3]) and not is_void(linked), "a and b are one, as d shows"


@pytest.mark.parametrize(
    "occasions",
    [
        ((REFUSED, False), (REFUSED, False)),  # closed by its age
        ((REFUSED, True), (REFUSED, False)),
        ((Fault.SUPPLIER_HTTP, True), (REFUSED, True)),
        ((Fault.SUPPLIER_HTTP, True), (Fault.SUPPLIER_HTTP, True), (REFUSED, True)),
        (),
    ],
)
def test_what_closed_without_refusals_that_are_witnessed_makes_no_doc_void(
    occasions: tuple[tuple[Fault, bool], ...],
) -> None:
    three = [peer(name, DocState.FAILED, REFUSED, occasions=occasions) for name in "abc"]
    assert not is_void(three)
    mixed = ((REFUSED, True), (Fault.TRANSPORT, True), (REFUSED, True))
    assert is_void([peer(name, DocState.FAILED, REFUSED, occasions=mixed) for name in "abc"])


def test_a_shape_is_refused_where_it_was_never_answered() -> None:
    calls = [("seed", REFUSED), ("plain", Fault.OK), ("plain", REFUSED), ("seed", Fault.SUPPLIER_HTTP)]
    assert refused_shapes(calls) == {"seed"}
    assert refused_shapes([*calls, ("seed", Fault.TRUNCATED)]) == frozenset()
    assert refused_shapes([("odd", Fault.SUPPLIER_HTTP)]) == frozenset()


@pytest.mark.parametrize(
    ("ours", "others", "held"), [(1, 0, False), (2, 9, True), (2, 198, False), (3, 198, True)]
)
def test_one_doc_or_one_in_a_hundred_may_lack_for_our_own_faults(ours: int, others: int, held: bool) -> None:
    assert own_faults_hold_up(ours, others) is held

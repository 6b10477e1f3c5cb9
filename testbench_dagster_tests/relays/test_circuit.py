"""The circuit of a supplier: when it opens, when it is probed, when the supplier is left."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbench_dagster.core.faults import Closing, Fault, Pause
from testbench_dagster.relays.circuit import PATIENCE, Circuit

UNANSWERED = [fault for fault in Fault if not fault.answered]
NEUTRAL = {Pause.PROBE, Pause.STOP}
AVAILABLE = [f for f in UNANSWERED if f.row.available]
ORDINARY = [
    f
    for f in UNANSWERED
    if f.row.pause not in NEUTRAL and f.row.closes is not Closing.REFUSED and f not in AVAILABLE
]


def failing(
    circuit: Circuit, fault: Fault, start: float, told_s: float | None = None, *, alone: bool = False
) -> bool:
    """One attempt of half a second that fails."""
    return circuit.unanswered(fault, start, start + 0.5, told_s, alone=alone)


@pytest.mark.parametrize("fault", ORDINARY)
def test_five_unanswered_in_a_row_open_it_whatever_they_ended_in(fault: Fault) -> None:
    circuit = Circuit(PATIENCE)
    for n in range(4):
        assert not failing(circuit, fault, n) and not circuit.open
    assert not failing(circuit, fault, 4)
    assert circuit.open and circuit.resumes_at == 4.5 + 5.0


@pytest.mark.parametrize("fault", AVAILABLE)
def test_a_burst_of_filtered_docs_is_no_outage(fault: Fault) -> None:
    """The supplier was there each time: nothing waits, however many, whatever wait it names."""
    circuit = Circuit(PATIENCE)
    assert not any(failing(circuit, fault, n, 90.0, alone=True) for n in range(50))
    assert not circuit.open


@pytest.mark.parametrize("fault", AVAILABLE)
def test_a_filtered_doc_is_no_answer_either(fault: Fault) -> None:
    circuit = Circuit(PATIENCE)
    for n in range(4):
        failing(circuit, Fault.TRANSPORT, n)
    failing(circuit, fault, 4)
    assert not circuit.open
    failing(circuit, Fault.TRANSPORT, 5)
    assert circuit.open and circuit.resumes_at == 5.5 + 5.0
    failing(circuit, fault, 10.5)
    assert circuit.open and circuit.resumes_at == 11.0 + 10.0, "a filtered probe waits as any"


def test_an_answer_between_begins_anew_and_one_while_open_closes_it() -> None:
    circuit = Circuit(PATIENCE)
    for n in range(4):
        failing(circuit, Fault.TRANSPORT, n)
    circuit.answered(4.0)
    for n in range(5, 9):
        failing(circuit, Fault.TRANSPORT, n)
        assert not circuit.open
    failing(circuit, Fault.TRANSPORT, 9)
    assert circuit.open
    circuit.answered(14.5)
    assert not circuit.open and circuit.waited_s == 5.0


def test_a_burst_counts_once() -> None:
    """Two hundred in flight fail together: the supplier restarts, it is not gone."""
    circuit = Circuit(PATIENCE)
    for n in range(200):
        circuit.unanswered(Fault.UNAVAILABLE, 0.0, 1.0 + n / 1000, None, alone=False)
    assert not circuit.open
    for start in (1.0, 2.0, 3.0):
        failing(circuit, Fault.UNAVAILABLE, start)
        assert not circuit.open
    failing(circuit, Fault.UNAVAILABLE, 4.0)
    assert circuit.open


def probes(circuit: Circuit, fault: Fault, *, alone: bool) -> list[float]:
    """Waits before each probe, until the supplier is left; probes take no time."""
    for n in range(5):
        circuit.unanswered(fault, n / 100, n / 100, None, alone=alone)
    now, waits = 0.04, []
    while True:
        waits.append(circuit.resumes_at - now)
        now = circuit.resumes_at
        if circuit.unanswered(fault, now, now, None, alone=alone):
            return waits


def test_pauses_grow_to_a_minute_and_the_supplier_is_left_after_ten() -> None:
    waits = probes(Circuit(PATIENCE), Fault.TRANSPORT, alone=False)
    assert waits == pytest.approx([5, 10, 20, 40] + [60] * 8 + [45])
    assert sum(waits) == pytest.approx(600)


def test_alone_it_is_left_after_a_minute() -> None:
    assert probes(Circuit(PATIENCE), Fault.TRANSPORT, alone=True) == pytest.approx([5, 10, 20, 25])
    assert probes(Circuit(PATIENCE), Fault.RATE_LIMITED, alone=True) == pytest.approx([5, 10, 20, 25])


def test_who_answered_and_was_last_told_429_is_waited_for_though_alone() -> None:
    circuit = Circuit(PATIENCE)
    circuit.answered(0.0)
    assert sum(probes(circuit, Fault.RATE_LIMITED, alone=True)) == pytest.approx(600)
    other = Circuit(PATIENCE)
    other.answered(0.0)
    assert sum(probes(other, Fault.UNAVAILABLE, alone=True)) == pytest.approx(60)


def test_all_waiting_of_a_turn_is_bounded() -> None:
    """It answers one probe after nine minutes, again and again: the turn ends after an hour of waiting."""
    circuit, now = Circuit(PATIENCE), 0.0
    while True:
        left = False
        for _ in range(5):
            left = left or circuit.unanswered(Fault.TRANSPORT, now, now, None, alone=False)
        if left:
            break
        now += 540.0
        circuit.answered(now)
    assert circuit.waited_s == 7 * 540.0 and circuit.waited_s >= PATIENCE.total_s


@pytest.mark.parametrize("fault", [f for f in Fault if f.row.pause is Pause.PROBE])
def test_a_refused_key_is_probed_at_once_and_three_unanswered_end_the_turn(fault: Fault) -> None:
    circuit = Circuit(PATIENCE)
    circuit.answered(0.0)
    assert not failing(circuit, fault, 1.0)
    assert circuit.open and circuit.probing and circuit.resumes_at == 1.5
    assert [failing(circuit, fault, at) for at in (1.5, 2.0, 2.5)] == [False, False, True]


def test_an_answered_probe_shows_that_the_key_is_good() -> None:
    circuit = Circuit(PATIENCE)
    failing(circuit, Fault.CREDENTIALS, 1.0)
    failing(circuit, Fault.CREDENTIALS, 1.5)
    circuit.answered(2.0)
    assert not circuit.open
    failing(circuit, Fault.CREDENTIALS, 3.0)
    assert [failing(circuit, Fault.CREDENTIALS, at) for at in (3.5, 4.0)] == [False, False]


def test_what_was_in_flight_when_it_opened_is_no_probe() -> None:
    circuit = Circuit(PATIENCE)
    failing(circuit, Fault.QUOTA, 1.0)
    for n in range(9):
        assert not circuit.unanswered(Fault.QUOTA, 1.2, 2.0 + n / 10, None, alone=False)


def test_a_supplier_that_refuses_every_request_is_left_at_once_unless_it_answered_some_before() -> None:
    refused = Fault.CLIENT_REQUEST
    new = Circuit(PATIENCE)
    assert [failing(new, refused, n) for n in range(5)] == [False] * 4 + [True]
    known = Circuit(PATIENCE, proven=True)
    assert not any(failing(known, refused, n) for n in range(5)) and known.open
    mixed = Circuit(PATIENCE)
    failing(mixed, Fault.SUPPLIER_HTTP, 0)
    assert not any(failing(mixed, refused, n) for n in range(1, 5)) and mixed.open


def test_answers_that_show_nothing_to_score_open_nothing_where_others_do() -> None:
    """The supplier is well; but where it never answered otherwise, asking on is in vain."""
    new = Circuit(PATIENCE)
    assert [failing(new, Fault.UNSUPPORTED, n) for n in range(5)] == [False] * 4 + [True]
    known = Circuit(PATIENCE, proven=True)
    assert not any(failing(known, Fault.UNSUPPORTED, n) for n in range(50)) and not known.open
    failing(known, Fault.QUOTA, 50)
    assert known.open and not failing(known, Fault.UNSUPPORTED, 51) and not known.open


def test_faults_of_our_own_open_nothing_and_end_the_turn_after_five() -> None:
    circuit = Circuit(PATIENCE)
    assert [failing(circuit, Fault.INTERNAL, n) for n in range(4)] == [False] * 4
    circuit.answered(4.0)
    assert [failing(circuit, Fault.INTERNAL, 5 + n) for n in range(5)] == [False] * 4 + [True]
    assert not circuit.open


def test_a_wait_that_was_told_twice_is_kept_by_all_its_relays() -> None:
    circuit = Circuit(PATIENCE)
    failing(circuit, Fault.RATE_LIMITED, 0.0, 7.0)
    assert not circuit.open, "the first concerns its relay alone"
    failing(circuit, Fault.RATE_LIMITED, 1.0, 7.0)
    assert circuit.open and circuit.resumes_at == 8.5
    failing(circuit, Fault.RATE_LIMITED, 8.5, 1.0)
    assert circuit.resumes_at == 9.0 + 5.0, "an unanswered probe waits as always"
    failing(circuit, Fault.RATE_LIMITED, 14.0, 33.0)
    assert circuit.resumes_at == 14.5 + 33.0


def test_a_wait_longer_than_patience_ends_the_turn_at_once() -> None:
    circuit = Circuit(PATIENCE)
    assert failing(circuit, Fault.RATE_LIMITED, 0.0, 601.0)
    assert failing(Circuit(PATIENCE), Fault.UNAVAILABLE, 0.0, 61.0, alone=True)
    patient = Circuit(PATIENCE)
    assert not failing(patient, Fault.RATE_LIMITED, 0.0, 599.0)
    assert patient.open and patient.resumes_at == 599.5
    assert patient.hurry(1.0, alone=True), "it may not be asked earlier, and not be waited for"


def test_once_alone_the_next_probe_comes_forward() -> None:
    circuit = Circuit(PATIENCE)
    for n in range(5):
        circuit.unanswered(Fault.TRANSPORT, 0.0 if n == 0 else n / 10, n / 10, None, alone=False)
    for at in (5.4, 15.4, 35.4):
        assert not circuit.unanswered(Fault.TRANSPORT, at, at, None, alone=False)
    assert circuit.resumes_at == pytest.approx(75.4)
    assert not circuit.hurry(40.0, alone=True)
    assert circuit.resumes_at == pytest.approx(60.4)
    assert circuit.hurry(61.0, alone=True)


@dataclass
class Sent:
    """An attempt as drawn: how it ends, how long it takes, what it asks for."""

    fault: Fault
    span_s: float
    told_s: float | None


ATTEMPTS = st.builds(
    Sent,
    st.sampled_from([Fault.OK, Fault.OK, *UNANSWERED]),
    st.floats(0, 150),
    st.none() | st.floats(0, 3600),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(ATTEMPTS, min_size=1, max_size=60), st.booleans(), st.booleans())
def test_a_turn_always_ends_within_its_patience(
    attempts: list[Sent], alone: bool, always_the_same: bool
) -> None:
    """Whatever a supplier does, one attempt after the other: waiting is bounded, and what is told is kept."""
    circuit, now, told_until = Circuit(PATIENCE), 0.0, -math.inf
    most = max(sent.span_s for sent in attempts)
    script = attempts * 200 if always_the_same else attempts + [replace(attempts[-1])] * 2000
    for sent in script:
        if circuit.open:
            assert circuit.resumes_at >= told_until, "earlier than it asked for"
            now = max(now, circuit.resumes_at)
        began, now = now, now + sent.span_s
        if sent.fault.answered:
            circuit.answered(now)
            assert not circuit.open
            told_until = -math.inf
            continue
        if circuit.unanswered(sent.fault, began, now, sent.told_s, alone=alone):
            break
        if circuit.open:
            if sent.fault.row.pause is not Pause.STOP:
                told_until = -math.inf if sent.told_s is None else now + sent.told_s
            assert circuit.resumes_at <= now + PATIENCE.silence_s
            assert circuit.left_s(now, alone=alone) > 0
    else:
        assert any(sent.fault.row.available for sent in attempts), "never there, and still waited for"
    circuit.finish(now)
    assert circuit.waited_s <= PATIENCE.total_s + most

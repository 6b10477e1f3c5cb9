"""Paces: what several processes together send within any minute and any day, by a simulated clock."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbench_dagster.coordination.pace import SPACING, DayLedger, PaceLedger
from testbench_dagster.core.pace import Pace, estimated_tokens
from testbench_dagster.relays.pace import Decision, Pacing
from testbench_dagster.stores.documents.collections import BUDGETS, PACES
from testbench_dagster.stores.documents.sqlite import SqliteDocuments

NOON = datetime(2026, 3, 4, 12, 30, tzinfo=UTC).timestamp()
MINUTE, DAY = 60.0, 86_400.0


class Clock:
    """A time that the test moves."""

    def __init__(self, now: float = NOON) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqliteDocuments]:
    made = SqliteDocuments(tmp_path_factory.mktemp("paces") / "documents.sqlite")
    yield made
    made.close()


@pytest.fixture
def clean(documents: SqliteDocuments) -> SqliteDocuments:
    forget(documents)
    return documents


def forget(documents: SqliteDocuments) -> None:
    for collection in (PACES, BUDGETS):
        for document in list(documents.find(collection)):
            documents.purge(collection, {"_id": document["_id"]})


def pacing(documents: SqliteDocuments, clock: Clock) -> Pacing:
    return Pacing(PaceLedger(documents, clock=clock), DayLedger(documents))


def send(own: Pacing, pace: Pace, tokens: int = 0) -> int | None:
    """Send one request if it may be sent now; where its tokens are counted, None if it may not."""
    for _ in range(3):
        turn = own.take(pace, tokens)
        if turn.decision is Decision.GRANTED:
            return turn.second
        if turn.decision is not Decision.UNKNOWN:
            return None
        own.refill(pace, tokens, 5)
    raise AssertionError("asking the store changes nothing")


def most_within(span: float, sent: list[tuple[float, int]]) -> int:
    """The most that any span of time holds of what was sent, ends included."""
    return max((sum(n for at, n in sent if first <= at <= first + span) for first, _ in sent), default=0)


STEPS = st.lists(
    st.tuples(
        st.integers(0, 2),  # whose process
        st.floats(0, 4, allow_nan=False),  # seconds that pass before
        st.integers(0, 300),  # tokens
        st.integers(-300, 0),  # what they came to less
    ),
    min_size=1,
    max_size=120,
)


@settings(deadline=None, max_examples=40)
@given(steps=STEPS, requests=st.integers(1, 90), tokens=st.integers(300, 4000))
def test_no_minute_holds_more_than_the_pace(documents, steps, requests, tokens):
    forget(documents)
    clock, pace = Clock(), Pace("a", requests, tokens)
    processes = [pacing(documents, clock) for _ in range(3)]
    sent: list[tuple[float, int]] = []
    costs: list[tuple[float, int]] = []
    for place, passes, cost, less in steps:
        clock.now += passes
        second = send(processes[place], pace, cost)
        if second is not None:
            came_to = max(0, cost + less)
            processes[place].correct(pace, second, came_to - cost)
            sent.append((clock.now, 1))
            costs.append((clock.now, came_to))
    assert most_within(MINUTE, sent) <= requests
    assert most_within(MINUTE, costs) <= tokens


@settings(deadline=None, max_examples=25)
@given(
    starts=st.integers(0, 3 * 3600),
    per_day=st.integers(1, 60),
    gaps=st.lists(st.floats(60, 5 * 3600), min_size=5, max_size=60),
)
def test_no_24_hours_hold_more_than_a_day(documents, starts, per_day, gaps):
    forget(documents)
    clock, pace = Clock(NOON + starts), Pace("a", requests_per_day=per_day)
    processes = [pacing(documents, clock) for _ in range(2)]
    sent: list[tuple[float, int]] = []
    for number, gap in enumerate(gaps):
        clock.now += gap
        for _ in range(per_day // 3 + 1):
            if send(processes[number % 2], pace) is not None:
                sent.append((clock.now, 1))
    assert most_within(DAY, sent) <= per_day
    assert sent


def test_a_pace_is_used_in_full(clean):
    clock, pace = Clock(), Pace("a", 20)
    processes = [pacing(clean, clock) for _ in range(2)]
    sent = 0
    for tick in range(10 * 60 * 10):  # ten minutes, looked at ten times a second
        clock.now = NOON + tick / 10
        sent += send(processes[tick % 2], pace) is not None
    assert math.floor(200 / SPACING) - 4 <= sent <= 200


def test_many_requests_a_minute_are_granted_together(clean):
    clock, pace = Clock(), Pace("a", 6000)
    ledger = PaceLedger(clean, clock=clock)
    granted = ledger.grant(pace, 1000, 0)
    assert len(granted.slots) == int(1 / (SPACING / 100))
    assert granted.slots[-1] - granted.slots[0] < 1
    following = ledger.grant(pace, 1, 0)
    assert following.slots[0] == pytest.approx(granted.slots[-1] + SPACING / 100)


def test_what_was_not_used_in_time_is_lost(clean):
    clock, pace = Clock(), Pace("a", 60)
    own = pacing(clean, clock)
    own.refill(pace, 0, 5)
    clock.now += 3 * own.late_s
    assert own.take(pace, 0).decision is Decision.UNKNOWN


def test_tokens_are_corrected_by_what_answers_say(clean):
    clock, pace = Clock(), Pace("a", tokens_per_minute=1000)
    own = pacing(clean, clock)
    seconds = [send(own, pace, 500) for _ in range(3)]
    assert seconds[2] is None and None not in seconds[:2]
    own.correct(pace, seconds[0], -450)
    assert send(own, pace, 400) is not None
    assert send(own, pace, 100) is None
    clock.now += 30
    assert send(own, pace, 100) is None
    clock.now += 35
    assert send(own, pace, 900) is not None


def test_a_request_larger_than_a_minute_has_one_of_its_own(clean):
    clock, pace = Clock(), Pace("a", tokens_per_minute=1000)
    request = {"type": "generate_until", "prompt": "x" * 40_000, "generation": {"max_gen_toks": 10}}
    assert estimated_tokens(request) == 10_010
    assert pace.tokens_of(request) == 1000
    own = pacing(clean, clock)
    assert send(own, pace, 1000) is not None
    clock.now += 59
    assert send(own, pace, 1) is None
    clock.now += 6
    assert send(own, pace, 1000) is not None


def test_a_process_that_dies_loses_no_more_than_it_was_granted(clean):
    clock, pace = Clock(), Pace("a", 20, requests_per_day=200)
    dead = pacing(clean, clock)
    assert send(dead, pace) is not None
    days = DayLedger(clean)
    assert days.left(pace, datetime.fromtimestamp(NOON, UTC)) == 196  # a fiftieth was granted
    other = pacing(clean, clock)
    assert send(other, pace) is None  # not within the gap
    clock.now += 60 * SPACING / 20 + 0.01
    assert send(other, pace) is not None
    other.close()
    assert days.left(pace, datetime.fromtimestamp(NOON, UTC)) == 195


def test_a_day_that_is_used_up_says_until_when(clean):
    clock, pace = Clock(), Pace("a", requests_per_day=5)
    own = pacing(clean, clock)
    assert [send(own, pace) is not None for _ in range(6)] == [True] * 5 + [False]
    turn = own.take(pace, 0)
    until = datetime.fromtimestamp(NOON, UTC).replace(minute=0) + timedelta(hours=25)
    assert turn.decision is Decision.USED_UP
    assert datetime.fromtimestamp(turn.at, UTC) == until
    clock.now = until.timestamp() - 1
    assert send(own, pace) is None
    clock.now = until.timestamp()
    assert send(own, pace) is not None


def test_a_clock_that_was_set_back_does_not_stop_a_pace_for_good(clean):
    clock, pace = Clock(), Pace("a", 60)
    own = pacing(clean, clock)
    assert send(own, pace) is not None
    clock.now -= DAY
    other = pacing(clean, clock)
    assert send(other, pace) is None
    clock.now += 61
    assert send(other, pace) is not None


@pytest.mark.parametrize(
    ("request_", "tokens"),
    [
        ({"type": "generate_until", "messages": [{"role": "user", "content": "abcdefgh"}]}, 2 + 256),
        (
            {
                "type": "generate_until",
                "messages": [{"role": "user", "content": [{"type": "text", "text": "abcde"}]}],
                "generation": {"max_gen_toks": 64},
            },
            2 + 64,
        ),
        ({"type": "generate_until", "prompt": "abc", "generation": {"max_tokens": 7}}, 1 + 7),
        ({"type": "loglikelihood", "context": "abcd", "continuation": "efg"}, 2 + 1),
        ({"type": "get", "path": "/pokt/config"}, 0),
        ({"type": "generate_until", "prompt": "", "generation": {"max_tokens": "many"}}, 256),
    ],
)
def test_tokens_are_estimated_from_characters_and_the_limit(request_, tokens):
    assert estimated_tokens(request_) == tokens


def test_a_budget_for_thoughts_counts():
    request = {"type": "generate_until", "prompt": "", "generation": {"max_gen_toks": 10}}
    assert estimated_tokens(request, 16_384) == 16_394


def test_a_pace_in_words():
    assert Pace("a", 20, 40_000, 200).words == "20 requests a minute, 40,000 tokens a minute, 200 a day"
    assert Pace("a", requests_per_day=50).words == "50 requests a day"


def test_how_long_further_requests_take(clean):
    clock, pace = Clock(), Pace("a", 20, 1000)
    own, other = pacing(clean, clock), pacing(clean, clock)
    assert own.wait_s(pace, 100) == pytest.approx(100 * 60 * SPACING / 20)
    assert own.wait_s(Pace("b", tokens_per_minute=1000), 100) is None
    assert own.wait_s(Pace("c", requests_per_day=1000), 100) is None
    while clock.now < NOON + 120:  # two share it
        for one in (own, other):
            send(one, pace, 10)
        clock.now += 0.5
    assert own.wait_s(pace, 100) == pytest.approx(2 * 100 * 60 * SPACING / 20, rel=0.2)

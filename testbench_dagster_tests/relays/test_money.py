"""Money: alone, and as the engine keeps to it over a real ledger."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbench_dagster.coordination.budgets import BudgetLedger
from testbench_dagster.coordination.pace import DayLedger, PaceLedger
from testbench_dagster.core.faults import Fault
from testbench_dagster.core.pace import Pace
from testbench_dagster.core.price import Price, from_micros, in_micros
from testbench_dagster.core.quota import FixedQuota
from testbench_dagster.core.relay import Attempt, Endpoint, Relay
from testbench_dagster.core.token_bounds import most_tokens
from testbench_dagster.relays.money import (
    Decision,
    MoneyQuota,
    Reservation,
    charge_of,
    estimated_account,
    money_account,
)
from testbench_dagster.relays.pace import Pacing
from testbench_dagster.stores.documents.collections import BUDGETS
from testbench_dagster.stores.documents.sqlite import SqliteDocuments
from testbench_dagster_tests.endpoints import relay
from testbench_dagster_tests.relays.quick import run_relays
from testbench_dagster_tests.relays.test_engine import Scripted, Sink, some, target
from testbench_dagster_tests.relays.test_quotas import DAY, NOON, Clock

PRICE = Price(2.0, 10.0)
A, B = "a@test", "b@test"
NEEDED = PRICE.micros_of(*most_tokens(relay(0).request, target().generation))


@pytest.fixture
def documents(tmp_path: Path) -> Iterator[SqliteDocuments]:
    made = SqliteDocuments(tmp_path / "documents.sqlite")
    yield made
    made.close()


@pytest.fixture
def ledger(documents: SqliteDocuments) -> BudgetLedger:
    return BudgetLedger(documents)


def attempt(
    fault: Fault = Fault.OK,
    tokens: tuple[int | None, int | None] = (None, None),
    text: str | None = None,
    status: int | None = 200,
) -> Attempt:
    now = datetime.now(UTC)
    return Attempt(
        fault, now, now, 1.0, text=text, status=status, prompt_tokens=tokens[0], completion_tokens=tokens[1]
    )


def granted(ledger: BudgetLedger, service: str = "test", day: datetime = DAY) -> int:
    return ledger.spent(money_account(service), day) or 0


def reserved(money: MoneyQuota, endpoint: Endpoint, asked: Relay) -> Reservation | None:
    """Reserve, asking the ledger where it takes that; None where it is refused or has to wait."""
    while (turn := money.reserve(endpoint, asked)).decision is Decision.UNKNOWN:
        money.refill(endpoint, turn.needed)
    return turn.reserved


# ------------------------------------------------------------------------------------------------- amounts


def test_amounts_are_whole_and_exact():
    assert Price(0.15, 0.60).micros_of(1_000_000, 1_000_000) == 750_000
    assert Price(0.1, 0.2).micros_of(3, 0) == 1, "a part of a millionth is one"
    assert Price(0.1, 0.2).micros_of(10, 5) == 2, "0.1 is not a little more than a tenth"
    assert Price(1e9, 1e9).micros_of(10**6, 10**6) == 2 * 10**15
    assert in_micros(0.3) == 300_000 and in_micros(1.9999999) == 1_999_999, "a cap is never more than said"
    assert from_micros(1_250_000) == 1.25


@given(st.floats(0, 1e9), st.floats(0, 1e9), st.integers(0, 10**9), st.integers(0, 10**9))
def test_a_cost_is_never_less_than_what_floats_say(prompt, completion, asked, answered):
    price = Price(prompt, completion)
    exact = price.of(asked, answered) * 1e6
    assert price.micros_of(asked, answered) >= exact * (1 - 1e-12)
    assert price.micros_of(asked, answered) <= exact * (1 + 1e-12) + 1


# ----------------------------------------------------------------------------------- what a relay came to


@pytest.mark.parametrize(
    ("told", "micros", "estimated"),
    [
        (attempt(tokens=(100, 5), text="x"), 250, False),
        (attempt(tokens=(0, 0), text="x"), 0, False),
        (attempt(tokens=(10**12, 10**12), text="x"), NEEDED, False),
        (attempt(tokens=(-5, -(10**12)), text="four"), 3 * 2 + 10, True),
        (attempt(tokens=(-(10**12), 3), text="four"), 3 * 2 + 30, True),
        (attempt(text="four" * 2), 3 * 2 + 20, True),
        (attempt(text="x" * 10**6), NEEDED, True),
        (attempt(Fault.RATE_LIMITED, status=429), 0, False),
        (attempt(Fault.SUPPLIER_HTTP, status=500), 0, False),
        (attempt(Fault.SUPPLIER_HTTP, tokens=(100, 5), status=500), 250, False),
        (attempt(Fault.TRANSPORT, status=None), 0, False),
        (attempt(Fault.SUPPLIER_TIMEOUT, status=None), NEEDED, True),
        (attempt(Fault.SUPPLIER_PROTOCOL, status=200), NEEDED, True),
    ],
)
def test_what_a_supplier_says_is_believed_within_what_was_reserved(told, micros, estimated):
    asked = relay(1)  # "question 1": three tokens by its characters
    assert charge_of(PRICE, asked, told, NEEDED) == (micros, estimated)


@settings(max_examples=50)
@given(
    st.sampled_from(list(Fault)),
    st.none() | st.integers(-(10**18), 10**18),
    st.none() | st.integers(-(10**18), 10**18),
    st.none() | st.text(max_size=9),
    st.none() | st.integers(100, 599),
    st.integers(0, 10**9),
)
def test_no_word_of_a_supplier_frees_or_takes_more_than_was_reserved(fault, asked, said, text, status, most):
    came_to = charge_of(PRICE, relay(0), attempt(fault, (asked, said), text, status), most)
    assert 0 <= came_to.micros <= most


# --------------------------------------------------------------------------------------- over the ledger


def test_what_is_not_needed_is_spent_again(ledger):
    """A budget of two worst cases pays for as many relays as really fit into it."""
    money = MoneyQuota(ledger, lambda _: 2 * NEEDED, {A: PRICE}, clock=Clock())
    sent = 0
    while (held := reserved(money, target(A), relay(sent))) is not None:
        money.charge(held, relay(sent), attempt(tokens=(100, 5), text="x"))
        sent += 1
    assert sent * 250 > 2 * NEEDED - NEEDED - 250, "no more than a worst case is left"
    money.close()
    assert granted(ledger) == sent * 250
    assert money.refused() == {A: NEEDED}


def test_who_has_no_price_or_whose_service_no_budget_costs_nothing(ledger):
    money = MoneyQuota(ledger, {"test": 0}.get, {A: PRICE, "a@free": PRICE, "z@test": Price(0, 0)})
    assert money.reserve(target(B), relay(0)) == money.reserve(target("a@free"), relay(0))
    assert money.reserve(target("z@test"), relay(0)).decision is Decision.GRANTED
    assert money.reserve(target(B), relay(0)).reserved is None
    assert reserved(money, target(A), relay(0)) is None
    assert money.refused() == {A: NEEDED}


def test_what_is_in_flight_is_waited_for(ledger):
    money = MoneyQuota(ledger, lambda _: NEEDED, {A: PRICE, B: PRICE}, clock=Clock())
    held = reserved(money, target(A), relay(0))
    assert held is not None
    assert money.reserve(target(B), relay(1)).decision is Decision.UNKNOWN
    money.refill(target(B), NEEDED)
    assert money.reserve(target(B), relay(1)).decision is Decision.LATER
    assert money.refused() == {}
    money.release(held)
    assert money.reserve(target(B), relay(1)).decision is Decision.GRANTED


def test_a_death_costs_what_was_in_flight_and_a_chunk(ledger):
    cap = 1000 * NEEDED
    money = MoneyQuota(ledger, lambda _: cap, {A: PRICE}, clock=Clock())
    flying = [reserved(money, target(A), relay(n % 10)) for n in range(20)]
    assert None not in flying
    assert 20 * NEEDED <= granted(ledger) <= (20 + 16) * NEEDED
    heir = MoneyQuota(ledger, lambda _: cap, {A: PRICE}, clock=Clock())
    n = 0
    while reserved(heir, target(A), relay(n % 10)) is not None:
        n += 1
    assert n == 1000 - 32, "a chunk is lost with the process that held it"
    assert granted(ledger) == cap


def test_a_new_day_has_its_own_money_and_the_old_one_gets_its_rest_back(ledger):
    clock = Clock()
    money = MoneyQuota(ledger, lambda _: 3 * NEEDED, {A: PRICE}, clock=clock)
    held = reserved(money, target(A), relay(0))
    assert held is not None
    clock.now = NOON + timedelta(days=1)
    later = reserved(money, target(A), relay(1))
    assert later is not None and later.start == DAY + timedelta(days=1)
    money.charge(held, relay(0), attempt(tokens=(100, 5), text="x"))
    money.charge(later, relay(1), attempt(text="four"))
    money.close()
    assert granted(ledger) == 250
    assert granted(ledger, day=DAY + timedelta(days=1)) == 3 * 2 + 10
    assert ledger.spent(estimated_account("test"), DAY + timedelta(days=1)) == 3 * 2 + 10
    assert ledger.spent(estimated_account("test"), DAY) is None


def test_nothing_is_granted_after_the_end(ledger):
    money = MoneyQuota(ledger, lambda _: 9 * NEEDED, {A: PRICE}, clock=Clock())
    held = reserved(money, target(A), relay(0))
    assert held is not None
    money.close()
    assert reserved(money, target(A), relay(1)) is None
    assert granted(ledger) == NEEDED, "what is in flight stays spent"


def test_a_day_opens_with_what_it_cost_before(ledger):
    money = MoneyQuota(
        ledger, lambda _: 2 * NEEDED, {A: PRICE}, spent_before=lambda *_: 2 * NEEDED - 1, clock=Clock()
    )
    assert reserved(money, target(A), relay(0)) is None
    money.close()
    assert granted(ledger) == 2 * NEEDED - 1


def test_ledgers_of_earlier_versions_are_read_and_relays_are_not_money(documents, ledger):
    """Documents as they were written before there were budgets of money."""
    old = {"_id": "x", "account": "service:test", "period": DAY, "granted": 7}
    documents.upsert(BUDGETS, [old])
    money = MoneyQuota(ledger, lambda _: NEEDED, {A: PRICE}, clock=Clock())
    assert reserved(money, target(A), relay(0)) is not None
    assert documents.get(BUDGETS, "x") == old


steps = st.lists(
    st.tuples(
        st.sampled_from(["reserve", "charge", "release", "later", "die"]),
        st.integers(0, 1),  # which process
        st.integers(0, 3),  # which supplier
        st.integers(-(10**6), 10**6),  # what it says of its tokens
    ),
    max_size=40,
)


@settings(deadline=None, max_examples=25)
@given(steps, st.integers(0, 12 * NEEDED))
def test_the_books_balance_whatever_happens(tmp_path_factory, steps, cap):
    """At every moment what all processes reserved, spent and hold is what was granted, and within the cap."""
    documents = SqliteDocuments(tmp_path_factory.mktemp("ledger") / "documents.sqlite")
    ledger, clock = BudgetLedger(documents), Clock()
    prices = {f"{n}@test": Price(n, 2.5 * n) for n in range(4)}

    def process() -> MoneyQuota:
        return MoneyQuota(ledger, lambda _: cap, prices, clock=clock)

    quotas, flying = [process(), process()], [[], []]
    spent = lost = 0  # charged, and what dead processes held
    for what, who, n, said in steps:
        key, money = f"{n}@test", quotas[who]
        if what == "reserve":
            held = reserved(money, target(key), relay(said % 7, key))
            if held is not None:
                flying[who].append(held)
        elif what == "die":
            # a power cut: what both processes held, in flight or not, stays spent
            quotas, flying = [process(), process()], [[], []]
            lost = granted(ledger) - spent
        elif flying[who]:
            held = flying[who].pop()
            if what == "release":
                money.release(held)
            else:
                told = attempt(tokens=(said, said * 2), text="four")
                before = charge_of(held.price, relay(0), told, held.micros).micros
                money.charge(held, relay(0), told)
                spent += before
        in_flight = sum(one.micros for side in flying for one in side)
        assert spent + in_flight + lost <= granted(ledger) <= cap
    for money in quotas:
        money.close()
    in_flight = sum(one.micros for side in flying for one in side)
    assert granted(ledger) == spent + in_flight + lost
    documents.close()


# ------------------------------------------------------------------------------------------ in the engine


class Metered(Scripted):
    """A transport whose answers report tokens: ``usage[supplier]`` in turn, the last one again and again."""

    def __init__(self, usage: dict[str, list[tuple[int | None, int | None]]], **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        self.usage = {key: list(told) for key, told in usage.items()}
        self.costs: list[int] = []
        self.prices: dict[str, Price] = {}

    async def send(self, endpoint: Endpoint, relay: Relay) -> Attempt:
        made = await super().send(endpoint, relay)
        told = self.usage.get(endpoint.supplier)
        if made.fault.answered and told:
            made.prompt_tokens, made.completion_tokens = told.pop(0) if len(told) > 1 else told[0]
        made.text, made.status = "four", 200 if made.fault.answered else 429
        if endpoint.supplier in self.prices:
            most = self.prices[endpoint.supplier].micros_of(*most_tokens(relay.request, endpoint.generation))
            self.costs.append(charge_of(self.prices[endpoint.supplier], relay, made, most).micros)
        return made


reports = st.tuples(
    st.none() | st.integers(-(10**12), 10**12) | st.integers(0, 200),
    st.none() | st.integers(-(10**12), 10**12) | st.integers(0, 20),
)


@settings(deadline=None, max_examples=12)
@given(
    counts=st.lists(st.integers(0, 25), min_size=1, max_size=4),
    usage=st.lists(st.lists(reports, min_size=1, max_size=4), min_size=4, max_size=4),
    cap=st.integers(0, 20 * NEEDED),
    faults=st.lists(st.sampled_from([Fault.OK, Fault.RATE_LIMITED]), max_size=3),
    relays=st.none() | st.integers(0, 40),
    most=st.none() | st.integers(0, 40),
    slots=st.integers(1, 8),
)
def test_the_cap_is_hard_and_what_is_spent_is_what_was_sent(
    tmp_path_factory, counts, usage, cap, faults, relays, most, slots
):
    documents = SqliteDocuments(tmp_path_factory.mktemp("ledger") / "documents.sqlite")
    ledger = BudgetLedger(documents)
    names = [f"{n}@test" for n in range(len(counts))]
    prices = {name: Price(1.0 + n, 3.0) for n, name in enumerate(names) if n != 3}
    transport = Metered(dict(zip(names, usage, strict=False)), faults={names[0]: faults})
    transport.prices = prices
    money = MoneyQuota(ledger, lambda _: cap, prices, clock=Clock())
    work = [
        (target(name, retries=1, start_in_flight=4), iter(some(count, name)))
        for name, count in zip(names, counts, strict=True)
    ]
    quota = None if relays is None else FixedQuota({"test": relays})
    report = run_relays(
        work, Sink(), transport=transport, max_in_flight=slots, quota=quota, max_relays=most, money=money
    )
    money.close()
    assert sum(transport.costs) == granted(ledger) <= cap
    assert report.total.relays == sum(counts)
    assert set(report.out_of_money) <= set(prices)
    assert dict(money.refused()).keys() >= set(report.out_of_money)
    if most is None and relays is None:  # nothing is left unsent but by who ran out of money
        assert {key for key, own in report.suppliers.items() if own.unsent} <= set(report.out_of_money)
        for key in report.out_of_money:
            assert cap - granted(ledger) < money.refused()[key], "there was enough left for it"
    documents.close()


def test_a_supplier_that_reports_absurd_usage_costs_no_more_than_its_relays_can(ledger):
    """It uses up its own part; the others go on, as a relay of it takes no more than was reserved."""
    cap = 60 * NEEDED
    money = MoneyQuota(ledger, lambda _: cap, {A: PRICE, B: PRICE}, clock=Clock())
    transport = Metered({A: [(10**12, 10**12)], B: [(20, 2)]})
    work = [(target(name), some(40, name)) for name in (A, B)]
    report = run_relays(work, Sink(), transport=transport, money=money)
    money.close()
    assert report.total.unsent == 0 and report.out_of_money == ()
    worst = sum(PRICE.micros_of(*most_tokens(one.request, target().generation)) for one in some(40, A))
    assert granted(ledger) == worst + 40 * 60


def test_who_runs_out_of_money_leaves_its_docs_to_the_next_run_and_the_others_go_on(ledger):
    money = MoneyQuota(ledger, lambda _: 5 * NEEDED, {A: PRICE}, clock=Clock())
    transport = Metered({A: [(10**9, 10**9)]})
    work = [(target(A), some(30, A)), (target(B), some(30, B))]
    report = run_relays(work, Sink(), transport=transport, money=money)
    sent = {key: (counts.sent, counts.unsent) for key, counts in report.suppliers.items()}
    assert sent == {A: (5, 25), B: (30, 0)}
    assert report.out_of_money == (A,) and report.lanes[A].fault is None
    assert report.total.abandoned == 0


def test_retries_are_paid_for_and_a_used_up_budget_ends_a_run_that_waits_for_them(ledger):
    money = MoneyQuota(ledger, lambda _: 2 * NEEDED, {A: PRICE}, clock=Clock())
    transport = Scripted({A: [Fault.SUPPLIER_PROTOCOL] * 9})
    report = run_relays([(target(retries=9), some(2))], Sink(), transport=transport, money=money)
    assert report.total.sent == 2 and report.out_of_money == (A,)
    assert (report.total.still_due, report.total.unsent) in ((2, 0), (1, 1))


def test_who_waits_for_its_pace_reserves_nothing_meanwhile(documents, ledger):
    """Three suppliers at one pace, one at none, and money for two relays at a time: nobody waits for ever."""
    pacing = Pacing(PaceLedger(documents, minute_s=0.2), DayLedger(documents))
    names = [f"{n}@test" for n in range(4)]
    prices = dict.fromkeys(names, PRICE)
    cap = 2 * NEEDED + 4 * 8 * 60
    money = MoneyQuota(ledger, lambda _: cap, prices, clock=Clock())
    transport = Metered({name: [(20, 2)] for name in names})
    transport.prices = prices
    pace = Pace("key", requests_per_minute=60)
    work = [(replace(target(n), pace=pace) if n != names[3] else target(n), some(8, n)) for n in names]
    report = run_relays(work, Sink(), transport=transport, pacing=pacing, money=money)
    money.close()
    pacing.close()
    assert report.total.final == 32 and report.out_of_money == ()
    assert granted(ledger) == sum(transport.costs) == 32 * 60

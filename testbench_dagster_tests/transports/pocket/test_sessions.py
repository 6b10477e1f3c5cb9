"""The session book: which session is used when, what is left in it, and what is held on to without nodes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

import pytest

from testbench_dagster.transports.pocket.chain.errors import ChainError, NodeUnavailable, SessionUnavailable
from testbench_dagster.transports.pocket.chain.types import (
    Application,
    ChainSupplier,
    ServiceInfo,
    Session,
    SessionTerms,
    SharedParams,
)
from testbench_dagster.transports.pocket.messages import SessionHeader
from testbench_dagster.transports.pocket.sessions import BLOCK_S, MIN_REFRESH_S, SessionBook

LENGTH, GRACE, BLOCK = 20, 10, 46.0
PARAMS = SharedParams(LENGTH, GRACE, 1, 4, 0, 4, 42, 1)
MEMBERS = {"app-1": ("s1", "s2"), "app-2": ("s2", "s3")}


class Chain:
    """A chain at hand: sessions of twenty blocks from height 1, and a clock."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.at = 1
        self.members: dict[str, tuple[str, ...]] = dict(MEMBERS)
        self.stakes = {"app-1": 5_000_000, "app-2": 10_000_000}
        self.asked: list[str] = []
        self.units = 100  # compute units of a relay
        self.doubts: tuple[str, ...] = ()
        self.down: str | None = None  # the first call that fails
        self.lagging: set[str] = set()  # applications whose node still tells of the session before

    def clock(self) -> float:
        return self.now

    def pass_blocks(self, blocks: int) -> None:
        self.at += blocks
        self.now += blocks * BLOCK

    def _ask(self, what: str) -> None:
        self.asked.append(what)
        if self.down in ("all", what.partition(" ")[0]):
            raise NodeUnavailable("the answer", [("node", "is down")])

    def height(self, *, fresh: bool = False) -> int:
        self._ask("height")
        return self.at

    def terms(self, service: str, height: int) -> SessionTerms:
        self._ask("terms")
        info = ServiceInfo(service, service, self.units)
        return SessionTerms(PARAMS, 50, info, self.doubts)

    def session(self, application: str, service: str, *, fresh: bool = False) -> Session:
        self._ask(f"session {application}")
        if application not in self.members:
            raise SessionUnavailable("app_not_staked", f"{application} is not staked for {service}")
        start = (self.at - 1) // LENGTH * LENGTH + 1
        if application in self.lagging:
            raise SessionUnavailable("height_ahead", "the node is behind")
        header = SessionHeader(application, service, f"{application}@{start}", start, start + LENGTH - 1)
        suppliers = tuple(ChainSupplier(name, "owner", 1) for name in self.members[application])
        return Session(header, suppliers, Application(application, self.stakes.get(application, 1)))

    def public_key(self, address: str, *, fresh: bool = False) -> bytes | None:
        raise AssertionError("the book needs no keys")


@pytest.fixture
def chain() -> Chain:
    return Chain()


def a_book(chain: Chain, apps: tuple[str, ...] = ("app-1", "app-2"), **options: object) -> SessionBook:
    return SessionBook(chain, "svc", apps, clock=chain.clock, **options)  # type: ignore[arg-type]


def ids(book: SessionBook, operator: str) -> list[str]:
    return [session.header.session_id for session in book.usable(operator)]


def test_nothing_is_known_before_the_first_refresh(chain: Chain):
    book = a_book(chain)
    assert book.stale() and book.height() is None and book.failure is None
    assert not book.usable("s1") and not book.in_session("s1") and book.take("s1") is None
    assert not book.reserve("s1")
    book.refresh()
    assert not book.stale() and book.height() == 1
    assert ids(book, "s1") == ["app-1@1"] and book.in_session("s1") and not book.in_session("s9")
    assert len(book.sessions()) == 2


def test_the_application_with_most_relays_left_is_charged_first(chain: Chain):
    # budgets: stake / 50 / 2 sessions pending, at 4,200 upokt a relay: 11 and 23 relays
    book = a_book(chain)
    book.refresh()
    assert (book.left("s1"), book.left("s2"), book.left("s3")) == (11, 34, 23)
    taken = [book.take("s2") for _ in range(34)]
    apps = [session.header.application for session in taken if session is not None]
    assert apps[:12] == ["app-2"] * 12  # until both have the same left
    assert (apps.count("app-1"), apps.count("app-2")) == (11, 23)
    assert book.take("s2") is None and book.in_session("s2") and book.left("s2") == 0
    assert book.left("s1") == 11  # others have a budget of their own
    book.give_back("app-1@1", "s2")
    again = book.take("s2")
    assert again is not None and again.header.application == "app-1"


def test_relays_per_session_can_be_limited_further(chain: Chain):
    book = a_book(chain, ("app-1",), max_relays=3)
    book.refresh()
    assert book.left("s1") == 3
    assert [book.take("s1") is not None for _ in range(4)] == [True] * 3 + [False]


def test_what_was_reserved_is_taken_once(chain: Chain):
    book = a_book(chain, ("app-1",), max_relays=2)
    book.refresh()
    assert book.reserve("s1") and book.reserve("s1") and not book.reserve("s1")
    book.release("s1")
    assert book.left("s1") == 1
    assert book.take("s1") is not None and book.left("s1") == 1
    assert book.reserve("s1") and book.left("s1") == 0
    book.release("s1")
    book.release("s1")  # nothing is reserved: nothing happens
    assert book.left("s1") == 1


def test_a_reservation_of_a_session_that_ended_is_one_of_the_new(chain: Chain):
    book = a_book(chain, ("app-1",), max_relays=2)
    book.refresh()
    assert book.reserve("s1")
    chain.pass_blocks(LENGTH)
    book.refresh()
    session = book.take("s1")
    assert session is not None and session.header.session_id == "app-1@21"
    assert book.left("s1") == 1


def test_the_new_session_is_used_as_soon_as_the_height_is_above_the_end(chain: Chain):
    book = a_book(chain)
    book.refresh()
    chain.pass_blocks(LENGTH - 1)
    book.refresh(fresh=True)
    assert book.height() == 20 and ids(book, "s1") == ["app-1@1"]
    chain.members["app-1"] = ("s2", "s4")
    chain.pass_blocks(1)
    book.refresh(fresh=True)
    assert ids(book, "s4") == ["app-1@21"] and not book.in_session("s1")
    assert book.left("s4") == 11  # a new session, a new budget


def test_sessions_are_asked_for_once_each(chain: Chain):
    book = a_book(chain)
    for _ in range(LENGTH):
        book.refresh(fresh=True)
        chain.pass_blocks(1)
    assert sum(what.startswith("session") for what in chain.asked) == 2
    assert chain.asked.count("height") == LENGTH


def test_refreshes_in_a_row_are_one(chain: Chain):
    book = a_book(chain)
    for _ in range(10):
        book.refresh(fresh=True)
    assert chain.asked.count("height") == 1
    chain.now += MIN_REFRESH_S
    book.refresh()  # what is known is young enough
    assert chain.asked.count("height") == 1
    book.refresh(fresh=True)
    assert chain.asked.count("height") == 2
    chain.now += book.poll_s
    book.refresh()
    assert chain.asked.count("height") == 3


def test_a_doubted_session_is_not_used_before_the_chain_was_asked(chain: Chain):
    book = a_book(chain)
    book.refresh()
    book.invalidate("app-1@1")
    assert book.in_session("s1")  # the chain has just said so
    chain.now += MIN_REFRESH_S
    book.invalidate("app-1@1")
    assert not book.in_session("s1") and book.stale()
    assert book.in_session("s3")
    assert book.take("s2") is not None
    book.refresh()
    assert book.in_session("s1") and book.left("s1") == 11
    assert chain.asked.count("session app-1") == 2 and chain.asked.count("session app-2") == 1


def test_used_relays_stay_used_when_a_session_is_asked_for_again(chain: Chain):
    book = a_book(chain, ("app-1",))
    book.refresh()
    book.take("s1")
    chain.now += MIN_REFRESH_S
    book.invalidate("app-1@1")
    book.refresh()
    assert book.left("s1") == 10


def test_a_miner_may_say_that_nothing_is_left(chain: Chain):
    book = a_book(chain)
    book.refresh()
    book.exhaust("app-1@1", "s1")
    assert book.left("s1") == 0 and not book.reserve("s1") and book.take("s1") is None
    book.exhaust("app-2@1", "s2")
    assert ids(book, "s2")[0] == "app-1@1"
    chain.pass_blocks(LENGTH)
    book.refresh()
    assert book.left("s1") == 11


def test_what_is_known_from_elsewhere_counts_once(chain: Chain):
    book = a_book(chain, ("app-1",))
    book.refresh()
    assert [session.header.session_id for session in book.unnoted("s1")] == ["app-1@1"]
    book.note("app-1@1", "s1", 4)
    book.note("app-1@1", "s1", 4)
    assert not book.unnoted("s1") and book.left("s1") == 7
    chain.pass_blocks(LENGTH)
    book.refresh()
    assert book.unnoted("s1")


def test_barred_suppliers_get_nothing_for_a_while(chain: Chain):
    book = a_book(chain)
    book.refresh()
    book.block_supplier("s1", 30)
    assert book.left("s1") == 0 and not book.reserve("s1") and book.in_session("s1")
    chain.now += 30
    assert book.left("s1") == 11


def test_a_session_nothing_can_be_signed_for_is_left_to_the_others(chain: Chain):
    book = a_book(chain)
    book.refresh()
    first, second = ids(book, "s2")
    book.reserve("s2")
    book.block_session(first, 30, "no delegation")
    assert ids(book, "s2") == [second] and book.blocked("s2") == "no delegation"
    taken = book.take("s2")
    assert taken is not None and taken.header.session_id == second, "what was reserved is not lost"
    alone = next(name for name in ("s1", "s3") if not ids(book, name))
    assert book.left(alone) == 0 and not book.reserve(alone) and book.used_up(alone) is None
    chain.now += 30
    assert book.blocked("s2") is None and set(ids(book, "s2")) == {first, second}
    assert book.reserve(alone)


def test_applications_without_session_are_named_and_looked_at_again(chain: Chain):
    chain.members.pop("app-2")
    book = a_book(chain)
    book.refresh()
    assert "not staked" in book.problems["app-2"] and book.failure is None
    assert not book.stale()  # that is knowledge, too
    assert book.in_session("s1") and not book.in_session("s3")
    chain.members["app-2"] = ("s3",)
    chain.now += book.poll_s
    book.refresh()
    assert book.in_session("s3") and not book.problems


def test_an_application_that_unstakes_is_dropped(chain: Chain):
    book = a_book(chain)
    book.refresh()
    chain.members.pop("app-1")
    chain.pass_blocks(LENGTH)
    book.refresh()
    assert not book.in_session("s1") and "app-1" in book.problems


def test_a_node_that_lacks_the_new_session_is_awaited(chain: Chain):
    book = a_book(chain)
    book.refresh()
    chain.lagging = {"app-1"}
    chain.pass_blocks(LENGTH)
    book.refresh()
    assert not book.in_session("s1") and book.in_session("s3") and not book.problems
    assert not book.stale()  # asked just now
    chain.now += MIN_REFRESH_S
    assert book.stale() and book.poll_in() < book.poll_s + BLOCK
    chain.lagging = set()
    book.refresh()
    assert ids(book, "s1") == ["app-1@21"]


def test_without_nodes_a_session_is_used_until_it_must_be_over(chain: Chain):
    book = a_book(chain, ("app-1",), poll_s=1000.0)
    book.refresh()
    chain.pass_blocks(10)  # so that the pace of blocks is known
    book.refresh(fresh=True)
    chain.down = "all"
    chain.pass_blocks(5)
    with pytest.raises(ChainError):
        book.refresh(fresh=True)
    assert book.failure is not None and "is down" in book.failure
    assert book.height() == 11 and ids(book, "s1") == ["app-1@1"]
    chain.pass_blocks(4)  # height 20, its last
    assert book.in_session("s1")
    chain.pass_blocks(GRACE - 1)  # height 29: the last that miners are paid for
    assert book.in_session("s1") and book.take("s1") is not None
    chain.pass_blocks(1)
    assert not book.in_session("s1") and book.take("s1") is None
    chain.down = None
    book.refresh(fresh=True)
    assert book.failure is None and ids(book, "s1") == ["app-1@21"]


def test_without_nodes_and_a_pace_blocks_are_taken_to_be_fast(chain: Chain):
    book = a_book(chain, ("app-1",), poll_s=1000.0)
    book.refresh()
    chain.down = "all"
    chain.now += MIN_REFRESH_S
    with pytest.raises(ChainError):
        book.refresh(fresh=True)
    chain.now += BLOCK_S * (LENGTH + GRACE - 2) - MIN_REFRESH_S
    assert book.in_session("s1")
    chain.now += BLOCK_S
    assert not book.in_session("s1")


def test_with_nodes_the_grace_is_left_to_what_is_in_flight(chain: Chain):
    """Only height counts: a session above its end is not used while its successor is unknown."""
    book = a_book(chain, ("app-1",))
    book.refresh()
    chain.down = "session"
    chain.pass_blocks(LENGTH)
    with pytest.raises(ChainError):
        book.refresh()
    # height 21 is known, the new session is not: within grace the old one serves
    assert book.height() == 21 and ids(book, "s1") == ["app-1@1"]
    chain.down = None
    chain.lagging = {"app-1"}
    chain.now += MIN_REFRESH_S
    book.refresh()
    assert book.failure is None and not book.in_session("s1")


def test_a_height_that_stands_still_is_not_believed(chain: Chain):
    """One node that hangs would have relays sent in a session long over, and their suppliers blamed."""
    book = a_book(chain, ("app-1",))
    book.refresh()
    chain.pass_blocks(15)
    book.refresh()
    for _ in range(6):
        chain.now += BLOCK  # the chain goes on, its node does not
        book.refresh(fresh=True)
        assert book.failure is None and ids(book, "s1") == ["app-1@1"]
    for _ in range(7):
        chain.now += BLOCK
        book.refresh(fresh=True)
        # by the pace of blocks the session may still be served: until height 29
        assert book.failure is not None and "has been 16 for" in book.failure
        assert book.in_session("s1")
    chain.now += BLOCK
    book.refresh(fresh=True)
    assert not book.in_session("s1") and book.poll_in() == book.poll_s
    chain.at += 14
    chain.now += MIN_REFRESH_S
    book.refresh(fresh=True)
    assert book.failure is None and ids(book, "s1") == ["app-1@21"]


def test_a_failure_for_one_application_is_no_reason_to_lose_the_others(chain: Chain):
    book = a_book(chain)
    chain.down = "session"
    ask: Callable[..., Session] = chain.session

    def second_fails(application: str, service: str, *, fresh: bool = False) -> Session:
        chain.down = "session" if application == "app-2" else None
        return ask(application, service, fresh=fresh)

    chain.session = second_fails  # type: ignore[method-assign]
    with pytest.raises(ChainError):
        book.refresh()
    assert book.in_session("s1") and not book.in_session("s3")


def test_an_older_session_of_a_node_that_lags_changes_nothing(chain: Chain):
    book = a_book(chain, ("app-1",))
    chain.at = 30
    book.refresh()
    chain.at = 15
    chain.now += MIN_REFRESH_S
    book.invalidate("app-1@21")
    book.refresh()
    assert book.height() == 30 and ids(book, "s1") == ["app-1@21"]


def test_polls_come_in_time_for_the_end_of_the_session(chain: Chain):
    book = a_book(chain, poll_s=100.0)
    assert book.poll_in() == 100.0
    book.refresh()
    chain.pass_blocks(10)
    book.refresh()
    assert book.poll_in() == 100.0  # ten blocks of 46 s are left
    chain.pass_blocks(9)
    book.refresh()
    assert book.height() == 20
    assert book.poll_in() == pytest.approx(BLOCK)
    chain.now += BLOCK * 2
    assert book.poll_in() < BLOCK  # it is late


def test_it_is_stale_when_nobody_polls(chain: Chain):
    book = a_book(chain)
    book.refresh()
    chain.now += book.poll_s * 3
    assert not book.stale()
    chain.now += 1
    assert book.stale()


def test_threads_share_one_budget(chain: Chain):
    chain.stakes["app-1"] = 5_000_000_000
    book = a_book(chain, ("app-1",), max_relays=1000)
    book.refresh()
    won: list[int] = []

    def work() -> None:
        count = 0
        while book.reserve("s1"):
            assert book.take("s1") is not None
            count += 1
        won.append(count)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(won) == 1000


def test_an_application_may_limit_what_it_spends_per_session(chain: Chain):
    ask: Callable[..., Session] = chain.session

    def limited(application: str, service: str, *, fresh: bool = False) -> Session:
        session = ask(application, service, fresh=fresh)
        return replace(session, application=replace(session.application, spend_limit_upokt=50 * 4200 * 2))

    chain.session = limited  # type: ignore[method-assign]
    book = a_book(chain, ("app-1",))
    book.refresh()
    assert book.left("s1") == 2


def test_a_session_grants_what_held_as_it_began(chain: Chain):
    book = a_book(chain, ("app-1",))
    book.refresh()
    assert book.left("s1") == 11
    chain.units = 50  # shown from now on, in force from the next session on
    chain.pass_blocks(1)
    book.refresh(fresh=True)
    assert book.left("s1") == 11
    chain.pass_blocks(LENGTH)
    book.refresh(fresh=True)
    assert book.left("s1") == 23


def test_what_no_node_tells_of_then_is_said_once(chain: Chain, caplog: pytest.LogCaptureFixture):
    chain.doubts = ("the shared parameters",)
    book = a_book(chain)
    for _ in range(3):
        book.refresh(fresh=True)
        chain.pass_blocks(LENGTH)
    (told,) = caplog.messages
    assert "sessions of svc: no node tells the shared parameters as of a session's start" in told

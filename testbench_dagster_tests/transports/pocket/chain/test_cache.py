"""How long answers are remembered, and that many threads make one request of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from testbench_dagster.transports.pocket.chain import ChainClient, NodeUnavailable, NotFound
from testbench_dagster.transports.pocket.chain import cache as cache_module
from testbench_dagster.transports.pocket.chain.cache import Cache
from testbench_dagster_tests.transports.pocket.chain.conftest import (
    APP,
    GATEWAY,
    SERVICE,
    Chain,
    Clock,
    Handler,
    MakeClient,
    MakeNode,
    Node,
    address,
    http_status,
    key,
    slow_by,
)


def at_once(number: int, ask: Callable[[int], object]) -> list[object]:
    """Results of calls made by as many threads at the same moment; errors as results."""
    gate = threading.Barrier(number)

    def one(turn: int) -> object:
        gate.wait()
        try:
            return ask(turn)
        except Exception as error:
            return error

    with ThreadPoolExecutor(number) as pool:
        return list(pool.map(one, range(number)))


# ------------------------------------------------------------------------------------------- lifetimes


def test_the_height_is_remembered_for_its_time(
    make_client: MakeClient, make_node: MakeNode, chain: Chain, clock: Clock
) -> None:
    node = make_node()
    client = make_client(node, height_ttl_s=10.0)
    assert client.height() == 103
    chain.height = 110
    clock.now += 9.9
    assert client.height() == 103 and node.count("latest") == 1
    clock.now += 0.2
    assert client.height() == 110 and node.count("latest") == 2
    chain.height = 111
    assert client.height(fresh=True) == 111
    assert client.status().at == pytest.approx(time.time(), abs=60)


def test_what_holds_for_a_session_is_asked_once_in_it(
    make_client: MakeClient, make_node: MakeNode, chain: Chain, clock: Clock
) -> None:
    node = make_node()
    client = make_client(node, height_ttl_s=10.0)

    def ask_all() -> None:
        client.shared_params()
        client.suppliers_per_session()
        client.application(APP)
        client.service(SERVICE)
        client.session(APP, SERVICE)
        client.shared_params(height=50)
        client.session(APP, SERVICE, height=50)

    def counts() -> list[int]:
        parts = ("shared/params", "session/params", "application/app", "service/service", "get_session")
        return [node.count(part) for part in parts]

    ask_all()
    assert counts() == [2, 1, 1, 1, 2]
    chain.height = 120  # the last block of the session
    clock.now += 11
    ask_all()
    assert counts() == [2, 1, 1, 1, 2]
    chain.height = 121
    ask_all()
    assert counts() == [2, 1, 1, 1, 2], "until the height is looked at again"
    clock.now += 11
    ask_all()
    assert counts() == [3, 2, 2, 2, 3], "what was of an earlier height stays as it was"
    client.application(APP, fresh=True)
    client.session(APP, SERVICE, fresh=True)
    assert counts() == [3, 2, 3, 2, 4]


def test_suppliers_are_asked_for_anew(make_client: MakeClient, make_node: MakeNode) -> None:
    node = make_node()
    client = make_client(node)
    client.suppliers(SERVICE).clear()
    assert len(client.suppliers(SERVICE)) == 2
    client.supplier(address("s1"), SERVICE)
    client.supplier(address("s1"), SERVICE)
    assert node.count("supplier/supplier") == 4


def test_known_keys_need_no_node(make_client: MakeClient, make_node: MakeNode, clock: Clock) -> None:
    node = make_node()
    client = make_client(node)
    client.public_key(GATEWAY)
    node.fault = http_status(500)
    clock.now += 10_000
    assert client.public_key(GATEWAY) == key("gateway").public_key
    with pytest.raises(NodeUnavailable):
        client.application(APP)


def test_failures_are_not_remembered(make_client: MakeClient, make_node: MakeNode, chain: Chain) -> None:
    client = make_client(make_node())
    app = chain.app
    chain.app = {**app, "address": "wrong"}
    for _ in range(2):
        with pytest.raises(Exception, match="address 'wrong' is not the"):
            client.application(APP)
    chain.app = app
    assert client.application(APP).gateways == (GATEWAY,)


# --------------------------------------------------------------------------------------------- threads


def test_many_threads_make_one_request_of_each_kind(make_client: MakeClient, make_node: MakeNode) -> None:
    node = make_node(fault=slow_by(0.05))
    client = make_client(node)
    asks: list[Callable[[ChainClient], object]] = [
        lambda c: c.height(),
        lambda c: c.shared_params(),
        lambda c: c.application(APP),
        lambda c: c.session(APP, SERVICE),
        lambda c: c.public_key(address("s1")),
        lambda c: c.public_key(address("s2")),
        lambda c: c.service(SERVICE),
        lambda c: c.suppliers_per_session(),
    ]
    results = at_once(48, lambda turn: asks[turn % len(asks)](client))
    for turn, result in enumerate(results):
        assert not isinstance(result, Exception), result
        assert result == results[turn % len(asks)]
    assert max(node.asked.values()) == 1, node.asked


def test_threads_that_wait_get_the_same_failure(make_client: MakeClient, make_node: MakeNode) -> None:
    node = make_node()
    client = make_client(node)
    client.shared_params()
    node.fault = slow_by(0.05)
    results = at_once(16, lambda turn: client.application(GATEWAY))
    assert all(isinstance(r, NotFound) for r in results)
    assert node.count("application/application") == 1


def test_threads_over_rollovers_and_failing_nodes_see_no_height_go_back_and_no_session_that_is_over(
    make_client: MakeClient, make_node: MakeNode, chain: Chain
) -> None:
    first, second = make_node(), make_node()
    client = make_client(first, rpc=(second,), height_ttl_s=0.01, clock=time.monotonic, pause_s=0.02)
    done = threading.Event()

    def disturb() -> None:
        turn = 0
        while not done.is_set():
            chain.height += 1
            first.fault = http_status(503) if turn % 3 == 0 else None
            second.fault = http_status(503) if turn % 3 == 1 else None
            turn += 1
            time.sleep(0.01)

    def look(turn: int) -> int:
        last = 0
        for _ in range(25):
            try:
                height = client.height()
                session = client.session(APP, SERVICE, fresh=turn % 4 == 0)
            except NodeUnavailable:
                continue  # both were seen failing, one after the other
            assert height >= last
            assert session.header.end_height >= height
            last = height
        return last

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        results = at_once(8, look)
    finally:
        done.set()
        thread.join()
    assert not [r for r in results if isinstance(r, Exception)], results
    assert max(int(str(r)) for r in results) > 103


# ------------------------------------------------------------------------------------- the cache alone


def test_fresh_means_begun_after_the_call() -> None:
    cache, numbers = Cache(), iter(range(100))
    begun, go_on = threading.Event(), threading.Event()

    def first() -> int:
        begun.set()
        go_on.wait()
        return next(numbers)

    def later() -> int:
        time.sleep(0.05)
        return next(numbers)

    with ThreadPoolExecutor(6) as pool:
        early = pool.submit(cache.get, "k", first)
        begun.wait()
        joined = pool.submit(cache.get, "k", later)
        fresh = [pool.submit(cache.get, "k", later, fresh=True) for _ in range(3)]
        time.sleep(0.05)
        go_on.set()
        assert (early.result(), joined.result()) == (0, 0)
        assert {f.result() for f in fresh} == {1}, "all of them share the one load begun after them"
    assert cache.get("k", later) == 1


def test_a_value_that_is_not_usable_for_one_who_waited_is_loaded_for_him() -> None:
    cache, numbers = Cache(), iter(range(100))
    begun, go_on = threading.Event(), threading.Event()

    def first() -> int:
        begun.set()
        go_on.wait()
        return next(numbers)

    with ThreadPoolExecutor(2) as pool:
        early = pool.submit(cache.get, "k", first)
        begun.wait()
        choosy = pool.submit(cache.get, "k", lambda: next(numbers), usable=lambda value: value > 0)
        time.sleep(0.02)
        go_on.set()
        assert (early.result(), choosy.result()) == (0, 1)


def test_a_load_that_fails_leaves_the_key_free() -> None:
    cache = Cache()
    with pytest.raises(ZeroDivisionError):
        cache.get("k", lambda: 1 // 0)
    assert cache.get("k", lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        cache.get("k", lambda: 1 // 0, fresh=True)
    assert cache.get("k", lambda: 8) == 7


def test_what_was_stored_first_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "MAX_ENTRIES", 3)
    cache = Cache()
    for number in range(4):
        cache.get(number, lambda: "old")
    assert [cache.get(number, lambda: "new", keep=lambda v: False) for number in range(4)] == [
        "new",
        "old",
        "old",
        "old",
    ]


def test_different_keys_do_not_wait_for_each_other(make_client: MakeClient, make_node: MakeNode) -> None:
    def stuck(handler: Handler) -> bool:
        if "get_session" in handler.path:
            time.sleep(0.4)
        return False

    node: Node = make_node(fault=stuck)
    client = make_client(node)
    client.shared_params()
    with ThreadPoolExecutor(1) as pool:
        session = pool.submit(client.session, APP, SERVICE)
        while not node.count("get_session"):
            time.sleep(0.005)
        client.application(APP)
        assert not session.done()
        assert session.result().header.service == SERVICE

"""Which node is asked: faults, lag, catching up, pauses; and the bounds of one exchange."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

import pytest

from testbench_dagster.core.relay import Route
from testbench_dagster.transports.pocket.chain import (
    BadAnswer,
    ChainError,
    NodeUnavailable,
    SessionUnavailable,
    transfer,
)
from testbench_dagster_tests.transports.pocket.chain.conftest import (
    APP,
    SERVICE,
    Chain,
    Clock,
    Fault,
    MakeClient,
    MakeNode,
    cut_off,
    drip_body,
    drip_headers,
    hang,
    hang_up,
    http_status,
    only,
    short_body,
    slow_by,
    supplier,
    web_page,
)

PARAMS_FIELD = b'{"params": {"num_blocks_per_session": "a lot"}, "block": {"header": {"height": "x"}}}'
FAULTS: dict[str, tuple[Fault, str]] = {
    "server error": (http_status(503), "answers HTTP 503"),
    "rate limit": (http_status(429), "answers HTTP 429"),
    "redirect": (http_status(302, {"Location": "http://127.0.0.1:1/"}), "redirects are not followed"),
    "compressed": (http_status(200, {"Content-Encoding": "gzip"}), "answers compressed"),
    "cut off": (cut_off, "answers cut off or invalid JSON"),
    "web page": (web_page, "answers cut off or invalid JSON"),
    "no object": (http_status(200, body=b"[]"), "answer is"),
    "wrong field": (http_status(200, body=PARAMS_FIELD), "is no whole number"),
    "not UTF-8": (http_status(200, body=b'{"params": "\xff"}'), "answers cut off or invalid JSON"),
    "deep": (http_status(200, body=b"[" * 100_000), "answers cut off or invalid JSON"),
    "hang-up": (hang_up, "is not reachable"),
    "short body": (short_body, "is not reachable"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_node_that_fails_is_passed_over(make_client: MakeClient, make_node: MakeNode, name: str) -> None:
    fault, said = FAULTS[name]
    bad, good = make_node(), make_node()
    client = make_client(bad, good)
    assert client.height() == 103
    bad.fault = fault
    assert client.suppliers_per_session() == 50
    assert good.count("session/params") == 1
    first, second = client.nodes()
    assert (first.url, second.problem, second.height) == (bad.url, None, 103)
    assert first.problem is not None and said in first.problem


@pytest.mark.parametrize("name", FAULTS)
def test_a_node_that_fails_from_the_start_is_passed_over(
    make_client: MakeClient, make_node: MakeNode, name: str
) -> None:
    bad, good = make_node(fault=FAULTS[name][0]), make_node()
    client = make_client(rpc=(bad, good))
    assert client.session(APP, SERVICE).header.end_height == 120
    assert good.count("GetSession") == 1 and bad.count("GetSession") == 0


@pytest.mark.parametrize("fault", [hang, drip_headers, drip_body])
def test_an_exchange_has_a_bound_from_first_to_last_byte(
    make_client: MakeClient, make_node: MakeNode, fault: Fault
) -> None:
    bad, good = make_node(), make_node()
    client = make_client(bad, good, timeout_s=1.0)
    client.shared_params()
    bad.fault = fault
    started = time.monotonic()
    assert client.suppliers_per_session() == 50
    assert 0.9 < time.monotonic() - started < 20
    assert "no complete answer within 1 s" in (client.nodes()[0].problem or "")


def test_a_slow_node_does_not_hold_up_the_others(
    make_client: MakeClient, make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "STRAGGLER_S", 0.1)
    slow, good = make_node(fault=hang), make_node()
    client = make_client(slow, good, timeout_s=60)
    started = time.monotonic()
    assert client.height() == 103
    assert time.monotonic() - started < 20
    assert client.suppliers_per_session() == 50 and good.count("session/params") == 1

    only_slow = make_client(make_node(fault=slow_by(0.3)))
    assert only_slow.height() == 103, "it is waited for when there is nobody else"


def test_a_slow_node_is_waited_for_when_the_fast_one_is_of_no_use(
    make_client: MakeClient, make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "STRAGGLER_S", 0.05)
    useless = make_node(catching_up=True)
    slow = make_node(fault=slow_by(0.2))
    assert make_client(useless, slow).height() == 103
    asked = slow.count("latest")
    assert make_client(make_node(fault=http_status(500)), slow).height() == 103
    assert slow.count("latest") == asked + 1, "a failure is no answer that others are late for"


def test_answers_have_a_largest_size(
    make_client: MakeClient, make_node: MakeNode, chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = make_node()
    client = make_client(node)
    client.height()
    monkeypatch.setattr(transfer, "MAX_BYTES", 100_000)
    chain.pages = [[supplier(f"s{n}") for n in range(300)]]
    with pytest.raises(NodeUnavailable, match="answers more than 0 MB"):
        client.suppliers(SERVICE)
    monkeypatch.setattr(transfer, "MAX_BYTES", 32 * 2**20)
    assert len(client.suppliers(SERVICE)) == 300


def test_a_node_that_failed_is_tried_again_after_a_pause_that_doubles(
    make_client: MakeClient, make_node: MakeNode, clock: Clock
) -> None:
    bad, good = make_node(fault=http_status(500)), make_node()
    client = make_client(bad, good, height_ttl_s=1.0, pause_s=10.0)
    client.height()
    asked = bad.count("latest")
    for seconds, more in ((9.0, 0), (2.0, 1), (18.0, 0), (3.0, 1), (30.0, 0), (12.0, 1)):
        clock.now += seconds
        client.height()
        assert bad.count("latest") == asked + more, clock.now
        asked += more
    bad.fault = None
    clock.now += 200
    client.height()
    assert client.nodes()[0].problem is None


def test_the_one_that_answered_last_is_asked_first(
    make_client: MakeClient, make_node: MakeNode, clock: Clock, chain: Chain
) -> None:
    first, second = make_node(), make_node()
    client = make_client(first, second, pause_s=10.0)
    client.height()
    first.fault = only("params", http_status(500))
    client.shared_params()
    first.fault = None
    clock.now += 60  # its pause is over, and it answers the survey
    chain.height += 20  # so that all is asked again
    client.shared_params()
    assert client.nodes()[0].problem is None
    assert (first.count("shared/params"), second.count("shared/params")) == (1, 2)


def test_a_node_that_recovered_is_asked_when_the_others_fail(
    make_client: MakeClient, make_node: MakeNode
) -> None:
    first, second = make_node(fault=http_status(500)), make_node()
    client = make_client(first, second)
    client.height()
    first.fault, second.fault = None, http_status(500)
    assert client.suppliers_per_session() == 50  # though its pause is not over
    assert first.count("session/params") == 1


# ------------------------------------------------------------------------------------------ the chain


@pytest.mark.parametrize("api", ["rest", "rpc"])
def test_a_node_that_lags_is_passed_over_until_it_does_not(
    make_client: MakeClient, make_node: MakeNode, chain: Chain, clock: Clock, api: str
) -> None:
    late, good = make_node(lag=6), make_node()
    client = make_client(late, good) if api == "rest" else make_client(rpc=(late, good))
    assert client.height() == 103
    client.application(APP)
    assert late.count("pplication") == 0 and good.count("pplication") == 1
    assert client.nodes()[0].problem == "lags: it is at height 97, 6 blocks behind"
    good.fault, late.lag = http_status(500), 4
    clock.now += 11
    assert client.height(fresh=True) == 103, "never backwards"
    client.application(APP, fresh=True)
    assert late.count("pplication") == 1


@pytest.mark.parametrize("api", ["rest", "rpc"])
def test_a_node_that_falls_behind_between_surveys_is_noticed_by_its_answers(
    make_client: MakeClient, make_node: MakeNode, api: str
) -> None:
    late, good = make_node(), make_node()
    client = make_client(late, good) if api == "rest" else make_client(rpc=(late, good))
    client.shared_params()
    late.lag = 50
    client.suppliers_per_session()
    assert good.count("ession") == 1
    assert "lags: it is at height 53, 50 blocks behind" in (client.nodes()[0].problem or "")


def test_a_chain_that_grew_between_surveys_is_noticed_by_answers(
    make_client: MakeClient, make_node: MakeNode, chain: Chain
) -> None:
    client = make_client(make_node(height_header="x-cosmos-block-height"))
    assert client.height() == 103
    chain.height = 105
    client.suppliers_per_session()
    assert client.height() == 105


@pytest.mark.parametrize("api", ["rest", "rpc"])
def test_a_node_that_catches_up_is_passed_over(
    make_client: MakeClient, make_node: MakeNode, api: str
) -> None:
    late, good = make_node(catching_up=True), make_node()
    client = make_client(late, good) if api == "rest" else make_client(rpc=(late, good))
    client.application(APP)
    assert late.count("pplication") == 0
    report = client.nodes()[0]
    assert report.catching_up is True and report.height == 103
    good.fault = http_status(500)
    with pytest.raises(NodeUnavailable, match="is catching up with the chain, at height 103"):
        client.height(fresh=True)


def test_a_rest_node_without_the_sync_query_is_believed(make_client: MakeClient, make_node: MakeNode) -> None:
    assert make_client(make_node(has_syncing=False)).height() == 103


def test_a_node_of_another_chain_is_passed_over(make_client: MakeClient, make_node: MakeNode) -> None:
    first, other = make_node(), make_node(chain_id="pocket-beta")
    client = make_client(first, other)
    client.height()
    first.fault = http_status(500)
    with pytest.raises(NodeUnavailable, match="is on chain 'pocket-beta', the others on 'pocket-test'"):
        client.application(APP)


def test_the_height_never_goes_backwards(make_client: MakeClient, make_node: MakeNode, chain: Chain) -> None:
    node = make_node()
    client = make_client(node)
    assert client.height() == 103
    node.lag = 2  # a load balancer with nodes of slightly different heights
    assert client.height(fresh=True) == 103
    node.lag = 30
    with pytest.raises(NodeUnavailable, match="lags: it is at height 73, 30 blocks behind"):
        client.height(fresh=True)
    node.lag = -1
    assert client.height(fresh=True) == 104


def test_a_height_the_chain_cannot_have_is_not_believed(
    make_client: MakeClient, make_node: MakeNode, chain: Chain
) -> None:
    liar, good = make_node(), make_node()
    client = make_client(liar, good)
    client.shared_params()
    liar.lag = -(10**12)
    assert client.height(fresh=True) == 103
    assert "far above 103" in (client.nodes()[0].problem or "")
    liar.lag = 0
    client.height(fresh=True)
    liar.lag = -(10**12)  # found out by an answer, not by a survey
    client.suppliers_per_session()
    assert client.height() == 103


def test_a_session_that_is_over_is_no_answer(
    make_client: MakeClient, make_node: MakeNode, chain: Chain
) -> None:
    chain.height = 121
    late, good = make_node(lag=1, height_header="X-None"), make_node()
    client = make_client(late, good)
    assert client.session(APP, SERVICE).header.start_height == 121
    alone = make_client(late, rpc=(good,))
    alone.height()
    good.fault = http_status(500)
    with pytest.raises(SessionUnavailable, match="ended at height 120, and the chain is at 121") as caught:
        alone.session(APP, SERVICE)
    assert caught.value.reason == "height_ahead"
    assert alone.nodes()[0].problem is None, "it is no fault to be a block behind"
    late.lag = 0
    assert alone.session(APP, SERVICE).header.start_height == 121


def test_a_session_that_was_over_long_ago_shows_a_node_that_lags(
    make_client: MakeClient, make_node: MakeNode, chain: Chain
) -> None:
    node = make_node(height_header="X-None")
    client = make_client(node)
    old = chain.session(APP, SERVICE, 0, 103)
    chain.height = 130
    client.shared_params()
    chain.session = lambda *asked: old  # type: ignore[method-assign]
    with pytest.raises(NodeUnavailable, match="lags: the session it tells of ended at height 120"):
        client.session(APP, SERVICE)


def test_a_new_session_tells_that_the_chain_went_on(
    make_client: MakeClient, make_node: MakeNode, chain: Chain
) -> None:
    client = make_client(make_node(height_header="X-None"))
    assert client.session(APP, SERVICE).header.end_height == 120
    chain.height = 122
    assert client.session(APP, SERVICE, fresh=True).header.start_height == 121
    assert client.height() == 121


# --------------------------------------------------------------------------------------------- errors


def test_when_all_fail_each_is_named_with_its_reason_and_no_credentials(
    make_client: MakeClient, make_node: MakeNode, caplog: pytest.LogCaptureFixture
) -> None:
    node = make_node()
    host = node.url.removeprefix("http://")
    caplog.set_level(logging.DEBUG)
    client = make_client(
        f"http://me:hunter2@{host}/p4th?apikey=s3cret", "http://127.0.0.1:1", rpc=(node.url,), timeout_s=2.0
    )
    assert client.height() == 103
    assert any((a or "").startswith("Basic ") for a in node.authorization), "they are used"
    assert any("apikey=s3cret" in target for target in node.targets)
    node.fault = http_status(502)
    with pytest.raises(NodeUnavailable) as caught:
        client.application(APP)
    problems = dict(caught.value.problems)
    assert set(problems) == {f"http://{host}/… (REST)", "http://127.0.0.1:1 (REST)", f"http://{host} (RPC)"}
    assert "answers HTTP 502" in problems[f"http://{host} (RPC)"]
    assert "is not reachable" in problems["http://127.0.0.1:1 (REST)"]
    told = f"{caught.value} {caught.value!r} {client.nodes()} {caplog.text}"
    for secret in ("hunter2", "p4th", "s3cret"):
        assert secret not in told


def test_when_all_break_the_protocol_the_field_is_named(make_client: MakeClient, make_node: MakeNode) -> None:
    nodes = make_node(), make_node()
    client = make_client(*nodes)
    client.height()
    for node in nodes:
        node.fault = only("params", http_status(200, body=PARAMS_FIELD))
    with pytest.raises(BadAnswer, match="num_blocks_per_session 'a lot' is no whole number") as caught:
        client.shared_params()
    assert all(node.url in str(caught.value) for node in nodes)


def test_what_a_node_writes_is_escaped_and_short(make_client: MakeClient, make_node: MakeNode) -> None:
    body = b'{"code": 13, "message": "\\u001b[31m' + b"x" * 5000 + b'", "details": []}'
    client = make_client(make_node(fault=only("params", http_status(500, body=body))))
    with pytest.raises(NodeUnavailable) as caught:
        client.shared_params()
    assert str(caught.value).isprintable() and len(str(caught.value)) < 800


@pytest.mark.parametrize("when", ["before", "during"])
def test_a_closed_client_says_so(make_client: MakeClient, make_node: MakeNode, when: str) -> None:
    node = make_node(fault=hang)
    client = make_client(node)
    errors: list[BaseException] = []

    def ask() -> None:
        try:
            client.height()
        except BaseException as error:
            errors.append(error)

    if when == "before":
        client.close()
        ask()
    else:
        thread = threading.Thread(target=ask)
        thread.start()
        while not node.asked:
            time.sleep(0.005)
        client.close()
        thread.join(20)
    (error,) = errors
    assert type(error) is ChainError and "closed" in str(error)
    client.close()


def test_proxies_of_the_environment_are_not_obeyed_but_the_configured_one_is(
    make_client: MakeClient, make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = make_node()
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    monkeypatch.setenv("ALL_PROXY", proxy.url)
    monkeypatch.delenv("NO_PROXY", raising=False)
    node = make_node()
    assert make_client(node).height() == 103
    assert not proxy.asked
    outside = make_client("http://node.example", timeout_s=2.0, route=Route(proxy=proxy.url))
    assert outside.height() == 103
    assert "http://node.example/cosmos/base/tendermint/v1beta1/blocks/latest" in proxy.targets


def test_no_thread_is_made_before_it_is_needed(make_client: MakeClient, make_node: MakeNode) -> None:
    def threads() -> list[Any]:
        return [t for t in threading.enumerate() if t.name == "chain-client"]

    before = len(threads())
    client = make_client(make_node())
    assert len(threads()) == before
    client.height()
    assert len(threads()) == before + 1
    client.close()
    assert len(threads()) == before

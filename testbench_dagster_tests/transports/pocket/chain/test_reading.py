"""Whatever a node answers: what the chain means by it, or a ``ChainError``, and nothing else."""

from __future__ import annotations

import base64
import copy
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbench_dagster.transports.pocket.chain import BadAnswer, ChainError, queries, reading
from testbench_dagster.transports.pocket.chain.abci import AbciApi
from testbench_dagster.transports.pocket.chain.fields import Record, shown
from testbench_dagster.transports.pocket.chain.node_api import NodeApi, joined
from testbench_dagster.transports.pocket.chain.rest import RestApi
from testbench_dagster.transports.pocket.chain.transfer import Reply
from testbench_dagster_tests.transports.pocket.chain.conftest import (
    APP,
    SERVICE,
    Chain,
    account,
    account_pb,
    address,
    application_pb,
    coin_pb,
    message,
    session_pb,
    supplier,
)

CHAIN = Chain()
OPERATOR = address("s1")
Read = Callable[[Any], object]
READERS: dict[str, tuple[queries.Query, Read, Any]] = {
    "shared": (queries.shared_params(), reading.read_shared_params, {"params": CHAIN.shared}),
    "session params": (
        queries.session_params(),
        reading.read_suppliers_per_session,
        {"params": {"num_suppliers_per_session": "50"}},
    ),
    "application": (
        queries.application(APP),
        lambda answer: reading.read_application(answer, APP),
        {"application": CHAIN.app},
    ),
    "session": (
        queries.session(APP, SERVICE),
        lambda answer: reading.read_session(answer, APP, SERVICE),
        {"session": CHAIN.session(APP, SERVICE, 0, 103)},
    ),
    "suppliers": (
        queries.suppliers(SERVICE),
        lambda answer: reading.read_suppliers(answer, SERVICE),
        {"supplier": CHAIN.pages[0], "pagination": {"next_key": "+/8=", "total": "0"}},
    ),
    "supplier": (
        queries.supplier(OPERATOR),
        lambda answer: reading.read_one_supplier(answer, OPERATOR, SERVICE),
        {"supplier": supplier("s1")},
    ),
    "service": (
        queries.service(SERVICE),
        lambda answer: reading.read_service(answer, SERVICE),
        {"service": {"id": SERVICE, "compute_units_per_relay": "1", "metadata": {"card": "AA=="}}},
    ),
    "account": (
        queries.account(OPERATOR),
        lambda answer: reading.read_account(answer, OPERATOR),
        {"account": account("s1", "vesting")},
    ),
}
NAMES = st.sampled_from(sorted(READERS))
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False),
    st.text(max_size=20),
    st.sampled_from(["0", "-1", "9" * 25, "9" * 5000, "\u0663", "AA==", "pokt1", APP, "upokt", "REST"]),
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            st.one_of(
                st.text(max_size=8),
                st.sampled_from(
                    ["account", "session", "header", "supplier", "params", "application", "pub_key", "stake"]
                ),
            ),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=12,
)


def read_or_refused(read: Callable[[], object]) -> None:
    """The one error allowed says what is wrong, without ruining a terminal or filling a disk."""
    told = ""
    try:
        read()
    except ChainError as error:
        told = str(error)
    assert told.isprintable() and len(told) < 1000


def spots(value: Any) -> list[tuple[Any, Any]]:
    """All places in nested JSON, as container and key."""
    found: list[tuple[Any, Any]] = []
    pairs = list(value.items()) if isinstance(value, dict) else list(enumerate(value))
    for name, inner in pairs:
        found.append((value, name))
        if isinstance(inner, (dict, list)):
            found += spots(inner)
    return found


@given(NAMES, JSON)
@settings(max_examples=150, deadline=None)
def test_any_json_is_read_or_refused(name: str, answer: Any) -> None:
    _, read, _ = READERS[name]
    read_or_refused(lambda: read(answer))


@given(NAMES, st.data())
@settings(max_examples=200, deadline=None)
def test_good_answers_with_changes_are_read_or_refused(name: str, data: st.DataObject) -> None:
    _, read, good = READERS[name]
    answer = copy.deepcopy(good)
    for _ in range(data.draw(st.integers(1, 3))):
        container, spot = data.draw(st.sampled_from(spots(answer)))
        try:
            if data.draw(st.booleans()):
                container[spot] = data.draw(JSON)
            else:
                del container[spot]
        except (KeyError, IndexError):
            continue
        if not spots(answer):
            break
    read_or_refused(lambda: read(answer))


@pytest.mark.parametrize("name", READERS)
def test_good_answers_are_read(name: str) -> None:
    _, read, good = READERS[name]
    assert read(good) is not None


@given(st.sampled_from(["rest", "rpc"]), NAMES, st.sampled_from([200, 400, 404, 500]), st.binary() | JSON)
@settings(max_examples=150, deadline=None)
def test_any_body_is_read_or_refused_by_both_faces(kind: str, name: str, status: int, body: Any) -> None:
    query, read, _ = READERS[name]
    api: NodeApi = RestApi("http://n") if kind == "rest" else AbciApi("http://n")
    reply = Reply(status, body if isinstance(body, bytes) else orjson.dumps(body))
    read_or_refused(lambda: read(api.read(query, reply).value))
    replies = [reply] * len(api.status_requests())
    read_or_refused(lambda: api.read_status(replies))


ENCODED = {
    "application": message((1, application_pb(CHAIN.app))),
    "session": message((1, session_pb(CHAIN.session(APP, SERVICE, 0, 103)))),
    "account": account_pb(account("s1", "vesting")),
    "service": message((1, message((1, SERVICE), (3, 5), (5, message((1, b"card")))))),
    "supplier": message((1, message((2, OPERATOR), (3, coin_pb({"denom": "upokt", "amount": "1"}))))),
}


@given(st.sampled_from(sorted(ENCODED)), st.data())
@settings(max_examples=200, deadline=None)
def test_protobuf_with_changed_bytes_is_read_or_refused(name: str, data: st.DataObject) -> None:
    query, read, _ = READERS[name]
    encoded = bytearray(ENCODED[name])
    for _ in range(data.draw(st.integers(1, 4))):
        encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    response = {"code": 0, "value": base64.b64encode(encoded).decode(), "height": "9"}
    reply = Reply(200, orjson.dumps({"result": {"response": response}}))
    read_or_refused(lambda: read(AbciApi("http://n").read(query, reply).value))


def test_an_account_without_its_inner_account_is_refused() -> None:
    for kind in ("ContinuousVestingAccount", "BaseVestingAccount"):
        packed = message((1, message((1, f"/cosmos.vesting.v1beta1.{kind}"), (2, b""))))
        response = {"value": base64.b64encode(packed).decode()}
        reply = Reply(200, orjson.dumps({"result": {"response": response}}))
        query, read, _ = READERS["account"]
        with pytest.raises(BadAnswer):
            read(AbciApi("http://n").read(query, reply).value)


def test_numbers_come_as_text_or_as_numbers_and_nothing_else() -> None:
    for good in ("7", 7):
        assert Record({"n": good}, "answer").whole("n") == 7
    bads: tuple[Any, ...] = ("", " 7", "7.0", "0x7", "1e3", "7" * 31, 7.0, True, [], {}, b"7")
    for bad in bads:
        with pytest.raises(BadAnswer, match=r"answer\.n .* is no whole number"):
            Record({"n": bad}, "answer").whole("n")
    with pytest.raises(BadAnswer, match=r"answer\.n 8 is not in 0 to 7"):
        Record({"n": "8"}, "answer").whole("n", 0, 7)


def test_values_in_messages_are_short() -> None:
    assert shown("x" * 10_000_000)[-1] == "…" and len(shown("x" * 10_000)) == 80
    assert shown({"secret": "x"}) == "(an object)" and shown([1]) == "(a list)"
    assert shown("a\x1b[31m").isprintable()


def test_paths_and_parameters_are_quoted() -> None:
    query = queries.suppliers(SERVICE, b"\xfb\xff\xfe0")
    url = RestApi("https://n.example/base/").request(query).url
    assert url.startswith("https://n.example/base/pokt-network/poktroll/supplier/supplier?service_id=llm&")
    assert url.endswith("&pagination.key=%2B%2F%2F%2BMA%3D%3D")
    assert joined("http://n?k=1", "/p") == "http://n/p?k=1"

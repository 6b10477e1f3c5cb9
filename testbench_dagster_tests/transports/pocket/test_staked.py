"""Which of the endpoints that anyone may stake is used."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbench_dagster.transports.addresses import host_of
from testbench_dagster.transports.pocket.chain.types import SupplierEndpoint
from testbench_dagster.transports.pocket.staked import UnusableEndpoint, usable_endpoint

ORDER = ("rest", "json_rpc")


def staked(*endpoints: tuple[str, int]) -> list[SupplierEndpoint]:
    return [SupplierEndpoint(url, rpc_type) for url, rpc_type in endpoints]


def chosen(*endpoints: tuple[str, int], private: bool = False) -> tuple[str, int]:
    found = usable_endpoint(staked(*endpoints), ORDER, allow_private=private)
    return found.url, found.rpc_type


def test_the_order_of_types_decides_then_that_of_the_chain() -> None:
    rest, other, rpc, socket = ("https://a/", 4), ("https://b", 4), ("https://c", 3), ("http://d", 2)
    assert chosen(socket, rpc, other, rest) == ("https://b", 4)
    assert chosen(socket, rpc, rest, other) == ("https://a", 4)
    assert chosen(socket, rpc) == ("https://c", 3)
    assert chosen(("https://e", 9), socket) == ("https://e", 9)


def test_what_cannot_be_used_is_passed_over() -> None:
    assert chosen(("wss://a", 4), ("https://u:p@b", 4), ("https://10.0.0.1", 4), ("https://c", 3)) == (
        "https://c",
        3,
    )
    assert chosen(("https://10.0.0.1/x//", 4), ("https://c", 3), private=True) == ("https://10.0.0.1/x", 4)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ws://a", "rest: 'ws://a' is no http(s) URL"),
        ("a.example:443", "'a.example:443' is no http(s) URL"),
        ("http://", "'http://' is no http(s) URL"),
        ("http://h:0", "'http://h:0' is no http(s) URL"),
        ("http://h:99999", "'http://h:99999' is no http(s) URL"),
        ("https://me:hush@a", "may not hold credentials"),
        ("https://a/?key=1", "may not have a query or fragment"),
        ("https://a/<b>", "https://a/<b> holds characters that are not allowed"),
        ("https://täst", "holds characters that are not allowed"),
        ("https://a/" + "x" * 2048, "its URL has 2058 characters; 2048 are allowed"),
        ("http://127.1/v1", "private or otherwise reserved address"),
        ("http://[::1]:80", "private or otherwise reserved address"),
        ("http://169.254.169.254", "private or otherwise reserved address"),
        ("http://LOCALHOST.", "is this machine"),
    ],
)
def test_why_an_endpoint_is_not_used(url: str, said: str) -> None:
    with pytest.raises(UnusableEndpoint, match="has no usable endpoint") as caught:
        chosen((url, 4))
    assert said in str(caught.value) and "hush" not in str(caught.value)


def test_messages_stay_short() -> None:
    with pytest.raises(UnusableEndpoint, match="has no endpoint for the service"):
        chosen()
    with pytest.raises(UnusableEndpoint, match="; and 97 more") as caught:
        chosen(*[(f"ftp://{'x' * 900}{n}", n) for n in range(100)])
    assert len(str(caught.value)) < 1000


@given(
    st.lists(
        st.tuples(
            st.one_of(st.text(max_size=30), st.text("htps:/@.[]%1a\\", max_size=20).map("http://".__add__)),
            st.integers(-1, 7),
        ),
        max_size=4,
    )
)
def test_whatever_is_staked_is_used_or_refused(endpoints: list[tuple[str, int]]) -> None:
    try:
        url, rpc_type = chosen(*endpoints)
    except UnusableEndpoint:
        return
    assert url.startswith(("http://", "https://")) and rpc_type in {number for _, number in endpoints}
    assert "@" not in url.partition("//")[2].partition("/")[0]
    assert host_of(url).rpartition(":")[2].isdigit()


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://Miner.Example/a/b", "miner.example:443"),
        ("http://miner.example.", "miner.example:80"),
        ("https://miner.example:8443/", "miner.example:8443"),
        ("http://[2001:DB8::1]/x", "[2001:db8::1]:80"),
    ],
)
def test_the_host_of_a_url(url: str, host: str) -> None:
    assert host_of(url) == host

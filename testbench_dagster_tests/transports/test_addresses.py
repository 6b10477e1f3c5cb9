"""Which hosts an untrusted endpoint may have, and what the transport does about the others."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbench_dagster.core.faults import Fault
from testbench_dagster.core.relay import Attempt
from testbench_dagster.transports.addresses import is_public, refusal
from testbench_dagster.transports.direct.transport import DirectTransport
from testbench_dagster.transports.http import PublicResolver
from testbench_dagster_tests.endpoints import Supplier, endpoint, relay

PRIVATE = [
    "0.0.0.0", "10.1.2.3", "100.64.0.1", "100.127.255.255", "127.0.0.1", "127.255.0.9", "169.254.169.254",
    "172.16.0.1", "192.0.0.8", "192.0.2.1", "192.168.1.1", "198.18.0.1", "198.51.100.1", "203.0.113.1",
    "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
    "::", "::1", "::127.0.0.1", "::8.8.8.8", "100::1", "2001:db8::1", "fc00::1", "fd12::1", "fe80::1",
    "fe80::1%eth0", "fec0::1", "ff02::1", "64:ff9b:1::1",
    "::ffff:127.0.0.1", "::ffff:10.0.0.1",  # IPv4-mapped
    "2002:7f00:1::", "2002:a00:1::1",  # 6to4 of 127.0.0.1 and 10.0.0.1
    "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe",  # NAT64 of 127.0.0.1 and 169.254.169.254
    "2001:0:7f00:1:8000::1",  # Teredo by a server at 127.0.0.1
    # judged differently by versions of Python
    "192.0.0.9", "192.0.0.10", "2001:1::1", "2001:3::1", "2001:4:112::1", "2001:20::1", "2001:30::1",
    "3fff::1",
    "2001:0:808:808:0:ffff:f7f7:f7f7",  # Teredo by public machines
]  # fmt: skip
PUBLIC = ["1.1.1.1", "8.8.8.8", "100.63.255.255", "100.128.0.1", "172.32.0.1", "2606:4700:4700::1111",
          "2002:808:808::1", "64:ff9b::808:808", "::ffff:8.8.8.8",
          "192.31.196.1", "192.52.193.1", "192.175.48.1", "2620:4f:8000::1"]  # fmt: skip
#: Blocks whose last addresses are as private as their first ones, and whose neighbours are public.
BLOCKS = [
    "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
    "192.0.2.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
    "2001::/23", "2001:db8::/32",
]  # fmt: skip


@pytest.mark.parametrize("address", PRIVATE)
def test_not_public(address: str) -> None:
    assert not is_public(address)
    assert "allow_private_networks" in str(refusal(address))
    assert refusal(f"[{address}]") is not None


@pytest.mark.parametrize("address", PUBLIC)
def test_public(address: str) -> None:
    assert is_public(address)
    assert refusal(address) is None


@pytest.mark.parametrize("block", BLOCKS)
def test_blocks_end_where_the_registry_says(block: str) -> None:
    network = ipaddress.ip_network(block)
    assert not is_public(str(network[0])) and not is_public(str(network[-1]))
    assert is_public(str(network[0] - 1)) and is_public(str(network[-1] + 1))


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("0.255.255.255", False),
        ("1.0.0.0", True),
        ("223.255.255.255", True),
        ("224.0.0.0", False),
        ("239.255.255.255", False),
        ("1fff:ffff::", False),
        ("2000::", True),
        ("3ffe:ffff::", True),
        ("3fff:fff:ffff::", False),
        ("3fff:1000::", True),
        ("4000::", False),
        ("5f00::", False),
    ],
)
def test_where_hosts_may_be_at_all(address: str, public: bool) -> None:
    assert is_public(address) is public


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST",
        "localhost.",
        "a.localhost",
        "127.1",
        "0x7f000001",
        "0X7F.1",
        "2130706433",
        "0177.1",
    ],
)
def test_other_words_for_this_machine(host: str) -> None:
    assert refusal(host) is not None


@pytest.mark.parametrize("host", ["example.org", "deadbeef", "1.example", "localhost.example", "10.example"])
def test_names_are_left_to_the_connection(host: str) -> None:
    assert refusal(host) is None


@given(st.ip_addresses(v=4))
def test_every_ipv4_form_in_ipv6_is_judged_like_the_address_itself(address: ipaddress.IPv4Address) -> None:
    public, packed = is_public(str(address)), int(address)
    for carrier in (
        ipaddress.IPv6Address((0xFFFF << 32) | packed),
        ipaddress.IPv6Address((0x64FF9B << 96) | packed),
        ipaddress.IPv6Address((0x2002 << 112) | (packed << 80)),
    ):
        assert is_public(str(carrier)) == public
    assert (refusal(str(packed)) is None) == public
    assert not public or (address.is_global and not address.is_multicast)


@pytest.fixture(scope="module")
def supplier() -> Iterator[Supplier]:
    server = Supplier()
    yield server
    server.stop()


def send(*urls: str, private_allowed: bool = False) -> list[Attempt]:
    """Send to the URLs at once over one transport."""

    async def main() -> list[Attempt]:
        transport = DirectTransport()
        targets = [replace(endpoint(url), private_allowed=private_allowed) for url in urls]
        try:
            return list(await asyncio.gather(*(transport.send(t, relay(n)) for n, t in enumerate(targets))))
        finally:
            await transport.close()

    return asyncio.run(main())


def resolving(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """Have the machine's resolver give these addresses for rebind.example, and its own for other names."""
    real = socket.getaddrinfo

    def resolve(host, port, *args, **options):
        if host != "rebind.example":
            return real(host, port, *args, **options)
        families = {4: socket.AF_INET, 6: socket.AF_INET6}
        return [
            (families[ipaddress.ip_address(a).version], socket.SOCK_STREAM, 6, "",
             (a, port) if ":" not in a else (a, port, 0, 0))
            for a in addresses
        ]  # fmt: skip

    monkeypatch.setattr(socket, "getaddrinfo", resolve)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "127.1", "0x7f.1", "2130706433"]
)
def test_literal_addresses_are_not_connected_to(supplier: Supplier, host: str) -> None:
    before = supplier.calls.total()
    (attempt,) = send(supplier.url("ok").replace("127.0.0.1", host))
    assert attempt.fault is Fault.CLIENT_REQUEST and not any(attempt.fault.row.in_run)
    assert attempt.error is not None and attempt.error.startswith("not connected: ")
    assert "allow_private_networks" in attempt.error
    assert supplier.calls.total() == before


def test_a_name_that_leads_here_is_not_connected_to(
    supplier: Supplier, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolving(monkeypatch, "127.0.0.1", "::1")
    before = supplier.calls.total()
    url = supplier.url("ok").replace("127.0.0.1", "rebind.example")
    attempts = send(url, url, url)  # they share one resolution
    assert {a.fault for a in attempts} == {Fault.CLIENT_REQUEST}
    assert all("rebind.example leads to 127.0.0.1" in str(a.error) for a in attempts)
    assert supplier.calls.total() == before
    assert [a.fault for a in send(url, private_allowed=True)] == [Fault.OK]


def test_of_mixed_addresses_only_public_ones_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch, "127.0.0.1", "8.8.8.8", "::1", "2606:4700:4700::1111")

    async def main() -> list[str]:
        return [found["host"] for found in await PublicResolver().resolve("rebind.example", 80)]

    assert asyncio.run(main()) == ["8.8.8.8", "2606:4700:4700::1111"]


def test_trusted_and_untrusted_endpoints_share_no_connection(supplier: Supplier) -> None:
    async def main() -> list[Attempt]:
        transport = DirectTransport()
        trusted = endpoint(supplier.url("ok"))
        try:
            return [
                await transport.send(trusted, relay(1)),
                await transport.send(replace(trusted, private_allowed=False), relay(2)),
                await transport.send(trusted, relay(3)),
            ]
        finally:
            await transport.close()

    assert [a.fault for a in asyncio.run(main())] == [Fault.OK, Fault.CLIENT_REQUEST, Fault.OK]

"""Which addresses the endpoint of an untrusted supplier may have: public ones only.

A supplier source that is not ours could otherwise have us send requests into our own network (SSRF). What is
public follows the IANA special-purpose address registries as written down here; the IPv6 forms that carry an
IPv4 address are judged by what they carry (RFC 4291, 3056, 6052). The standard library's ``is_global`` is not
asked: 3.11, 3.12 and 3.13, and even their bug-fix releases, judge several ranges differently.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from urllib.parse import urlsplit

from testbench_dagster.core.errors import TestbenchError

#: No host on the internet has one of these. The anycast addresses among those for protocols (192.0.0.9 and
#: 192.0.0.10) are no suppliers either.
_NOT_PUBLIC_V4 = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this network (RFC 791)
        "10.0.0.0/8",  # private use (RFC 1918)
        "100.64.0.0/10",  # carrier-grade NAT (RFC 6598)
        "127.0.0.0/8",  # loopback (RFC 1122)
        "169.254.0.0/16",  # link local (RFC 3927)
        "172.16.0.0/12",  # private use (RFC 1918)
        "192.0.0.0/24",  # IETF protocol assignments (RFC 6890)
        "192.0.2.0/24",  # documentation (RFC 5737)
        "192.168.0.0/16",  # private use (RFC 1918)
        "198.18.0.0/15",  # benchmarking (RFC 2544)
        "198.51.100.0/24",  # documentation (RFC 5737)
        "203.0.113.0/24",  # documentation (RFC 5737)
        "224.0.0.0/4",  # multicast (RFC 5771)
        "240.0.0.0/4",  # reserved, and the limited broadcast (RFC 1112, 919)
    )
)
_GLOBAL_UNICAST = IPv6Network("2000::/3")  # all that IANA has allocated to hosts so far
_NOT_PUBLIC_V6 = tuple(
    IPv6Network(network)
    for network in (
        "2001::/23",  # IETF protocol assignments (RFC 2928); of them Teredo leads to machines behind NATs
        "2001:db8::/32",  # documentation (RFC 3849)
        "3fff::/20",  # documentation (RFC 9637)
    )
)
_MAPPED = IPv6Network("::ffff:0:0/96")  # IPv4-mapped (RFC 4291): the low 32 bits are the IPv4 address
_NAT64 = IPv6Network("64:ff9b::/96")  # well-known prefix (RFC 6052): the low 32 bits
_6TO4 = IPv6Network("2002::/16")  # RFC 3056: the 32 bits after the prefix
_NUMERIC = re.compile(r"[0-9A-Fa-fXx.]+")
_DEFAULT_PORTS = {"http": 80, "https": 443}
REMEDY = "use a public address, or set allow_private_networks on the source if it is trusted"


class AddressRefused(TestbenchError):
    """The endpoint of an untrusted supplier lies, or resolves to, where it may not."""


def is_public(address: str) -> bool:
    """Whether an IP address, as text and without brackets, is one that anyone on the internet may have.

    Raises:
        ValueError: the text is no IP address.
    """
    parsed = ipaddress.ip_address(address.partition("%")[0])
    return _public_v4(parsed) if isinstance(parsed, IPv4Address) else _public_v6(parsed)


def host_of(url: str) -> str:
    """``name:port`` of an http(s) URL, in lower case: what suppliers of one machine have in common."""
    parts = urlsplit(url)
    name = (parts.hostname or "").rstrip(".")
    return f"{f'[{name}]' if ':' in name else name}:{parts.port or _DEFAULT_PORTS[parts.scheme]}"


def refusal(host: str) -> str | None:
    """Why an untrusted endpoint may not have this host, or None.

    Judges IP addresses, in any form the system's resolver would take for one, and ``localhost``. Where other
    names lead shows only when a connection is made, and is judged there.
    """
    name = host.strip("[]").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):  # RFC 6761: always loopback
        return f"{host} is this machine; {REMEDY}"
    address = _literal(name)
    if address is None or is_public(address):
        return None
    return f"{host} is a private or otherwise reserved address; {REMEDY}"


def _literal(host: str) -> str | None:
    """The address a host text stands for without being resolved, or None for a name."""
    try:
        return str(ipaddress.ip_address(host.partition("%")[0]))
    except ValueError:
        pass
    if _NUMERIC.fullmatch(host):
        try:  # 127.1, 0x7f000001, 2130706433: resolvers take them for addresses
            return socket.inet_ntoa(socket.inet_aton(host))
        except OSError:
            pass
    return None


def _public_v4(address: IPv4Address) -> bool:
    return not any(address in network for network in _NOT_PUBLIC_V4)


def _public_v6(address: IPv6Address) -> bool:
    if address in _MAPPED or address in _NAT64:
        return _public_v4(IPv4Address(int(address) & 0xFFFFFFFF))
    if address in _6TO4:
        return _public_v4(IPv4Address(int(address) >> 80 & 0xFFFFFFFF))
    return address in _GLOBAL_UNICAST and not any(address in network for network in _NOT_PUBLIC_V6)

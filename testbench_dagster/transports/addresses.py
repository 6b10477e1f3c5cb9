"""Which addresses the endpoint of an untrusted supplier may have: public ones only.

A supplier source that is not ours could otherwise have us send requests into our own network (SSRF). What is
public follows the IANA special-purpose address registries, as the standard library knows them, with the IPv6
forms that carry an IPv4 address judged by what they carry (RFC 4291, 3056, 6052, 4380).
"""

from __future__ import annotations

import ipaddress
import re
import socket
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from urllib.parse import urlsplit

from testbench_dagster.core.errors import TestbenchError

_GLOBAL_UNICAST = IPv6Network("2000::/3")  # all that IANA has allocated to hosts so far
_NAT64 = IPv6Network("64:ff9b::/96")
#: Not for hosts either, and judged differently by different versions of Python: carrier-grade NAT (RFC 6598)
#: and IETF protocol assignments (RFC 6890).
_NOT_FOR_HOSTS = (ipaddress.IPv4Network("100.64.0.0/10"), ipaddress.IPv4Network("192.0.0.0/24"))
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
    special = address.is_multicast or address.is_reserved or any(address in n for n in _NOT_FOR_HOSTS)
    return address.is_global and not special


def _public_v6(address: IPv6Address) -> bool:
    if address.ipv4_mapped is not None:
        return _public_v4(address.ipv4_mapped)
    if address in _NAT64:
        return _public_v4(IPv4Address(int(address) & 0xFFFFFFFF))
    if address not in _GLOBAL_UNICAST or not address.is_global:
        return False
    if address.sixtofour is not None:
        return _public_v4(address.sixtofour)
    # a Teredo address names two machines; 2001::/32 is not global on every version of Python
    return address.teredo is None or all(map(_public_v4, address.teredo))

"""Which of the endpoints a supplier staked are used. Anyone who stakes writes their URLs: none is trusted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

from testbench_dagster.config.fields import http_url
from testbench_dagster.core.text import escaped
from testbench_dagster.core.wording import counted
from testbench_dagster.transports.addresses import refusal
from testbench_dagster.transports.discovery import MAX_URL_CHARS
from testbench_dagster.transports.pocket.chain.types import SupplierEndpoint
from testbench_dagster.transports.pocket.messages import RpcType

_SHOWN = 3  # endpoints named in a message
_SHOWN_CHARS = 80
_NEVER_IN_URLS = set(' \\"<>^`{|}')


class UnusableEndpoint(ValueError):
    """None of a supplier's endpoints can be used; the text says why of each."""


def usable_endpoint(
    endpoints: Sequence[SupplierEndpoint], order: Sequence[str], *, allow_private: bool
) -> SupplierEndpoint:
    """Choose the endpoint that relays go to, its URL without slashes at the end.

    It is the first of :func:`usable_endpoints`, whose arguments these are.

    Raises:
        UnusableEndpoint: none can be used.
    """
    found, problems = _sorted_out(endpoints, order, allow_private)
    if found:
        return found[0]
    if not problems:
        raise UnusableEndpoint("has no endpoint for the service")
    more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
    raise UnusableEndpoint(f"has no usable endpoint: {'; '.join(problems[:_SHOWN])}{more}")


def usable_endpoints(
    endpoints: Sequence[SupplierEndpoint], order: Sequence[str], *, allow_private: bool
) -> list[SupplierEndpoint]:
    """All endpoints that relays may go to, their URLs without slashes at the end, each once.

    Args:
        endpoints: as the chain lists them.
        order: names of RPC types by preference; any other http(s) endpoint comes after them.
        allow_private: whether the URL may lead into private networks.
    """
    return _sorted_out(endpoints, order, allow_private)[0]


def _sorted_out(
    endpoints: Sequence[SupplierEndpoint], order: Sequence[str], allow_private: bool
) -> tuple[list[SupplierEndpoint], list[str]]:
    """Those that can be used, by preference, and what is wrong with the others."""
    found: dict[str, SupplierEndpoint] = {}
    problems = []
    for endpoint in _by_preference(endpoints, order):
        try:
            url = http_url(
                endpoint.url, example="https://host:port", credentials="its operator has to restake"
            )
        except ValueError as error:
            problems.append(_told(endpoint, escaped(str(error), 200)))
            continue
        problem = _problem(url, allow_private)
        if problem is None:
            found.setdefault(url, SupplierEndpoint(url, endpoint.rpc_type))
        else:
            problems.append(_told(endpoint, problem))
    return list(found.values()), problems


def rpc_name(rpc_type: int) -> str:
    """Name of an RPC type as the configuration has it."""
    try:
        return RpcType(rpc_type).name.lower()
    except ValueError:
        return f"type {rpc_type}"


def _by_preference(endpoints: Sequence[SupplierEndpoint], order: Sequence[str]) -> Iterator[SupplierEndpoint]:
    for name in order:
        yield from (e for e in endpoints if rpc_name(e.rpc_type) == name)
    yield from (e for e in endpoints if rpc_name(e.rpc_type) not in order)


def _problem(url: str, allow_private: bool) -> str | None:
    if len(url) > MAX_URL_CHARS:
        return f"its URL has {counted(len(url), 'character')}; {MAX_URL_CHARS} are allowed"
    if not url.isascii() or not url.isprintable() or set(url) & _NEVER_IN_URLS:
        return f"{escaped(url, _SHOWN_CHARS)} holds characters that are not allowed"
    return None if allow_private else refusal(urlsplit(url).hostname or "")


def _told(endpoint: SupplierEndpoint, problem: str) -> str:
    return f"{rpc_name(endpoint.rpc_type)}: {problem}"

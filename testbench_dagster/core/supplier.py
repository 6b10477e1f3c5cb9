"""One supplier of the roster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import Any, Literal

from testbench_dagster.core.price import Price
from testbench_dagster.core.relay import DEFAULT_TRANSPORT, Limits, TransportName

ACTIVE, LEFT = "active", "left"
CONFIG_SOURCE = "configuration"
"""What the roster calls the source of the suppliers listed in testbench.yaml."""


@dataclass(frozen=True)
class Supplier:
    """One supplier of the roster.

    ``address`` is who operates it, ``service`` what it serves, ``api`` the request form it takes.
    ``api_key_env`` names the variable with its key, from the configuration; a source cannot name one.
    ``bounds`` are the relay bounds (fields of :class:`~testbench_dagster.core.relay.Limits`) that are its own
    or its source's. ``trusted``: its endpoint may lie in a private network, because the configuration says
    so. What was answered at or before ``cut_at`` came from another model. ``left_at`` is None for who is
    asked. ``echo_logprobs`` is what a capability probe found at ``probed_at``, None where none did.
    ``transport`` names what reaches it. Of suppliers on a Pocket network, ``rpc_type`` is what their endpoint
    was staked with, ``stake_upokt`` their stake in uPOKT, ``owner`` the address that owns it, and ``host``
    the machine (``name:port``) they were staked with. ``price`` is what its tokens cost, None where nobody
    says it.
    """

    address: str
    service: str
    base_url: str
    api: Literal["chat", "completions"]
    model: str
    api_key_env: str | None = None
    bounds: Mapping[str, Any] = field(default_factory=dict)
    source: str = CONFIG_SOURCE
    trusted: bool = True
    status: str = ACTIVE
    joined_at: datetime | None = None
    left_at: datetime | None = None
    cut_at: datetime | None = None
    echo_logprobs: bool | None = None
    probed_at: datetime | None = None
    transport: TransportName = DEFAULT_TRANSPORT
    rpc_type: int | None = None
    stake_upokt: int | None = None
    host: str | None = None
    owner: str | None = None
    price: Price | None = None

    @cached_property
    def key(self) -> str:
        """Partition key: ``<address>@<service>``."""
        return f"{self.address}@{self.service}"

    def limits(self, defaults: Limits) -> Limits:
        """The bounds on its relays: its own where it has some, the defaults elsewhere."""
        return replace(defaults, **self.bounds, following=defaults.following.difference(self.bounds))

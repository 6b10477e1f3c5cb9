"""What can go wrong when a chain is asked; every failure of this package is one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from testbench_dagster.core.errors import TestbenchError

#: Why the chain gives no session: the application is unknown, not staked for the service, or unstaking;
#: nobody is staked for the service; the node has not reached the height asked for; or something else.
SessionReason = Literal[
    "app_not_found", "app_not_staked", "no_suppliers", "app_inactive", "height_ahead", "other"
]


class ChainError(TestbenchError):
    """Base of all errors of this package; raised itself for arguments that no chain could know."""


class NodeFault(ChainError):
    """One node did not give a usable answer. Another node is asked then: this leaves no public method."""


class BadAnswer(ChainError):
    """What a node answered breaks the protocol; the text names field and value."""


class NodeUnavailable(ChainError):
    """No node gave a usable answer; ``problems`` has (node without credentials, why) of each."""

    def __init__(self, what: str, problems: Sequence[tuple[str, str]]) -> None:
        self.problems = tuple(problems)
        told = "; ".join(f"{node}: {why}" for node, why in problems)
        super().__init__(f"no node tells {what}: {told}. Check the URLs under nodes, or add another node")


class NotFound(ChainError):
    """The chain knows no such application, supplier, service or account."""


class PastUnknown(ChainError):
    """No node tells what held at an earlier height: they are older than the query, or have pruned it."""


class SessionUnavailable(ChainError):
    """The chain gives no session of an application for a service; ``reason`` says why."""

    def __init__(self, reason: SessionReason, text: str) -> None:
        super().__init__(text)
        self.reason: SessionReason = reason

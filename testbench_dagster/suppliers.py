"""The roster: which suppliers there are, since when, what they can do.

A supplier that leaves the configuration keeps its document and its history; only its status changes.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import UTC, datetime

from testbench_dagster.config import Config, SupplierConfig
from testbench_dagster.errors import ConfigError
from testbench_dagster.relays.messages import Endpoint
from testbench_dagster.stores.documents import Document
from testbench_dagster.stores.documents.collections import SUPPLIERS
from testbench_dagster.workspace import Workspace

ACTIVE, LEFT = "active", "left"
_TRACKED = ("transport", "base_url", "api", "model")


@dataclass(frozen=True)
class RosterReport:
    """Keys of the active suppliers in configured order, and of those that joined, left or changed."""

    active: list[str]
    joined: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)


def refresh_roster(workspace: Workspace) -> RosterReport:
    """Bring the roster up to date with the configuration, recording joins, leaves and changes with time."""
    now = datetime.now(UTC)
    known = {d["_id"]: d for d in workspace.documents.find(SUPPLIERS)}
    report = RosterReport([s.key for s in workspace.config.settings.suppliers])
    updates: list[Document] = []
    for supplier in workspace.config.settings.suppliers:
        before = known.get(supplier.key)
        facts = {name: getattr(supplier, name) for name in _TRACKED}
        if before is None:
            report.joined.append(supplier.key)
            history = [{"at": now, "event": "joined", **facts}]
            joined_at = now
        else:
            history, joined_at = list(before["history"]), before["joined_at"]
            if before["status"] == LEFT:
                report.joined.append(supplier.key)
                history.append({"at": now, "event": "returned", **facts})
            elif any(before.get(name) != value for name, value in facts.items()):
                report.changed.append(supplier.key)
                history.append({"at": now, "event": "changed", **facts})
            else:
                continue
        updates.append(
            {
                "_id": supplier.key,
                "address": supplier.address,
                "service": supplier.service,
                "status": ACTIVE,
                "joined_at": joined_at,
                "left_at": None,
                "echo_logprobs": None,  # another endpoint or model must be probed anew
                "history": history,
                **facts,
            }
        )
    for key, before in known.items():
        if before["status"] == ACTIVE and key not in report.active:
            report.left.append(key)
            history = [*before["history"], {"at": now, "event": "left"}]
            updates.append({**before, "status": LEFT, "left_at": now, "history": history})
    if updates:
        workspace.documents.upsert(SUPPLIERS, updates)
    return report


def remember_echo_logprobs(workspace: Workspace, key: str, supported: bool) -> None:
    """Record what a capability probe found, leaving alone what others change meanwhile."""
    changes = {"echo_logprobs": supported, "probed_at": datetime.now(UTC)}
    workspace.documents.claim(SUPPLIERS, {"_id": key}, changes)


def endpoint(config: Config, supplier: SupplierConfig) -> Endpoint:
    """How the transport reaches a supplier; the API key, if any, is read from the environment here.

    Raises:
        ConfigError: the variable that should hold the key is not set.
    """
    headers = {}
    if supplier.api_key_env:
        key = os.environ.get(supplier.api_key_env)
        if not key:
            raise ConfigError(
                f"supplier {supplier.key}: api_key_env names {supplier.api_key_env}, "
                "which is not set; export it"
            )
        if not (key.isascii() and key.isprintable()):  # a header could not carry it
            raise ConfigError(
                f"supplier {supplier.key}: the key in {supplier.api_key_env} holds a line break or another "
                "character no key has; export it again"
            )
        headers["Authorization"] = f"Bearer {key}"
    return Endpoint(
        supplier=supplier.key,
        service=supplier.service,
        base_url=supplier.base_url,
        api=supplier.api,
        model=supplier.model,
        limits=supplier.limits(config.settings.relays),
        headers=headers,
    )

"""What endpoints of all transports have in common."""

from __future__ import annotations

import os
from typing import Any

from testbench_dagster.config import Config
from testbench_dagster.core.errors import ConfigError
from testbench_dagster.core.relay import Endpoint
from testbench_dagster.core.supplier import Supplier


def endpoint_of(config: Config, supplier: Supplier, **own: Any) -> Endpoint:
    """The endpoint of a supplier: its API, model and bounds, and what its transport adds."""
    common: dict[str, Any] = {
        "supplier": supplier.key,
        "service": supplier.service,
        "base_url": supplier.base_url,
        "api": supplier.api,
        "model": supplier.model,
        "limits": supplier.limits(config.settings.relays.limits()),
        "transport": supplier.transport,
    }
    return Endpoint(**common | own)


def authorization(where: str, variable: str | None) -> dict[str, str]:
    """The header with the key in a variable; none where no variable is named.

    Raises:
        ConfigError: it is not set, or holds what no header can carry; begins with ``where``.
    """
    if not variable:
        return {}
    key = os.environ.get(variable)
    if not key:
        raise ConfigError(f"{where} names {variable}, which is not set; export it")
    if not (key.isascii() and key.isprintable()):  # a header could not carry it
        raise ConfigError(
            f"{where}: the key in {variable} holds a line break or another character no key has; "
            "export it again"
        )
    return {"Authorization": f"Bearer {key}"}

"""How the transport reaches a supplier of the roster."""

from __future__ import annotations

import os

from testbench_dagster.config import Config
from testbench_dagster.errors import ConfigError
from testbench_dagster.network.roster import Supplier
from testbench_dagster.relays.messages import Endpoint


def supplier_endpoint(config: Config, supplier: Supplier) -> Endpoint:
    """The endpoint of a supplier; the API key, if any, is read from the environment here.

    Raises:
        ConfigError: the variable that should hold the key is not set, or holds what no header can carry.
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
        base_url=supplier.config.base_url,
        api=supplier.api,
        model=supplier.config.model,
        limits=supplier.config.limits(config.settings.relays),
        headers=headers,
        private_allowed=supplier.trusted,
    )

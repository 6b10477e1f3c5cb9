"""How the transports reach a supplier of the roster."""

from __future__ import annotations

import os

from testbench_dagster.config import SERVICE_SOURCE, Config, ServiceConfig
from testbench_dagster.errors import ConfigError
from testbench_dagster.network.addresses import host_of
from testbench_dagster.network.roster import Supplier
from testbench_dagster.relays.messages import Endpoint


def supplier_endpoint(config: Config, supplier: Supplier) -> Endpoint:
    """The endpoint of a supplier; its API key or its gateway's token is read from the environment here.

    Raises:
        ConfigError: the variable that should hold it is not set, or holds what no header can carry; or the
            service it belongs to is no longer configured.
    """
    if supplier.transport == "direct":
        return Endpoint(
            supplier=supplier.key,
            service=supplier.service,
            base_url=supplier.config.base_url,
            api=supplier.api,
            model=supplier.config.model,
            limits=supplier.config.limits(config.settings.relays),
            headers=_authorization(f"supplier {supplier.key}: api_key_env", supplier.api_key_env),
            private_allowed=supplier.trusted,
        )
    service = config.settings.service_of(supplier.source)
    if service is None or service.transport != supplier.transport:
        name = supplier.source.removeprefix(SERVICE_SOURCE)
        raise ConfigError(
            f"supplier {supplier.key} is reached by transport {supplier.transport}, but {config.path} has no "
            f"service {name!r} with it; configure it, or refresh the roster (testbench check)"
        )
    return (
        _through_gateway(config, supplier, service) if service.gateway else _native(config, supplier, service)
    )


def _native(config: Config, supplier: Supplier, service: ServiceConfig) -> Endpoint:
    """Signed relays to the staked URL."""
    return Endpoint(
        supplier=supplier.key,
        service=supplier.service,
        base_url=supplier.config.base_url,
        api=supplier.api,
        model=supplier.config.model,
        limits=supplier.config.limits(config.settings.relays),
        private_allowed=supplier.trusted,
        transport="shannon",
        address=supplier.address,
        rpc_type=supplier.rpc_type,
        prefix=service.prefix,
        host=supplier.host,
        stream=service.stream,
    )


def _through_gateway(config: Config, supplier: Supplier, service: ServiceConfig) -> Endpoint:
    """The gateway of the service: it is configured, hence trusted, and all its suppliers share it."""
    from testbench_dagster.relays.shannon.messages import RpcType  # with the codec, which a roster needs not

    gateway = service.gateway
    if gateway is None:
        raise ConfigError(f"services.{supplier.service}: transport path needs a gateway")
    where = f"supplier {supplier.key}: services.{supplier.service}.gateway.token_env"
    headers = _authorization(where, gateway.token_env)
    if gateway.app_address is not None:
        headers["App-Address"] = gateway.app_address
    return Endpoint(
        supplier=supplier.key,
        service=supplier.service,
        base_url=gateway.url,
        api=supplier.api,
        model=supplier.config.model,
        limits=supplier.config.limits(config.settings.relays),
        headers=headers,
        transport="path",
        address=supplier.address,
        # what it was staked with is the gateway's business, unless it is to be told
        rpc_type=None if gateway.rpc_type is None else int(RpcType[gateway.rpc_type.upper()]),
        prefix=service.prefix,
        host=host_of(gateway.url),
    )


def _authorization(where: str, variable: str | None) -> dict[str, str]:
    """The header with the key in a variable; none where no variable is named."""
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
